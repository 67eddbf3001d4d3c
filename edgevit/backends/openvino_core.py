"""One ``Core`` of OpenVINO for the whole life of a process."""

from __future__ import annotations

import os
from typing import Any

from edgevit.errors import InputError

_cores: dict[tuple[int, int], Any] = {}  # by process, and by module: a test may bring its own


def core_of(engine: Any) -> Any:  # noqa: ANN401 - OpenVINO is imported at run time
    """Return this process's ``Core``, which is made at the first call and never freed.

    OpenVINO's plugin for CPUs gives the thread that makes it a stack for signals, and unmaps that stack in whichever
    thread frees it. If that is another one, the next signal of the first (Ctrl-C) would end the process with SIGSEGV;
    seen with 2026.4.1.

    Raises:
        InputError: in a process that was forked from one that has a ``Core``. OpenVINO's threads do not come along,
            and a model that is compiled there may wait for them for ever; seen with 2026.4.1.

    """
    key = (os.getpid(), id(engine))
    if any(process != key[0] for process, _ in _cores):
        raise InputError(
            "OpenVINO was used before this process was forked, and may wait for ever in it",
            remedy="load models only after the fork, or start processes by 'spawn' or 'forkserver', not by 'fork'",
        )
    core = _cores.get(key)
    # No lock, which a fork might leave locked: of two threads one frees what it has just made itself.
    return _cores.setdefault(key, engine.Core()) if core is None else core
