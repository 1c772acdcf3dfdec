"""Names of experiments and models: those that a server would refuse, or take for a path, are refused at once."""

from __future__ import annotations

from watkins_ml.core.errors import UserError
from watkins_ml.core.text import shown

COMPARISONS = "-comparisons"
"""Added to the name of an experiment for the pages that compare its runs."""
LONGEST = 200
"""Bytes: databases of servers take 256 characters."""
_ANY = f"a name of at most {LONGEST} bytes, without control characters or blanks at its ends"
EXPERIMENT = rf"{_ANY}, without \ and without . and .. between /"
MODEL = rf"{_ANY}, without / \ : ? @ and ', and without . at its beginning"


def is_experiment(name: object) -> bool:
    """Whether a name can be an experiment's; some servers put them into folders, so it may have `/`."""
    return isinstance(name, str) and _is_name(name) and "\\" not in name and not {".", ".."} & set(name.split("/"))


def is_model(name: object) -> bool:
    """Whether a name can be a registered model's, also in `models:/NAME@champion` and in a filter of MLflow."""
    return isinstance(name, str) and _is_name(name) and not set("/\\:?@'") & set(name) and not name.startswith(".")


def check_experiment(name: object, source: object) -> None:
    """Raise a UserError that begins with `source` where a name from elsewhere is none."""
    if not is_experiment(name.removesuffix(COMPARISONS) if isinstance(name, str) else name):
        raise UserError(f"{source}: {shown(str(name)[:100])!r} cannot name an experiment; it must be {EXPERIMENT}")


def check_model(name: object, source: object) -> None:
    """The same of a registered model."""
    if not is_model(name):
        raise UserError(f"{source}: {shown(str(name)[:100])!r} cannot name a model; it must be {MODEL}")


def _is_name(name: str) -> bool:
    plain = name == name.strip() != "" and name.isprintable()
    return plain and len(name.encode(errors="surrogatepass")) <= LONGEST
