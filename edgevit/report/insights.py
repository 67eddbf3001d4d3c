"""What a report shows beside the manifest: what lies behind accuracies, and what was seen inside the models."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgevit.evaluation.accuracy_details import AccuracyDetails
from edgevit.quantization.accuracy.noise import LayerNoise

#: The size of all pictures of a page together, in bytes, so that the page stays small.
MOST_PICTURES = 1_600_000


class LayersSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The noise of each layer of the INT8 model that ``variants`` were written from, on so many ``images``."""

    variants: tuple[str, ...]
    images: int
    layers: tuple[LayerNoise, ...]


class MapsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Where one model looks: pictures by name, one for each sample, of the last block and of all; None if it has none.

    ``said`` is what was run. Overlaps, in 0..1, are means over the samples of the share that is common with float32.
    """

    variant: str
    said: str
    last: tuple[str, ...]
    rollout: tuple[str, ...] | None
    overlap_last: float | None = None
    overlap_rollout: float | None = None


class AttentionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Where models look in ``photos``, pictures by name; float32 is the first of ``models``.

    ``of_class_token`` says whether what the class token looks at is shown, or the mean over all patches.
    """

    photos: tuple[str, ...]
    of_class_token: bool
    models: tuple[MapsSeen, ...]


class CalibrationSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How activations were calibrated for ``scheme``: on which images, how ranges were read off, what stays float."""

    scheme: str
    images: int
    images_sha256: str
    observer: str
    layers: int
    integer_layers: int
    kept_float: tuple[str, ...] = ()
    limit: str | None = None


class Insights(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; ``pictures`` are JPEG files by name. ``missing`` says in sentences what is not shown, and why."""

    details: Mapping[str, AccuracyDetails] = {}
    layers: tuple[LayersSeen, ...] = ()
    attention: AttentionSeen | None = None
    calibrations: tuple[CalibrationSeen, ...] = ()
    pictures: Mapping[str, bytes] = {}
    missing: tuple[str, ...] = ()


#: Of a manifest alone.
NO_INSIGHTS = Insights()
