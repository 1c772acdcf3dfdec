"""`watkins ensemble`: trained models together as a model of its own, tested, saved, tracked and registered as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from watkins_ml.audio.ensemble import EnsembleFrontend
from watkins_ml.audio.ensemble_settings import EnsembleSettings
from watkins_ml.audio.files import FileFrontend
from watkins_ml.config import ExperimentConfig
from watkins_ml.core.console import err
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_bytes
from watkins_ml.core.metric_names import BEST_VAL, TEMPERATURE, TEST, THRESHOLD_90
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.loading import SpectrogramFiles, open_side
from watkins_ml.dataset.own_input import with_own_input
from watkins_ml.dataset.split import leak_stamp
from watkins_ml.inference.resolve import bundle_directory
from watkins_ml.models.bundle import Classifier, load_bundle
from watkins_ml.models.bundle_files import ENCODERS, MEMBERS, REFIT
from watkins_ml.models.family import FittedNetwork, Network
from watkins_ml.models.novelty import KEPT, Novelty, distance, remembered_rows
from watkins_ml.models.registry import build_model
from watkins_ml.models.scoring import window_outputs
from watkins_ml.runs.controls import report_controls
from watkins_ml.runs.ensemble_members import MemberRun, combined, configuration, read_data
from watkins_ml.runs.ensemble_record import HOW_TO_CONTINUE, begin, recorded, refuse_others, write_history
from watkins_ml.runs.lifecycle import RunInterruptedError, run_lifecycle, shortages
from watkins_ml.runs.reports import validated_species
from watkins_ml.runs.save_model import novelty_of, write_model
from watkins_ml.runs.train import RunResult, record_result
from watkins_ml.tracking.records import Launch
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.uploader import Uploader


def make_ensemble(
    members: list[MemberRun],
    run_dir: Path,
    register_as: str | None,
    data_dir: Path | None = None,
    launch: Launch | None = None,
) -> RunResult:
    """Make one model of trained ones; what an interrupted call has left is gone on with.

    Validation and test are what the members have kept of them. Only what the ensemble knows (novelty) is computed anew.

    Raises:
        UsageError: `run_dir` holds something else, or the members' windows differ.
        UserError: models, recordings or data are missing, or the data have changed.
    """
    data_dir = data_dir or Path(members[0].config.data.dir)
    data = read_data(data_dir, members)
    if data.digest != members[0].run.facts.data_digest:
        raise UserError(
            f"{data_dir}: prepared anew since {members[0].model} was trained (data digest {data.digest}, then "
            f"{members[0].run.facts.data_digest}); prepare it as it was, or name another copy with --data"
        )
    with ExitStack() as stack:
        bundles = [stack.enter_context(bundle_directory(member.model)) for member in members]
        classifiers = [load_bundle(bundle, each.model) for bundle, each in zip(bundles, members, strict=True)]
        sections = [_section(member, each, data) for member, each in zip(members, classifiers, strict=True)]
        config = configuration(members, sections, data_dir, register_as)
        record = RunDirectory(run_dir)
        refuse_others(record, config, members)
        logits = {
            side: combined([member.run for member in members], side, data.sides[side], data.classes)
            for side in ("val", "test")
        }
        inputs_of = [each.frontend.settings for each in classifiers]
        settings = EnsembleSettings(frontends=tuple(dict.fromkeys(inputs_of)))
        places = [inputs_of.index(each) for each in settings.frontends]
        frontend = EnsembleFrontend(settings, [classifiers[place].frontend for place in places])
        tensors = partial(MemberTensors, _parts(data, frontend))
        with recorded(record, data) as is_new:
            if is_new:
                begin(record, config, data, members, launch)
                with (
                    Uploader(record),
                    run_lifecycle(record, HOW_TO_CONTINUE, stops=(RunInterruptedError,)),
                    shortages(),
                ):
                    refit = any(each.facts.get(REFIT) for each in classifiers)
                    metrics = _report(record, data, logits, refit)
                    _save_files(record, [bundles[place] for place in places])
                    _save(record, config, replace(data, own_input=settings), classifiers, metrics, frontend, tensors)
                    record_result(record, register_as, metrics)
    return RunResult(record.root, record.read_metrics())


def _section(member: MemberRun, classifier: Classifier, data: PreparedData) -> dict[str, object]:
    """What the ensemble's section `model` says of a member."""
    if classifier.classes != data.classes:
        raise UserError(f"{member.model}: knows other species than {data.folder.root} has; name models of the same")
    return {
        "model": member.config.model.model_dump(),
        "frontend": classifier.frontend.settings.model_dump(),
        "temperature": classifier.temperature,
    }


def _report(record: RunDirectory, data: PreparedData, logits: dict[str, np.ndarray], refit: bool) -> dict[str, float]:
    """Reports of validation and test with the controls beside them; the final metrics."""
    from watkins_ml.evaluation.report import write_report
    from watkins_ml.evaluation.result import evaluate

    for sentence in leak_stamp(data.protocol).values():
        err.print(sentence, style="yellow")
    val, test = open_side(data, "val"), open_side(data, "test")
    evaluation, metrics = validated_species(val.labels.numpy(), logits["val"], data.classes, val.frame["tape"])
    write_report(record.root, "val", val.frame, evaluation, val.spectrograms, seconds=data.frontend.span_s)
    write_history(record, [evaluation.scores])
    metrics |= {BEST_VAL + name: value for name, value in evaluation.scores.items()}
    temperature, threshold = metrics[TEMPERATURE], metrics.get(THRESHOLD_90)
    tested = evaluate(test.labels.numpy(), logits["test"], data.classes, temperature, threshold, test.frame["tape"])
    write_report(record.root, "test", test.frame, tested, test.spectrograms, data)
    metrics |= {TEST + name: value for name, value in tested.scores.items()}
    metrics |= report_controls(record.root, data, refit)
    record.write_metrics(metrics)
    return metrics


class MemberTensors(Sequence[torch.Tensor]):
    """What the frontends of the members have made of the recordings of some sides, as the ensemble's makes it."""

    def __init__(self, parts: list[PreparedData], sides: tuple[str, ...]):
        tables = [pd.concat([part.sides[side] for side in sides], ignore_index=True) for part in parts]
        self._files = [SpectrogramFiles(part, table) for part, table in zip(parts, tables, strict=True)]

    def __len__(self) -> int:
        return len(self._files[0])

    def __getitem__(self, row: Any) -> Any:
        """(1, 1, numbers) of one recording."""
        return torch.cat([files[row].flatten() for files in self._files]).view(1, 1, -1)


def _parts(data: PreparedData, frontend: EnsembleFrontend) -> list[PreparedData]:
    """The data with the tensors of each frontend of the members, which are kept since these were trained."""

    def of(own: FileFrontend) -> PreparedData:
        return data if own.settings == data.frontend else with_own_input(data, own.settings, lambda: own)

    return [of(own) for own in frontend.frontends]


def _save_files(record: RunDirectory, bundles: list[Path]) -> None:
    """What the frontends need of the bundles of the members that they are from."""
    for folder, bundle in zip(MEMBERS, bundles, strict=False):
        for name in ENCODERS:
            if (bundle / name).is_file():
                write_bytes(record.model / folder / name, (bundle / name).read_bytes())


def _save(
    record: RunDirectory,
    config: ExperimentConfig,
    data: PreparedData,
    classifiers: list[Classifier],
    metrics: dict[str, float],
    frontend: FileFrontend,
    tensors_of: Callable[[tuple[str, ...]], MemberTensors],
) -> None:
    network = build_model(config.model, len(data.classes), pretrained=False)
    members = cast(torch.nn.ModuleList, network.members)
    for own, classifier in zip(members, classifiers, strict=True):
        own.load_state_dict(classifier.network.state_dict())
    network.eval()
    trained = tensors_of(("train",))
    rows = remembered_rows(torch.from_numpy(data.sides["train"]["label"].to_numpy(copy=True)), config.train.seed)
    cast(FittedNetwork, network).fit_input(
        (torch.stack([trained[row] for row in some.tolist()]) for some in rows.split(32)),
        torch.from_numpy(data.sides["train"]["label"].to_numpy(copy=True))[rows],
        data.sides["train"]["tape"].iloc[rows.numpy()].tolist(),
    )
    refit = any(classifier.facts.get(REFIT) for classifier in classifiers)
    known = ("train", "val") if refit else ("train",)
    novelty = novelty_of(network, data, config, known, frontend, tensors_of)
    if refit:
        novelty.limit = _limit(network, trained, rows, tensors_of(("val",)), classifiers)
    write_model(network, config, data, record, metrics, novelty, refit)


def _limit(
    network: torch.nn.Module,
    trained: MemberTensors,
    rows: torch.Tensor,
    validation: MemberTensors,
    classifiers: list[Classifier],
) -> torch.Tensor:
    """The limit of novelty of members that have been trained on the validation recordings too.

    These are too near to them. How much, each member's own limit says, which is of a network that they were new to: by
    the same factor, in the geometric mean, the ensemble's is raised.
    """

    def embeddings(files: MemberTensors, chosen: list[int]) -> torch.Tensor:
        return window_outputs(network, (files[row].unsqueeze(0) for row in chosen)).embeddings

    known, new = embeddings(trained, rows.tolist()), embeddings(validation, list(range(len(validation))))

    def farthest(known: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.quantile(distance(new, normalize(known, dim=1)), KEPT).clamp(min=1e-6)

    sizes = [int(cast(Network, each.network).embedding_size) for each in classifiers]
    own = zip(known.split(sizes, dim=1), new.split(sizes, dim=1), classifiers, strict=True)
    factors = [
        (each.novelty.limit / farthest(its_known, its_new)).log()
        for its_known, its_new, each in own
        if isinstance(each.novelty, Novelty)
    ]
    return farthest(known, new) * (torch.stack(factors).mean().exp() if factors else 1.0)
