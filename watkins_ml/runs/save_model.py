"""A trained network saved as a bundle in its run directory, with its calibration, facts and novelty."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import nn

from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.frontend import Frontend
from watkins_ml.config import ExperimentConfig
from watkins_ml.core.console import progress
from watkins_ml.core.files import write_bytes, write_tensors
from watkins_ml.core.metric_names import BEST_VAL_MACRO_F1, TEMPERATURE, THRESHOLD_90
from watkins_ml.core.tensor_files import read_tensors
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.own_input import frontend_folder
from watkins_ml.dataset.stored import SpectrogramFiles
from watkins_ml.dataset.targets import LABELS
from watkins_ml.models.bundle import SLACK, save_bundle, save_novelty
from watkins_ml.models.bundle_files import EXAMPLE, LICENCE, NOVELTY, REFIT
from watkins_ml.models.family import ModelSection
from watkins_ml.models.novelty import NOISES, Novelty, fit_novelty, noise_tensors, remembered_rows
from watkins_ml.models.registry import family, licence_of
from watkins_ml.models.thresholds import Thresholds, write_thresholds
from watkins_ml.runs.reports import read_label_thresholds
from watkins_ml.tracking.rundir import RunDirectory


def save_model(
    network: nn.Module,
    config: ExperimentConfig,
    data: PreparedData,
    run: RunDirectory,
    metrics: dict[str, float],
    unseen: nn.Module | None = None,
) -> None:
    """The network as a whole bundle in the run directory, with the facts that a registered version will have as tags.

    `unseen` is the network of the validation report; another one than `network` where that has been trained on the
    validation recordings too (`train.refit`).
    Only after this may the journal name the model: whoever sends it takes the bundle as it is.
    """
    if unseen is None or unseen is network:
        write_model(network, config, data, run, metrics, novelty_of(network, data, config))
        return
    novelty = novelty_of(network, data, config, ("train", "val"))
    novelty.limit = novelty_of(unseen, data, config).limit  # for others the recordings must be new
    write_model(network, config, data, run, metrics, novelty, refit=True)


def write_model(
    network: nn.Module,
    config: ExperimentConfig,
    data: PreparedData,
    run: RunDirectory,
    metrics: dict[str, float],
    novelty: Novelty,
    refit: bool = False,
) -> None:
    """The bundle and its facts; `refit` says that the network has been trained on the validation recordings too."""
    facts: dict[str, str | float] = {
        "run": run.name,
        "data_digest": data.digest,
        "split_protocol": data.protocol,
        **{key: metrics[key] for key in (BEST_VAL_MACRO_F1, THRESHOLD_90) if key in metrics},
    }
    if (licence := licence_of(config.model)) is not None:
        facts[LICENCE] = licence
    if refit:
        facts[REFIT] = True
    write_bytes(run.model / EXAMPLE, _example_audio(data.frontend.sample_rate))
    if data.task == LABELS:
        of = dict(zip(data.classes, read_label_thresholds(run.root, data.classes).tolist(), strict=True))
        write_thresholds(run.model, Thresholds(of, "the highest F1 on validation", {"data_digest": data.digest}))
    settled = facts, metrics[TEMPERATURE], novelty, data.task
    save_bundle(run.model, network, config.model, data.input, data.classes, *settled)
    if run.timing.exists():
        run.update_facts(epoch_seconds=float(pd.read_csv(run.timing)["epoch_seconds"].mean()))
    run.update_facts(parameters=sum(parameter.numel() for parameter in network.parameters()), model=facts)


def complete_model(network: nn.Module, data: PreparedData, run: RunDirectory, config: ExperimentConfig) -> None:
    """Add to a bundle what trials of earlier versions left out: without it no model can answer "unknown"."""
    if not (run.model / NOVELTY).exists():
        save_novelty(run.model, novelty_of(network, data, config))


def novelty_of(
    network: nn.Module,
    data: PreparedData,
    config: ExperimentConfig,
    known: tuple[str, ...] = ("train",),
    frontend: FileFrontend | None = None,
    tensors_of: Callable[[tuple[str, ...]], Sequence[torch.Tensor]] | None = None,
) -> Novelty:
    """Which sounds are known to the network, those of the sides `known`; the test side is not among them.

    `frontend` is that of `data.input`, where its files are not those that `config` names. `tensors_of` some sides are
    those that it makes of their recordings, one side after the other, where they are not those of `data`.
    """
    labels = torch.from_numpy(np.concatenate([data.sides[side]["label"] for side in known]))
    rows = remembered_rows(labels, config.train.seed).tolist()
    trained, val = ((tensors_of or partial(_tensors, data))(sides) for sides in (known, ("val",)))
    with progress(transient=True) as bar:
        task = bar.add_task("What it knows", total=len(rows) + len(val), note="")

        def cuts(files: Sequence[torch.Tensor], chosen: list[int]) -> Iterator[torch.Tensor]:
            for row in chosen:
                yield files[row].unsqueeze(0)
                bar.advance(task)

        remembered, validation = cuts(trained, rows), cuts(val, list(range(len(val))))
        return fit_novelty(network, _noises(data, config.model, frontend), remembered, validation)


def _tensors(data: PreparedData, sides: tuple[str, ...]) -> SpectrogramFiles:
    return SpectrogramFiles(data, pd.concat([data.sides[side] for side in sides], ignore_index=True))


def _noises(data: PreparedData, config: ModelSection, frontend: FileFrontend | None) -> Iterable[torch.Tensor]:
    """What the frontend makes of noise; an encoder takes so long for it that it is kept beside the embeddings."""
    own = family(config.name).own_input
    if own is None or data.own_input is None:
        return noise_tensors(Frontend(data.frontend))
    file, shape = frontend_folder(data.folder, data.input) / "noise.pt", (NOISES, *data.input.shape)
    try:
        noises = read_tensors(file, 4 * NOISES * math.prod(data.input.shape) + SLACK)["noise"]
        if noises.shape == shape and torch.isfinite(noises).all():
            return noises
    except (OSError, ValueError, KeyError):  # not there yet, or torn
        pass
    noises = torch.stack(list(noise_tensors(frontend or own.open(config, data.input, None))))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(file, {"noise": noises}, durable=False)
    return noises


def _example_audio(sample_rate: int) -> bytes:
    """A quarter second of a rising whistle: the input example of the logged model."""
    seconds = np.arange(sample_rate // 4) / sample_rate
    chirp = 0.5 * np.sin(2 * np.pi * (0.06 * sample_rate * seconds + 0.2 * sample_rate * seconds**2))
    buffer = io.BytesIO()
    soundfile.write(buffer, chirp.astype("float32"), sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
