"""MLflow's accounts. The passwords of `admin`, `trainer` and `serving` are those of the secrets, at every start.

    python accounts.py serve COMMAND…    makes the three accounts, then becomes the command
    python accounts.py add NAME          an account that may train, with the password from the terminal or the input

`trainer`, and who is added, may log into everybody's experiments and register versions, and delete nothing that others
began; `serving` may look (auth.ini: default_permission).
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

TRAINS = ("experiment", "registered_model")


def opened() -> SqlAlchemyStore:
    """The database of accounts, with its tables."""
    store = SqlAlchemyStore()
    os.environ.setdefault("PGPASSWORD", secret("mlflow_db_password"))
    store.init_db(read_auth_config().database_uri)
    return store


def secret(name: str) -> str:
    return (Path(os.environ["SECRETS"]) / name).read_text().strip()


def keep(store: SqlAlchemyStore, name: str, password: str, trains: bool = False, is_admin: bool = False) -> None:
    """Make an account, or give the one that there is this password and these rights."""
    if not store.has_user(name):
        store.create_user(name, password, is_admin)
    elif not store.authenticate_user(name, password):
        store.update_user(name, password)
    for kind in TRAINS if trains else ():
        store.grant_user_permission(name, kind, "*", "EDIT")


def main(what: str, *rest: str) -> None:
    if what == "serve":
        store = opened()
        keep(store, os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], secret("mlflow_admin_password"), is_admin=True)
        keep(store, "trainer", secret("mlflow_trainer_password"), trains=True)
        keep(store, "serving", secret("mlflow_serving_password"))
        store.engine.dispose()
        os.execvp(rest[0], rest)
    (name,) = rest
    if name in (os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], "trainer", "serving"):
        sys.exit(f"{name}: its password is in docker/secrets; change it there and start the service again")
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    try:
        keep(opened(), name, password, trains=True)
    except MlflowException as error:
        sys.exit(f"{name}: {error.message}")
    print(f"{name} may train")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("serve", "add"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
