"""The arithmetic behind every figure that EdgeViT prints: rates, tests, intervals, distances between outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Logits = NDArray[np.float32]
Features = NDArray[np.float32]

#: Images that are compared with all others at once: bounds the memory that nearest neighbours take.
_BLOCK = 1024


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a rate of ``successes`` in ``trials``, within 0..1.

    Unlike the normal approximation it stays honest near 0 and 1 and for few trials. Wilson 1927, "Probable inference,
    the law of succession, and statistical inference".

    Raises:
        ValueError: if the counts are not those of a rate.

    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials are no rate")
    from statistics import NormalDist  # applications that load start sooner without it

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    shrink = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At 0 and 1 the interval ends there exactly; rounding would leave it a little off.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def mcnemar_p(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    ``lost`` images are right for the reference only, ``gained`` for the variant only; under the null hypothesis each is
    equally likely: a binomial test with probability 1/2 (McNemar 1947, the exact form).

    Raises:
        ValueError: if a count is negative.

    """
    if lost < 0 or gained < 0:
        raise ValueError(f"{lost} and {gained} are no counts")
    trials = lost + gained
    term = tail = 1  # whole numbers: exact for any count
    for k in range(min(lost, gained)):
        term = term * (trials - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << trials))


def median_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of the median of ``values``, which are independent, such as one ratio per round.

    It lies between order statistics, whose coverage is known whatever the distribution, interpolated so that it is that
    of ``confidence`` (Hettmansperger and Sheather 1986, "Confidence intervals based on interpolated order statistics").
    Fewer than six values cannot cover 95 %: then it is all of their range, which covers less.

    Raises:
        ValueError: if there are no values.

    """
    if not values:
        raise ValueError("there is no median of no values")
    ordered, count = sorted(values), len(values)
    # Whole numbers, divided at the end: exact, and no float is too small for it.
    tails = list(itertools.accumulate(math.comb(count, k) for k in range((count + 1) // 2)))

    def coverage(k: int) -> float:
        """Return how often the median lies between the k-th smallest and the k-th largest value."""
        return 1 - 2 * tails[k - 1] / (1 << count)

    k = max((k for k in range(1, (count + 1) // 2 + 1) if coverage(k) >= confidence), default=1)
    low, high = ordered[k - 1], ordered[count - k]
    if coverage(k) < confidence or k + 1 > count // 2:
        return low, high
    share = (coverage(k) - confidence) / (coverage(k) - coverage(k + 1))
    inward = (count - k) * share / (k + (count - 2 * k) * share)
    return low + inward * (ordered[k] - low), high - inward * (high - ordered[count - k - 1])


def percentiles(values: ArrayLike, levels: Sequence[float]) -> list[float]:
    """Return the percentiles of ``values`` at ``levels`` (0..100), linearly interpolated."""
    return [float(value) for value in np.percentile(np.asarray(values, dtype=np.float64), levels)]


def finite_rows(logits: Logits) -> NDArray[np.bool_]:
    """Return, for each image, whether all of its logits (N, classes) are finite numbers."""
    return np.asarray(np.isfinite(logits).all(axis=1), dtype=np.bool_)


def top_k_hits(logits: Logits, labels: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Return, for each image, whether its label (N,) is among the ``k`` largest logits (N, classes).

    A class with the same logit as the label counts as before it if its index is lower, as in argmax. An image with a
    logit that is not finite is a miss: it has no ranking. One logit decides between label 0 and 1: see ``as_classes``.
    """
    logits = as_classes(logits)
    rows = np.arange(len(labels))
    own = logits[rows, labels][:, None]
    classes = np.arange(logits.shape[1])
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return np.asarray(ahead.sum(axis=1) < k, dtype=np.bool_) & finite_rows(logits)


def agreement(reference: Logits, logits: Logits, *, independent: bool = False) -> float:
    """Return the share of images whose largest logit is the same class in both (N, classes).

    With ``independent`` logits, each a yes or no of its own, it is the share of all decisions that are the same. An
    image with a logit that is not finite agrees with nothing.
    """
    finite = finite_rows(reference) & finite_rows(logits)
    if independent:
        return float(((reference > 0) == (logits > 0))[finite].sum() / max(1, logits.size))
    same = reference.argmax(axis=1) == logits.argmax(axis=1)
    return float((same & finite).mean())


def decisions_f1(reference: Logits, logits: Logits) -> float | None:
    """Return the F1 of all yes decisions (logits above 0) with the reference's as the truth; None without any.

    It is the micro average, over all images and labels (van Rijsbergen 1979).
    """
    wanted, found = reference > 0, logits > 0
    total = int(wanted.sum()) + int(found.sum())
    return 2 * int((wanted & found).sum()) / total if total else None


def mean_average_precision(logits: Logits, truth: NDArray[np.bool_]) -> float | None:
    """Return the mean over labels of the average precision of logits (N, labels); None if no image has any label.

    A label's is the sum of the precisions at each threshold, weighted by how much recall rises there, without
    interpolation, as scikit-learn's ``average_precision_score`` has it. Labels that no image has are left out.
    """
    found = []
    for scores, wanted in zip(logits.T, truth.T, strict=True):
        if wanted.any():
            order = np.argsort(-scores, kind="stable")
            hits = np.cumsum(wanted[order])
            last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, [True]))  # of those with equal scores
            gained = np.diff(hits[last], prepend=0)
            found.append(float((gained * hits[last] / (last + 1)).sum() / hits[-1]))
    return float(np.mean(found)) if found else None


def as_classes(logits: Logits) -> Logits:
    """Return one logit (N, 1), the log-odds of a yes, as those of two classes (N, 2): no and yes; others as they are.

    The softmax over 0 and z is sigmoid(z), and the larger one is the decision.
    """
    return np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def kl_divergences(reference: Logits, logits: Logits, *, independent: bool = False) -> NDArray[np.float64]:
    """Return, for each image (N,), KL(softmax(reference) || softmax(logits)), in nats; both are (N, classes).

    With ``independent`` logits it is the sum over them of the divergences of sigmoids.
    """
    if independent:
        one, other = reference.astype(np.float64), logits.astype(np.float64)
        yes, no = np.logaddexp(0, -other) - np.logaddexp(0, -one), np.logaddexp(0, other) - np.logaddexp(0, one)
        share = np.exp(-np.logaddexp(0, -one))
        return np.asarray((share * yes + (1 - share) * no).sum(axis=1))
    p, q = _log_softmax(reference), _log_softmax(logits)
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))


def mean_kl(reference: Logits, logits: Logits, *, independent: bool = False) -> float:
    """Return the mean over images of ``kl_divergences``, in nats."""
    # Never below zero but for rounding, when both are the same.
    return max(0.0, float(kl_divergences(reference, logits, independent=independent).mean()))


def sqnr_db(reference: Logits, logits: Logits) -> float | None:
    """Return the ratio of the reference's power to that of the difference, in dB; None if there is no difference.

    It is also None where the reference is zero throughout, which leaves nothing to relate the difference to.
    """
    signal: NDArray[Any] = reference.astype(np.float64)
    noise_power = float(np.square(signal - logits).sum())
    signal_power = float(np.square(signal).sum())
    if noise_power == 0 or signal_power == 0:
        return None
    return 10 * math.log10(signal_power / noise_power)


def cosines(reference: Features, features: Features) -> NDArray[np.float64]:
    """Return, for each image, the cosine similarity (N,) of its features in both (N, width), in -1..1.

    It is 0 where one of the two has no direction: where it is zero, or not finite.
    """
    (one, _), (other, _) = _directions(reference), _directions(features)
    return np.asarray(np.clip((one * other).sum(axis=1), -1.0, 1.0), dtype=np.float64)


def mean_cosine_between(features: Features) -> float | None:
    """Return the mean cosine similarity of all pairs of different images (N, width); None if there is no pair.

    Images whose features have no direction are left out.
    """
    directions, valid = _directions(features)
    count = int(valid.sum())
    if count < 2:
        return None
    total = directions.sum(axis=0)  # the square of the sum is the sum over all pairs, of which `count` are the same
    return float(total @ total - count) / (count * (count - 1))


def nearest_neighbors(features: Features) -> NDArray[np.int64]:
    """Return, for each image, which other one (N,) has the largest cosine similarity with it; features are (N, width).

    Of equals it is the first. Features without a direction neither have nor are a neighbour: theirs is -1.
    """
    directions, valid = _directions(features)
    units = directions.astype(np.float32)
    nearest = np.full(len(units), -1, dtype=np.int64)
    if int(valid.sum()) < 2:
        return nearest
    for start in range(0, len(units), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(units)))
        similarity = units[rows] @ units.T
        similarity[:, ~valid] = -np.inf
        similarity[np.arange(len(rows)), rows] = -np.inf
        nearest[rows] = np.where(valid[rows], similarity.argmax(axis=1), -1)
    return nearest


def _directions(features: Features) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return features (N, width) at length 1, or zero where they have no direction, and where they have one (N,)."""
    finite = np.where(finite_rows(features)[:, None], features, 0).astype(np.float64)
    lengths = np.linalg.norm(finite, axis=1, keepdims=True)
    valid = lengths[:, 0] > 0
    return np.divide(finite, lengths, out=np.zeros_like(finite), where=lengths > 0), valid
