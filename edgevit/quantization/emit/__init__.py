"""From one quantization plan to one ONNX file per dialect: the form that an engine runs in integers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgevit.dependencies import require
from edgevit.errors import InputError

if TYPE_CHECKING:
    from edgevit.quantization.arithmetic import Scheme
    from edgevit.quantization.emit.dialect import Dialect
    from edgevit.quantization.emit.rewrite import WeightBits
    from edgevit.quantization.plan import QuantizationPlan

#: By name, the module that declares each as ``DIALECT``; a dialect is added by one line here, and that module.
DIALECTS: dict[str, str] = {
    "onnxruntime": "edgevit.quantization.emit.onnxruntime",
    "openvino": "edgevit.quantization.emit.openvino",
    "portable": "edgevit.quantization.emit.portable",
    "tensorrt": "edgevit.quantization.emit.tensorrt",
    "tensorrt-legacy": "edgevit.quantization.emit.tensorrt_legacy",
}

#: What the two products of attention are multiplied in: float, or what Linear layers are.
AttentionForm = Literal["float", "quantized"]


def dialect_called(name: str) -> Dialect:
    """Return the dialect called ``name``.

    Raises:
        InputError: if there is none.
        MissingDependencyError: if onnx-ir is not installed.

    """
    if name not in DIALECTS:
        raise InputError(f"there is no dialect '{name}'", remedy=f"use one of {', '.join(DIALECTS)}")
    require("onnx_ir", extra="quantize")
    found: Dialect = importlib.import_module(DIALECTS[name]).DIALECT
    return found


def scheme_of(dialect: str) -> Scheme:
    """Return how a plan for ``dialect`` must store activations; raises what ``dialect_called`` does."""
    return dialect_called(dialect).scheme


def emit(
    model: Path,
    plan: QuantizationPlan,
    dialect: str,
    path: Path,
    *,
    weight_bits: WeightBits = 8,
    attention: AttentionForm = "float",
) -> Mapping[str, str]:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 in ``dialect``, one of ``DIALECTS``.

    Weights are stored as int8, so the file is about a quarter of the size. The batch stays dynamic. ``weight_bits`` 7
    is for x86 processors without VNNI, which would overflow with 8. Returns the attentions that stay in float though
    ``attention`` is to be quantized, with the reasons.

    Raises:
        InputError: if there is no such dialect, or it has no form for attention in integers.
        MissingDependencyError: if onnx-ir is not installed.
        BundleError: if the plan was made for another model, or stores activations as the dialect cannot.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    if attention == "quantized":
        kept: Mapping[str, str] = _form(dialect, "emit_attention", "attention in INT8")(model, plan, path, weight_bits)
        return kept
    dialect_called(dialect).emit(model, plan, path, weight_bits)
    return {}


def emit_float8(
    model: Path, plan: QuantizationPlan, dialect: str, path: Path, *, attention: AttentionForm = "float"
) -> Mapping[str, str]:
    """Write the float32 ONNX file ``model`` to ``path`` as FP8 (E4M3) in ``dialect``, with the ranges of an INT8 plan.

    Returns and raises what ``emit`` does.
    """
    if attention == "quantized":
        kept: Mapping[str, str] = _form(dialect, "emit_float8_attention", "FP8")(model, plan, path)
        return kept
    _form(dialect, "emit_float8", "FP8")(model, plan, path)
    return {}


def emit_float32(model: Path, dialect: str, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` in the form that the engine of ``dialect`` runs fastest.

    Raises:
        InputError: if there is no such dialect.
        MissingDependencyError: if onnx-ir is not installed.
        GraphError: if the file is no valid ONNX model.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    _form(dialect, "emit_float32", "float32")(model, path)


def _form(dialect: str, function: str, what: str) -> Callable[..., Any]:
    """Return the ``function`` of a dialect that not all have."""
    found: Callable[..., Any] | None = getattr(dialect_called(dialect), function)
    if found is None:
        others = [name for name in DIALECTS if getattr(dialect_called(name), function)]
        raise InputError(
            f"the dialect {dialect} has no form for {what}", remedy=f"use a target of dialect {' or '.join(others)}"
        )
    return found
