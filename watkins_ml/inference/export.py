"""`watkins export`: a trained model as one ONNX file, from waveform to probabilities, for recorders in the field."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import soundfile
import torch
from torch import nn

from watkins_ml import __version__
from watkins_ml.audio.decode import LOUDEST, SILENCE, SilenceError
from watkins_ml.audio.ensemble import EnsembleFrontend
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.graph import FrontendGraph
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import check_temporary_files, disk_errors, write_bytes
from watkins_ml.dataset.targets import LABELS, SPECIES
from watkins_ml.inference.resolve import load_classifier, pinned
from watkins_ml.models.bundle import Classifier, weights_digest
from watkins_ml.models.scoring import cut_logits

OPSET = 18
"""Of late 2022, so that older runtimes read the file; what torch's exporter writes where nothing is converted."""
TOLERANCE = 1e-4
"""How far probabilities and logits may be from PyTorch's."""
NOVELTY_TOLERANCE = 1e-3
"""The same of novelty, of which 1 is the limit; values above 2 count as 2."""
OUTPUTS = ["probabilities", "logits", "novelty"]
RECIPE = (
    "waveform: float32, full scale ±1, one channel (the mean of a recording's), at {rate} Hz (resample before, without "
    "an offset: that is not in this model), exactly {samples} samples a row; fill a shorter sound up with zeros, "
    "divide a longer one into several. Digital silence at both ends of a row is left away, what lies between repeated. "
    "probabilities: calibrated, a row for each row of waveform, a column for each of classes. novelty: above 1, the "
    "sound is unlike what the model was trained on (noise, other species), whatever the probabilities say; infinite "
    "where there is only silence, or samples that are no numbers. Several rows of a recording: {together} of those "
    "whose novelty is at most 1; where none is, the recording is unknown."
)
TOGETHER = {
    SPECIES: "softmax(mean of the logits / temperature)",
    LABELS: "of each species, which may be there or not beside the others, the highest probability",
}
"""By task: what several windows of a recording say together."""


@dataclass(frozen=True)
class Exported:
    """A model that was written, and the largest differences between its outputs and PyTorch's."""

    path: Path
    bytes: int
    probabilities: float
    logits: float
    sample_rate: int
    samples: int


class WaveformClassifier(nn.Module):
    """A classifier from waveform to probabilities; what decoding decides about a sound is in it as arithmetic."""

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.frontend = FrontendGraph(cast(Frontend, classifier.frontend))
        self.network: Any = classifier.network
        self.temperature = classifier.temperature
        self.novelty = classifier.novelty
        self.each_by_itself = classifier.task == LABELS

    def forward(self, waveforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """float32 (batch, samples) to calibrated probabilities and logits, (batch, species), and novelty (batch,)."""
        numbers = waveforms.abs() <= LOUDEST  # NaN is not
        audio = torch.where(numbers, waveforms, 0.0)
        sounding = audio.abs() > SILENCE
        audible = numbers.all(dim=1) & sounding.any(dim=1) & (audio.amax(dim=1) > audio.amin(dim=1))
        embeddings = self.network.embed(self.frontend(_between_silence(audio, sounding)))
        logits = self.network.head(embeddings)
        novelty = torch.zeros_like(logits[:, 0]) if self.novelty is None else self.novelty(embeddings)
        calibrated = logits / self.temperature
        probabilities = calibrated.sigmoid() if self.each_by_itself else calibrated.softmax(dim=1)
        return probabilities, logits, torch.where(audible, novelty, torch.inf)


def _between_silence(audio: torch.Tensor, sounding: torch.Tensor) -> torch.Tensor:
    """What lies between the silent ends of each row, (batch, samples), repeated until it fills the row, as in training.

    Places are counted in float32, which is exact for them: few runtimes search among whole numbers.
    """
    samples = audio.shape[1]
    places = torch.arange(samples, dtype=torch.float32).expand_as(audio)
    first = torch.where(sounding, places, samples).amin(dim=1, keepdim=True)
    last = torch.where(sounding, places, -1.0).amax(dim=1, keepdim=True)
    silent = last < 0
    first, length = torch.where(silent, 0.0, first).long(), torch.where(silent, samples, last - first + 1).long()
    return audio.gather(1, first + torch.arange(samples) % length)


def export_model(model: str, path: Path) -> Exported:
    """Write the model that a MODEL argument names as ONNX, after onnxruntime has given the same outputs as PyTorch.

    Raises:
        UserError: no such model, packages are missing, or the outputs differ; `path` is then as it was.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is missing, which export needs; pip install 'watkins-ml[onnx]'") from None
    model = pinned(model)  # first, so that the metadata name what is loaded
    check_temporary_files()  # which the exporter needs
    classifier = load_classifier(model)
    if not isinstance(classifier.frontend, Frontend):
        what = "a pretrained encoder hears the sound before its network"
        if isinstance(classifier.frontend, EnsembleFrontend):
            what = "several models hear the sound, each with its own frontend"
        raise UserError(
            f"{model}: {what}, which is no part of an ONNX file; export a model of spectrograms, or use this one with "
            "`watkins predict`"
        )
    content = to_onnx(classifier, model)
    probabilities, logits = differences(content, classifier)
    with disk_errors(f"cannot write {path}", "choose another file with --out"):
        write_bytes(path, content)
    settings = classifier.frontend.settings
    return Exported(path, len(content), probabilities, logits, settings.sample_rate, settings.samples)


def to_onnx(classifier: Classifier, model: str) -> bytes:
    """The content of an ONNX file: input `waveform`, outputs `probabilities`, `logits` and `novelty`, and metadata.

    Args:
        model: what the metadata call the model.
    """
    rows = torch.export.Dim("batch")
    example = torch.from_numpy(trial_sounds(classifier)[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own insides
        program: Any = torch.onnx.export(
            WaveformClassifier(classifier).eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["waveform"], output_names=OUTPUTS, dynamic_shapes=({0: rows},),
        )  # fmt: skip
    proto = program.model_proto
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")  # stack traces with the folders of this machine
    for key, value in metadata(classifier, model).items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def metadata(classifier: Classifier, model: str) -> dict[str, str]:
    """What a user of the file has to know, by key; lists and tables as JSON."""
    settings = classifier.frontend.settings
    return {
        "model": model,
        "recipe": RECIPE.format(
            rate=settings.sample_rate, samples=settings.samples, together=TOGETHER[classifier.task]
        ),
        "task": classifier.task,
        "classes": json.dumps(classifier.classes, ensure_ascii=False),
        "sample_rate": str(settings.sample_rate),
        "samples": str(settings.samples),
        "frontend": settings.model_dump_json(),
        "frontend_digest": settings.digest(),
        "temperature": repr(classifier.temperature),
        "facts": json.dumps(classifier.facts, ensure_ascii=False),
        **({} if classifier.thresholds is None else {"thresholds": classifier.thresholds.text()}),
        "weights_digest": weights_digest(classifier.network),
        "made_by": f"watkins_ml {__version__}",
    }


def trial_sounds(classifier: Classifier) -> np.ndarray:
    """Sounds for comparing two forms of a classifier, float32 (7, samples), always the same.

    A call in noise, clicks, a clipped sweep, noise at the last bit of 16, noise with an offset, a call between silent
    ends, and silence.
    (A constant alone is none: what rounding leaves of it depends on the way of transforming, and decoding refuses it.)
    """
    settings = classifier.frontend.settings
    time = np.linspace(0, 1, settings.samples)
    noise = np.random.default_rng(0).standard_normal(settings.samples)
    pitch = settings.samples / 16 * time  # cycles; a sweep over half of what the rate can hold
    sounds = [
        0.3 * np.sin(2 * np.pi * pitch) * (np.abs(time - 0.4) < 0.1) + 0.01 * noise,
        np.where(np.arange(settings.samples) % (settings.sample_rate // 4) == 0, 0.8, 0.001 * noise),
        np.clip(3 * np.sin(2 * np.pi * pitch * 2 * time), -1, 1),
        2e-5 * noise,
        0.3 + 0.001 * noise,
        0.3 * np.sin(2 * np.pi * pitch) * (np.abs(time - 0.4) < 0.1),
        np.zeros(settings.samples),
    ]
    return np.stack(sounds).astype(np.float32)


def differences(content: bytes, classifier: Classifier) -> tuple[float, float]:
    """The largest differences of probabilities and logits between an ONNX file in onnxruntime and `classifier`.

    Compared over `trial_sounds`, one by one and all at once, with what `watkins predict` gives for them as files.

    Raises:
        UserError: they are above `TOLERANCE`, or those of novelty are above `NOVELTY_TOLERANCE`.
    """
    import onnxruntime

    sounds, rate = trial_sounds(classifier), classifier.frontend.settings.sample_rate
    cuts = [_spectrogram(classifier, sound, rate) for sound in sounds]
    predictions = classifier.predict(cuts, batch_size=1)
    expected = (
        predictions.probabilities,
        cut_logits(classifier.network, cuts, batch_size=1).numpy(),
        np.where(sounds.any(axis=1), predictions.novelty, np.inf).clip(max=2),
    )
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    together, singly = _outputs(session, sounds), [_outputs(session, sound[None]) for sound in sounds]
    probabilities, logits, novelty = (
        float(np.abs(np.concatenate([at_once, *alone]) - np.concatenate([value, value])).max())
        for value, at_once, *alone in zip(expected, together, *singly, strict=True)
    )
    if not (max(probabilities, logits) <= TOLERANCE and novelty <= NOVELTY_TOLERANCE):  # so that NaN fails too
        raise UserError(
            f"the exported model differs from PyTorch by {probabilities:.2g} in a probability, {logits:.2g} in a "
            f"logit and {novelty:.2g} in a novelty, so nothing was written; please report this with the versions of "
            "torch and onnxruntime"
        )
    return probabilities, logits


def _spectrogram(classifier: Classifier, sound: np.ndarray, rate: int) -> torch.Tensor:
    """Of a sound in a file, (1, 1, n_mels, frames); of silence, which decoding refuses, as the frontend makes it."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype="FLOAT")
    file.seek(0)
    try:
        return classifier.frontend.file_windows(file)
    except SilenceError:
        return classifier.frontend(sound, rate).unsqueeze(0)


def _outputs(session: Any, waveforms: np.ndarray) -> list[np.ndarray]:
    probabilities, logits, novelty = session.run(OUTPUTS, {"waveform": waveforms})
    return [probabilities, logits, novelty.clip(max=2)]
