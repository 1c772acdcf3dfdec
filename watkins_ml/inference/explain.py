"""`watkins explain`: the places of a spectrogram on which a prediction rests.

Grad-CAM (Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017)
at the last stage of `features`, the fourth block of the baseline and the ninth stage of EfficientNet-B0. Both networks
average its maps and weigh the averages, so the map says what each place adds to the species' logit; places that
count against the species are left at zero. On 30 test cuts of watkins10, hiding the strongest 15 % of what this layer
shows cost EfficientNet twice the probability that hiding as much elsewhere did; with stages five to seven they were
closer.

An encoder gives no maps and no gradients: there stretches of the sound are hidden instead (`occlusion`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import disk_errors, printable
from watkins_ml.core.text import shown
from watkins_ml.inference.occlusion import occlusion, over_spectrogram, spectrogram_of
from watkins_ml.inference.resolve import load_classifier
from watkins_ml.models.bundle import MAX_NOVELTY, Classifier
from watkins_ml.models.scoring import window_outputs


@dataclass(frozen=True)
class Explanation:
    """One window of a recording, and the places in it that count for a species."""

    species: str
    probability: float
    """Calibrated, in this window."""
    answer: str
    """The most probable species of the whole recording."""
    answer_probability: float
    unknown: bool
    """Whether the whole recording is unlike what the network was trained on, as `predict` would answer."""
    windows: int
    """How many windows the prediction was made from; this is the one with the highest probability of the species."""
    spectrogram: np.ndarray
    """(n_mels, frames), standardised decibels: what the network saw, or of an encoder, the same sound as a picture."""
    attribution: np.ndarray
    """(n_mels, frames), from 0 to 1 at the strongest place; all zero where nothing counts for the species."""
    start_s: float
    """Where in the recording the window begins."""
    sound_s: float
    """Seconds of the recording in the window; where it is longer, they are repeated."""
    duration_s: float
    """Length of the recording."""
    frontend: Frontend
    """Of the spectrogram."""
    method: str = "Grad-CAM"
    """How the places were found; `occlusion` finds times, in all frequencies alike."""
    note: str = ""
    """What there is to know of the file."""

    def where(self) -> str:
        """Which part of the recording this is, and what the whole is taken for where that is something else."""
        part = f"{self.start_s:.1f}–{self.start_s + self.sound_s:.1f} s of {self.duration_s:.1f} s"
        if self.windows > 1:
            part += f", the surest of {self.windows} windows"
        if self.windows > 1 or self.species != self.answer:
            part += f"; the whole: {self.answer} {self.answer_probability:.1%}"
        if self.unknown:
            part += "; unlike what the model was trained on"
        if self.note:
            part += f"; {self.note}"
        return part


def explain(classifier: Classifier, path: Path, species: str | None = None) -> Explanation:
    """Explain the answer for an audio file, or how probable `species` is.

    Of a recording longer than a window, the window in which the species is most probable.

    Raises:
        UsageError: the classifier does not know `species`.
        UserError: the file cannot be used.
    """
    wanted = None if species is None else classifier.label(species)
    if not path.is_file():
        raise UserError(f"{printable(path)}: {'a folder; name one audio file' if path.is_dir() else 'no such file'}")
    try:
        recording = classifier.frontend.read(path, MOST_WINDOWS)
    except AudioError as error:
        raise UserError(f"{printable(path)}: {error}") from None
    excerpts = recording.windows or (recording.waveform,)
    windows = classifier.frontend.windows(recording)
    outputs = window_outputs(classifier.network, [windows])
    (whole,), (novelty,) = classifier.predict_outputs(outputs, MAX_NOVELTY)
    answer = classifier.classes[whole.argmax()]
    label = int(whole.argmax()) if wanted is None else wanted
    of_windows = classifier.calibrated(outputs.logits)[:, label]
    known = (classifier.window_novelty(outputs) <= MAX_NOVELTY).numpy()
    surest = int(np.where(known, of_windows, -1).argmax()) if known.any() else int(of_windows.argmax())
    sound_s = len(recording.waveform) / recording.sample_rate
    if isinstance(classifier.frontend, Frontend):
        frontend, method, picture = classifier.frontend, "Grad-CAM", windows[surest, 0].numpy()
        attribution = grad_cam(classifier.network, windows[surest], label)
    else:
        method, excerpt, rate = "occlusion", excerpts[surest], recording.sample_rate
        frontend, picture = spectrogram_of(excerpt, rate, classifier.frontend.settings.seconds)
        attribution = over_spectrogram(occlusion(classifier, excerpt, rate, label), frontend, sound_s)
    return Explanation(
        species=classifier.classes[label],
        probability=float(of_windows[surest]),
        answer=answer,
        answer_probability=float(whole.max()),
        unknown=not novelty <= MAX_NOVELTY,
        windows=len(windows),
        spectrogram=picture,
        attribution=attribution,
        frontend=frontend,
        method=method,
        start_s=recording.starts[surest] / recording.sample_rate,
        sound_s=sound_s,
        duration_s=recording.duration_s,
        note="; ".join(recording.notes),
    )


def explain_file(model: str, path: Path, out: Path, species: str | None = None) -> Explanation:
    """Explain the answer of the model that a MODEL argument names, and draw it to `out` (PNG).

    Raises:
        UserError: as `explain`, or there is no such model, or `out` cannot be written.
    """
    from watkins_ml.evaluation.attribution import attribution_picture
    from watkins_ml.evaluation.plots import save

    classifier = load_classifier(model)
    found = explain(classifier, path, species)
    figure = attribution_picture(
        found.frontend, found.spectrogram, found.attribution, found.start_s, found.sound_s, method=found.method,
        title=f"{found.species} {found.probability:.1%}", below=f"{shown(printable(Path(path.name)))}, {found.where()}",
    )  # fmt: skip
    with disk_errors(f"cannot write {out}", "choose another file with --out"):
        save(figure, out)
    return found


def grad_cam(network: torch.nn.Module, spectrogram: torch.Tensor, label: int) -> np.ndarray:
    """Where in `spectrogram`, (1, n_mels, frames), something counts for `label`.

    Returns:
        (n_mels, frames), at least 0 and at most 1, interpolated from the much coarser maps of the last stage.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    if network.explained_layer is None:
        raise UserError("this network has no maps over time and frequency that explain could show, as transformers")
    network.eval()
    wanted = spectrogram.unsqueeze(0).requires_grad_()  # so that frozen stages let gradients through
    found = LayerGradCam(network, network.explained_layer).attribute(wanted, label, relu_attributions=True)
    found = LayerAttribution.interpolate(found.detach(), tuple(spectrogram.shape[1:]), "bilinear")[0, 0]
    strongest = found.max()
    return (found / strongest if strongest > 0 else found).numpy()
