"""The sections of a recipe that are not about the model: data, optimizer, training and tracking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from watkins_ml.core.metric_names import VAL_MACRO_F1, Monitor
from watkins_ml.core.section import Section
from watkins_ml.core.server_names import EXPERIMENT, MODEL, is_experiment, is_model

LARGEST_SEED = 2**63 - 1
"""Of PyTorch's generators."""


class DataConfig(Section):
    dir: str
    """The folder that `watkins prepare` wrote."""
    batch_size: int = Field(ge=1, le=1_000_000)
    feature_cache_gb: float = Field(default=10, ge=0, le=1_000_000)
    """What the kept outputs of frozen stages (`features/` in `dir`) may take on disk; 0 keeps none."""
    memory_gb: float | None = Field(default=None, ge=0, le=1_000_000)
    """What the spectrograms may take in memory; where they need more, each batch is read from the disk. Null is half
    of what is free."""


class OptimConfig(Section):
    lr: float = Field(gt=0, le=1000)
    """AdamW's learning rate."""
    weight_decay: float = Field(ge=0, le=1000)
    schedule: Literal["plateau", "cosine"] = "plateau"
    """How the learning rate falls: after epochs without a better one, or along half a cosine to the last epoch
    (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    plateau_factor: float = Field(gt=0, lt=1)
    """ReduceLROnPlateau multiplies the learning rate by this ..."""
    plateau_patience: int = Field(ge=0, le=1_000_000)
    """... after this many epochs that were not the best so far (see `train.monitor`)."""
    warmup_epochs: int = Field(default=0, ge=0, le=1_000_000)
    """Epochs in which the learning rate rises to `lr`, before the cosine."""
    clip_norm: float | None = Field(default=None, gt=0, le=1_000_000)
    """The largest norm of all gradients of a step together; longer ones are scaled down to it. Null: no limit."""
    layer_decay: float = Field(default=1, gt=0, le=1)
    """Each stage of the network learns at the rate of the next one times this; the head at `lr`. Below 1, pretrained
    stages change less the nearer they are to the input (Howard and Ruder 2018, arXiv:1801.06146)."""

    @field_validator("warmup_epochs")
    @classmethod
    def _only_before_a_cosine(cls, epochs: int, others: ValidationInfo) -> int:
        if epochs and others.data.get("schedule") == "plateau":
            raise PydanticCustomError("warmup", "0, or optim.schedule cosine")
        return epochs


class TrainConfig(Section):
    epochs: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, le=LARGEST_SEED)
    amp: Literal["auto", "none", "bf16", "fp16"]
    """Mixed precision; `auto` is bf16 (or fp16 on older cards) on a GPU and none on a CPU."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    compile: bool = False
    """Let `torch.compile` fuse the layers of a training step: minutes at the start for faster epochs after it."""
    early_stopping_patience: int = Field(ge=1, le=1_000_000)
    """Stop after this many epochs that were not the best so far (see `train.monitor`)."""
    monitor: Monitor = VAL_MACRO_F1
    """By which column of `history.csv` the best epoch is found, whose network is kept: `val_macro_f1` or
    `val_accuracy`, of equals the one of the lower calibrated loss; `val_loss`, the loss weighted by class, as in the
    original study; `val_calibrated_loss`, the loss once the temperature is fitted."""
    ema_decay: float = Field(default=0, ge=0, lt=1)
    """Above 0 the network that is validated and kept has the exponential moving average of the weights over the steps,
    each with this share of the average before it (Polyak and Juditsky 1992); 0.99 is usual for short trainings."""
    refit: bool = False
    """Once the best epoch is known, train a second network for as many epochs, at the same learning rates, on training
    and validation recordings together; it is the one that is tested and registered. For few tapes a species, of which
    validation takes one away."""
    class_weights: Literal["balanced", "sampled", "tapes", "none"]
    """What rare species get: `balanced` weighs the loss by the inverse of their recordings. `sampled` draws every
    species equally often instead, `tapes` also every tape of a species, and the loss weighs all alike."""
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    """Share of the target that is spread over all species (Szegedy et al. 2016); 0 is none."""


def _name(is_name: Callable[[str], bool], wanted: str) -> Callable[[str | None], str | None]:
    """A validator of names, see `server_names`."""

    def check(value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise PydanticCustomError("name", "{wanted}", {"wanted": wanted})
        return value

    return check


class TrackingConfig(Section):
    experiment: Annotated[str, AfterValidator(_name(is_experiment, EXPERIMENT))]
    register_as: Annotated[str | None, AfterValidator(_name(is_model, MODEL))]
    """Name of the registered model, or null to register nothing."""
    system_metrics: bool = False
    """Also record CPU, memory and GPU use with MLflow's own monitor."""
    log_checkpoints: Literal["best", "all", "none"] = "best"
    """Which checkpoints of a finished run are sent to MLflow: that of the kept epoch, also the last one with the state
    of the optimizer, or none. The trained model is sent in any case."""
