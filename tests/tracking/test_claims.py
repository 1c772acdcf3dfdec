"""Claims to the champion alias that run at the same moment: whatever their order, the best one has it in the end."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE

from watkins_ml.tracking import registry

NAME = "watkins-baseline"
WHOLE = 99
"""More calls than any claim makes."""


def create(client, f1: float, digest: str = "d1", name: str = NAME):
    """A version that has not claimed yet."""
    tags = {"best_val_macro_f1": str(f1), "data_digest": digest, "split_protocol": "tape"}
    return client.create_model_version(name, "s3://nowhere/model", tags=tags)


class Killed(BaseException):
    """Ends a claim at once, as a kill does."""


class Claim:
    """A run that registers a version and claims, in a thread of its own; as a client it makes one call a `step`."""

    def __init__(self, client, f1: float, name: str = NAME, digest: str = "d1", version=None):
        self.arguments, self.version = (client, f1, name, digest), version
        self.over, self.promotion, self._killed, self._error = False, None, False, None
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._rests.acquire()

    def _run(self) -> None:
        try:
            _, f1, name, digest = self.arguments
            self.version = self.version or create(self, f1, digest, name)
            self.promotion = registry.promote_if_better(self, self.version)
        except Killed:
            pass
        except Exception as error:
            self._error = error
        self.over = True
        self._rests.release()

    def __getattr__(self, method: str):
        def call(*arguments, **options):
            self._rests.release()
            self._go.acquire()
            if self._killed:
                raise Killed
            return getattr(self.arguments[0], method)(*arguments, **options)

        return call

    def step(self) -> None:
        if not self.over:
            self._go.release()
            self._rests.acquire()
        if self._error:
            raise self._error

    def finish(self) -> None:
        while not self.over:
            self.step()

    def killed(self) -> Claim:
        """Die before the next call; the same claim, from its beginning."""
        self._killed = True
        self.step()
        return Claim(*self.arguments, self.version)


class Memory:
    """One model of a registry as MLflow keeps it, for more interleavings than a database has time for."""

    def __init__(self, *f1s: float):
        self.tags: dict[int, dict[str, str]] = {}
        self.alias: int | None = None
        for f1 in f1s:
            registry.promote_if_better(self, create(self, f1))

    def create_model_version(self, name, source, tags):
        self.tags[len(self.tags) + 1] = dict(tags)
        return self.get_model_version(name, len(self.tags))

    def get_model_version(self, name, version):
        return SimpleNamespace(name=name, version=int(version), tags=dict(self.tags[int(version)]))

    def search_model_versions(self, _):
        return [self.get_model_version(NAME, version) for version in self.tags]

    def get_model_version_by_alias(self, name, _):
        if self.alias is None:
            raise MlflowException("no such alias", INVALID_PARAMETER_VALUE)
        return self.get_model_version(name, self.alias)

    def set_registered_model_alias(self, _, __, version):
        self.alias = int(version)

    def set_model_version_tag(self, _, version, key, value):
        self.tags[int(version)][key] = value

    def best(self) -> int:
        return max(self.tags, key=lambda version: float(self.tags[version]["best_val_macro_f1"]))


def play(memory: Memory, f1s, bursts, kills=()) -> Memory:
    """Let claims run in turns of (who, how many calls), then one after the other; kill and repeat some at a turn."""
    claims = [Claim(memory, f1) for f1 in f1s]
    for turn, (who, calls) in enumerate(bursts):
        who %= len(claims)
        for _ in range(calls):
            claims[who].step()
        if turn in kills and not claims[who].over:
            claims[who] = claims[who].killed()
    for claim in claims:
        claim.finish()
    return memory


def champion_of(client, name: str) -> float:
    return float(registry.champion(client, name).tags["best_val_macro_f1"])


ORDERS = pytest.mark.parametrize(
    "f1s", [(0.6, 0.7), (0.7, 0.6)], ids=["the worse interrupted", "the better interrupted"]
)


@ORDERS
@pytest.mark.parametrize("killed", [False, True], ids=["continued", "killed and repeated"])
@pytest.mark.parametrize("before", [(), (0.5,)], ids=["no champion", "a champion"])
def test_a_claim_may_be_interrupted_anywhere_by_a_better_or_worse_one(store, f1s, killed, before):
    """On a real store: the second claim runs as a whole after the k-th call of the first, for every k."""
    for pause in itertools.count():
        name = f"model-{pause}"
        store.create_registered_model(name)
        for f1 in before:
            registry.promote_if_better(store, create(store, f1, name=name))
        first, second = (Claim(store, f1, name) for f1 in f1s)
        for _ in range(pause):
            first.step()
        if first.over:
            break
        if killed:
            first = first.killed()
        second.finish()
        first.finish()
        assert champion_of(store, name) == 0.7, f"interrupted after {pause} calls"
        assert f1s[0] < 0.7 or first.promotion.promoted
    assert pause > 3


@ORDERS
def test_two_claims_that_interrupt_each_other_leave_the_better_one_champion(f1s):
    """All interleavings in which each claim pauses up to twice."""
    for pauses in itertools.product(range(8), repeat=3):
        bursts = [*zip((0, 1, 0), pauses, strict=True), (1, WHOLE)]
        memory = play(Memory(0.5), f1s, bursts)
        assert memory.alias == memory.best(), bursts


@pytest.mark.parametrize("f1s", itertools.permutations((0.6, 0.7, 0.8)))
def test_a_claim_may_be_interrupted_by_one_that_is_interrupted(f1s):
    for pauses in itertools.product(range(9), range(9)):
        for last in ((0, 1), (1, 0)):
            bursts = [(0, pauses[0]), (1, pauses[1]), (2, WHOLE), *((who, WHOLE) for who in last)]
            memory = play(Memory(0.5), f1s, bursts)
            assert memory.alias == memory.best(), bursts


def test_a_decided_version_that_a_late_write_hides_is_not_forgotten_by_the_next_claim():
    """The first claim overwrites the best version and repairs that only after the third one has looked."""
    for first, late, third in itertools.product(range(8), range(4), range(8)):
        bursts = [(0, first), (1, WHOLE), (0, late), (2, third), (0, WHOLE), (2, WHOLE)]
        memory = play(Memory(0.5), (0.6, 0.9, 0.7), bursts)
        assert memory.alias == memory.best(), bursts


@given(
    before=st.sampled_from([(), (0.5,), (0.95,)]),
    f1s=st.permutations([0.6, 0.7, 0.8, 0.9]).flatmap(lambda f1s: st.integers(2, 4).map(lambda n: f1s[:n])),
    bursts=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), max_size=20),
    kills=st.sets(st.integers(0, 20), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_the_best_of_several_claims_is_champion_however_they_interleave_and_die(before, f1s, bursts, kills):
    memory = play(Memory(*before), f1s, bursts, kills)
    assert memory.alias == memory.best()
    assert all(registry.CLAIM in tags for tags in memory.tags.values())


def test_claims_that_meet_on_a_server_leave_the_best_one_champion(server):
    for number in range(4):
        name, gate, promotions = f"model-{number}", threading.Barrier(4), {}
        MlflowClient(server, server).create_registered_model(name)

        def claim(f1: float, name=name, gate=gate, promotions=promotions) -> None:
            client = MlflowClient(server, server)
            version = create(client, f1, name=name)
            gate.wait()
            promotions[f1] = registry.promote_if_better(client, version).promoted

        threads = [threading.Thread(target=claim, args=(f1,)) for f1 in (0.3, 0.9, 0.5, 0.7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert champion_of(MlflowClient(server, server), name) == 0.9
        assert len(promotions) == 4 and promotions[0.9]


def test_a_claim_that_lost_to_one_at_the_same_moment_says_so():
    memory = Memory(0.5)
    first, second = Claim(memory, 0.6), Claim(memory, 0.7)
    for _ in range(4):
        first.step()
    second.finish()
    first.finish()
    assert second.promotion.promoted and not first.promotion.promoted
    assert "version 3 has meanwhile become champion of" in first.promotion.reason
    assert "(validation macro F1 0.7000, version 2 has 0.6000)" in first.promotion.reason


def test_claims_on_different_data_never_take_the_alias_from_each_other():
    for pause in range(9):
        memory = Memory()
        claims = [Claim(memory, 0.5), Claim(memory, 0.9, digest="d2")]
        for who, calls in ((0, 1), (1, pause), (0, WHOLE), (1, WHOLE)):
            for _ in range(calls):
                claims[who].step()
        assert memory.alias == 1, f"interrupted after {pause} calls"
        assert "another data digest" in claims[1].promotion.reason


@ORDERS
def test_a_promotion_by_hand_in_the_middle_of_a_claim_counts_as_before_or_after_it(f1s):
    """It may yield to a better claim, never to a worse one or to one on other data."""
    mine, chosen = f1s
    for pause, digest in itertools.product(range(10), ("d1", "d2")):
        memory = Memory(0.5)
        registry.promote_if_better(memory, create(memory, chosen, digest))
        claim = Claim(memory, mine)
        for _ in range(pause):
            claim.step()
        registry.promote(memory, f"{NAME}/2")
        claim.finish()
        assert memory.alias == 2 or (mine > chosen and digest == "d1"), f"chosen after {pause} calls"


def test_two_first_claims_may_create_the_alias_at_once():
    """PostgreSQL refuses one of the two rows."""

    class Collision(Memory):
        def set_registered_model_alias(self, name, alias, version):
            if self.alias is None:
                self.alias = 1
                raise MlflowException("duplicate key value violates unique constraint", BAD_REQUEST)
            super().set_registered_model_alias(name, alias, version)

    memory = Collision()
    create(memory, 0.6)
    assert registry.promote_if_better(memory, create(memory, 0.7)).promoted
    assert memory.alias == 2


def test_a_server_that_forgets_the_alias_ends_the_claim_and_leaves_it_open():
    class Forgetful(Memory):
        def set_registered_model_alias(self, *_):
            pass

    memory = Forgetful()
    promotion = registry.promote_if_better(memory, create(memory, 0.6))
    assert promotion == registry.Promotion(False, f"{NAME} has no champion")
    assert registry.CLAIM not in memory.tags[1]
