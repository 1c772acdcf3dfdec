"""The registry of transforms: every module of this package that defines one, under the module's name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, Union, get_args

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from watkins_ml import transforms
from watkins_ml.transforms.transform import Transform, WaveformTransform


@cache
def all_transforms() -> dict[str, type[Transform]]:
    """The transforms by name, those of a module `NAME.py` that defines a Transform with `name: Literal["NAME"]`."""
    found = {}
    for module in iter_modules(transforms.__path__):
        for kind in vars(import_module(f"{transforms.__name__}.{module.name}")).values():
            is_transform = isinstance(kind, type) and issubclass(kind, Transform)
            if is_transform and get_args(kind.model_fields["name"].annotation) == (module.name,):
                found[module.name] = kind
    return found


def _on_spectrograms(transform: Transform) -> Transform:
    if isinstance(transform, WaveformTransform):
        raise PydanticCustomError("waveform", "a transform of spectrograms, since prepared data hold no waveforms")
    return transform


def transform_type() -> Any:
    """The annotation of one entry of `augment`: any transform, told by its `name`."""
    union: Any = Union[tuple(all_transforms().values())]  # noqa: UP007
    return Annotated[Annotated[union, Field(discriminator="name")], AfterValidator(_on_spectrograms)]
