"""What is known of the noise of a layer."""

from __future__ import annotations

import msgspec


class LayerNoise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The SQNR in dB of a layer's output in INT8, with what earlier layers added; None where there is no noise.

    ``kept_float`` says why the layer itself is float, None where it is integer.
    """

    layer: str
    sqnr_db: float | None
    kept_float: str | None = None
