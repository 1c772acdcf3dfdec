"""The `watkins` command: parse, call, print. Libraries are imported by the command that needs them."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NoReturn

import typer

from watkins_ml import __version__
from watkins_ml.core.errors import UsageError, UserError, first_line, sentence
from watkins_ml.core.files import check_working_directory
from watkins_ml.core.memory import MORE_MEMORY, is_short_of_memory, use_memory_freely
from watkins_ml.core.streams import Standard, finish, open_standard_streams
from watkins_ml.core.text import shown

app = typer.Typer(
    name="watkins",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, track and compare spectrogram CNNs on recordings of marine mammals.",
    epilog="Example: watkins demo",
    context_settings={"help_option_names": ["-h", "--help"]},
)
HELPERS = {"arguments", "tables", "prediction_tables", "detection_tables", "model_tables"}
"""Modules of this package that are no commands."""
ORDER = (
    "prepare demo fetch train sync server tune crossval ensemble models promote evaluate compare report predict export "
    "explain config"
).split()
"""In which the help lists the commands; any others follow by name."""
_found = {module.name for module in iter_modules(__path__)} - HELPERS
for _name in sorted(_found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
    _module = import_module(f"{__name__}.{_name}")
    _command = getattr(_module, _name)
    if isinstance(_command, typer.Typer):
        app.add_typer(_command)
    else:
        app.command(epilog=f"Example: {_module.EXAMPLE}")(_command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"watkins {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the full traceback of an error."),
    version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Show the version."),
) -> None:
    if debug:
        os.environ["WATKINS_DEBUG"] = "1"
    if not {"-h", "--help"} & set(sys.argv):
        check_working_directory()
    if "TORCHELASTIC_RUN_ID" in os.environ and context.invoked_subcommand != "train":
        from watkins_ml.core.distributed import refuse

        refuse(context.invoked_subcommand or "")


def main() -> None:
    """Run a command; exit with 0, 1 (failed) or 2 (misused) and one clear line for an error."""
    use_memory_freely()
    open_standard_streams()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports a home folder that it cannot write to
    warnings.filterwarnings("ignore", message=".*joblib will operate in serial mode")  # a machine without /dev/shm
    try:
        status = app(prog_name="watkins", standalone_mode=False)
        finish()
    except UserError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1, error)
    except KeyboardInterrupt as error:
        _fail("interrupted", 1, error)
    except OSError as error:
        if is_short_of_memory(error):
            _fail(f"too little memory ({first_line(error)}); {MORE_MEMORY}", 1, error)
        _fail(sentence(error), 1, error)
    except Exception as error:
        if hasattr(error, "format_message"):  # of typer: an option that there is not, a value out of range
            _print_misuse(error)
        if is_short_of_memory(error):
            _fail(f"too little memory ({first_line(error)}); {MORE_MEMORY}", 1, error)
        _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where it came from", 1, error)
    sys.exit(status if isinstance(status, int) else 0)


def _print_misuse(error: Any) -> NoReturn:
    """Print typer's message about the command line; typer itself would print the arguments unescaped."""
    if type(error).__name__ == "NoArgsIsHelpError":  # which has printed the help
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f"; {context.command_path} --help shows what there is" if context else ""
    message = error.format_message().replace("Value error, ", "").removesuffix(".")  # a prefix of pydantic's
    _leave(f"watkins: {_one_line(message)}{hint}", error.exit_code)


def _fail(message: str, status: int, error: BaseException) -> NoReturn:
    if os.environ.get("WATKINS_DEBUG"):
        lines = "".join(traceback.format_exception(error)).splitlines()
        _leave("\n".join(map(shown, lines)), status)
    _leave(f"watkins: {_one_line(message)}", status)


def _one_line(message: str) -> str:
    return shown(" ".join(message.split()))


def _leave(words: str, status: int) -> NoReturn:
    with suppress(UserError, SystemExit):  # the message below is worse
        finish()
    Standard("stderr").write(f"{words}\n")
    Standard("stderr").flush()
    sys.exit(status)
