"""A run's bundle as an MLflow model that needs nothing of this installation.

It brings its code and names the libraries that anybody can install. The code goes under a name of its own,
`watkins_ml_` and the code's fingerprint: so a model predicts with the code that it was made with, whatever version of
this package is installed or imported where it is loaded, and disturbs none of them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow.models import Model

from watkins_ml.core.errors import UserError
from watkins_ml.models.bundle_files import DESCRIPTION, EXAMPLE
from watkins_ml.models.family import ModelSection
from watkins_ml.models.registry import entry_point, families_in, family

PACKAGE = Path(__file__).resolve().parents[1]
SERVED_MODEL = Path(__file__).with_name("served_model.py")
FAMILIES, OUTSIDE = "models/families", "outside"
"""Folders of the carried package: its family of models, and the code of the package that a family comes from."""


class Code(NamedTuple):
    """The code that a model carries."""

    name: str
    """Of the package that it becomes there."""
    files: dict[str, bytes]
    """By path inside that package."""
    served_model: bytes
    """The module that MLflow runs when it loads the model."""
    requirements: list[str]
    """The libraries, each as NAME==VERSION as any index has it."""


@cache
def carried_code(*families: str) -> Code:
    """The modules that a model of these families needs to answer, found by what they import."""
    packages, modules = {PACKAGE.name: PACKAGE}, [SERVED_MODEL]
    sources: dict[str, bytes] = {}
    for name in families:
        if (entry := entry_point(name)) is None:
            modules.append(PACKAGE / FAMILIES / f"{name}.py")
            continue
        top = entry.module.partition(".")[0]
        packages[top] = place = _place_of(top)
        modules += [place] if place.is_file() else sorted(place.rglob("*.py"))  # whole, for it may import relatively
        carried = f"from {PACKAGE.name}.{OUTSIDE}.{entry.module} import {entry.attr} as FAMILY\n"
        sources[f"{FAMILIES}/{name}.py"] = carried.encode()
    needed, libraries = _needed(modules, packages)
    needed.remove(SERVED_MODEL)
    sources |= {_target(path, packages): path.read_bytes() for path in sorted(needed)}
    fingerprint = hashlib.sha256(b"".join(name.encode() + source for name, source in sources.items())).hexdigest()
    name = f"{PACKAGE.name}_{fingerprint[:8]}"
    names = {PACKAGE.name: name} | {top: f"{name}.{OUTSIDE}.{top}" for top in packages if top != PACKAGE.name}
    distributions = {_distribution(library) for library in libraries}
    return Code(
        name,
        {path: _renamed(source, names) for path, source in sources.items()},
        _renamed(SERVED_MODEL.read_bytes(), names),
        [f"{each}=={version(each).partition('+')[0]}" for each in sorted(distributions)],  # +cpu: PyTorch's own index
    )


def save_model(bundle: Path, description: Model, folder: str) -> None:
    """Write a bundle as an MLflow model that takes audio.

    mlflow.pyfunc.log_model would do this and the calls around it at once, but not again after it was cut off.
    """
    import mlflow
    from mlflow.models import ModelSignature

    from watkins_ml.serving.audio_table import INPUTS, OUTPUTS

    stored = json.loads((bundle / DESCRIPTION).read_text(encoding="utf-8"))["model"]
    model_section = family(stored["name"]).config.model_validate(stored)
    code = carried_code(*families_in(model_section))
    with tempfile.TemporaryDirectory(prefix="watkins-") as workspace:
        package, served = Path(workspace) / code.name, Path(workspace) / SERVED_MODEL.name
        for path, source in code.files.items():
            (package / path).parent.mkdir(parents=True, exist_ok=True)
            (package / path).write_bytes(source)
        served.write_bytes(code.served_model)
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=description,
            python_model=str(served),
            code_paths=[str(package)],
            artifacts={"bundle": str(bundle)},
            signature=ModelSignature(INPUTS, OUTPUTS),
            input_example=pd.DataFrame({"audio": [(bundle / EXAMPLE).read_bytes()]}),
            pip_requirements=sorted({*code.requirements, *_own_requirements(model_section)}),
        )


def _own_requirements(model_section: ModelSection) -> list[str]:
    """Libraries that a family imports only for some of its models."""
    own = family(model_section.name).own_input
    return [] if own is None else [f"{name}=={version(name)}" for name in own.requirements(model_section)]


def _needed(modules: list[Path], packages: dict[str, Path]) -> tuple[set[Path], set[str]]:
    """The modules of `packages` that some of them need, themselves included, and the libraries that these import."""
    found, libraries, left = set(), set(), list(modules)
    while left:
        if (module := left.pop()) in found:
            continue
        found.add(module)
        for name in _imports(module):
            top, *parts = name.split(".")
            if top not in packages:
                libraries.add(top)
                continue
            places = [packages[top].joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
            files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
            left += [file for file in files if file.is_file()]
    return found, libraries - sys.stdlib_module_names


def _place_of(top: str) -> Path:
    """The file of a module, or the folder of a package."""
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise UserError(f"{top}: its code is not in files of its own, so that no registered model can carry it")
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _target(path: Path, packages: dict[str, Path]) -> str:
    """Where a module lies in the carried package; those of other packages below OUTSIDE."""
    top = next(top for top, place in packages.items() if path.is_relative_to(place))
    relative = path.relative_to(packages[top]).as_posix()
    if top == PACKAGE.name:
        return relative
    return f"{OUTSIDE}/{top}.py" if relative == "." else f"{OUTSIDE}/{top}/{relative}"


def _distribution(library: str) -> str:
    """The name under which a library is installed that is imported as `library`."""
    try:
        return distribution(library).name
    except PackageNotFoundError:
        return packages_distributions().get(library, [library])[0]


def _imports(module: Path) -> set[str]:
    """Dotted names that a module imports at any time; of `from a import b` both a and a.b, for b may be a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {str(node.module), *(f"{node.module}.{each.name}" for each in node.names)}
    return names


def _renamed(source: bytes, names: dict[str, str]) -> bytes:
    """A module that imports from other packages what it imported from these."""
    for before, after in names.items():
        source = re.sub(
            rb"^(\s*(?:from|import) )%s\b" % before.encode(), rb"\g<1>" + after.encode(), source, flags=re.M
        )
    return source
