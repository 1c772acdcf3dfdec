"""The model registry: versions, what they scored, and who is champion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.metric_names import BEST_VAL_CONTROL_MACRO_F1, BEST_VAL_MACRO_F1, renamed
from watkins_ml.dataset.split import LEAKY

CHAMPION = "champion"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that a model, a version or an alias is not there; any other error is a fault of the server."""
CLAIM = "watkins.claim"
"""Tag of a version whose claim is decided, written last: `won` or `lost`."""
BY_HAND = "watkins.promoted_after"
"""Tag of a version promoted by hand: its new place in the line of claims, between the versions before and after."""
REPLACED = "watkins.replaced_by"
"""Tag of a version whose run has sent its model again: the number of the version that stands in its place."""
ROUNDS = 30
"""So often a claim looks and repairs; each other claim at the same moment costs it one or two rounds."""


@dataclass(frozen=True)
class Promotion:
    """What became of a new version's claim to the champion alias, and why."""

    promoted: bool
    reason: str


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise  # a server that fails for a moment must not cost the champion its alias
        return None


def promote_if_better(client: MlflowClient, version: ModelVersion) -> Promotion:
    """Let `version` claim the alias: champion is who has the best validation macro F1 on the same data and split.

    A version that is not above its control (`is_beaten`) becomes champion only by hand.

    MLflow moves an alias without looking where it was, so a claim that read before another claim wrote may overwrite
    a better version. Therefore each claim looks again after it wrote, and repairs until the alias is at the best of
    all versions that may have claimed since the oldest claim still open. Every claim judges by the same list of
    versions, so the one that writes last leaves the best. Older versions stay out: whoever moved the alias from
    them by hand meant it. Only a claim that found nothing to repair is decided; deciding happens once, and one that
    was cut off stays open until it is repeated.
    """
    number, versions = int(version.version), _versions(client, version.name)
    before = holder = champion(client, version.name)
    version = next((each for each in versions if int(each.version) == number), version)
    if CLAIM in version.tags:
        return _verdict(version, before, holder)
    first = min([number, *(int(each.version) for each in versions if _is_open(each))])
    for _ in range(ROUNDS):
        best = _best(versions, holder, first)
        if best is None or best is holder:
            verdict = _verdict(version, before, holder)
            client.set_model_version_tag(version.name, version.version, CLAIM, "won" if verdict.promoted else "lost")
            return verdict
        _give_alias(client, best)
        versions, holder = _versions(client, version.name), champion(client, version.name)
    return _verdict(version, before, holder)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a model by number, without their aliases."""
    return sorted(client.search_model_versions(f"name='{name}'"), key=lambda each: int(each.version))


def _is_open(version: ModelVersion) -> bool:
    """Whether the claim of a version that a training registered is still to be decided."""
    return CLAIM not in version.tags and "data_digest" in version.tags


def _place(version: ModelVersion) -> float:
    """Where a version stands in the line of claims: its number, or later if it was promoted by hand."""
    return float(version.tags.get(BY_HAND, version.version))


def _best(versions: list[ModelVersion], holder: ModelVersion | None, first: int) -> ModelVersion | None:
    """Who should be champion, of the holder and those in line from `first` and from the last promotion by hand on."""
    by_hand = max((_place(each) for each in versions if BY_HAND in each.tags), default=0.0)
    line = [each for each in versions if _place(each) >= max(first, by_hand) and REPLACED not in each.tags]
    line = [each for each in line if BY_HAND in each.tags or not is_beaten(each) or _follows(each, holder)]
    chosen = next((each for each in line if BY_HAND in each.tags), None)  # by hand, while a claim was open
    leader = chosen or holder or next(iter(line), None)
    rivals = [each for each in (holder, *line) if each and leader and _difference(each, leader) is None]
    return max(rivals, key=_score, default=None)  # the first of equals, so the holder


def _follows(version: ModelVersion, holder: ModelVersion | None) -> bool:
    """Whether `version` stands in the place of the champion, being of the same run."""
    return holder is not None and holder.tags.get(REPLACED) == str(version.version)


def _give_alias(client: MlflowClient, version: ModelVersion) -> None:
    try:
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":  # how the database says that another claim created the alias just now
            raise


def _verdict(version: ModelVersion, before: ModelVersion | None, holder: ModelVersion | None) -> Promotion:
    """How the claim of `version` stands with `holder` as champion, and `before` when the claim began."""
    name, number, score = version.name, version.version, f"{_score(version):.4f}"
    stamp = LEAKY.get(version.tags.get("split_protocol", ""))
    measure = f"{stamp}, validation macro F1" if stamp else "validation macro F1"
    if is_beaten(version) and (holder is None or holder.version != number):
        return Promotion(
            False,
            f"{name} version {number} was not made champion: its {measure} {score} is not above "
            f"{_control(version):.4f}, that of a logistic regression on the mean spectrum. "
            f"To make it champion: watkins promote {name}/{number}",
        )
    if holder is None:
        return Promotion(False, f"{name} has no champion")
    if holder.version == number:
        if before is not None and before.version == number:
            return Promotion(True, f"{name} version {number} is champion")
        past = "" if before is None else f", before: {_score(before):.4f}"
        if before is not None and REPLACED in before.tags:
            past = f", in place of version {before.version}"
        return Promotion(True, f"{name} version {number} is the new champion ({measure} {score}{past})")
    if what := _difference(version, holder):
        return Promotion(
            False,
            f"{name} version {number} was trained on another {what} than champion version {holder.version}, "
            f"so they do not compare; the alias stays. To move it: watkins promote {name}/{number}",
        )
    if before is None or before.version != holder.version:
        fact = f"version {holder.version} has meanwhile become champion of {name}"
    else:
        fact = f"champion of {name} stays version {holder.version}" + ", promoted by hand" * (BY_HAND in holder.tags)
    return Promotion(False, f"{fact} ({measure} {_score(holder):.4f}, version {number} has {score})")


def _difference(one: ModelVersion, other: ModelVersion) -> str | None:
    """What keeps two versions from being compared."""
    for tag, what in (("data_digest", "data digest"), ("split_protocol", "split protocol")):
        if one.tags.get(tag) != other.tags.get(tag):
            return what
    return None


def _score(version: ModelVersion) -> float:
    """The validation macro F1; a version without a number for it, or replaced, loses against all others."""
    return -math.inf if REPLACED in version.tags else _number(version, BEST_VAL_MACRO_F1)


def _control(version: ModelVersion) -> float:
    """The validation macro F1 of the control with audio; versions of earlier programs have none."""
    return _number(version, BEST_VAL_CONTROL_MACRO_F1)


def is_beaten(version: ModelVersion) -> bool:
    """Whether a version is not above the control with audio on its own validation side; none can be above 1."""
    control, own = _control(version), _number(version, BEST_VAL_MACRO_F1)
    return -math.inf < control >= own and own < 1


def _number(version: ModelVersion, tag: str) -> float:
    try:
        score = float(renamed(version.tags).get(tag, "-inf"))
    except ValueError:
        return -math.inf
    return -math.inf if math.isnan(score) else score


def inherited(client: MlflowClient, earlier: list[ModelVersion]) -> dict[str, str]:
    """Tags that a version needs if earlier versions hold the same run's model: it claims only what they would lose."""
    if not earlier or any(CLAIM not in each.tags for each in earlier):
        return {}
    holder = champion(client, earlier[0].name)
    holds = holder is not None and int(holder.version) in {int(each.version) for each in earlier}
    return {} if holds else {CLAIM: "lost"}


def replace(client: MlflowClient, earlier: list[ModelVersion], version: ModelVersion) -> None:
    """Let `version` stand in the place of earlier ones of the same run, whose model was not the run's own."""
    for each in earlier:
        if REPLACED not in each.tags:
            client.set_model_version_tag(each.name, each.version, REPLACED, str(version.version))


def promote(client: MlflowClient, model_version: str) -> ModelVersion:
    """Give the champion alias to `NAME/VERSION` (or `models:/NAME/VERSION`), whatever it scored.

    From then on versions that exist now take the alias back only by hand, even if their claims are still open.

    Raises:
        UsageError: the text has another form.
        UserError: there is no such version.
    """
    name, number = name_and_number(model_version)
    try:
        version = client.get_model_version(name, number)
        versions = _versions(client, name)
        place = (max(map(_place, versions)) + int(versions[-1].version) + 1) / 2
        client.set_model_version_tag(name, number, BY_HAND, str(place))
        client.set_registered_model_alias(name, CHAMPION, number)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise UserError(f"{model_version}: no such model version; `watkins models` lists them") from None
    return version


def name_and_number(model_version: str) -> tuple[str, str]:
    """The parts of `NAME/VERSION` (or `models:/NAME/VERSION`); raises a UsageError where the text has another form."""
    name, slash, number = model_version.removeprefix("models:/").rpartition("/")
    if not slash or not number.isdigit():
        raise UsageError(f"'{model_version}': write NAME/VERSION, for example watkins-efficientnet/3")
    return name, number


def list_versions(client: MlflowClient) -> list[ModelVersion]:
    """All versions of all registered models, by name, newest first, with their aliases."""
    versions: list[ModelVersion] = []
    for model in sorted(client.search_registered_models(), key=lambda model: model.name):
        newest_first = reversed(_versions(client, model.name))
        versions += [client.get_model_version(model.name, each.version) for each in newest_first]
    return versions
