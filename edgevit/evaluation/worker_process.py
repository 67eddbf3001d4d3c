"""The parent's side of a benchmark worker: starts it, talks to it, and never waits for it forever."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, TypeVar, cast

import msgspec

from edgevit.evaluation.messages import (
    BenchmarkJob,
    BlockRequest,
    EndToEndBlock,
    EndToEndTimings,
    Failed,
    Opened,
    StreamsBlock,
    StreamTimings,
    TimedBlock,
    Timings,
    WorkerReply,
)
from edgevit.json import JSONError, decode

if TYPE_CHECKING:
    from typing_extensions import Self

ReplyT = TypeVar("ReplyT", Opened, Timings, StreamTimings, EndToEndTimings)

WORKER = (sys.executable, "-m", "edgevit.evaluation.worker")


class WorkerStopped(Exception):
    """A worker can give no more figures; the message says why."""


class WorkerProcess:
    """A context manager around one worker; leaving it ends the process.

    The worker runs in the empty ``folder``, so that no file of the user's working folder can be imported by mistake,
    and finds modules where this process finds them.
    """

    def __init__(self, folder: Path, *, command: Sequence[str] = WORKER) -> None:
        self._log = folder / "stderr.txt"
        self._answers = bytearray()
        # Absolute and in the same order: the empty entry, the working folder, would be another one there.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  # Path.resolve follows links
        self.spawned_ns = time.monotonic_ns()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": paths},
                bufsize=0,
            )
        # Never None: both are pipes.
        self._jobs = cast("IO[bytes]", self._process.stdin)
        self._replies = cast("IO[bytes]", self._process.stdout)

    @property
    def pid(self) -> int:
        """The worker's process number."""
        return self._process.pid

    def open(self, job: BenchmarkJob, *, timeout_s: float) -> Opened:
        """Let the worker open its model; raises WorkerStopped if it cannot."""
        return self._ask(job, Opened, timeout_s)

    def measure(self, block: TimedBlock, *, timeout_s: float) -> Timings:
        """Let the worker run a block; raises WorkerStopped if it cannot."""
        return self._ask(block, Timings, timeout_s)

    def run_streams(self, block: StreamsBlock, *, timeout_s: float) -> StreamTimings:
        """Let the worker run several streams at once; raises WorkerStopped if it cannot."""
        return self._ask(block, StreamTimings, timeout_s)

    def run_end_to_end(self, block: EndToEndBlock, *, timeout_s: float) -> EndToEndTimings:
        """Let the worker answer to a picture; raises WorkerStopped if it cannot."""
        return self._ask(block, EndToEndTimings, timeout_s)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._jobs.close()
        self._replies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, message: BenchmarkJob | BlockRequest, kind: type[ReplyT], timeout_s: float) -> ReplyT:
        try:
            self._jobs.write(msgspec.json.encode(message) + b"\n")
        except BrokenPipeError:
            raise WorkerStopped(self._last_words()) from None
        try:
            line = self._line(time.monotonic() + timeout_s, timeout_s)
            answer: WorkerReply = decode(line, WorkerReply)
        except JSONError as error:
            raise WorkerStopped(f"the worker's answer cannot be read: {error}") from None
        if isinstance(answer, Failed):
            raise WorkerStopped(answer.message)
        if not isinstance(answer, kind):
            raise WorkerStopped("the worker answered out of turn")
        return answer

    def _line(self, deadline: float, timeout_s: float) -> bytes:
        descriptor = self._replies.fileno()
        while b"\n" not in self._answers:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerStopped(f"the worker did not answer within {timeout_s:.0f} s")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise WorkerStopped(self._last_words())
            self._answers += chunk
        line, _, rest = bytes(self._answers).partition(b"\n")
        self._answers = bytearray(rest)
        return line

    def _last_words(self) -> str:
        """Say how the process ended, and the last line that it printed."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the worker closed its output and went on"
        if code < 0:
            memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            ending = f"the worker was ended by signal {-code} ({signal.strsignal(-code)}){memory}"
        else:
            ending = f"the worker ended with code {code}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{ending}: {lines[-1][:200]}" if lines else ending
