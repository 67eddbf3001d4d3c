"""``edgevit.benchmark``."""

from collections.abc import Sequence

from edgevit.api.arguments import names, number
from edgevit.api.bundles import opened
from edgevit.api.hosts import OnHosts, on_hosts
from edgevit.evaluation.load import Load
from edgevit.paths import path_given
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

    Each variant runs in a process of its own, in turns with the others. If you interrupt it, the results so far are
    kept and marked partial; complete results are not overwritten.

    Args:
        bundle: A bundle that ``edgevit.export`` made, or a pack, which is not changed: its path, or a ``Bundle``.
        variants: Measure only these, and the float32 variant that each is compared with; by default, all.
        batch: Images per inference.
        threads: Number of threads; 0 uses all cores.
        duration: Seconds of measuring for each variant.
        precision: Stop when the 95 % interval is within this fraction of the value (0.02 = 2 %), for the median and for
            the speed-up. ``duration`` is then the longest time that a variant is measured for.
        energy_from: Where to read energy: "auto", "none", "ina3221", "rapl", "nvml", "battery", the name of a hwmon
            chip, or the path of a sensor's file.
        sweep: Also measure throughput over batch sizes and over streams.
        hosts: Measure on these devices instead of this machine: USER@HOST, HOST, USER@HOST:PORT, or names from
            ``edgevit devices``. The bundle keeps their figures under their names.
        python: Path of the Python interpreter to use there. By default, an environment is made with what the engines
            need.
        keep: Leave what was sent and installed there for the next run.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        HostError: if the only host cannot be measured on. If one of several cannot, the result says so.
        InputError: if a number is out of range, or energy cannot be read from ``energy_from``.
        BundleError: if the bundle is damaged, or has no such variant.
        MissingDependencyError: if an engine is not installed, or its version cannot run a variant.

    """
    given, where = locals(), OnHosts.given(hosts, python, keep=keep)
    load = Load(
        batch=whole_number("batch", batch, least=1),
        threads=threads_given(threads),
        duration_s=number("duration", duration, least=0) or 0.0,
        precision=number("precision", precision, least=0, most=1),
        energy_from=path_given("energy_from", word("energy_from", energy_from)),
        sweep=flag("sweep", sweep),
    )
    load.check()
    chosen, report = names("variants", variants), progress_to(progress)
    if where is not None:
        noted, found = on_hosts("benchmark", opened(bundle), where, given, progress=report)
        return BenchmarkResult(bundle=noted, names=(), hosts=found)
    measured, chosen = stage(opened(bundle), load, variants=chosen, progress=report)
    return BenchmarkResult(bundle=measured, names=chosen)
