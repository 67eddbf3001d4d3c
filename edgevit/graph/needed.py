"""Says what is missing where graphs cannot be read or written: a device does without."""

from __future__ import annotations

from edgevit.dependencies import require


def check_graph_packages() -> None:
    """Check that the packages that read and write ONNX graphs, and the engine that runs them, are installed.

    Raises:
        MissingDependencyError: if one is not; the remedy is the command that installs it.

    """
    require("onnx_ir", extra="quantize")
    require("onnxruntime", extra="onnxruntime")
