"""``edgevit benchmark``: latency of every variant on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from edgevit import backends
from edgevit.backends.variants import backend_for
from edgevit.bundle.manifest import OperatorTime
from edgevit.bundle.store import Bundle
from edgevit.errors import EdgeViTError, MissingDependencyError
from edgevit.evaluation.latency import Candidate, baseline_of, candidates_of, check_load, measure_latency
from edgevit.progress import SILENT, Progress
from edgevit.stages.runnable import runnable


@dataclass(frozen=True, slots=True)
class Load:
    """What a variant is timed under: images per inference, threads (0: all cores), seconds of measuring for each."""

    batch: int = 1
    threads: int = 0
    duration_s: float = 10.0

    def check(self) -> None:
        """Check that it can be measured.

        Raises:
            InputError: if a number is out of range.
        """
        check_load(batch=self.batch, threads=self.threads, duration_s=self.duration_s)


def benchmark(
    bundle: Bundle, load: Load, *, variants: Sequence[str] = (), progress: Progress = SILENT
) -> tuple[Bundle, tuple[str, ...]]:
    """Time ``variants`` (all if none are named) and the float32 they are compared with; return whom it timed.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if a backend is not installed, or in a version that does not serve a variant.
    """
    load.check()
    asked = runnable(bundle, variants, progress)
    if not variants:
        asked = _comparable(bundle, asked, progress)
    candidates = candidates_of(bundle, asked)
    for candidate in candidates:  # what others are compared with has not been asked for, but must be here too
        backend_for(bundle.variant(candidate.name))
    names = tuple(candidate.name for candidate in candidates)
    progress.note(f"Timing {', '.join(names)} for about {load.duration_s:g} s each, one process per variant")
    latencies = measure_latency(
        candidates,
        spec=bundle.manifest.model,
        batch=load.batch,
        threads=load.threads,
        duration_s=load.duration_s,
        progress=progress,
    )
    for candidate, latency in zip(candidates, latencies, strict=True):
        operators = () if latency.p50_ms is None else _operators(candidate, bundle, load)
        bundle = bundle.update_variant(candidate.name, latency=replace(latency, operators=operators))
    return bundle, names


def _operators(candidate: Candidate, bundle: Bundle, load: Load) -> tuple[OperatorTime, ...]:
    """Return what the time of ``candidate`` goes to, as its engine counts it; most first, none if it does not."""
    model = bundle.manifest.model
    shape = (load.batch, model.channels, *model.image_size)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    backend = backends.get_backend(candidate.backend)
    try:
        times = backend.operator_times(
            candidate.model, threads=load.threads, settings=candidate.settings, images=images
        )
    except EdgeViTError:  # it has just run in a process of its own; this is said beside the figures, if at all
        return ()
    ordered = sorted(times.items(), key=lambda pair: -pair[1])
    return tuple(OperatorTime(operator=kind, ms=round(time, 4)) for kind, time in ordered)


def _comparable(bundle: Bundle, names: Sequence[str], progress: Progress) -> tuple[str, ...]:
    """Return those of ``names`` whose float32 runs here, too, and say which are left out.

    Raises:
        MissingDependencyError: if there is none.
    """
    found: list[str] = []
    problem: MissingDependencyError | None = None
    for name in names:
        baseline = baseline_of(bundle.variant(name), bundle.manifest.variants)
        try:
            if baseline is not None:
                backend_for(baseline)
            found.append(name)
        except MissingDependencyError as error:
            problem = error
            progress.note(f"Leaving out {name}, which is compared with float32: {error.message} ({error.remedy})")
    if problem is not None and not found:
        raise problem
    return tuple(found)
