"""How much memory may be taken while a stranger's file is opened: a small file can ask for all that there is."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgevit import system
from edgevit.errors import InputError
from edgevit.processor import most_threads

#: The environment variable by which a user allows more, or less, in MiB; 0 takes the limit away.
ALLOWED = "EDGEVIT_LOAD_MEMORY_MB"

_MIB = 1 << 20
_LEAST = 4096 * _MIB
_DIGITS = 9  # a petabyte, or thirty years, is no limit
_PER_BYTE = 16  # of a file: weights are unpacked, packed again for kernels, and held twice on the way
_PER_CORE = 256 * _MIB  # engines start a thread for each: stacks, and what malloc reserves for each

_lock = threading.RLock()
_before: list[tuple[int, int]] = []  # limits, one for each block that is inside


def allowed_for(size: int) -> int | None:
    """Return how many bytes opening a file of ``size`` bytes may take; None for any number.

    Raises:
        InputError: if the environment variable ``EDGEVIT_LOAD_MEMORY_MB`` is no number, or less than engines need.

    """
    given = os.environ.get(ALLOWED)
    if given is None:
        return _LEAST + _PER_BYTE * size + _PER_CORE * (os.cpu_count() or 1)
    # An engine's libraries and its threads: onnxruntime waits for ever where it cannot start one.
    least = 1024 + 16 * most_threads()
    allowed = number_in(given)
    if allowed is None or 0 < allowed < least:
        remedy = f"set {ALLOWED} to {least} MiB or more, or to 0 for no limit"
        raise InputError(f"{ALLOWED} is {given!r}", remedy=remedy)
    return allowed * _MIB or None


def number_in(text: str) -> int | None:
    """Return the whole number that ``text`` is, None if it is none, or larger than any limit makes sense."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


@contextmanager
def limited_for(size: int, what: str) -> Iterator[None]:
    """Let what is done to a file of ``size`` bytes, which is called ``what``, take no more memory than that explains.

    Raises:
        InputError: if it does.

    """
    try:
        with limited(allowed_for(size)):
            yield
    except MemoryError as error:
        raise InputError(
            f"{what} takes more memory than its size explains, or than there is",
            remedy=f"close other programs, or set {ALLOWED} to more MiB (0: any number) if you trust the file",
        ) from error


@contextmanager
def limited(most: int | None) -> Iterator[None]:
    """Let this process take at most ``most`` bytes of address space more than it has now; None leaves it alone.

    What would take more fails, as it does where a machine has no more: with a MemoryError, or an engine's own error.
    Where the system does not tell how much there is, nothing is limited. Of blocks in several threads
    the first sets it.
    """
    now = system.address_space()
    if most is None or now is None:
        yield
        return
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = now + most
        if not _before and (soft == resource.RLIM_INFINITY or wanted < soft):
            resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
        _before.append((soft, hard))
    try:
        yield
    finally:
        with _lock:
            if _before:  # none in a process that was forked within
                outermost = _before[0]
                _before.pop()
                if not _before:
                    resource.setrlimit(resource.RLIMIT_AS, outermost)


def _lift() -> None:
    """Take the limit from a process that was just forked: the thread that would is in the other one."""
    if _before:
        resource.setrlimit(resource.RLIMIT_AS, _before[0])
        _before.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lift)
