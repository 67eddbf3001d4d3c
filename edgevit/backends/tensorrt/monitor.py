"""How far a build has come, from TensorRT's nested phases to one bar."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgevit.backends.tensorrt.bindings import Bindings
from edgevit.progress import Progress

_PERCENT = 100


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
    within: float = 0.0  # of the step that is going on


class BuildProgress:
    """Adds up phases, each of which is a step of another, to percent of the whole; that never goes back."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._label = label
        self._bar: Iterator[int] | None = None
        self._shown = 0
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()  # parts of a network are built by several threads
        #: What stopped the build from within a callback, which must not raise: the caller does.
        self.error: BaseException | None = None

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """Begin a phase of ``steps``, which is a part of a step of ``parent``."""
        with self._lock:
            self._phases[phase] = _Phase(parent, max(1, steps))
            if self._bar is None:
                self._bar = self._progress.track(range(_PERCENT), total=_PERCENT, label=self._label)
                next(self._bar)

    def step(self, phase: str, step: int) -> None:
        """Note that a step of a phase, counted from 0, is done."""
        with self._lock:
            if found := self._phases.get(phase):
                found.done, found.within = step + 1, 0.0
                self._show(phase)

    def finish(self, phase: str) -> None:
        """End a phase, and all if it is part of none."""
        with self._lock:
            ended = self._phases.pop(phase, None)
            if ended is not None and ended.parent is None:
                self.close()

    def close(self) -> None:
        """Take the bar to its end."""
        for _ in self._bar or ():
            pass
        self._bar = iter(())

    def _show(self, phase: str) -> None:
        name: str | None = phase
        while name is not None and (found := self._phases.get(name)) is not None:
            share = min(1.0, (found.done + found.within) / found.steps)
            name = found.parent
            if name is None and self._bar is not None:
                for _ in range(int(share * _PERCENT) - 1 - self._shown):
                    next(self._bar, None)
                    self._shown += 1
            elif name in self._phases:
                self._phases[name].within = share


def make_monitor(bindings: Bindings, build: BuildProgress) -> Any | None:  # noqa: ANN401 - its class is the bindings'
    """Return what the bindings report phases to, None before they do; keep a reference while TensorRT uses it.

    An exception must not pass through TensorRT, which would print and forget it: it ends the build instead.
    """
    trt = bindings.trt
    if not bindings.has("IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                build.start(phase_name, parent_phase, num_steps)
            except BaseException as error:  # noqa: BLE001 - raised again where the build was begun
                build.error = error

        def phase_finish(self, phase_name: str) -> None:
            try:
                build.finish(phase_name)
            except BaseException as error:  # noqa: BLE001
                build.error = error

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                build.step(phase_name, step)
            except BaseException as error:  # noqa: BLE001
                build.error = error
            return build.error is None

    return Monitor()
