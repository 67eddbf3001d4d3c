"""What a session makes once, however many workers of pytest's run it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


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


def made(shelf: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder ``name`` on a shelf, which ``make`` fills if it is not there."""
    folder, unfinished = shelf / name, shelf / f"{name}.{os.getpid()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
