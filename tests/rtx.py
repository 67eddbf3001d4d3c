"""TensorRT-RTX's real parser and compiler: they need no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from edgevit.backends.base import BatchProfile
from edgevit.backends.kernel_report import KernelReport
from edgevit.backends.tensorrt.bindings import load_bindings
from edgevit.backends.tensorrt.builder import EngineBuild, build_engine
from edgevit.backends.tensorrt.engine_report import report_of_log
from edgevit.backends.tensorrt.log import DetailedLog

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="needs TensorRT-RTX (pip install tensorrt-rtx-cu13), which is for Linux on x86-64",
)


def compiled(path: Path, compute_capability: str = "8.6") -> tuple[bytes, KernelReport]:
    """Return the engine that TensorRT-RTX compiles of an ONNX file for one image, and the report of its kernels."""
    log = DetailedLog()
    job = EngineBuild(model=path, compute_capability=compute_capability, batch=BatchProfile())
    engine = build_engine(load_bindings("tensorrt-rtx"), job, log=log)
    return engine.content, report_of_log(log.lines)
