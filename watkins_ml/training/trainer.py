"""One network in training: its steps, its validation, and all of it that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from watkins_ml.audio.any_settings import AnySettings
from watkins_ml.config import ExperimentConfig
from watkins_ml.core.device import autocast, choose_precision
from watkins_ml.core.distributed import SINGLE_PROCESS, ProcessGroup, SingleProcess, current
from watkins_ml.core.errors import UserError, first_line
from watkins_ml.core.metric_names import TRAIN_ACCURACY, TRAIN_LOSS, VAL, VAL_LOSS
from watkins_ml.dataset.loading import Side
from watkins_ml.models.family import frozen_tensors
from watkins_ml.training.checkpoints import Checkpoint
from watkins_ml.training.criterion import Criterion, SpeciesCriterion
from watkins_ml.training.cuda_graph import CudaGraphed
from watkins_ml.training.monitor import rank
from watkins_ml.training.optimizer import AdamW, parameter_groups, schedule
from watkins_ml.transforms.transform import Batch, SpectrogramTransform, apply, of_batches, of_windows

Forward = Callable[[torch.Tensor], torch.Tensor]
Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""Labels (N,) and logits (N, C) to accuracy, macro_{f1,precision,recall} and calibrated_loss."""


@dataclass
class Progress:
    """How far a training has come; with the tensors, all that a checkpoint holds."""

    epoch: int = 0
    best_epoch: int = 0
    stale_epochs: int = 0

    def count(self, is_best: bool) -> None:
        """Count one more epoch; where it is the best so far none is stale."""
        self.epoch += 1
        self.best_epoch, self.stale_epochs = (self.epoch, 0) if is_best else (self.best_epoch, self.stale_epochs + 1)


class Trainer:
    """One network, its optimiser and the data order; everything that changes during training. See `compose`."""

    def __init__(
        self,
        config: ExperimentConfig,
        model: nn.Module,
        class_weights: torch.Tensor,
        device: torch.device,
        forward: Forward | None = None,
        train_forward: Forward | None = None,
        transforms: Sequence[SpectrogramTransform] | None = None,
        group: SingleProcess | None = None,
        average: nn.Module | None = None,
        chances: torch.Tensor | None = None,
        criterion: type[Criterion] = SpeciesCriterion,
    ):
        """A trainer of `model` on `device`.

        Args:
            class_weights: float32, shape (species,): the weight of a recording in the loss.
            forward: what is validated: the network that is kept, or its tail where outputs of frozen stages are cached.
            train_forward: the model as it is called in a training step, by all processes together or compiled.
            transforms: applied to training batches; default those of `config`.
            group: the processes that train it; all draw the same batches, and each takes its shard.
            average: a copy of the model that gets the moving average of its weights, and is the one that is kept.
            chances: float32, shape (recordings,): how often each is drawn, after which the loss weighs all alike.
            criterion: what the network learns to answer.
        """
        train, optim = config.train, config.optim
        self.config, self.device, self.group = config, device, group or current()
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average = average
        self.kept = self.model if average is None else average
        """What is validated and, at the best epoch, kept."""
        self.progress = Progress()
        self.best: Checkpoint | None = None
        """The network at the best epoch so far, and that epoch's facts."""
        forward = self.kept if forward is None else forward  # a module may have a length, and so be false
        self._train_forward = self.model if train_forward is None else train_forward
        self.transforms = of_batches(config.augment) if transforms is None else transforms
        self.draw = of_windows(config.augment)
        self.precision = choose_precision(train.amp, device)
        self.class_weights = class_weights.to(device)
        groups = parameter_groups(self.model, optim)
        self._shares = [group["lr"] / optim.lr for group in groups]
        self.optimizer = AdamW(groups, optim.weight_decay)
        by_count = {} if train.monitor == VAL_LOSS else {"mode": "max", "threshold": 0, "threshold_mode": "abs"}
        self.scheduler = schedule(self.optimizer, optim, train.epochs, **by_count)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        uses_graphs = device.type == "cuda" and not isinstance(self.group, ProcessGroup)
        self.step = CudaGraphed(self._step, self._step_settings) if uses_graphs else self._step
        self.predict = CudaGraphed(forward, lambda: None) if uses_graphs else forward
        self.order = torch.Generator().manual_seed(train.seed)
        self.chances = chances
        step_weights = self.class_weights if chances is None else torch.ones_like(self.class_weights)
        self.criterion = criterion(step_weights, train.label_smoothing)

    @property
    def learning_rate(self) -> float:
        """That of the head, which is the highest."""
        return self.optimizer.param_groups[-1]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for group, share in zip(self.optimizer.param_groups, self._shares, strict=True):
            group["lr"] = rate * share

    def _step_settings(self) -> tuple[float, float]:
        return self.learning_rate, self._ema_decay

    @property
    def _ema_decay(self) -> float:
        """None in the first epoch, whose weights are far from any that will be good."""
        return self.config.train.ema_decay if self.progress.epoch else 0.0

    def augment(
        self, spectrograms: torch.Tensor, labels: torch.Tensor, settings: AnySettings | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the transforms, in order, to spectrograms (batch, 1, n_mels, frames) and their labels."""
        batch = apply(self.transforms, Batch(spectrograms, labels, len(self.class_weights), settings), self.order)
        return batch.spectrograms, batch.labels

    def train_epoch(self, side: Side, on_step: Callable[[str], None]) -> dict[str, float]:
        """One pass over the training side; loss and accuracy are running means over it.

        After each step `on_step` gets a note of them to show.
        """
        self.model.train()
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)  # weighted loss, weight, correct
        seen = 0
        for spectrograms, labels in side.batches(self.config.data.batch_size, self.order, self.chances, self.draw):
            spectrograms, labels = self.group.shard(*self.augment(spectrograms, labels, side.settings))
            moved = (each.to(self.device, non_blocking=True) for each in (spectrograms, labels))
            measured = self._step_or_explain(*moved)
            if len(labels):  # the shard of a last batch may be empty
                totals += measured
            seen += len(labels)
            readable = self.device.type == "cpu"  # reading totals from a GPU would make every step wait for it
            on_step(f"loss {totals[0] / totals[1]:.3f}  accuracy {totals[2] / seen:.3f}" if readable else "")
        loss, weight, correct = self.group.all_reduce(totals).tolist()
        self._assert_finite(loss)
        return {TRAIN_LOSS: loss / weight, TRAIN_ACCURACY: correct / len(side)}

    def _step_or_explain(self, spectrograms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        try:
            return self.step(spectrograms, targets)
        except RuntimeError as error:
            if torch.OutOfMemoryError in (type(error), type(error.__context__)):  # capturing a graph raises another
                raise UserError(
                    f"data.batch_size {self.config.data.batch_size}: the GPU's memory cannot take so many recordings "
                    "at a time; lower it"
                ) from None
            if not self.config.train.compile or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            raise UserError(
                f"train.compile: torch cannot compile the network on this machine ({first_line(error)}); set "
                "train.compile=false"
            ) from None

    def _step(self, spectrograms: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One step on spectrograms and their labels, as the criterion takes them."""
        with autocast(self.device, self.precision):
            logits = self._train_forward(spectrograms)
        loss, weight, correct = self.criterion(logits.float(), targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.group.scale_loss(loss, weight)).backward()
        if (limit := self.config.optim.clip_norm) is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            move_average(self.average, self.model, self._ema_decay)
        return torch.stack([loss.detach() * weight, weight, correct]).double()

    def validate(self, side: Side, score: Score) -> dict[str, float]:
        size = self.config.data.batch_size
        logits = predict_logits(self.kept, side, size, self.device, self.precision, self.predict, self.group)
        labels = side.labels.cpu()
        loss = self.criterion.validation_loss(logits, labels, self.class_weights.cpu())
        self._assert_finite(loss)
        scores = score(labels.numpy(), logits.numpy())
        return {VAL_LOSS: loss} | {VAL + name: value for name, value in scores.items()}

    def finish_epoch(self, metrics: dict[str, float]) -> bool:
        """Count the epoch and step the learning rate's schedule; returns whether it is the best so far."""
        monitor = self.config.train.monitor
        is_best = self.best is None or rank(metrics, monitor) < rank(self.best.facts["metrics"], monitor)
        self.progress.count(is_best)
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            # the best epoch's number grows with each better epoch, also with one that only a tie makes better
            self.scheduler.step(metrics[VAL_LOSS] if monitor == VAL_LOSS else self.progress.best_epoch)
        else:
            self.scheduler.step()
        return is_best

    def _assert_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is not a number in epoch {self.progress.epoch + 1}; "
                f"lower optim.lr ({self.config.optim.lr:g}) or set train.amp=none"
            )

    def checkpoint(self, epoch: dict[str, object]) -> Checkpoint:
        """Everything that an exact continuation needs; `epoch` holds the measurements of the one just ended."""
        facts = vars(self.progress) | epoch
        if self.progress.stale_epochs == 0:
            frozen = frozen_tensors(self.model)  # shared, not copied: torch.save then writes them once
            copy = {name: tensor.clone() for name, tensor in self.kept.state_dict().items() if name not in frozen}
            self.best = Checkpoint({"model": frozen | copy}, facts)
        assert self.best is not None  # the first epoch is the best so far
        tensors = {
            "model": self.model.state_dict(),
            "best": self.best.tensors,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "order": self.order.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else [],
        }
        if self.average is not None:
            tensors["average"] = self.average.state_dict() | frozen_tensors(self.model)
        return Checkpoint(tensors, facts | {"best": self.best.facts})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the state of the checkpoint."""
        tensors, facts = checkpoint
        self.model.load_state_dict(tensors["model"])
        self.best = Checkpoint({"model": tensors["best"]["model"] | frozen_tensors(self.model)}, facts["best"])
        if self.average is not None:
            self.average.load_state_dict(tensors["average"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.scheduler.load_state_dict(tensors["scheduler"])
        self.scaler.load_state_dict(tensors["scaler"])
        self.order.set_state(tensors["order"])
        torch.set_rng_state(tensors["rng"])
        if self.device.type == "cuda":
            for state in tensors["cuda_rng"]:  # none where it was made on a machine without a GPU
                torch.cuda.set_rng_state(state, self.device)
        self.progress = Progress(**{name: facts[name] for name in vars(self.progress)})


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    side: Side,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype | None = None,
    forward: Forward | None = None,
    group: SingleProcess = SINGLE_PROCESS,
) -> torch.Tensor:
    """Logits (recordings, species) on the CPU in float32, in the order of the side.

    `forward` is called instead of the model: its tail, where the side holds outputs of frozen stages; it may reuse the
    memory of its output. The processes of `group` share the work, and all get all logits.
    """
    model.eval()
    forward = model if forward is None else forward
    logits: list[torch.Tensor | int] = []
    for number, (spectrograms, _) in enumerate(side.batches(batch_size)):
        if not group.owns_batch(number):
            logits.append(len(spectrograms))
            continue
        with autocast(device, precision):
            logits.append(forward(spectrograms.to(device, non_blocking=True)).float().clone())
    return group.gather(logits)


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the tensors of `average` towards those of `model`, to `decay` of the former and the rest of the latter."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in moving], [new for _, new in moving], 1 - decay)
    for mine, new in pairs:
        if not mine.is_floating_point():
            mine.copy_(new)  # how many batches a normalisation has seen
