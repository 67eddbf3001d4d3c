"""How a model is trained, as data."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edgevit.errors import InputError

Autocast = Literal["float32", "bfloat16"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyperparameters of a training run.

    ``learning_rate`` is the peak that is reached after ``warmup_epochs`` and falls to zero along a cosine.
    ``shift`` is the largest translation in pixels, ``flip`` and ``erase`` are the probabilities of a mirrored image
    and of an erased rectangle. ``ema_decay`` is per step. ``autocast`` is the type that matrix products run in.

    Raises:
        InputError: if a value is outside of its range.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 2
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    shift: int = 2
    flip: float = 0.5
    erase: float = 0.25
    autocast: Autocast = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "epochs": (1, 1_000_000),
            "batch_size": (1, 1_000_000),
            "learning_rate": (1e-12, 100),
            "weight_decay": (0, 10),
            "warmup_epochs": (0, self.epochs),
            "label_smoothing": (0, 0.99),
            "clip_norm": (1e-6, math.inf),
            "ema_decay": (0, 0.999999),
            "shift": (0, 10_000),
            "flip": (0, 1),
            "erase": (0, 1),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}", remedy=f"give {name} a value from {low:g} to {high:g}")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate at ``step``: linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017)."""
        warmup = self.warmup_epochs * steps_per_epoch
        total = self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
