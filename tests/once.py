"""What a session makes once, however many workers of pytest's run it, and what sessions keep for the next ones."""

import fcntl
import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from edgevit.errors import StorageError
from edgevit.files import cache_folder

_ROOT = Path(__file__).resolve().parents[1]
_WEEK = 7 * 24 * 3600  # seconds


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder ``name`` that ``make`` filled; the worker that asks first makes it, and the others wait.

    No test may change what is in it: those of all workers read it.
    """
    return made(shelf(factory), name, make)


def shelf(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds what all workers share, and all sessions where ``EDGEVIT_SHELF`` names one."""
    if "EDGEVIT_SHELF" in os.environ:
        return Path(os.environ["EDGEVIT_SHELF"]).resolve()
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"


def kept(
    factory: pytest.TempPathFactory, group: str, sources: Iterable[Path], packages: Iterable[str], *tools: str
) -> Path:
    """Return a shelf in the user's cache that all sessions share for which the same would be made.

    What lies on it may depend on the content of ``sources`` (files, and folders with all of their Python), on this
    Python, on the versions of ``packages``, and on what ``tools`` say of themselves; on nothing else. What nobody asked
    for in a week goes.
    """
    if "EDGEVIT_SHELF" in os.environ or (place := _cache()) is None:
        return shelf(factory)
    folder = place / f"{group}-{_key(tuple(sources), tuple(packages), tools)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _forget(place)
    except OSError:  # it cannot be written to
        return shelf(factory)
    return folder


def traces(factory: pytest.TempPathFactory) -> Path:
    """Return the shelf of what torch's exporter traces; see traces.py."""
    package, packages = _ROOT / "edgevit", ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")
    called = [package / "graph" / name for name in ("torch_export.py", "metadata.py")]  # models import nothing of graph
    return kept(factory, "traces", [package / "models", *called, _ROOT / "tests/traces.py"], packages)


@cache
def _cache() -> Path | None:
    try:
        return cache_folder() / "tests"
    except StorageError:
        return None


_cache()  # now: tests have caches of their own


@cache
def _key(sources: tuple[Path, ...], packages: tuple[str, ...], tools: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for part in (sys.version, platform.machine(), *(f"{name} {version(name)}" for name in packages), *tools):
        digest.update(f"{part}\0".encode())
    for source in sources:
        for file in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(source.parent)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:24]


def _forget(place: Path) -> None:
    for folder in place.iterdir():
        if folder.stat().st_mtime < time.time() - _WEEK:
            shutil.rmtree(folder, ignore_errors=True)


def made(shelf: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder ``name`` on a shelf, which ``make`` fills if it is not there."""
    folder, unfinished = shelf / name, shelf / f"{name}.{os.getpid()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)  # of a session that was killed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
