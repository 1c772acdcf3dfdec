"""Errors a user can make, each one sentence that names the thing, what is wrong and what to do."""


class UserError(Exception):
    """The job failed for a reason the user can mend; the command exits with status 1."""


def first_line(error: BaseException) -> str:
    """What an error from elsewhere says, short enough for one sentence; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class UsageError(UserError):
    """The command or its configuration was misused; the command exits with status 2."""
