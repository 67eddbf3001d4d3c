"""Says what is missing where graphs cannot be read or written: a device does without."""

from __future__ import annotations

from edgevit.dependencies import require


def check_graph_packages() -> None:
    """Check that the packages that read and write ONNX graphs are installed.

    Raises:
        MissingDependencyError: if they are not; the remedy is the command that installs them.

    """
    require("onnx_ir", extra="quantize")
