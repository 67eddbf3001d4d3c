"""How a model is trained, as data."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edgevit.errors import InputError

Autocast = Literal["float32", "bfloat16", "auto"]
Mode = Literal["full", "norms", "probe"]
Sampling = Literal["shuffled", "balanced"]

_FINE = 1000  # steps of an epoch where the time is what counts


class TrainRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyperparameters of a training run.

    ``learning_rate`` is the peak that is reached after ``warmup_epochs`` and falls to zero along a cosine;
    ``layer_decay`` multiplies it once for each layer below the head. ``batch_size`` images make one step, in
    ``accumulate`` parts on each process. ``ema_decay`` is per step. ``autocast`` is the type that matrix products run
    in; "auto" measures. ``mode`` "probe" trains the head alone, "norms" LayerNorms and all biases. With ``minutes`` of
    training the run ends when they are over, whatever ``epochs`` says, and the learning rate follows the time.

    ``crop`` is the smallest share of an image that is cut out (1: the crop that the model is used with), and
    ``randaugment`` the number of random operations on it, of strength ``magnitude`` (0..10). ``shift`` is the largest
    translation in pixels; ``flip`` and ``erase`` are the probabilities of a mirrored image and of an erased rectangle.
    ``mixup`` and ``cutmix`` are the alphas of their Beta distributions (0: off). ``stochastic_depth`` is the
    probability that the last layer's branches are skipped.

    ``patience`` is how many epochs without a better validation end the run; with 0 there is no validation and the last
    epoch's weights are kept. ``validation_share`` of the training images is held out where the data have no validation
    images of their own. ``teacher_weight`` is the share of the loss that a teacher's targets at
    ``teacher_temperature`` have.

    Raises:
        InputError: if a value is outside of its range, or two contradict each other.
    """

    mode: Mode = "full"
    epochs: int = 30
    minutes: float = 0.0
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 1e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    warmup_epochs: float = 2.0
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    crop: float = 1.0
    randaugment: int = 0
    magnitude: float = 7.0
    shift: int = 2
    flip: float = 0.5
    erase: float = 0.25
    mixup: float = 0.0
    cutmix: float = 0.0
    stochastic_depth: float = 0.0
    sampling: Sampling = "shuffled"
    patience: int = 0
    validation_share: float = 0.15
    teacher_weight: float = 0.5
    teacher_temperature: float = 2.0
    autocast: Autocast = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "epochs": (1, 1_000_000),
            "minutes": (0, 1_000_000),
            "batch_size": (1, 1_000_000),
            "accumulate": (1, self.batch_size),
            "learning_rate": (1e-12, 100),
            "layer_decay": (0.01, 1),
            "weight_decay": (0, 10),
            "warmup_epochs": (0, self.epochs),
            "label_smoothing": (0, 0.99),
            "clip_norm": (1e-6, math.inf),
            "ema_decay": (0, 0.999999),
            "crop": (0.01, 1),
            "randaugment": (0, 20),
            "magnitude": (0, 10),
            "shift": (0, 10_000),
            "flip": (0, 1),
            "erase": (0, 1),
            "mixup": (0, 100),
            "cutmix": (0, 100),
            "stochastic_depth": (0, 0.9),
            "patience": (0, 1_000_000),
            "validation_share": (0.01, 0.9),
            "teacher_weight": (0, 1),
            "teacher_temperature": (0.1, 100),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}", remedy=f"give {name} a value from {low:g} to {high:g}")
        if self.mode == "probe" and (self.stochastic_depth > 0 or self.layer_decay < 1):
            raise InputError(
                "stochastic depth and layer decay change how the layers learn, and a probe keeps them as they are",
                remedy="use --mode full, or leave stochastic_depth and layer_decay out of the recipe",
            )

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate at ``step``: linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017)."""
        warmup = self.warmup_epochs * steps_per_epoch
        total = self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def rate_after(self, share: float) -> float:
        """Return the learning rate when ``share``, 0..1, of the ``minutes`` is over; the same curve."""
        return self.rate(round(min(1.0, share) * self.epochs * _FINE), _FINE)

    @property
    def draws_on_whole_images(self) -> bool:
        """Whether an image is changed before it is scaled to the model's size, so that it must be read each time."""
        return self.crop < 1 or self.randaugment > 0

    @property
    def mixes(self) -> bool:
        """Whether images of one batch are mixed in pairs."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def shows_images_unchanged(self) -> bool:
        """Whether every epoch sees the very same inputs."""
        return not (self.draws_on_whole_images or self.mixes or self.shift or self.flip or self.erase)


#: What is trained from random weights where the user names nothing.
USUAL_MODEL = "vit-micro"

#: What a run starts from where the user says nothing: for random weights, and for weights that have learnt before.
FROM_SCRATCH = TrainRecipe()
FINE_TUNING = TrainRecipe(
    epochs=10,
    batch_size=64,
    learning_rate=5e-4,
    layer_decay=0.75,
    warmup_epochs=1.0,
    ema_decay=0.99,
    crop=0.5,
    randaugment=2,
    shift=0,
    erase=0.1,
    stochastic_depth=0.05,
    patience=4,
    autocast="auto",
)
#: For a model that learns to do with fewer tokens, from itself with all of them.
RECOVERY = TrainRecipe(
    mode="norms",
    epochs=20,
    minutes=15.0,
    batch_size=32,
    learning_rate=5e-4,
    weight_decay=0.0,
    warmup_epochs=1.0,
    label_smoothing=0.0,
    ema_decay=0.99,
    crop=0.5,
    shift=0,
    erase=0.0,
    validation_share=0.1,
    teacher_weight=1.0,
    teacher_temperature=1.0,
    autocast="auto",
)
#: The same where all weights learn: they stay near what they were, for the loss is small from the start.
RECOVERY_OF_ALL = msgspec.structs.replace(RECOVERY, mode="full", learning_rate=1e-5)
LINEAR_PROBE = TrainRecipe(
    mode="probe",
    epochs=60,
    batch_size=128,
    learning_rate=1e-2,
    weight_decay=1e-4,
    warmup_epochs=2.0,
    ema_decay=0.99,
    shift=0,
    flip=0.0,
    erase=0.0,
    patience=15,
)
