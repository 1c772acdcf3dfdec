"""What tests of commands share."""

from tests.support import EXPERIMENTS

BASELINE = EXPERIMENTS / "baseline.yaml"


def assert_one_line(said, status: int, *parts: str) -> None:
    assert said.status == status, said
    assert said.err.startswith("watkins: ") and said.err.endswith("\n") and said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err
