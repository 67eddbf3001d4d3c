"""One ``Core`` of OpenVINO for the whole life of a process."""

from __future__ import annotations

import os
from typing import Any

_cores: dict[tuple[int, int], Any] = {}  # by process, and by module: a test may bring its own


def core_of(engine: Any) -> Any:  # noqa: ANN401 - OpenVINO is imported at run time
    """Return this process's ``Core``, which is made at the first call and never freed.

    OpenVINO's plugin for CPUs gives the thread that makes it a stack for signals, and unmaps that stack in whichever
    thread frees it. If that is another one, the next signal of the first (Ctrl-C) would end the process with SIGSEGV;
    seen with 2026.4.1. A forked process gets a ``Core`` of its own: it has none of the threads of its parent's.
    """
    key = (os.getpid(), id(engine))
    core = _cores.get(key)
    # No lock, which a fork might leave locked: of two threads one frees what it has just made itself.
    return _cores.setdefault(key, engine.Core()) if core is None else core
