"""``edgevit benchmark``: latency of every variant on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgevit.backends.variants import backend_for
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingDependencyError
from edgevit.evaluation.latency import baseline_of, candidates_of, check_load, measure_latency
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
        bundle = bundle.update_variant(candidate.name, latency=latency)
    return bundle, names


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
