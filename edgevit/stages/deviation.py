"""How far from float32 a model with convolutions is, and may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest
from edgevit.quantization.accuracy.output_distance import worst_sqnr_db
from edgevit.statistics import mean_kl

#: How far from float32 a model with convolutions in integers may be in any case: as far as the default recipe's
#: ``fallback`` lets INT8 take a ViT. These limits are choices of what accuracy is worth, not measurements.
_MOST_KL, _LEAST_SQNR = 0.002, 24.0
#: In dB, of a classifier: KL says what noise costs it, but for logits so flat that noise alone orders the classes.
_LEAST_SQNR_OF_LOGITS = 15.0
#: And how many times as far as without that.
_TIMES = 2.0


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far outputs are from float32's: KL in nats, None for features; SQNR in dB, None where they are the same."""

    kl: float | None
    sqnr: float | None

    @property
    def noise(self) -> float:
        """Noise, as a share of the power of the outputs."""
        return 0.0 if self.sqnr is None else 10 ** (-self.sqnr / 10)

    def say(self) -> str:
        """Return it in words."""
        if self.noise == math.inf:
            return "outputs that are not finite"
        noise = "no noise" if self.sqnr is None else f"SQNR {self.sqnr:.1f} dB"
        return noise if self.kl is None else f"KL {self.kl:.2g} nats, {noise}"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How far from float32 something may take a model that is as far as ``without`` it: convolutions in integers, say.

    A classifier is judged by its probabilities, as the recipe's limit judges it. Where logits are flat, as those of a
    model that is not trained are, probabilities hardly move whatever happens: then noise counts, too.
    """

    without: Deviation

    @property
    def noise(self) -> float:
        """The largest noise, as a share of the power of the outputs."""
        least = _LEAST_SQNR if self.without.kl is None else _LEAST_SQNR_OF_LOGITS
        return max(10 ** (-least / 10), _TIMES * self.without.noise)

    @property
    def kl(self) -> float:
        """The largest KL in nats."""
        return max(_MOST_KL, _TIMES * (self.without.kl or 0.0))

    def holds(self, deviation: Deviation) -> bool:
        """Say whether ``deviation`` is allowed."""
        return deviation.noise <= self.noise and (deviation.kl is None or deviation.kl <= self.kl)

    def used(self, deviation: Deviation) -> float:
        """Return which share ``deviation`` uses up of what is allowed beyond ``without``; 1 is all of it.

        Errors of layers are as good as independent, so that the shares of parts of a model add up, about.
        """
        shares = [(deviation.noise - self.without.noise) / (self.noise - self.without.noise)]
        if deviation.kl is not None:
            before = self.without.kl or 0.0
            shares.append((deviation.kl - before) / (self.kl - before))
        return max(0.0, *shares)


def deviation_between(manifest: Manifest, expected: NDArray[np.float32], outputs: NDArray[np.float32]) -> Deviation:
    """Return how far ``outputs`` are from those of float32, ``expected``, of the model of ``manifest``."""
    if not np.isfinite(outputs).all():
        return Deviation(None, -math.inf)
    kl = mean_kl(expected, outputs, independent=manifest.independent) if manifest.classes else None
    return Deviation(kl, worst_sqnr_db(expected, outputs, manifest.typed_outputs))
