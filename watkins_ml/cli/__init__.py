"""The `watkins` command: parse, call, print. Libraries are imported by the command that needs them."""

from __future__ import annotations

import os
import sys

import typer

from watkins_ml.cli import data, fetch, models, runs, studies, trained
from watkins_ml.errors import UsageError, UserError
from watkins_ml.memory import use_memory_freely

app = typer.Typer(
    name="watkins",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, track and compare spectrogram CNNs on recordings of marine mammals.",
    epilog="Example: watkins demo",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (data, fetch, runs, studies, models, trained):
    module.add_to(app)


@app.callback()
def _options(
    context: typer.Context, debug: bool = typer.Option(False, "--debug", help="Show the full traceback of an error.")
) -> None:
    if debug:
        os.environ["WATKINS_DEBUG"] = "1"
    if "TORCHELASTIC_RUN_ID" in os.environ and context.invoked_subcommand != "train":
        from watkins_ml.processes import refuse

        refuse(context.invoked_subcommand)


def main() -> None:
    """Run a command; exit with 0, 1 (failed) or 2 (misused) and one clear line for an error."""
    use_memory_freely()
    try:
        app()
    except UserError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1, error)
    except KeyboardInterrupt as error:
        _fail("interrupted", 1, error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", 1, error)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where it came from", 1, error)


def _fail(message: str, status: int, error: BaseException) -> None:
    if os.environ.get("WATKINS_DEBUG"):
        raise error
    print(f"watkins: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
