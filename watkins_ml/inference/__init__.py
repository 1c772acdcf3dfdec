"""Using trained models: finding them by run directory or registry URI, and predicting recordings."""
