"""`python -m tests.support.served server …` is `mlflow server …`, in one process instead of two that import it all."""

from __future__ import annotations

import os
import runpy
import sys

import mlflow.cli
import mlflow.server


def here(command: list[str], extra_env: dict[str, str], **_: object) -> None:
    """Runs uvicorn, which `mlflow server` would start as a process of its own."""
    os.environ |= extra_env
    for name in ("mlflow.server", "mlflow.server.fastapi_app", "mlflow.server.security"):
        sys.modules.pop(name, None)  # what they read of the environment when they are imported is there only now
    sys.argv = command[2:]
    runpy.run_module("uvicorn", run_name="__main__")


if __name__ == "__main__":
    mlflow.server._exec_cmd = here
    mlflow.cli.cli()
