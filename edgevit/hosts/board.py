"""What runs on the board, by its own Python: it answers one request after the other on its standard streams.

It is sent as text, and stands alone: the standard library of Python 3.10, and nothing of EdgeViT. A request is a line
of JSON, with ``op`` and ``payload``, the number of bytes that follow it; so is an answer. Each request may be repeated
after a connection was cut, and does no harm the second time.

All files lie in one folder, which only its user may read: ``files/SHA256`` as they were sent, ``SHA256.part`` those
that are not whole yet, and folders that are laid out of these. The commands of a run go on when the connection is cut:
their parent is the program in ``supervisor.py``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

#: Where the folders of all runs lie, in the user's home.
RUNS = "~/.cache/edgevit/hosts"
#: How the first line begins; what a login shell prints before it does not count.
GREETING = b"EDGEVIT-BOARD-1 "
#: Another run may take a folder over after so many seconds without a request.
ABANDONED_S = 120.0
_PIECE = 1 << 16
#: Whoever follows a run looks so rarely that it does not disturb what is timed.
_LOOK_S = 0.2
_FOLLOW_S = 2.0
_STOP_S = 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RequestRefused(Exception):
    """A request that cannot be done; ``kind`` says why in a word: space, storage, busy, damaged, ended."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message


class Board:
    """The folder of one run, and what can be asked of it."""

    def __init__(self) -> None:
        self._folder = Path()
        self._session = ""
        self._python = sys.executable

    def hello(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Take the run's folder, and say what this board is; ``python`` is the interpreter that was asked for.

        It may be a script that starts one, which is what runs there then, too.
        """
        found = shutil.which(request["python"]) if request["python"] else None
        self._python = sys.executable if found is None else str(Path(found).absolute())
        runs = Path(RUNS).expanduser()
        self._folder = runs / request["folder"]
        if self._folder.is_symlink() or self._folder.parent != runs:
            raise RequestRefused("storage", f"{self._folder} is a link")
        there = self._folder.exists()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._take(request["session"])
            for name in ("files", "tmp"):
                (self._folder / name).mkdir(exist_ok=True)
            (self._folder / "supervisor.py").write_text(request["supervisor"])
        except OSError:
            if not there:
                self._remove()
            raise
        return {
            "folder": str(self._folder),
            "executable": self._python,
            "python": platform.python_version(),
            "bits": 64 if sys.maxsize > 1 << 32 else 32,
            "libc": " ".join(platform.libc_ver()).strip(),
            "free": shutil.disk_usage(self._folder).free,
        }

    def _take(self, session: str) -> None:
        mark = self._folder / "session"
        try:
            owner, seen = mark.read_text(), mark.stat().st_mtime
        except OSError:
            owner, seen = session, 0.0
        # A board without a clock of its own may have started in the past.
        if owner != session and abs(time.time() - seen) < ABANDONED_S:
            raise RequestRefused("busy", "another run of this bundle is on this device")
        mark.write_text(session)
        self._session = session
        if owner != session:
            self.stop(sys.stdin.buffer, {})

    def check_owner(self) -> None:
        """Refuse whoever has not taken the folder, or was away for so long that another run took it over."""
        try:
            owner = (self._folder / "session").read_text()
        except FileNotFoundError:
            owner = ""
        if not self._session or owner != self._session:
            raise RequestRefused("busy", "another run of this bundle has taken the folder")

    def seen(self) -> None:
        """Note that whoever started the run is there."""
        with contextlib.suppress(OSError):
            os.utime(self._folder / "session")

    def leave(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Let another run have the folder."""
        (self._folder / "session").unlink(missing_ok=True)
        return {}

    def have(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Say how many bytes there are of each of the ``files``, which are to have ``sizes``; -1 for one that is whole.

        A file of another size was lost when the board was switched off.
        """
        offsets = []
        for sha256, size in zip(request["files"], request["sizes"], strict=True):
            path = self._file(sha256)
            if path.exists() and path.stat().st_size != size:
                path.unlink()
            offsets.append(-1 if path.exists() else self._offset(sha256))
        return {"offsets": offsets}

    def _offset(self, sha256: str) -> int:
        try:
            return self._part(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def _file(self, sha256: str) -> Path:
        return self._folder / "files" / sha256

    def _part(self, sha256: str) -> Path:
        return self._folder / "files" / f"{sha256}.part"

    def put(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:
        """Write what follows at ``offset`` of the file ``sha256``, which is to have ``size`` bytes.

        The answer is how many it has, or -1 when it is whole. What has arrived of a piece stays, whatever becomes of
        the rest.
        """
        sha256, offset, left = request["sha256"], request["offset"], request["payload"]
        there = self._offset(sha256)
        if self._file(sha256).exists() or there != offset:
            _skip(stream, left)
            return {"offset": -1 if self._file(sha256).exists() else there}
        part = self._part(sha256)
        try:
            with part.open("ab") as file:
                while left:
                    piece = stream.read(min(left, _PIECE))
                    if not piece:
                        raise EOFError
                    left -= len(piece)
                    if not _append(file, piece, offset):
                        _skip(stream, left)
                        return {"offset": self._offset(sha256)}
                    offset += len(piece)
                    self.seen()
                os.fsync(file.fileno())
        except OSError:
            _skip(stream, left)
            raise
        if self._offset(sha256) >= request["size"]:
            self._finish(part, sha256)
            return {"offset": -1}
        return {"offset": self._offset(sha256)}

    def put_small(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:
        """Write whole files, which follow one after the other: (SHA-256, size) of each in ``files``."""
        left = request["payload"]
        try:
            for sha256, size in request["files"]:
                content = stream.read(size)
                left -= len(content)
                if len(content) < size:
                    raise EOFError
                part = self._part(sha256)
                part.write_bytes(content)
                self._finish(part, sha256)
        except (OSError, RequestRefused):
            _skip(stream, left)
            raise
        return {}

    def _finish(self, part: Path, sha256: str) -> None:
        digest = hashlib.sha256()
        with part.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != sha256:
            part.unlink()
            raise RequestRefused("damaged", "a file that was sent is not what it should be")
        part.chmod(0o400)  # folders are made of links to it
        part.rename(self._file(sha256))

    def layout(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Make the folder ``place`` anew, with ``files`` of (path, SHA-256) that were sent."""
        place = self._folder / request["place"]
        draft = self._folder / f"{request['place']}.new"
        for each in (place, draft):
            shutil.rmtree(each, ignore_errors=True)
        for name, sha256 in request["files"]:
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._file(sha256), path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EXDEV, errno.ENOSYS):
                    raise
                shutil.copyfile(self._file(sha256), path)
        draft.mkdir(exist_ok=True)
        draft.rename(place)
        return {}

    def unpack(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Unpack the archive ``sha256`` into the folder ``place``."""
        place = self._folder / request["place"]
        if not place.exists():
            draft = self._folder / f"{request['place']}.new"
            shutil.rmtree(draft, ignore_errors=True)
            with zipfile.ZipFile(self._file(request["sha256"])) as archive:
                archive.extractall(draft)
            draft.rename(place)
        return {}

    def exists(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Say whether there is a file ``name``."""
        return {"exists": (self._folder / request["name"]).exists()}

    def start(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Start the ``commands`` of the run ``token``, unless they were started already."""
        if self._state().get("token") == request["token"]:
            return {}
        for name in ("log", "state.json"):
            (self._folder / name).unlink(missing_ok=True)
        run = {name: request[name] for name in ("token", "commands", "environment")}
        (self._folder / "run.json").write_text(json.dumps(run))
        (self._folder / "state.json").write_text(json.dumps({"token": request["token"], "codes": [], "done": False}))
        with (self._folder / "log").open("ab") as log:
            subprocess.Popen(
                [self._python, "-I", str(self._folder / "supervisor.py"), str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
            )
        deadline = time.monotonic() + _STOP_S
        while not (_locked(self._folder) or self._state().get("done")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return {}

    def follow(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Give what the run has written since ``offset``, and say how far it is; wait a second for something new."""
        deadline = time.monotonic() + _FOLLOW_S
        while True:
            running, state = _locked(self._folder), self._state()
            with (self._folder / "log").open("rb") as log:
                log.seek(request["offset"])
                said = log.read(_PIECE)
            if said or not running or time.monotonic() > deadline:
                done = bool(state.get("done"))
                if not (said or running or done):
                    if shutil.disk_usage(self._folder).free < _PIECE:
                        raise RequestRefused("space", "the run there ended, as the disk is full")
                    raise RequestRefused("ended", "the run there ended before it was through")
                return {"codes": state.get("codes", []), "done": done and not running and not said, "bytes": said}
            time.sleep(_LOOK_S)

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._folder / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return state

    def read(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Give the file ``name``, up to ``most`` bytes of it."""
        with (self._folder / request["name"]).open("rb") as file:
            return {"bytes": file.read(request["most"])}

    def stop(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """End the run, if there is one."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            group = self._state().get("group", 0)
            if not _locked(self._folder) or group <= 1:
                break
            with contextlib.suppress(OSError):
                os.killpg(group, number)
            deadline = time.monotonic() + _STOP_S
            while _locked(self._folder) and time.monotonic() < deadline:
                time.sleep(0.05)
        return {}

    def clean(self, stream: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:
        """End the run, and remove the folder."""
        self.stop(stream, request)
        self._remove()
        return {"left": self._folder.exists()}

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        parent = self._folder.parent
        with contextlib.suppress(OSError):  # others have folders there
            parent.rmdir()
            parent.parent.rmdir()


OPERATIONS = (
    "hello",
    "leave",
    "have",
    "put",
    "put_small",
    "layout",
    "unpack",
    "exists",
    "start",
    "follow",
    "read",
    "stop",
    "clean",
)


def _append(file: BinaryIO, piece: bytes, offset: int) -> bool:
    """Write ``piece`` at the end of ``file``, which is to be at ``offset``; return whether it was.

    The other end of a connection that was cut may still be taking what had been on its way.
    """
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        if os.fstat(file.fileno()).st_size != offset:
            return False
        file.write(piece)
        file.flush()
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _skip(stream: BinaryIO, left: int) -> None:
    """Read what is left of a payload that nobody takes."""
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise EOFError
        left -= len(piece)


def _locked(folder: Path) -> bool:
    """Return whether a run goes on: it holds a lock until the last of its processes has ended."""
    try:
        with (folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def answer(board: Board, stream: BinaryIO, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the answer to a request, and the bytes that follow it."""
    if request["op"] not in OPERATIONS:
        return {"error": "storage", "message": "it is asked for what it does not know"}, b""
    try:
        if request["op"] != "hello":
            board.check_owner()
        found = getattr(board, request["op"])(stream, request)
        if request["op"] not in ("hello", "clean"):
            board.seen()
    except RequestRefused as error:
        return {"error": error.kind, "message": error.message}, b""
    except OSError as error:
        kind = "space" if error.errno in _FULL else "storage"
        return {"error": kind, "message": f"{error.filename or request['op']}: {error.strerror}"}, b""
    return found, found.pop("bytes", b"")


def serve_requests() -> None:
    """Answer requests until the connection is closed."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    board = Board()
    answers.write(GREETING + platform.python_version().encode() + b"\n")
    answers.flush()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while line := requests.readline():
            found, content = answer(board, requests, json.loads(line))
            answers.write(json.dumps({**found, "payload": len(content)}).encode() + b"\n" + content)
            answers.flush()


if __name__ == "__main__":
    os.umask(0o077)
    serve_requests()
