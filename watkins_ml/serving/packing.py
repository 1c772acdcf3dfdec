"""A run's bundle as an MLflow model that needs nothing of this installation.

It brings its code and names the libraries that anybody can install. The code goes under a name of its own,
`watkins_ml_` and the code's fingerprint: so a model predicts with the code that it was made with, whatever version of
this package is installed or imported where it is loaded, and disturbs none of them.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow.models import Model

from watkins_ml.models.bundle_files import EXAMPLE

PACKAGE = Path(__file__).resolve().parents[1]
SERVED_MODEL = Path(__file__).with_name("served_model.py")
DISTRIBUTIONS = {"yaml": "PyYAML"}
"""Libraries that are installed under another name than they are imported by."""


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
def carried_code() -> Code:
    """The modules that a model needs to predict, found by their imports."""
    modules, libraries = _needed(SERVED_MODEL)
    modules.remove(SERVED_MODEL)
    sources = {str(path.relative_to(PACKAGE)): path.read_bytes() for path in sorted(modules)}
    fingerprint = hashlib.sha256(b"".join(name.encode() + source for name, source in sources.items())).hexdigest()
    name = f"{PACKAGE.name}_{fingerprint[:8]}"
    distributions = sorted(DISTRIBUTIONS.get(library, library) for library in libraries)
    return Code(
        name,
        {path: _renamed(source, name) for path, source in sources.items()},
        _renamed(SERVED_MODEL.read_bytes(), name),
        [f"{each}=={version(each).partition('+')[0]}" for each in distributions],  # +cpu is of PyTorch's own index
    )


def save_model(bundle: Path, description: Model, folder: str) -> None:
    """Write a bundle as an MLflow model that takes audio.

    mlflow.pyfunc.log_model would do this and the calls around it at once, but not again after it was cut off.
    """
    import mlflow
    from mlflow.models import ModelSignature

    from watkins_ml.serving.audio_table import INPUTS, OUTPUTS

    code = carried_code()
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
            pip_requirements=code.requirements,
        )


def _needed(module: Path) -> tuple[set[Path], set[str]]:
    """The modules of this package that one of them needs, itself included, and the libraries that these import."""
    modules, libraries, left = set(), set(), [module]
    while left:
        if (module := left.pop()) in modules:
            continue
        modules.add(module)
        for name in _imports(module):
            top, *parts = name.split(".")
            if top != PACKAGE.name:
                libraries.add(top)
                continue
            places = [PACKAGE.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
            files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
            left += [file for file in files if file.is_file()]
    return modules, libraries - sys.stdlib_module_names


def _imports(module: Path) -> set[str]:
    """Dotted names that a module imports at any time; of `from a import b` both a and a.b, for b may be a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{each.name}" for each in node.names)}
    return names


def _renamed(source: bytes, name: str) -> bytes:
    """A module that imports from the package `name` what it imported from this one."""
    return re.sub(rb"^(\s*(?:from|import) )%s\b" % PACKAGE.name.encode(), rb"\g<1>" + name.encode(), source, flags=re.M)
