"""Starts the Triton server that nvidia-pytriton carries, which ``make triton`` installs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: The environment that has it: EDGEVIT_TRITON, or where the Makefile makes it.
ENVIRONMENT = Path(os.environ.get("EDGEVIT_TRITON") or Path(sys.prefix) / "triton").absolute()
_TYPE_THIS = "make test-triton"


def site() -> Path | None:
    """Return the folder of that environment's packages, None if it is not there."""
    found = sorted(ENVIRONMENT.glob("lib/python3.*/site-packages/pytriton"))
    return found[0].parent if found and (ENVIRONMENT / ".installed").is_file() else None


def _stub() -> Path:
    packages = site()
    assert packages is not None
    version = packages.parent.name.removeprefix("python")
    return packages / "pytriton/tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"


def missing_reason() -> str | None:
    """Return why it does not run here, or None."""
    if site() is None:
        return f"no Triton in {ENVIRONMENT}: {_TYPE_THIS}"
    if not _stub().is_file():
        return f"this Triton has no {_stub().parent.name} for its Python backend: {_TYPE_THIS} PYTHON=python3.11"
    needed = subprocess.run(["ldd", _stub()], capture_output=True, text=True, check=False).stdout
    missing = [line.split()[0] for line in needed.splitlines() if "libpython" in line and "not found" in line]
    if missing:
        return f"Triton's Python backend needs {missing[0]}: apt install {missing[0].partition('.so')[0]}"
    return None


class Triton:
    """A server that runs, and what asks it."""

    def __init__(self, http: int, grpc: int) -> None:
        self.addresses = {"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{grpc}"}

    def ask(self, protocol: str, *asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what Triton's own client is answered; see triton_client.py."""
        done = subprocess.run(
            [
                ENVIRONMENT / "bin/python",
                "-W",
                "ignore",
                ROOT / "tests/triton_client.py",
                protocol,
                self.addresses[protocol],
            ],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found


class Refused(Exception):
    """The server has ended, with what it said."""


@contextmanager
def triton(work: Path, repositories: Sequence[Path], models: Sequence[str]) -> Iterator[Triton]:
    """Yield a server with ``models``, and end it; ``work`` is an empty folder."""
    packages = site()
    assert packages is not None
    server = packages / "pytriton/tritonserver"
    shutil.copytree(server / "backends", work / "backends")
    shutil.copy2(_stub(), work / "backends/python")
    # The stub's Python is the system's and reads no PYTHONPATH; where it is started is the first place that it looks.
    (work / "site").mkdir()
    for each in packages.iterdir():
        (work / "site" / each.name).symlink_to(each)
    (work / "site/edgevit").symlink_to(ROOT / "edgevit")
    http, grpc = _free_ports()
    options = ["--model-control-mode", "explicit", "--allow-metrics", "false"]
    options += ["--http-address", "127.0.0.1", "--http-port", str(http)]
    options += ["--grpc-address", "127.0.0.1", "--grpc-port", str(grpc)]
    options += [word for path in repositories for word in ("--model-repository", str(path))]
    options += [word for name in models for word in ("--load-model", name)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"), "PYTHONDONTWRITEBYTECODE": "1"}
    with (work / "log").open("w") as log:
        process = subprocess.Popen(
            [server / "bin/tritonserver", "--backend-directory", work / "backends", *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=work / "site",
        )
        try:
            _wait(process, http, work / "log")
            yield Triton(http, grpc)
        finally:
            process.terminate()
            code = process.wait(60)
    assert code == 0, (work / "log").read_text()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Refused(log.read_text())
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(log.read_text())
