"""A board for tests: a real sshd on loopback, with keys, a home and a PATH of its own, and ways to disturb it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SSH = shutil.which("ssh")
_KEX = "curve25519-sha256"  # the default one against quantum computers takes most of the time of a connection


def needs_sshd() -> str:
    """Return the path of sshd; skip the test where there is none."""
    if SSHD is None or SSH is None:
        pytest.skip("needs OpenSSH's client and server: sudo apt install openssh-client openssh-server")
    return SSHD


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class SshBoard:
    """One sshd, and how the client is told of it: as the host NAME in a configuration of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        needs_sshd()
        self.name, self.folder = name, folder
        self.home, self.tools = folder / "home", folder / "bin"
        for place in (self.home, self.tools):
            place.mkdir(parents=True)
        self._client = folder / "ssh_config"
        for key in ("host", "user"):
            make_key(folder / key)
        shutil.copyfile(folder / "user.pub", folder / "authorized")
        self.know(folder / "host.pub")
        self._process: subprocess.Popen[bytes] | None = None
        for attempt in range(5):
            self.port = free_port()
            self.reach(self.port)
            try:
                self.start()
                break
            except AssertionError:  # another test was faster to take the port
                if attempt == 4:
                    raise

    def know(self, key: Path) -> None:
        """Have the client know the board by ``key``."""
        (self.folder / "known").write_text(f"board-{self.name} {key.read_text()}")

    def reach(self, port: int, **more: str) -> None:
        """Have the client connect to ``port``."""
        options = {
            "HostName": "127.0.0.1", "Port": str(port), "User": getpass.getuser(), "IdentitiesOnly": "yes",
            "IdentityFile": str(self.folder / "user"), "UserKnownHostsFile": str(self.folder / "known"),
            "GlobalKnownHostsFile": "/dev/null", "HostKeyAlias": f"board-{self.name}", "IdentityAgent": "none",
        } | more  # fmt: skip
        lines = [f"Host {self.name}", *(f"  {name} {value}" for name, value in options.items())]
        self._client.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start sshd, and wait until it takes connections."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        path = f"{self.tools}:{os.environ['PATH']}"
        settings = {
            "Port": self.port, "ListenAddress": "127.0.0.1", "HostKey": self.folder / "host", "PidFile": "none",
            "AuthorizedKeysFile": self.folder / "authorized", "StrictModes": "no", "UsePAM": "no",
            "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PermitRootLogin": "yes",
            "MaxStartups": "100", "KexAlgorithms": _KEX, "SetEnv": f'"HOME={self.home}" "PATH={path}"',
        }  # fmt: skip
        (self.folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [needs_sshd(), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.02)
        raise TimeoutError("sshd does not start")

    def stop(self) -> None:
        """End sshd and the connections that it has."""
        if self._process is not None:
            for child in children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, 9)
            self._process.kill()
            self._process.wait()
            self._process = None

    def tool(self, name: str, script: str) -> None:
        """Put a program of the board's own before all others."""
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def runs(self) -> Path:
        """The folder of all runs on the board."""
        return self.home / ".cache/edgevit/hosts"

    def left(self) -> list[str]:
        """Return what is left there: files of the home, and processes of runs."""
        found = [path.relative_to(self.home) for path in self.home.rglob("*") if path.is_file()]
        files = [str(path) for path in found if path.parts[0] != ".rustup"]  # where pip asks for Rust's version
        return files + processes_in(self.runs)


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def children(pid: int) -> list[int]:
    """Return the processes below ``pid``."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            if int(each.read_text().rpartition(")")[2].split()[1]) == pid:
                below = int(each.parent.name)
                found += [below, *children(below)]
    return found


def processes_in(folder: Path) -> list[str]:
    """Return the processes whose command line names ``folder``."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found.append(line)
    return found


class Proxy:
    """Passes TCP connections on to ``port``, and cuts each after so many bytes from the client as ``limits`` say."""

    def __init__(self, port: int, limits: list[int]) -> None:
        self._target, self._limits = port, limits
        self.connections = self.passed = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []
        self._boards: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            limit = self._limits[self.connections] if self.connections < len(self._limits) else None
            self.connections += 1
            try:
                board = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._open += [client, board]
            self._boards.append(board)
            for one, other, most in ((client, board, limit), (board, client, None)):
                threading.Thread(target=self._pass, args=(one, other, most), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, most: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while content := one.recv(1 << 14):
                passed += len(content)
                if most is not None and passed > most:
                    break
                other.sendall(content)
                if other in self._boards:
                    self.passed += len(content)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        """Cut all connections that are open."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()


def client(folder: Path, boards: list[SshBoard]) -> Path:
    """Write an ``ssh`` that is OpenSSH's with the configuration of ``boards`` into ``folder``, which goes into PATH."""
    folder.mkdir(exist_ok=True)
    config = folder / "config"
    config.write_text("".join(f"Include {board.folder / 'ssh_config'}\n" for board in boards))
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {config} "$@"\n')
    (folder / "ssh").chmod(0o755)
    return folder


PYTHON = sys.executable
