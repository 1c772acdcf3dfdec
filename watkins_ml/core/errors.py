"""Errors a user can make, each one sentence that names the thing, what is wrong and what to do."""

import os

from watkins_ml.core.masking import masked


class UserError(Exception):
    """The job failed for a reason that the user can correct; the command exits with status 1."""


class ResourceError(UserError):
    """A fault of the environment (disk, memory, device, database, data); once it is corrected the job can continue."""


def first_line(error: BaseException) -> str:
    """What an error from elsewhere says, short enough for a sentence, no password; its kind where it says nothing."""
    return plain(masked((str(error).strip().splitlines() or [type(error).__name__])[0]))


def plain(text: str, most: int = 200) -> str:
    """The beginning of a text from elsewhere, on one line and without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[: 2 * most].split()))[:most]


def sentence(error: UserError | OSError) -> str:
    """The error as one sentence; one of the system with the file that it is about."""
    if isinstance(error, UserError):
        return str(error)
    where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{error.strerror or error}{where}"


class UsageError(UserError):
    """The command or its configuration was misused; the command exits with status 2."""
