"""Studies: many trainings of one recipe, steered by Optuna."""
