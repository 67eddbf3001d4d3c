"""What quantizing a model may cost: points of top-1, a divergence of the logits, or an angle between features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgevit.models.outputs import Output
from edgevit.numerals import ROUNDING, exactly, floored, within
from edgevit.quantization.accuracy.output_distance import worst_cosine, worst_kl, worst_sqnr_db
from edgevit.statistics import mean_kl, top_k_hits


class Limit(Protocol):
    """A measure of what is lost against float32, 0 where nothing is, and how much of it is ``allowed``."""

    @property
    def allowed(self) -> float:
        """The largest loss that holds."""
        ...

    def loss(self, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
        """Return what finite ``outputs`` (N, classes or features) lose against float32's."""
        ...

    def say(self, loss: float) -> str:
        """Return what was lost, in words."""
        ...

    def say_allowed(self) -> str:
        """Return what may be lost, in words."""
        ...

    def option(self, loss: float) -> str:
        """Return the option of the command line that would allow ``loss``."""
        ...


@dataclass(frozen=True, slots=True)
class Top1Limit:
    """At most ``allowed`` percentage points of top-1, for images of class indices ``labels`` (N,)."""

    allowed: float
    labels: NDArray[np.int64]

    def loss(self, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
        """Return by how many points top-1 fell; below 0 where it rose."""
        before, after = (int(top_k_hits(logits, self.labels, 1).sum()) for logits in (reference, outputs))
        return 100 * (before - after) / len(self.labels)

    def say(self, loss: float) -> str:
        """Return how top-1 changed."""
        if not loss:
            return "top-1 did not change"
        return f"top-1 {'fell' if loss > 0 else 'rose'} {_shown(loss, self, 2).removeprefix('-')} points"

    def say_allowed(self) -> str:
        """Return how far it may fall."""
        return f"{exactly(self.allowed)} allowed"

    def option(self, loss: float) -> str:
        """Return the --max-drop that would do."""
        return f"--max-drop {_rounded_up(loss)}"


@dataclass(frozen=True, slots=True)
class KlLimit:
    """A mean KL(float32 || model) of at most ``allowed`` nats, for images without labels.

    With ``independent`` logits each has probabilities of its own, and an image's divergences add up. Of a model with
    ``outputs`` of other kinds those that are logits count, and the worst of them.
    """

    allowed: float
    independent: bool = False
    outputs: tuple[Output, ...] = ()

    def loss(self, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
        """Return the divergence in nats."""
        if self.outputs:
            return worst_kl(reference, outputs, self.outputs)
        return mean_kl(reference, outputs, independent=self.independent)

    def say(self, loss: float) -> str:
        """Return the divergence."""
        digits = 2 - math.floor(math.log10(loss)) if loss > 0 else 0
        return f"KL is {_shown(loss, self, max(0, digits))} nats"

    def say_allowed(self) -> str:
        """Return how large it may be."""
        return f"{exactly(self.allowed)} allowed"

    def option(self, loss: float) -> str:
        """Return the --max-kl that would do."""
        return f"--max-kl {_rounded_up(loss)}"


@dataclass(frozen=True, slots=True)
class CosineLimit:
    """A mean cosine similarity of at least ``min_cosine`` with float32's features, for embedding models.

    Of a model with ``outputs`` of other kinds that of the worst one counts.
    """

    min_cosine: float
    outputs: tuple[Output, ...] = ()

    @property
    def allowed(self) -> float:
        """The largest mean of 1 - cosine that holds."""
        return 1 - self.min_cosine

    def loss(self, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
        """Return 1 - the mean cosine."""
        return 1 - worst_cosine(reference, outputs, self.outputs)

    def say(self, loss: float) -> str:
        """Return the mean cosine, never rounded up: one that misses a limit must not look as if it met it."""
        return f"the mean cosine is {floored(1 - loss, self.min_cosine, 6)}"

    def say_allowed(self) -> str:
        """Return how small it may be."""
        return f"at least {exactly(self.min_cosine)} wanted"

    def option(self, loss: float) -> str:
        """Return the --min-cosine that would do."""
        return f"--min-cosine {_rounded_down(1 - loss)}"


@dataclass(frozen=True, slots=True)
class SqnrLimit:
    """A signal to noise ratio of at least ``min_sqnr_db`` dB; of a model with several ``outputs`` that of the worst."""

    min_sqnr_db: float
    outputs: tuple[Output, ...] = ()

    @property
    def allowed(self) -> float:
        """The largest noise that holds, in parts of the signal."""
        return 10 ** (-self.min_sqnr_db / 10)

    def loss(self, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
        """Return the noise in parts of the signal."""
        ratio = worst_sqnr_db(reference, outputs, self.outputs)
        return 0.0 if ratio is None else 10 ** (-ratio / 10)

    def say(self, loss: float) -> str:
        """Return the ratio, never rounded up."""
        return f"SQNR is {_decibels(loss)} dB" if loss else "there is no noise"

    def say_allowed(self) -> str:
        """Return how small it may be."""
        return f"at least {exactly(self.min_sqnr_db)} dB wanted"

    def option(self, loss: float) -> str:
        """Return what a recipe would say: there is no option for it."""
        return f"fallback = {{min_sqnr_db = {_decibels(loss)}}} in a recipe"


def measure_loss(limit: Limit, reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    """Return what ``outputs`` lose by the measure of ``limit``; infinity where one is not a finite number."""
    return limit.loss(reference, outputs) if np.isfinite(outputs).all() else math.inf


def holds(limit: Limit, loss: float) -> bool:
    """Return whether ``loss`` is within ``limit``."""
    return loss <= limit.allowed + ROUNDING


def describe_loss(limit: Limit, loss: float) -> str:
    """Return ``loss`` in words, also where there is no number for it."""
    return limit.say(loss) if math.isfinite(loss) else "some outputs are not finite numbers"


def _rounded_up(loss: float) -> str:
    """Return a number of two digits that is at least ``loss``, never in powers of ten."""
    if not 0 < loss < math.inf:
        return "0"
    places = 1 - math.floor(math.log10(loss))
    factor = 10.0**places
    return f"{math.ceil(loss * factor - ROUNDING) / factor:.{max(places, 0)}f}"


def _decibels(noise: float) -> str:
    return f"{math.floor(-100 * math.log10(noise)) / 10:.1f}"


def _shown(loss: float, limit: Limit, decimals: int) -> str:
    """Return a loss of that many decimals: what is more than is allowed does not look as if it were not."""
    return within(loss, () if holds(limit, loss) else (limit.allowed,), decimals)


def _rounded_down(cosine: float) -> str:
    return f"{math.floor(cosine * 1e6 + 1e-6) / 1e6:.6f}" if math.isfinite(cosine) else "0"
