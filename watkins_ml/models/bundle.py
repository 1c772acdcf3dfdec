"""A trained model on disk: `weights.pt` (tensors), `model.json` (network, frontend, species, where it is from) and
`novelty.pt` (tensors: what it was trained on, as it sees it)."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn

from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.bundle_files import DESCRIPTION, NOVELTY, PARTS, WEIGHTS
from watkins_ml.config import BaselineModel, EfficientNetModel, ModelConfig
from watkins_ml.confined import plain_file
from watkins_ml.errors import UsageError, UserError, first_line
from watkins_ml.files import write_json, write_tensors
from watkins_ml.models import build_model
from watkins_ml.models.novelty import Novelty
from watkins_ml.models.scoring import BATCH, WindowOutputs, window_outputs
from watkins_ml.names import normal

FORMAT = 1
LARGEST = {DESCRIPTION: 16_000_000, WEIGHTS: 16_000_000_000}
"""Bytes of the parts of a bundle, each of which is read whole."""
MAX_NOVELTY = 1.0
"""Above it a window is unknown; so `novelty.py` measures."""
UNKNOWN = "unknown"
"""The answer where a sound is unlike all that a model was trained on, or where there is none."""


class Answers(NamedTuple):
    """What a classifier says of each cut."""

    probabilities: np.ndarray
    """Calibrated, float64 (cuts, species)."""
    novelty: np.ndarray
    """float64 (cuts,): above 1, the cut is unlike what the network was trained on, whatever the probabilities say."""


@dataclass(frozen=True)
class Classifier:
    """A trained network with all that is needed to use it on audio."""

    network: nn.Module
    frontend: Frontend
    classes: list[str]
    """Species by label."""
    facts: dict[str, Any]
    """Data digest, split protocol, run name, validation macro F1."""
    temperature: float = 1.0
    """What logits are divided by, so that probabilities are calibrated; fitted on validation."""
    novelty: Novelty | None = None
    """Tells the unknown; models of earlier versions have none, and take everything for known (novelty 0)."""

    def label(self, species: str) -> int:
        """The number of a species among the outputs; raises a UsageError that names the nearest one known."""
        species = normal(species)
        if species not in self.classes:
            (nearest,) = difflib.get_close_matches(species, self.classes, n=1, cutoff=0)
            raise UsageError(f"--species {species}: unknown to the model; the nearest that it knows is {nearest}")
        return self.classes.index(species)

    def digest(self) -> str:
        """Equal for models that give the same answers: of weights, frontend, species, temperature and novelty."""
        parts = self.frontend.settings.digest(), self.classes, repr(self.temperature), weights_digest(self.network)
        settled = " ".join(map(str, parts)) + (f" {weights_digest(self.novelty)}" if self.novelty else "")
        return hashlib.sha256(settled.encode()).hexdigest()[:16]

    def probabilities(self, cuts: Iterable[torch.Tensor], batch_size: int = BATCH) -> np.ndarray:
        """The windows of each cut, (n, 1, n_mels, frames), to calibrated float64 probabilities (cuts, species)."""
        return self.answers(cuts, batch_size).probabilities

    def answers(
        self, cuts: Iterable[torch.Tensor], batch_size: int = BATCH, max_novelty: float = math.inf
    ) -> Answers:
        """The windows of each cut, (n, 1, n_mels, frames), to what is said of it, as `said`."""
        return self.said(window_outputs(self.network, cuts, batch_size), max_novelty)

    def said(self, outputs: WindowOutputs, max_novelty: float = math.inf) -> Answers:
        """What the network's outputs say of each cut: the mean over its windows that are no newer than `max_novelty`.

        A cut without any such window is unknown: its novelty is above the limit too, its answer the mean over all.
        """
        novelties = self.novelties(outputs)
        known = novelties <= max_novelty
        probabilities = to_probabilities(outputs.by_cut(outputs.logits, known), self.temperature)
        return Answers(probabilities, outputs.by_cut(novelties, known).double().numpy())

    def novelties(self, outputs: WindowOutputs) -> torch.Tensor:
        """The novelty of each window, (windows,)."""
        if self.novelty is None or not outputs.counts:
            return torch.zeros(sum(outputs.counts))
        with torch.inference_mode():
            return self.novelty(outputs.embeddings)

    def classify(self, sources: Iterable[Path | BinaryIO]) -> np.ndarray:
        """Audio files (paths or open binary files) to probabilities (files, species).

        One that is longer than a window is judged by several. Raises AudioError as the frontend does.
        """
        return self.probabilities(map(self.frontend.file_windows, sources))


def to_probabilities(logits: torch.Tensor, temperature: float = 1.0) -> np.ndarray:
    """Logits (N, species) to float64 probabilities; so precise that no temperature changes which one is highest."""
    return (logits.double() / temperature).softmax(dim=1).numpy()


def weights_digest(network: nn.Module) -> str:
    """Fingerprint of every tensor of a network, by which a model is known again in another form."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_bundle(
    folder: Path,
    network: nn.Module,
    config: BaselineModel | EfficientNetModel,
    frontend: FrontendSettings,
    classes: list[str],
    facts: dict[str, Any],
    temperature: float = 1.0,
    novelty: Novelty | None = None,
) -> None:
    """Write a bundle; `model.json` comes last and seals it."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(folder / WEIGHTS, weights)
    if novelty is not None:
        save_novelty(folder, novelty)
    description = {"format": FORMAT, "model": config.model_dump(), "frontend": frontend.model_dump()}
    description |= {"temperature": temperature, "classes": classes, "facts": facts}
    write_json(folder / DESCRIPTION, description)


def save_novelty(folder: Path, novelty: Novelty) -> None:
    """Add to a bundle what its network knows."""
    known, noise = (directions.half().cpu() for directions in (novelty.known, novelty.noise))
    write_tensors(folder / NOVELTY, {"known": known, "noise": noise, "limit": novelty.limit.cpu()})


def load_bundle(folder: Path) -> Classifier:
    """Load a bundle on the CPU.

    Raises:
        UserError: a part is missing, damaged, of a later format, or a link or pipe that leads elsewhere.
    """
    for part in PARTS:
        if os.path.lexists(folder / part):
            plain_file(folder, part, folder, LARGEST.get(part, LARGEST[WEIGHTS]))
    with _naming(folder / "model.json"):
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise UserError(f"{folder}: model format {description['format']} needs a newer watkins_ml")
        config = TypeAdapter(ModelConfig).validate_python(description["model"])
        network = build_model(config, len(description["classes"]), pretrained=False)
        frontend = Frontend(FrontendSettings.stored(description["frontend"]))
        classes, facts = [normal(name) for name in description["classes"]], dict(description["facts"])
        temperature = float(description.get("temperature", 1.0))  # bundles of earlier versions have none
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature}")
    with _naming(folder / "weights.pt"):
        network.load_state_dict(torch.load(folder / "weights.pt", map_location="cpu", weights_only=True))
    network.eval().to(memory_format=torch.channels_last)
    novelty = None
    if (folder / "novelty.pt").exists():
        with _naming(folder / "novelty.pt"):
            novelty = Novelty(**torch.load(folder / "novelty.pt", map_location="cpu", weights_only=True))
            novelty.check(network.classifier.in_features)
    return Classifier(network, frontend, classes, facts, temperature, novelty)


@contextmanager
def _naming(part: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged part raises (torch and pydantic raise many kinds) into one sentence."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{part.parent}: no trained model here ({part.name} is missing)") from None
    except Exception as error:
        raise UserError(f"{part.parent}: damaged model, {part.name} does not fit ({first_line(error)})") from None
