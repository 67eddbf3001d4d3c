"""What TensorRT says while it works: kept, not printed."""

from __future__ import annotations

import threading
from typing import Any

from edgevit.backends.tensorrt.bindings import Bindings

_WARNINGS_KEPT = 100


class Log:
    """Keeps warnings and errors; TensorRT calls it from threads of its own."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._lock = threading.Lock()

    def add(self, severity: str, message: str) -> None:
        """Take a message; ``severity`` is the name of one of ``ILogger``'s."""
        with self._lock:
            if severity in ("INTERNAL_ERROR", "ERROR"):
                self.errors.append(message)
            elif severity == "WARNING" and len(self.warnings) < _WARNINGS_KEPT:
                self.warnings.append(message)
            self.detail(message)

    def detail(self, message: str) -> None:
        """Take any message, whatever its severity."""

    def reason(self) -> str:
        """Return the last error as one line; what came before led to it."""
        return " ".join(self.errors[-1].split()) if self.errors else "no reason given"


class DetailedLog(Log):
    """Keeps all lines too, tens of thousands: among them, of each kernel its name, types and ONNX nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def detail(self, message: str) -> None:
        """Keep the lines of a message."""
        self.lines += message.split("\n")


def make_logger(bindings: Bindings, log: Log) -> Any:  # noqa: ANN401 - its class is the bindings' own
    """Return a logger of the bindings that hands all to ``log``; keep a reference while TensorRT uses it."""
    trt = bindings.trt
    names = {
        int(trt.ILogger.INTERNAL_ERROR): "INTERNAL_ERROR",
        int(trt.ILogger.ERROR): "ERROR",
        int(trt.ILogger.WARNING): "WARNING",
    }

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            log.add(names.get(int(severity), "INFO"), msg)

    return Logger()
