"""Which versions of onnxruntime run an ONNX file: by its opset and what it has of it.

``scripts/check_engine_versions.py`` proves the table: it runs each form on the first version that is said to run it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

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


def contents_of(model: Path) -> tuple[int, frozenset[str]]:
    """Return the opset of the ONNX file ``model``, and the operators that it is made of."""
    import onnx  # not on a device, which is told by the manifest

    loaded = onnx.load(model, load_external_data=False)
    opset = max((each.version for each in loaded.opset_import if each.domain in ("", "ai.onnx")), default=0)
    return opset, frozenset(node.op_type for node in loaded.graph.node)


def narrowed(versions: str | None, first: str) -> str:
    """Return the range ``versions`` (PEP 440; None is any) without what comes before ``first``."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    kept = [
        str(each)
        for each in SpecifierSet(versions or "")
        if each.operator != ">=" or Version(each.version) > Version(first)
    ]
    lower = [] if any(each.startswith(">=") for each in kept) else [f">={first}"]
    return ",".join((*lower, *sorted(kept)))
