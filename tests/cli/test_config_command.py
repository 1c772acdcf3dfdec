"""`watkins config` lists what a recipe can say."""

from __future__ import annotations

from watkins_ml.config import ExperimentConfig
from watkins_ml.models.registry import all_families
from watkins_ml.transforms.registry import all_transforms


def test_every_key_of_every_section_family_and_transform_is_listed(watkins):
    said = watkins("config")
    assert said.status == 0
    for family in all_families():
        assert family.title in said.out and all(f"model.{key}" in said.out for key in family.config.model_fields)
    for transform in all_transforms().values():
        assert all(f"augment.N.{key}" in said.out for key in transform.model_fields)
    for name, field in ExperimentConfig.model_fields.items():
        assert all(f"{name}.{key}" in said.out for key in getattr(field.annotation, "model_fields", ()))
    assert "whole number ≥ 1, ≤ 1,000,000" in said.out and "auto, none, bf16, fp16" in said.out and "null" in said.out
