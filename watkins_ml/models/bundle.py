"""A trained model on disk: `weights.pt` (tensors), `model.json` (network, frontend, species, where it is from) and
`novelty.pt` (tensors: what it was trained on, as it sees it)."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from watkins_ml.audio.any_settings import AnySettings
from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.confined import plain_file
from watkins_ml.core.errors import UsageError, UserError, first_line
from watkins_ml.core.files import write_bytes, write_json, write_tensors
from watkins_ml.core.names import normal
from watkins_ml.core.tensor_files import read_tensors
from watkins_ml.dataset.targets import LABELS, SPECIES
from watkins_ml.models.bundle_files import DESCRIPTION, NOVELTY, PARTS, WEIGHTS
from watkins_ml.models.description import FORMATS, read_description
from watkins_ml.models.family import ModelSection, Network
from watkins_ml.models.novelty import MOST_KNOWN, NOISES, Novelty
from watkins_ml.models.registry import build_model, family
from watkins_ml.models.scoring import BATCH, WindowOutputs, window_outputs
from watkins_ml.models.thresholds import Thresholds, read_thresholds

SLACK = 4 << 20
"""Bytes that a file of tensors takes beside them, at most."""
LARGEST = {DESCRIPTION: 16_000_000, WEIGHTS: 16_000_000_000}
"""Bytes of the parts of a bundle, each of which is read whole."""
MAX_NOVELTY = 1.0
"""Above it a window is unknown; so `novelty.py` measures."""
UNKNOWN = "unknown"
"""The answer where a sound is unlike all that a model was trained on, or where there is none."""


class Predictions(NamedTuple):
    """What a classifier predicts for each cut."""

    probabilities: np.ndarray
    """Calibrated, float64 (cuts, species)."""
    novelty: np.ndarray
    """float64 (cuts,): above 1, the cut is unlike what the network was trained on, whatever the probabilities say."""


@dataclass(frozen=True)
class Classifier:
    """A trained network with all that is needed to use it on audio."""

    network: nn.Module
    frontend: FileFrontend
    classes: list[str]
    """Species by label."""
    facts: dict[str, Any]
    """Data digest, split protocol, run name, validation macro F1."""
    temperature: float = 1.0
    """What logits are divided by, so that probabilities are calibrated; fitted on validation."""
    novelty: Novelty | None = None
    """Models of earlier versions have none: everything is known to them (novelty 0)."""
    thresholds: Thresholds | None = None
    """From which probability on species are detected in long recordings, where that was chosen."""
    task: str = SPECIES
    """SPECIES: probabilities of all species sum to 1; LABELS: each has its own."""

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
        settled += f" {self.task}" * (self.task != SPECIES)
        return hashlib.sha256(settled.encode()).hexdigest()[:16]

    def probabilities(self, cuts: Iterable[torch.Tensor], batch_size: int = BATCH) -> np.ndarray:
        """The windows of each cut, (n, 1, n_mels, frames), to calibrated float64 probabilities (cuts, species)."""
        return self.predict(cuts, batch_size).probabilities

    def predict(
        self, cuts: Iterable[torch.Tensor], batch_size: int = BATCH, max_novelty: float = math.inf
    ) -> Predictions:
        """The windows of each cut, (n, 1, n_mels, frames), to its predictions, as `predict_outputs` makes them."""
        return self.predict_outputs(window_outputs(self.network, cuts, batch_size), max_novelty)

    def predict_outputs(self, outputs: WindowOutputs, max_novelty: float = math.inf) -> Predictions:
        """The network's outputs to predictions: the mean over those windows of a cut up to `max_novelty`, calibrated.

        A cut without any such window is unknown: its novelty is the least of its windows, its probabilities those of
        the mean over all.

        Raises:
            UserError: the logits are not finite.
        """
        if not torch.isfinite(outputs.logits).all():
            raise UserError("the model gives no numbers for this sound; its weights are damaged, so train it again")
        novelty = self.window_novelty(outputs)
        known = novelty <= max_novelty
        probabilities = self.calibrated(outputs.by_cut(outputs.logits, known))
        of_cuts = outputs.by_cut(novelty, known)
        if outputs.counts:
            least = torch.stack([of_cut.min() for of_cut in novelty.split(outputs.counts)])
            of_cuts = torch.where(least <= max_novelty, of_cuts, least)
        return Predictions(probabilities, of_cuts.double().numpy())

    def calibrated(self, logits: torch.Tensor) -> np.ndarray:
        """Logits (N, species) to calibrated float64 probabilities (N, species)."""
        if self.task == LABELS:
            return (logits.double() / self.temperature).sigmoid().numpy()
        return to_probabilities(logits, self.temperature)

    @property
    def label_thresholds(self) -> np.ndarray:
        """The probability from which on each species is answered, float64 (species,); a half where none is known."""
        of = {} if self.thresholds is None else self.thresholds.of
        return np.array([of.get(name, 0.5) for name in self.classes])

    def window_novelty(self, outputs: WindowOutputs) -> torch.Tensor:
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


def to_probabilities(logits: torch.Tensor, temperature: float | torch.Tensor = 1.0) -> np.ndarray:
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
    config: ModelSection,
    frontend: AnySettings,
    classes: list[str],
    facts: dict[str, Any],
    temperature: float = 1.0,
    novelty: Novelty | None = None,
    task: str = SPECIES,
) -> None:
    """Write a bundle; `model.json` comes last and seals it."""
    if (own := family(config.name).own_input) is not None and not isinstance(frontend, FrontendSettings):
        for name, content in own.files(config, frontend).items():
            write_bytes(folder / name, content)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(folder / WEIGHTS, weights)
    if novelty is not None:
        save_novelty(folder, novelty)
    description = {"format": FORMATS[task], "model": config.model_dump(), "frontend": frontend.model_dump()}
    description |= {"temperature": temperature, "classes": classes, "facts": facts}
    if task != SPECIES:
        description["task"] = task
    write_json(folder / DESCRIPTION, description)


def save_novelty(folder: Path, novelty: Novelty) -> None:
    """Add to a bundle what its network knows."""
    known, noise = (directions.half().cpu() for directions in (novelty.known, novelty.noise))
    write_tensors(folder / NOVELTY, {"known": known, "noise": noise, "limit": novelty.limit.cpu()})


def load_bundle(folder: Path, name: str | None = None) -> Classifier:
    """Load a bundle on the CPU; `name` is what errors call it, where that is not its folder.

    Raises:
        UserError: a part is missing, damaged, of a later format, or a link or pipe that leads elsewhere.
    """
    for part in PARTS:
        if os.path.lexists(folder / part):
            plain_file(folder, part, name or folder, LARGEST.get(part, LARGEST[WEIGHTS]))
    with _naming(folder, DESCRIPTION, name):
        description, frontend = read_description(folder / DESCRIPTION, name or folder)
        network = build_model(description.model, len(description.classes), pretrained=False)
    with _naming(folder, WEIGHTS, name):
        own = network.state_dict()
        size = sum(tensor.numel() * tensor.element_size() for tensor in own.values())
        tensors = read_tensors(folder / WEIGHTS, 2 * size + SLACK)
        _check_fit(own, tensors)
        network.load_state_dict(tensors)
    network.eval().to(memory_format=torch.channels_last)
    with _naming(folder, DESCRIPTION, name), torch.inference_mode():
        network(torch.zeros(1, *frontend.settings.shape))  # may be too few for it
    novelty = None
    if (folder / NOVELTY).exists():
        with _naming(folder, NOVELTY, name):
            dimensions = cast(Network, network).embedding_size
            tensors = read_tensors(folder / NOVELTY, 4 * dimensions * (MOST_KNOWN + NOISES) + SLACK)
            novelty = Novelty(**tensors)
            novelty.check(dimensions)
    classes = [normal(species) for species in description.classes]
    thresholds = read_thresholds(folder, name or folder, classes)
    facts, temperature, task = description.facts, description.temperature, description.task
    return Classifier(network, frontend, classes, facts, temperature, novelty, thresholds, task)


def _check_fit(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> None:
    """Raises a ValueError unless tensors are what a network of these needs, and numbers."""
    for name in [*own, *given]:
        if name not in given or name not in own:
            raise ValueError(f"{name} {'is missing' if name in own else 'is not of this network'}")
        mine, theirs = own[name], given[name]
        if theirs.shape != mine.shape or theirs.dtype.is_floating_point != mine.dtype.is_floating_point:
            raise ValueError(f"{name} is {theirs.dtype} {tuple(theirs.shape)}, not {mine.dtype} {tuple(mine.shape)}")
        if not torch.isfinite(theirs).all():
            raise ValueError(f"{name} holds NaN or infinite numbers")
        if name.endswith("running_var") and (theirs < 0).any():
            raise ValueError(f"{name} holds variances below 0")


@contextmanager
def _naming(folder: Path, part: str, name: str | None) -> Iterator[None]:
    """Turn whatever a missing or damaged part raises (torch and pydantic raise many kinds) into one sentence."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{name or folder}: no trained model here ({part} is missing)") from None
    except Exception as error:
        said = "".join(each if each.isprintable() else " " for each in first_line(error))
        raise UserError(f"{name or folder}: damaged model, {part} does not fit ({said})") from None
