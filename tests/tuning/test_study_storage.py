"""A study goes on when the connection to its database breaks, at whatever statement."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import event

from tests.support.servers import Postgres
from watkins_ml.core.errors import UserError
from watkins_ml.tuning.study import Study

DISK_FULL = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'no space left'; END $$"


@contextmanager
def interfering(study: Study, interfere: Callable[[int, str], str]) -> Iterator[None]:
    """Before each statement of the study is sent, `interfere(backend, statement)` may give another one."""

    def listen(connection, cursor, statement, parameters, context, many):
        changed = interfere(cursor.connection.info.backend_pid, statement)
        return changed, parameters if changed == statement else None

    engine = study.database.storage.engine
    event.listen(engine, "before_cursor_execute", listen, retval=True)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", listen)


@pytest.fixture
def brittle(small, begin, postgres, monkeypatch):
    """A function that opens a study of many trials on PostgreSQL, which is tried again at once."""
    monkeypatch.setattr("watkins_ml.tuning.storage.RETRY_SECONDS", 0.01)

    def open_study(name: str) -> Study:
        recipe = replace(small, name=name, settings=small.settings.model_copy(update={"trials": 1000}))
        return begin(recipe, postgres.url())

    return open_study


class Breaker:
    """Ends the backend of a connection just before it gets the statement of a number (from 1)."""

    def __init__(self, database: Postgres):
        self._admin = sqlalchemy.create_engine(
            database.url(), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        )
        self.number = self.seen = 0

    def __call__(self, backend: int, statement: str) -> str:
        self.seen += 1
        if self.seen == self.number:
            with self._admin.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend})
        return statement


@pytest.mark.parametrize("step", ["trials", "report", "finish", pytest.param("claim", marks=pytest.mark.faults)])
def test_a_connection_that_breaks_before_any_statement_changes_nothing(brittle, postgres, step):
    study, breaker = brittle(f"breaks-{step}"), Breaker(postgres)
    finished = []

    def take(name: str, act: Callable, *arguments: object):
        if name != step:
            return act(*arguments)
        with interfering(study, breaker):
            return act(*arguments)

    for breaker.number in itertools.count(1):
        breaker.seen = 0
        claim = take("claim", study.claim)
        take("report", study.report, claim.trial, 1, 0.25)
        assert take("finish", study.finish, claim, TrialState.COMPLETE, 0.5)
        finished.append(claim.trial.number)
        trials = take("trials", lambda: study.trials)
        assert [trial.number for trial in trials if trial.state is TrialState.COMPLETE] == finished
        if breaker.seen < breaker.number:
            break
    assert breaker.number > 1
    assert all(trials[number].intermediate_values == {1: 0.25} and trials[number].value == 0.5 for number in finished)


def test_a_trial_that_was_lost_while_it_was_claimed_can_be_continued(brittle, postgres):
    """Its lock is given back at once, not when Python finds the garbage: whoever continues it waits for that."""
    study, breaker = brittle("lost-claim"), Breaker(postgres)

    def end_before_it_is_named(backend: int, statement: str) -> str:
        if not breaker.number and statement.startswith("INSERT INTO trial_user_attributes"):
            breaker.number = breaker.seen + 1
        return breaker(backend, statement)

    gc.disable()
    try:
        with interfering(study, end_before_it_is_named):
            claim = study.claim()
        assert breaker.number and claim.run == "trial-001"
        assert study.locks.is_free("trial-000")
    finally:
        gc.enable()


def test_a_database_that_refuses_is_quoted(brittle):
    """Not what it says afterwards of the transaction that failed."""
    study = brittle("refused")

    def refuse_trials(backend: int, statement: str) -> str:
        return DISK_FULL if "FROM trials" in statement else statement

    with interfering(study, refuse_trials), pytest.raises(UserError, match=r"--storage .*: no space left"):
        study.trials  # noqa: B018
