"""The command line in processes of their own that load no libraries: they are forked by a process that has them.

To load them takes longer than most commands do. Whoever forks has no threads; what runs then is ``python -m edgevit``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from typing import IO, Any

_NUMBER = Struct("i")
_MOST = 1 << 18  # bytes of a request


class ForkServer:
    """Starts commands as ``tiny.start`` does, with ``modules`` loaded already."""

    def __init__(self, *modules: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *modules],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # as those of the commands: Python asks what they are only when it starts
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        theirs.close()

    def start(self, what: str, arguments: list[str], environment: dict[str, str], file_size: int | None) -> Forked:
        """Run ``what``, a module or the path of a script, with ``arguments``; see ``tiny.start``."""
        pipes = [os.pipe() for _ in range(3)]
        self._ask([what, arguments, environment, str(Path.cwd()), file_size], [theirs for _, theirs in pipes])
        for _, theirs in pipes:
            os.close(theirs)
        stdout, stderr, status = (ours for ours, _ in pipes)
        return Forked(os.fdopen(stdout), os.fdopen(stderr), status)

    def talk(self, module: str, environment: Mapping[str, str], folder: Path, stderr: IO[bytes]) -> Talking:
        """Run ``module`` in ``folder``, with pipes to and from it that hold nothing back."""
        (stdout, their_stdout), (status, their_status), (their_stdin, stdin) = (os.pipe() for _ in range(3))
        request = [module, [], dict(environment), str(folder), None]
        self._ask(request, [their_stdout, stderr.fileno(), their_status, their_stdin])
        for theirs in (their_stdout, their_status, their_stdin):
            os.close(theirs)
        return Talking(os.fdopen(stdin, "wb", 0), os.fdopen(stdout, "rb", 0), status)

    def _ask(self, request: list[Any], theirs: list[int]) -> None:
        socket.send_fds(self._socket, [json.dumps(request).encode()], theirs)

    def close(self) -> None:
        """End the server, which ends when nobody can ask any more."""
        self._socket.close()
        said = self._process.communicate(timeout=60)[0]
        assert self._process.returncode == 0, said


class _Process:
    """A process that the server has forked, which tells by ``status`` its number, and how it has ended."""

    def __init__(self, status: int) -> None:
        self.returncode: int | None = None
        self._status = os.fdopen(status, "rb", buffering=0)
        self.pid = self._number()

    def _number(self) -> int:
        found: int = _NUMBER.unpack(self._status.read(_NUMBER.size) or b"")[0]
        return found

    def poll(self) -> int | None:
        """Return how the process has ended, None while it runs."""
        return self.wait(timeout=0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return how the process has ended, None if it has not in ``timeout`` seconds."""
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = self._number()
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class Forked(_Process):
    """As much of ``subprocess.Popen`` as tests of commands use."""

    def __init__(self, stdout: IO[str], stderr: IO[str], status: int) -> None:
        self.stdout, self.stderr = stdout, stderr
        self._said: tuple[str, str] | None = None
        super().__init__(status)

    def communicate(self, timeout: float = 200) -> tuple[str, str]:
        """Return the rest of what it writes, and wait for its end; the same again where it is asked again."""
        if self._said is None:
            with self.stdout, self.stderr, ThreadPoolExecutor(2) as pool:
                said = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
                if self.wait(timeout) is None:
                    os.killpg(self.pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired("edgevit", timeout)
                self._said = said[0].result(), said[1].result()
        return self._said


class Talking(_Process):
    """As much of it as who talks to a process uses."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], status: int) -> None:
        self.stdin, self.stdout = stdin, stdout
        super().__init__(status)

    def wait(self, timeout: float | None = None) -> int:
        """Return how the process has ended; raise ``subprocess.TimeoutExpired`` if it has not."""
        if (code := super().wait(timeout)) is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return code

    def poll(self) -> int | None:
        """Return how the process has ended, None while it runs."""
        return super().wait(timeout=0)


def serve(server: socket.socket) -> tuple[str, list[str]] | None:
    """Fork a process for each request; return what it runs and arguments in it, None in this one when no more come."""
    while True:
        message, descriptors, *_ = socket.recv_fds(server, _MOST, 4)
        if not message:
            return None
        while _ended_children():
            pass
        what, arguments, *surroundings = json.loads(message)
        if os.fork() == 0:
            server.close()
            if _is_command(descriptors, surroundings):
                return what, arguments
        for descriptor in descriptors:
            os.close(descriptor)


def _ended_children() -> int:
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0


def _is_command(descriptors: list[int], surroundings: list[Any]) -> bool:
    """Fork again, and return in the command's process alone; the other one tells when and how that has ended."""
    stdout, stderr, status, *stdin = descriptors
    if (pid := os.fork()) == 0:
        for place, descriptor in zip((1, 2, 0), (stdout, stderr, *stdin)):  # noqa: B905  # stdin is not always given
            os.dup2(descriptor, place)
        for descriptor in descriptors:
            os.close(descriptor)
        _settle(*surroundings)
        return True
    for descriptor in (stdout, stderr, *stdin):
        os.close(descriptor)
    os.write(status, _NUMBER.pack(pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, _NUMBER.pack(code))
    os._exit(0)


def _settle(environment: dict[str, str], folder: str, file_size: int | None) -> None:
    """Be what ``tiny.start`` starts: with a process group, an environment, signals and limits of its own."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    tempfile.tempdir = None  # it is another one now
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # memory that is not looked at need not be copied
    given = serve(socket.socket(fileno=int(sys.argv[1])))
    if given is not None:
        what, sys.argv[1:] = given
        if what.endswith(".py"):
            runpy.run_path(what, run_name="__main__")
        else:
            runpy.run_module(what, run_name="__main__", alter_sys=True)
