"""Workers of benchmarks that load no libraries: to load them takes longer than what most tests have them measure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from fork_server import ForkServer, Talking

WORKER = "edgevit.evaluation.worker"
LOADED = (
    *(f"edgevit.{name}" for name in ("evaluation.messages", "evaluation.steady", "data.images")),
    *(f"edgevit.backends.{name}" for name in ("onnxruntime", "openvino", "openvino_session")),
    "onnxruntime",
    "openvino",
)


class ForkedWorkers:
    """Starts the workers of benchmarks: forked by one server, and as they are where that would change what is run."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._paths = _absolute(sys.path)

    def serve(self, worker_process: ModuleType) -> None:
        """Have the module start its processes here."""
        processes = {**vars(subprocess), "Popen": self.start}
        worker_process.subprocess = SimpleNamespace(**processes)

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes] | Talking:
        """Do as ``subprocess.Popen`` does."""
        paths = _absolute(options["env"]["PYTHONPATH"].split(os.pathsep))
        if tuple(command) != (sys.executable, "-m", WORKER) or not paths <= self._paths:
            return subprocess.Popen(command, **options)
        if self._server is None:
            self._server = ForkServer(*LOADED)
        return self._server.talk(WORKER, options["env"], options["cwd"], options["stderr"])

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()


def _absolute(paths: Iterable[str]) -> set[str]:
    return {str(Path(path).resolve()) for path in paths}
