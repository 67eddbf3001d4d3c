"""``edgevit.benchmark``."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.api.arguments import names, number
from edgevit.api.bundles import BundleLike, opened
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import threads_given, whole_number
from edgevit.stages.benchmark import Load
from edgevit.stages.benchmark import benchmark as stage
from edgevit.stages.results import BenchmarkResult

_DEFAULT = Load()


def benchmark(
    bundle: BundleLike,
    *,
    variants: Sequence[str] = (),
    batch: int = _DEFAULT.batch,
    threads: int = _DEFAULT.threads,
    duration: float = _DEFAULT.duration_s,
    progress: Progress | ProgressCallback | None = None,
) -> BenchmarkResult:
    """Measure latency, speed-up over float32, cold start and memory on this machine, and note them in ``bundle``.

    Each variant runs in a process of its own, in turns with the others.

    Args:
        bundle: What ``edgevit.export`` made.
        variants: Only these, and the float32 that each is compared with.
        batch: Images per inference.
        threads: Threads; 0 takes all cores.
        duration: Seconds of measuring, per variant.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        InputError: if a number is out of range.
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if an engine is not installed, or in a version that does not serve a variant.

    """
    load = Load(
        batch=whole_number("batch", batch, least=1),
        threads=threads_given(threads),
        duration_s=number("duration", duration, least=0) or 0.0,
    )
    measured, chosen = stage(opened(bundle), load, variants=names("variants", variants), progress=progress_to(progress))
    return BenchmarkResult(bundle=measured, names=chosen)
