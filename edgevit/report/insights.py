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


class MergedSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Which patches end in one token where ``variants`` merge tokens by ``budget``, seen in float32.

    They are ``trained`` where weights of their own make up for it, which may merge others than float32's do.

    ``photos`` and ``pictures`` are named, one for each sample, ``said`` says in words what is in each picture.
    ``tokens`` has for each sample the number of the token that each patch is in, in ``rows`` of ``columns``. Of the
    ``tokens_before`` the first block, ``tokens_after`` are behind the last one.
    """

    budget: float
    variants: tuple[str, ...]
    trained: bool
    rows: int
    columns: int
    tokens_before: int
    tokens_after: int
    photos: tuple[str, ...]
    pictures: tuple[str, ...]
    said: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]


class CalibrationSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How activations were calibrated for ``scheme``: on which images, how ranges were read off, what stays float.

    With a ``token_budget`` it is for variants whose tokens are merged by it.
    """

    scheme: str
    images: int
    images_sha256: str
    observer: str
    layers: int
    integer_layers: int
    kept_float: tuple[str, ...] = ()
    limit: str | None = None
    token_budget: float | None = None


class Insights(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; ``pictures`` are JPEG or PNG files by name. ``missing`` says in sentences what is left out and why."""

    details: Mapping[str, AccuracyDetails] = {}
    layers: tuple[LayersSeen, ...] = ()
    attention: AttentionSeen | None = None
    merged: MergedSeen | None = None
    calibrations: tuple[CalibrationSeen, ...] = ()
    pictures: Mapping[str, bytes] = {}
    missing: tuple[str, ...] = ()


#: Of a manifest alone.
NO_INSIGHTS = Insights()
