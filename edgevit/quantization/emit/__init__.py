"""From one quantization plan to one ONNX file per dialect: the form that an engine runs in integers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.dependencies import require
from edgevit.errors import InputError

if TYPE_CHECKING:
    from edgevit.quantization.plan import QuantizationPlan, Scheme

#: Each is a module of this package, and named after the backend that it is for.
DIALECTS = ("onnxruntime", "openvino")

_ASYMMETRIC = ("onnxruntime", "openvino")


def scheme_of(dialect: str) -> Scheme:
    """Return how ``dialect`` stores the inputs of Linear layers: with a zero point where its engine takes one."""
    return "asymmetric" if dialect in _ASYMMETRIC else "symmetric"


def emit(model: Path, plan: QuantizationPlan, dialect: str, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 in ``dialect``, one of ``DIALECTS``.

    Weights are stored as int8, so the file is about a quarter of the size. The batch stays dynamic.

    Raises:
        InputError: if there is no such dialect.
        MissingDependencyError: if onnx-ir is not installed.
        BundleError: if the plan was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    if dialect not in DIALECTS:
        raise InputError(f"there is no dialect '{dialect}'", remedy=f"use one of {', '.join(DIALECTS)}")
    require("onnx_ir", extra="quantize")
    module = importlib.import_module(f"{__name__}.{dialect}")
    emitter: Callable[[Path, QuantizationPlan, Path], None] = module.emit
    emitter(model, plan, path)
