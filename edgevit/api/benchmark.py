"""``edgevit.benchmark``."""

from collections.abc import Sequence

from edgevit.api.arguments import names, number
from edgevit.api.bundles import opened
from edgevit.api.hosts import OnHosts, on_hosts
from edgevit.evaluation.load import Load
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import BundleLike, flag, threads_given, whole_number, word
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
    precision: float | None = _DEFAULT.precision,
    energy_from: str = _DEFAULT.energy_from,
    sweep: bool = _DEFAULT.sweep,
    hosts: Sequence[str] = (),
    python: str | None = None,
    keep: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> BenchmarkResult:
    """Measure latency, speed-up over float32, memory and energy on this machine, and note them in ``bundle``.

    Each variant runs in a process of its own, in turns with the others. What is interrupted (``KeyboardInterrupt``)
    leaves in ``bundle`` what was measured so far, marked partial, of variants without whole and valid figures.

    Args:
        bundle: What ``edgevit.export`` made.
        variants: Only these, and the float32 that each is compared with.
        batch: Images per inference.
        threads: Threads; 0 takes all cores.
        duration: Seconds of measuring, per variant.
        precision: End once 95 % intervals of the median and of the speed-up reach so far to each side, as a share of
            it, such as 0.02; ``duration`` is then the most that it takes.
        energy_from: Where energy is read from: auto, none, ina3221, rapl, nvml, battery, the name of a hwmon chip, or
            the path of a sensor's file.
        sweep: Measure throughput over batch and streams, too.
        hosts: Measure on these devices in place of this machine: USER@HOST, HOST, USER@HOST:PORT, or names of
            ``edgevit devices``. What they find goes into ``bundle`` by their names.
        python: The interpreter to use there; without it an environment is made, with what the engines need.
        keep: Leave there what was sent and installed, so that the next run has it.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        HostError: if the only host cannot be measured on; of several, that is in the result.
        InputError: if a number is out of range, or energy cannot be read from what is named.
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if an engine is not installed, or in a version that does not serve a variant.

    """
    given, where = locals(), OnHosts.given(hosts, python, keep=keep)
    load = Load(
        batch=whole_number("batch", batch, least=1),
        threads=threads_given(threads),
        duration_s=number("duration", duration, least=0) or 0.0,
        precision=number("precision", precision, least=0, most=1),
        energy_from=word("energy_from", energy_from),
        sweep=flag("sweep", sweep),
    )
    load.check()
    chosen, report = names("variants", variants), progress_to(progress)
    if where is not None:
        noted, found = on_hosts("benchmark", opened(bundle), where, given, progress=report)
        return BenchmarkResult(bundle=noted, names=(), hosts=found)
    measured, chosen = stage(opened(bundle), load, variants=chosen, progress=report)
    return BenchmarkResult(bundle=measured, names=chosen)
