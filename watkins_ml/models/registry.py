"""The registry of model families: the modules of `families/`, and those of other installed packages.

Another package offers a family by an entry point of the group `watkins_ml.models`: `name = "module:FAMILY"`.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from watkins_ml.core.errors import UsageError, UserError, first_line
from watkins_ml.core.text import shown
from watkins_ml.dataset.targets import LABELS, SPECIES
from watkins_ml.models import families
from watkins_ml.models.family import Family, ModelSection

if TYPE_CHECKING:
    from torch import nn

GROUP = "watkins_ml.models"


def family_names() -> list[str]:
    """What `model.name` may be: the families of this package, then those of other packages."""
    return [*_own_modules(), *_entry_points()]


def all_families() -> list[Family]:
    """Every family that can be loaded; one of another package that is broken is left out."""
    found = []
    for name in family_names():
        try:
            found.append(family(name))
        except UsageError:
            if name in _own_modules():
                raise
    return found


@cache
def family(name: str) -> Family:
    """The family of a name.

    Raises:
        UsageError: there is none, or its package cannot be loaded; the message begins with the name.
    """
    if name in _own_modules():
        return import_module(f"{families.__name__}.{name}").FAMILY
    if name in _entry_points():
        return _outside(name, _entry_points()[name])
    nearest = difflib.get_close_matches(name, family_names(), n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise UsageError(f"{shown(name)[:100]}: must be one of {', '.join(family_names())}{hint}")


def entry_point(name: str) -> EntryPoint | None:
    """Where the family of another package stands; None for one of this package."""
    return next(iter(_entry_points().get(name, [])), None)


def build_model(config: ModelSection, species: int, pretrained: bool = True) -> nn.Module:
    """Build an untrained (or pretrained) network.

    Args:
        species: number of classes.
        pretrained: False skips the weights of `config`, for a network whose own state is loaded next.

    Returns:
        a `family.Network` from spectrograms (batch, 1, n_mels, frames) to logits (batch, species).
    """
    return family(config.name).build(config, species, pretrained)


def try_model(config: ModelSection, species: int, shape: tuple[int, int, int], task: str = SPECIES) -> None:
    """Build a network as a training will, and give it one empty spectrogram; before anything is written.

    Raises:
        UserError: weights that do not fit, or data that are not for such a network.
    """
    import torch

    if task == LABELS and not config.for_labels:
        raise UserError(
            "model.head prototypes: compares recordings of one species each, but these data were prepared for any "
            f"number of them (--task {LABELS}); set model.head=linear"
        )
    network = build_model(config, species).eval()
    if family(config.name).own_input is not None:  # its inputs have the shape that it asks for
        return
    try:
        with torch.inference_mode():
            network(torch.zeros(1, *shape))
    except RuntimeError as error:
        raise UserError(
            f"model.name {config.name}: cannot use spectrograms of {shape[1]} mel bands and {shape[2]} frames "
            f"({first_line(error)}); prepare longer windows (--seconds) or more bands (--mels)"
        ) from None


def licence_of(config: ModelSection) -> str | None:
    """The licence of what a model has from elsewhere, which goes with it; None where none is known."""
    own = family(config.name).own_input
    return own.licence(config) if own is not None else None


def family_of_members() -> Family:
    """The family whose models are made of trained ones."""
    return next(each for each in all_families() if each.members is not None)


def families_in(config: ModelSection) -> list[str]:
    """The family of a model, and those of the models that it is made of, by name."""
    members = family(config.name).members
    return list(dict.fromkeys([config.name, *(each.name for each in (members(config) if members else ()))]))


def misplaced_transforms(name: str, transforms: list[str]) -> list[str]:
    """What is wrong with transforms of spectrograms where the networks of a family get something else."""
    own = family(name).own_input if name in family_names() else None
    if own is None or not (wrong := [each for each in transforms if each not in own.transforms]):
        return []
    return [f"augment {wrong[0]} changes spectrograms, but {name} gets none; set augment=[]"]


@cache
def _own_modules() -> tuple[str, ...]:
    return tuple(module.name for module in iter_modules(families.__path__))


@cache
def _entry_points() -> dict[str, list[EntryPoint]]:
    """Those of other packages, by name; this package's own names cannot be taken."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.name not in _own_modules():
            found.setdefault(point.name, []).append(point)
    return found


def _outside(name: str, points: list[EntryPoint]) -> Family:
    packages = [point.dist.name if point.dist else point.value for point in points]
    if len(points) > 1:
        raise UsageError(f"{name}: the packages {' and '.join(packages)} offer a family of this name; remove one")
    (point,), (package,) = points, packages
    try:
        found = point.load()
    except Exception as error:  # the other package's import may fail in any way
        reason = f"cannot be loaded ({type(error).__name__}: {first_line(error)})"
        raise UsageError(f"{name}: the family of the package {package} {reason}; mend or remove it") from None
    if not isinstance(found, Family) or found.name != name:
        what = f"{point.value} is no Family of this name"
        raise UsageError(f"{name}: the family of the package {package} is wrong: {what}; mend or remove it")
    return found
