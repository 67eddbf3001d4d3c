"""Which versions of onnxruntime run an ONNX file: by its opset and what it has of it.

``scripts/check_engine_versions.py`` proves the table: it runs each form on the first version that is said to run it.
"""

from __future__ import annotations

from collections.abc import Collection

#: The first version that EdgeViT's files of opset 20 and 21 are run on.
OLDEST = "1.20"
#: The first ones with Attention of opset 23, and with QuantizeLinear and DequantizeLinear of opset 23.
ATTENTION, QUANTIZE_23 = "1.23", "1.24"

_PLAIN, _NEW = 21, 23  # opsets
_LINEAR = frozenset(("DequantizeLinear", "QuantizeLinear"))


def first_version(opset: int, operators: Collection[str]) -> str:
    """Return the first version of onnxruntime that runs a file of that opset, made of these standard operators."""
    if opset <= _PLAIN:
        return OLDEST
    return QUANTIZE_23 if opset > _NEW or not _LINEAR.isdisjoint(operators) else ATTENTION
