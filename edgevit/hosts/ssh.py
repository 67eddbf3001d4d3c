"""One connection to a board: the user's own ``ssh``, and the program in ``board.py`` behind it.

Nothing is put into a shell here: ``ssh`` is started with a list of arguments. What the board's login shell gets is
fixed but for paths, which are quoted.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from importlib import resources

from edgevit.errors import HostError, MissingDependencyError
from edgevit.hosts.address import Address
from edgevit.hosts.board import GREETING
from edgevit.hosts.reasons import ConnectionLostError, reason
from edgevit.report.formats import printable

#: Host keys are checked whatever the configuration says; nothing asks, and a connection that is dead is noticed.
OPTIONS = {
    "BatchMode": "yes",
    "LogLevel": "ERROR",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ControlPath": "none",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "EscapeChar": "none",
}
_PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 9, -1)))
_MACHINE = b"EDGEVIT-MACHINE "
_NO_PYTHON = b"EDGEVIT-NO-PYTHON"
#: For sh on the board, in one line: finds a Python that is new enough, and lets it run the program that is sent. What a
#: login shell prints before may end within a line.
_FIND_PYTHON = (
    'b=$1; shift; echo; echo "EDGEVIT-MACHINE $(uname -m)"; for p in "$@"; do '
    'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null; then exec "$p" -I -c "$b"; fi; done; '
    'echo "EDGEVIT-NO-PYTHON $(for p in "$@"; do command -v "$p" >/dev/null 2>&1 && "$p" --version 2>&1; done '
    '| head -n 1)"'
)
_LONGEST_LINE = 1 << 24
_MOST_NOISE = 1 << 20
_MOST_SAID = 1 << 16
_SLICE_S = 0.2
_MOST_WAITS = 10


def program_text(name: str) -> str:
    """Return the text of one of the programs that are sent to boards."""
    return (resources.files("edgevit.hosts") / f"{name}.py").read_text(encoding="utf-8")


class Connection:
    """A connection that is open; each request is answered by one line of JSON, and bytes.

    ``cancelled`` is asked while it waits; where it says so, waiting ends as if the connection were lost.
    ``patience_s`` is how long an answer may take.

    Raises:
        HostError: if there is no way to the board, or no Python there that is new enough.
        MissingDependencyError: if there is no ``ssh`` on this machine.
    """

    def __init__(
        self, name: str, address: Address, python: str | None, *, cancelled: Callable[[], bool], patience_s: float
    ) -> None:
        self._name, self._address = name, address
        self._cancelled, self._patience_s = cancelled, patience_s
        self._errors = b""
        self._pending = b""
        self.machine = ""
        program = program_text("board").encode()
        self._process = self._started(python, len(program))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self._greet(program, python)
        except BaseException:
            self.close()
            raise

    def _started(self, python: str | None, size: int) -> subprocess.Popen[bytes]:
        boot = (
            f"import sys; s = sys.stdin.buffer.read({size}); "
            'exec(compile(s, "board.py", "exec"), {"__name__": "__main__"})'
        )
        pythons = _PYTHONS if python is None else (python,)
        command = shlex.join(["sh", "-c", _FIND_PYTHON, "sh", boot, *pythons])
        options = [part for name, value in OPTIONS.items() for part in ("-o", f"{name}={value}")]
        port = [] if self._address.port is None else ["-p", str(self._address.port)]
        user = [] if self._address.user is None else ["-l", self._address.user]
        try:
            # A session of its own: Ctrl-C here must not end the connection by which the run there is ended.
            return subprocess.Popen(
                ["ssh", "-T", *options, *port, *user, "--", self._address.host, command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
            )
        except FileNotFoundError as error:
            raise MissingDependencyError(
                "there is no ssh on this machine", remedy="sudo apt install openssh-client"
            ) from error

    def _listen(self) -> None:
        """Keep the end of what ``ssh`` and the board say beside the answers, however much that is."""
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        with self._process.stderr as stream:
            while said := os.read(stream.fileno(), 1 << 16):
                self._errors = (self._errors + said)[-_MOST_SAID:]

    def _greet(self, program: bytes, python: str | None) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        os.set_blocking(self._process.stdin.fileno(), False)
        deadline = time.monotonic() + self._patience_s
        noise = 0
        while noise < _MOST_NOISE:
            line = self._line(deadline)
            noise += len(line)
            if line.startswith(_MACHINE):
                self.machine = printable(line.removeprefix(_MACHINE).decode(errors="replace").strip(), limit=32)
                self.write(program)
            elif line.startswith(_NO_PYTHON):
                raise self._no_python(line.removeprefix(_NO_PYTHON), python)
            elif line.startswith(GREETING):
                return
        raise HostError(
            f"{self._name} says more before it answers than can be read", remedy=f"look what this prints: {self._ssh()}"
        )

    def _no_python(self, said: bytes, python: str | None) -> HostError:
        version = printable(said.decode(errors="replace").strip(), limit=60)
        where = f"{python} on {self._name}" if python else f"the Python on {self._name}"
        if version:
            return HostError(
                f"{where} is {version}, and EdgeViT needs Python 3.10 or later",
                remedy="install a later one there, and name it with --python PATH",
            )
        if python:
            return HostError(
                f"there is no Python {printable(python)} on {self._name} that runs",
                remedy="give --python the path of one there, or leave it out",
            )
        return HostError(
            f"there is no Python on {self._name}", remedy=f"{self._ssh()} sudo apt install python3 python3-venv"
        )

    def write(self, content: bytes) -> None:
        """Send ``content``.

        Raises:
            ConnectionLostError: if the connection is lost, or the board does not take it.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        pipe, left = self._process.stdin.fileno(), memoryview(content)
        started = deadline = time.monotonic()
        deadline += self._patience_s
        while left:
            _, ready, _ = select.select([], [pipe], [], _SLICE_S)
            if ready:
                try:
                    left = left[os.write(pipe, left) :]
                except OSError as error:
                    raise self.failure() from error
                deadline = self._later(started)
            self._check(deadline)

    def line(self) -> bytes:
        """Return the next line, without its end.

        Raises:
            ConnectionLostError: if the connection is lost, or the board does not answer in time.
        """
        return self._line(time.monotonic() + self._patience_s)

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._pending:
            if len(self._pending) > _LONGEST_LINE:
                raise HostError(f"{self._name} answers with a line that has no end", remedy="check what runs there")
            self._pending += self._read(deadline)
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            ConnectionLostError: as ``line``.
        """
        started = time.monotonic()
        parts, there = [self._pending], len(self._pending)
        while there < size:
            parts.append(self._read(self._later(started)))
            there += len(parts[-1])
        whole = b"".join(parts)
        self._pending = whole[size:]
        return whole[:size]

    def _read(self, deadline: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        pipe = self._process.stdout.fileno()
        while True:
            ready, _, _ = select.select([pipe], [], [], _SLICE_S)
            if ready:
                content = os.read(pipe, 1 << 16)
                if not content:
                    raise self.failure()
                return content
            self._check(deadline)

    def _later(self, started: float) -> float:
        """Return until when to wait after something went through: a slow line gets on, and not without an end."""
        return min(time.monotonic() + self._patience_s, started + _MOST_WAITS * self._patience_s)

    def _check(self, deadline: float) -> None:
        if self._cancelled():
            raise ConnectionLostError(f"the run on {self._name} is interrupted", remedy="")
        if time.monotonic() > deadline:
            raise ConnectionLostError(f"{self._name} does not answer any more", remedy=f"try: {self._ssh()} uptime")

    def failure(self) -> HostError:
        """Return why the connection has ended, as ``ssh`` says it."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._listener.join(timeout=1)
        return reason(self._errors.decode(errors="replace"), self._name, self._ssh())

    def _ssh(self) -> str:
        port = [] if self._address.port is None else ["-p", str(self._address.port)]
        user = f"{self._address.user}@" if self._address.user else ""
        return shlex.join(["ssh", *port, f"{user}{self._address.host}"])

    def close(self) -> None:
        """End the connection."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=1)
