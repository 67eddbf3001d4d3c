"""From one quantization plan to one ONNX file per dialect: the form that an engine runs in integers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgevit.dependencies import require
from edgevit.errors import InputError
from edgevit.graph.weights import letting_go
from edgevit.quantization.engine_file import Emitted, save_for_engine

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.quantization.arithmetic import Scheme
    from edgevit.quantization.emit.dialect import Dialect
    from edgevit.quantization.emit.rewrite import WeightBits
    from edgevit.quantization.ptq import PtqModel

#: By name, the module that declares each as ``DIALECT``; a dialect is added by one line here, and that module.
DIALECTS: dict[str, str] = {
    "onnxruntime": "edgevit.quantization.emit.onnxruntime",
    "openvino": "edgevit.quantization.emit.openvino",
    "portable": "edgevit.quantization.emit.portable",
    "tensorrt": "edgevit.quantization.emit.tensorrt",
    "tensorrt-legacy": "edgevit.quantization.emit.tensorrt_legacy",
}

#: For each way to store activations, the dialect that fuses nothing: all values of its files are there to be looked at.
UNFUSED: dict[Scheme, str] = {"asymmetric": "openvino", "symmetric": "portable"}

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
    ptq: PtqModel,
    dialect: str,
    path: Path,
    *,
    weight_bits: WeightBits = 8,
    attention: AttentionForm = "float",
) -> Emitted:
    """Write the optimized model ``ptq`` to ``path`` as INT8 in ``dialect``, one of ``DIALECTS``; it stays as it is.

    Weights are stored as int8, so the file is about a quarter of the size. The batch stays dynamic. ``weight_bits`` 7
    is for x86 processors without VNNI, which would overflow with 8.

    Raises:
        InputError: if there is no such dialect, or it has no form for attention in integers.
        MissingDependencyError: if onnx-ir is not installed.
        BundleError: if the plan is not the model's, or stores activations as the dialect cannot.
        GraphError: if the model has no Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    if attention == "quantized":
        return _emitted(_form(dialect, "emit_attention", "attention in INT8"), ptq, path, weight_bits)
    return _emitted(dialect_called(dialect).emit, ptq, path, weight_bits)


def emit_float8(ptq: PtqModel, dialect: str, path: Path, *, attention: AttentionForm = "float") -> Emitted:
    """Write the optimized model ``ptq`` to ``path`` as FP8 (E4M3) in ``dialect``, with the ranges of an INT8 plan.

    Raises what ``emit`` does.
    """
    function = "emit_float8_attention" if attention == "quantized" else "emit_float8"
    return _emitted(_form(dialect, function, "FP8"), ptq, path)


def emit_float32(model: ir.Model, dialect: str, path: Path) -> Emitted:
    """Write the float32 ``model``, which is used up, to ``path`` in the form that the dialect's engine runs fastest.

    Raises:
        InputError: if there is no such dialect.
        MissingDependencyError: if onnx-ir is not installed.
        GraphError: if it is no valid model.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    passes: Sequence[ir.passes.PassBase] = _form(dialect, "float32_passes", "float32")()
    return save_for_engine(model, path, passes)


def _emitted(function: Callable[..., Emitted], ptq: PtqModel, path: Path, *arguments: object) -> Emitted:
    with letting_go(ptq.model.clone()) as model:
        return function(model, ptq.plan, path, *arguments)


def _form(dialect: str, function: str, what: str) -> Callable[..., Any]:
    """Return the ``function`` of a dialect that not all have."""
    found: Callable[..., Any] | None = getattr(dialect_called(dialect), function)
    if found is None:
        others = [name for name in DIALECTS if getattr(dialect_called(name), function)]
        raise InputError(
            f"the dialect {dialect} has no form for {what}", remedy=f"use a target of dialect {' or '.join(others)}"
        )
    return found
