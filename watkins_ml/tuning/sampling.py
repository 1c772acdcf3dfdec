"""The sampler and the pruner that a recipe asks for."""

from __future__ import annotations

import random

import optuna

from watkins_ml.tuning.recipe import StudyRecipe


def sampler(recipe: StudyRecipe, points: int) -> optuna.samplers.BaseSampler:
    """Each point has a seed of its own: workers differ, and a continued study goes on as it would have."""
    seed = random.Random(f"{recipe.settings.seed} {points}").getrandbits(32)
    if recipe.settings.sampler in ("random", "grid"):  # the points of a grid wait in the database
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(
        n_startup_trials=recipe.settings.startup_trials, multivariate=True, constant_liar=True, seed=seed
    )


def pruner(recipe: StudyRecipe) -> optuna.pruners.BasePruner:
    settings, epochs = recipe.settings, recipe.config.train.epochs
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(settings.startup_trials, n_warmup_steps=settings.warmup_epochs + 1)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()
