"""Choose by how much each channel of a Linear layer's input is shifted and scaled before it is quantized.

Per tensor, the channel with the widest range sets the step for all. A shift puts each channel's range around 0, and a
scale s = r^alpha / w^(1 - alpha) makes a channel of range r narrower at the cost of its weights, the largest of which
is w (SmoothQuant, Xiao et al. 2023). With an alpha of 1 all channels have the same range. Weights bear that: each
output has a scale of its own, and they are rounded to keep the layer's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.quantization.calibration.calibration_table import ChannelStatistics, PerChannel
from edgevit.recipes import Alpha

_SMALLEST = 1e-5  # of the largest: channels narrower than that, or without weights, are treated as if they were not


#: How far beyond what calibration saw a channel is expected to reach, and how many of its standard deviations at least.
#: Scaling leaves many channels at the edge of the range, where every image that was not seen would be clipped.
#: benchmarks/results/ablations.md has what other values give.
HEADROOM = 1.1
DEVIATIONS = 4.0


class Migration(NamedTuple):
    """How a layer's input x is rewritten: (x - shift) / scale, both (K,), and how far from 0 it reaches then."""

    scale: PerChannel
    shift: PerChannel
    reach: float


class Equalization(NamedTuple):
    """By what each channel is divided, (K,), never less than 1, and the range to expect then."""

    scale: PerChannel
    low: float
    high: float


def choose_equalization(channels: ChannelStatistics, share: float) -> Equalization:
    """Return divisors that take the widest ``share`` of the channels down to the range of the next one.

    What wide channels gain in step, their larger weights lose sooner or later; benchmarks/results/ablations.md has what
    shares give (`channel_equalization`).
    """
    reach = reach_of(channels)
    limit = np.sort(reach)[::-1][min(int(share * len(reach)), len(reach) - 1)]
    scale = np.maximum(1.0, reach / limit)
    low = float(HEADROOM * (channels.minimum / scale).min())
    return Equalization(scale, max(low, -float(limit)), float(limit))


def choose_migration(
    channels: ChannelStatistics, weights: Sequence[NDArray[np.float32]], *, shiftable: bool, alpha: Alpha = 1.0
) -> Migration:
    """Return the shift and the scale of the input of layers of these ``weights`` (K, N).

    Args:
        channels: of the input that all layers read.
        weights: of the layers.
        shiftable: whether the layers can take up a shift.
        alpha: how much of a channel's range goes into the weights; "off" scales none.

    """
    weight = np.abs(np.concatenate(weights, axis=1))
    # Of what was seen once (one image, behind the last attention) a shift would leave nothing to take a range from.
    varies = bool((channels.maximum > channels.minimum).any())
    shift = (channels.minimum + channels.maximum) / 2 if shiftable and varies else np.zeros(len(weight))
    seen = HEADROOM * np.maximum(channels.maximum - shift, shift - channels.minimum)
    reach = _at_least(np.maximum(seen, DEVIATIONS * np.sqrt(channels.variance)))
    largest = _at_least(weight.max(axis=1).astype(np.float64))
    scale = np.ones(len(weight))
    if alpha != "off":
        share = 1.0 if alpha == "each" else alpha
        scale = _normalised(reach**share / largest ** (1 - share))
    return Migration(scale, shift, float((reach / scale).max()))


def reach_of(channels: ChannelStatistics) -> PerChannel:
    """Return how far from 0 each channel is expected to reach, (K,), more than 0."""
    return _at_least(
        np.maximum(HEADROOM * np.maximum(channels.maximum, -channels.minimum), DEVIATIONS * np.sqrt(channels.variance))
    )


def _at_least(values: PerChannel) -> PerChannel:
    return np.maximum(values, max(_SMALLEST * values.max(), np.finfo(np.float32).tiny))


def _normalised(scale: PerChannel) -> PerChannel:
    normalised: PerChannel = scale / np.exp(np.log(scale).mean())
    return normalised
