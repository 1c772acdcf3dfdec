"""Who becomes champion, one claim after the other, repeated, and moved by hand; what the registry lists."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.tracking import registry

NAME = "watkins-baseline"


CONTROL = "best_val_control_spectrum_macro_f1"


def create(
    client,
    f1: object,
    digest: str = "d1",
    split: str = "tape",
    name: str = NAME,
    score: str = "best_val_macro_f1",
    control: object = None,
):
    """A version with these tags that has not claimed yet; only with `control` it knows one."""
    tags = {score: str(f1), "data_digest": digest, "split_protocol": split}
    tags |= {} if control is None else {CONTROL: str(control)}
    return client.create_model_version(name, "file:///nowhere", tags=tags)


@pytest.fixture
def register(store):
    """A function that registers a version with these tags and lets it claim the champion alias."""

    def run(*tags: object, name: str = NAME, **more: object) -> registry.Promotion:
        try:
            store.create_registered_model(name)
        except MlflowException:
            pass
        return registry.promote_if_better(store, create(store, *tags, name=name, **more))

    return run


def champion_of(store, name: str = NAME) -> int | None:
    found = registry.champion(store, name)
    return found and int(found.version)


def test_there_is_no_champion_before_the_first_version(store, register):
    assert champion_of(store) is None
    promotion = register(0.1)
    assert promotion.promoted and champion_of(store) == 1
    assert "version 1 is the new champion (validation macro F1 0.1000)" in promotion.reason


@pytest.mark.parametrize(
    ("f1", "digest", "split", "champion", "said"),
    [
        (0.6, "d1", "tape", 2, "version 2 is the new champion (validation macro F1 0.6000, before: 0.5000)"),
        (0.5, "d1", "tape", 1, "stays version 1 (validation macro F1 0.5000, version 2 has 0.5000)"),
        (0.4, "d1", "tape", 1, "stays version 1 (validation macro F1 0.5000, version 2 has 0.4000)"),
        (0.9, "d2", "tape", 1, "another data digest than champion version 1"),
        (0.9, "d1", "random", 1, "another split protocol than champion version 1"),
        ("nan", "d1", "tape", 1, "stays version 1"),
        ("n/a", "d1", "tape", 1, "stays version 1"),
    ],
    ids=["better", "equal", "worse", "other digest", "other split", "not a number", "no number"],
)
def test_who_becomes_champion(store, register, f1, digest, split, champion, said):
    register(0.5)
    promotion = register(f1, digest, split)
    assert champion_of(store) == champion
    assert promotion.promoted == (champion == 2)
    assert said in promotion.reason


@pytest.mark.parametrize(("f1", "champion"), [(0.6, 2), (0.4, 1)])
@pytest.mark.parametrize("names", [("val_macro_f1", "best_val_macro_f1"), ("best_val_macro_f1", "val_macro_f1")])
def test_versions_of_earlier_versions_compete_by_the_name_that_these_gave_the_score(
    store, register, watkins, names, f1, champion
):
    register(0.5, score=names[0])
    promotion = register(f1, score=names[1])
    assert champion_of(store) == champion and promotion.promoted == (champion == 2)
    said = watkins("models")
    assert "0.5000" in said.out and f"{f1:.4f}" in said.out and "nan" not in said.out
    assert watkins("promote", f"{NAME}/{3 - champion}").status == 0
    assert champion_of(store) == 3 - champion


@pytest.mark.parametrize(
    ("f1", "control", "promoted"),
    [(0.5, 0.4, True), (0.5, 0.5, False), (0.5, 0.6, False), ("nan", 0.1, False), (1.0, 1.0, True), (0.5, "nan", True),
     (0.5, "n/a", True)],
    ids=["above", "equal", "below", "no score", "none can be above 1", "no control", "no number"],
)  # fmt: skip
def test_a_network_not_above_its_control_becomes_champion_by_hand_only(store, register, watkins, f1, control, promoted):
    promotion = register(f1, control=control)
    assert promotion.promoted == promoted and champion_of(store) == (1 if promoted else None)
    if promoted:
        return
    assert f"{NAME} version 1 was not made champion: its validation macro F1" in promotion.reason
    assert f"is not above {control:.4f}, that of a logistic regression" in promotion.reason
    assert store.get_model_version(NAME, "1").tags[registry.CLAIM] == "lost"
    assert f"{control:.4f}" in watkins("models").out
    assert registry.promote_if_better(store, store.get_model_version(NAME, "1")).reason == promotion.reason
    registry.promote(store, promotion.reason.rpartition("watkins promote ")[2])
    assert champion_of(store) == 1
    assert registry.promote_if_better(store, store.get_model_version(NAME, "1")).promoted, "and nobody takes it back"
    assert not register(0.0, control=0.1).promoted and champion_of(store) == 1


def test_a_version_not_above_its_control_takes_no_champion_its_place_whatever_it_scored(store, register):
    register(0.5)
    assert not register(0.9, control=0.95).promoted and champion_of(store) == 1
    assert register(0.6, control=0.55).promoted and champion_of(store) == 3
    assert "stays version 3" in register(0.58, control=0.55).reason


def test_what_stands_in_place_of_a_champion_by_hand_is_champion_though_not_above_its_control(store, register):
    register(0.5, control=0.6)
    registry.promote(store, f"{NAME}/1")
    again = create(store, 0.5, control=0.6)
    registry.replace(store, [store.get_model_version(NAME, "1")], again)
    promotion = registry.promote_if_better(store, again)
    assert promotion.promoted and "in place of version 1" in promotion.reason and champion_of(store) == 2


def test_a_claim_that_was_cut_off_gives_no_alias_to_one_not_above_its_control(store, register):
    store.create_registered_model(NAME)
    create(store, 0.9, control=0.95)  # killed before it claimed
    assert register(0.5, control=0.2).promoted and champion_of(store) == 2


def test_a_leaky_score_is_told_as_one(register):
    assert "(leaky reference, validation macro F1 0.5000)" in register(0.5, split="random").reason
    assert "(leaky reference, validation macro F1 0.5000, version 2" in register(0.4, split="random").reason


def test_a_message_about_other_data_gives_the_command_that_moves_the_alias(store, register):
    register(0.5)
    command = register(0.9, digest="d2").reason.rpartition("watkins promote ")[2]
    registry.promote(store, command)
    assert champion_of(store) == 2


def test_claiming_again_changes_nothing(store, register):
    register(0.5)
    again = registry.promote_if_better(store, registry.champion(store, NAME))
    assert again.promoted and champion_of(store) == 1


def test_models_have_champions_of_their_own(store, register):
    register(0.9)
    register(0.2, name="watkins-efficientnet")
    assert (champion_of(store), champion_of(store, "watkins-efficientnet")) == (1, 1)


@pytest.mark.parametrize("text", [f"{NAME}/1", f"models:/{NAME}/1"])
def test_promote_moves_the_alias_whatever_the_score(store, register, text):
    register(0.5)
    register(0.9)
    assert champion_of(store) == 2
    assert registry.promote(store, text).version == 1
    assert champion_of(store) == 1


@pytest.mark.parametrize("text", ["", NAME, f"{NAME}/", f"{NAME}/latest", "/1", f"{NAME}@champion"])
def test_promote_wants_name_and_version(store, text):
    with pytest.raises(UserError, match=r"write NAME/VERSION|no such model version"):
        registry.promote(store, text)


def test_a_badly_written_version_is_misuse(store):
    with pytest.raises(UsageError, match=f"'{NAME}': write NAME/VERSION"):
        registry.promote(store, NAME)


@pytest.mark.parametrize("text", [f"{NAME}/7", "walrus/1"])
def test_promote_names_a_version_that_is_not_there(store, register, text):
    register(0.5)
    with pytest.raises(UserError, match=f"{text}: no such model version"):
        registry.promote(store, text)


def test_versions_are_listed_by_model_newest_first_with_their_aliases(store, register):
    for f1 in (0.3, 0.5, 0.4):
        register(f1)
    register(0.2, name="a-first-model")
    listed = [(each.name, int(each.version), list(each.aliases)) for each in registry.list_versions(store)]
    assert listed == [("a-first-model", 1, ["champion"]), (NAME, 3, []), (NAME, 2, ["champion"]), (NAME, 1, [])]


class Flaky:
    """A server that cannot be asked about versions for the moment, but takes orders."""

    def __init__(self, store):
        self.set_registered_model_alias = store.set_registered_model_alias

    def get_model_version_by_alias(self, *_):
        raise MlflowException("database is locked")  # error code INTERNAL_ERROR

    get_model_version = search_model_versions = get_model_version_by_alias


def test_a_server_that_fails_for_a_moment_does_not_cost_the_champion_its_alias(store, register):
    register(0.5)
    register(0.1)
    with pytest.raises(MlflowException, match="locked"):
        registry.promote_if_better(Flaky(store), store.get_model_version(NAME, 2))
    assert champion_of(store) == 1


def test_a_server_that_fails_is_not_a_missing_version(store, register):
    register(0.5)
    with pytest.raises(MlflowException, match="locked"):
        registry.promote(Flaky(store), f"{NAME}/1")


def in_mlflow(store, version: int) -> None:
    store.set_registered_model_alias(NAME, "champion", str(version))


def with_watkins(store, version: int) -> None:
    registry.promote(store, f"{NAME}/{version}")


@pytest.mark.parametrize("by_hand", [in_mlflow, with_watkins])
def test_who_was_replaced_by_hand_does_not_come_back_with_a_new_claim(store, register, by_hand):
    for f1 in (0.5, 0.9):
        register(f1)
    by_hand(store, 1)
    assert not register(0.4).promoted
    assert champion_of(store) == 1
    assert "version 4 is the new champion (validation macro F1 0.6000, before: 0.5000)" in register(0.6).reason
    assert champion_of(store) == 4


@pytest.mark.parametrize("by_hand", [in_mlflow, with_watkins])
def test_repeating_a_decided_claim_does_not_undo_a_promotion_by_hand(store, register, by_hand):
    for f1 in (0.5, 0.9):
        register(f1)
    by_hand(store, 1)
    again = registry.promote_if_better(store, store.get_model_version(NAME, "2"))
    assert not again.promoted and champion_of(store) == 1
    assert "stays version 1" in again.reason
    assert ("promoted by hand" in again.reason) == (by_hand is with_watkins)


def test_a_promotion_by_hand_overrules_claims_that_were_cut_off(store, register):
    for f1 in (0.5, 0.6):
        register(f1)
    cut_off = create(store, 0.9)
    for choice in (1, 2, 1):
        registry.promote(store, f"{NAME}/{choice}")
    assert not register(0.3).promoted
    assert not registry.promote_if_better(store, cut_off).promoted
    assert champion_of(store) == 1
