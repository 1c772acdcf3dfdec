"""What a trained model is worth: scores, no-audio controls, reports, pictures, comparisons."""
