"""Measures on several hosts at once: one thread for each, and one that fails does not undo the others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from edgevit.bundle.manifest import MeasuredDevice
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, EdgeViTError
from edgevit.hosts.link import Patience
from edgevit.hosts.measuring import HostJob, Outcome, folder_of, measure_on_host
from edgevit.hosts.remembered import Wanted
from edgevit.progress import Progress
from edgevit.stages.host_result import HostResult

T = TypeVar("T")

PATIENCE = Patience()
_END = object()
#: How often, and after which pause, the bundle is changed again while another process does.
_TRIES, _PAUSE_S = 20, 0.25


class _OfHost:
    """The progress of one host among several: it says whose it is, and waits for its turn to speak."""

    def __init__(self, progress: Progress, name: str, turn: threading.Lock) -> None:
        self._progress, self._name, self._turn = progress, name, turn

    def track(self, items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
        """Yield ``items``, and show how many have passed."""
        passed = iter(self._progress.track(range(total), total=total, label=f"{self._name}: {label}"))
        for item in items:
            with self._turn:
                next(passed, _END)
            yield item
        with self._turn:
            next(passed, _END)

    def note(self, message: str) -> None:
        """Say one line."""
        with self._turn:
            self._progress.note(f"{self._name}: {message}")


def measure_on(
    bundle: Bundle,
    job: HostJob,
    hosts: Sequence[Wanted],
    *,
    keep: bool,
    progress: Progress,
) -> tuple[Bundle, tuple[HostResult, ...]]:
    """Measure on all ``hosts``, and note in ``bundle`` what each found, as soon as it has.

    An interruption ends the runs there, and removes what was put there.

    Raises:
        EdgeViTError: what the only host failed with, or why its figures cannot be noted; of several, that is in its
            result.
    """
    turn, cancel = threading.Lock(), threading.Event()

    def on(host: Wanted) -> Outcome:
        return measure_on_host(
            job,
            host,
            folder_of(bundle),
            keep=keep,
            cancelled=cancel.is_set,
            progress=_OfHost(progress, host.name, turn),
            patience=PATIENCE,
        )

    results: dict[str, HostResult] = {}
    waiting: dict[Future[Outcome], Wanted] = {}
    with ThreadPoolExecutor(len(hosts), thread_name_prefix="host") as threads, _cancelling(cancel, waiting):
        waiting |= {threads.submit(on, host): host for host in hosts}
        while waiting:
            for future in wait(waiting, timeout=0.5, return_when="FIRST_COMPLETED").done:
                host = waiting.pop(future)
                bundle, results[host.name] = _noted(bundle, host, future)
    found = tuple(results[host.name] for host in hosts)
    if len(found) == 1 and found[0].problem is not None:
        raise found[0].problem
    return bundle, found


@contextlib.contextmanager
def _cancelling(cancel: threading.Event, waiting: Collection[Future[Outcome]]) -> Iterator[None]:
    """Let the threads know when they are to end, and let them clean up, even if that is interrupted once more."""
    try:
        yield
    except BaseException:
        cancel.set()
        with contextlib.suppress(BaseException):
            wait(waiting)
        wait(waiting)
        raise


def _with_device(bundle: Bundle, device: MeasuredDevice) -> Bundle:
    """Note what a device measured; another process may be noting what it found just then."""
    for _ in range(_TRIES):
        with contextlib.suppress(BundleError):
            return bundle.update_device(device)
        time.sleep(_PAUSE_S)
    return bundle.update_device(device)


def _noted(bundle: Bundle, host: Wanted, future: Future[Outcome]) -> tuple[Bundle, HostResult]:
    address = str(host.address)
    try:
        outcome = future.result()
        bundle = _with_device(bundle, outcome.device)
    except EdgeViTError as error:
        return bundle, HostResult(name=host.name, address=address, problem=error)
    device = next(each for each in bundle.manifest.devices if each.name == host.name)
    race = outcome.race
    return bundle, HostResult(
        name=host.name,
        address=address,
        device=device,
        names=outcome.names,
        passed=outcome.passed,
        unreadable=outcome.unreadable,
        shares_missed=outcome.shares_missed,
        winner=None if race is None else race.winner,
        evidence={} if race is None else {each.name: each.evidence for each in race.variants},
        left_out={} if race is None else race.left_out,
    )
