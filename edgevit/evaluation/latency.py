"""How fast variants are, side by side: interleaved blocks, one process per variant, nothing hidden.

Every candidate runs in its own worker process. Only one works at a time; the others wait, asleep. Rounds of short
blocks, in an order shuffled again for each round, make slow changes of the machine hit all candidates alike, so that
the ratio of two blocks of one round can be trusted where their times cannot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgevit.backends import backend_class
from edgevit.bundle.manifest import Latency
from edgevit.errors import InputError
from edgevit.evaluation.candidates import Candidate
from edgevit.evaluation.conditions import Conditions, too_much
from edgevit.evaluation.energy import Idle, measure_idle
from edgevit.evaluation.environment import environment
from edgevit.evaluation.extras import Extras, Picture, measure_end_to_end, measure_sweep
from edgevit.evaluation.figures import Record, widest
from edgevit.evaluation.load import Load
from edgevit.evaluation.messages import BenchmarkJob, TimedBlock
from edgevit.evaluation.results import BenchmarkRun, latencies
from edgevit.evaluation.rounds import MIN_INFERENCES, Plan, Round, Turn, measure_rounds, plan_blocks
from edgevit.evaluation.start import start_of
from edgevit.evaluation.stopping import UntilPrecise
from edgevit.evaluation.worker_process import WORKER, WorkerProcess, WorkerStopped
from edgevit.files import scratch_folder
from edgevit.machine.gpus import Gpus
from edgevit.machine.meter import Meter
from edgevit.machine.power import NoSource, PowerSource, source
from edgevit.models.spec import AnySpec
from edgevit.progress import SILENT, Progress
from edgevit.system import usable_cores

_OPEN_TIMEOUT_S = 600.0
#: Seconds of warming up at the most, and of the duration this share.
_MOST_WARM_UP_S, _WARM_UP_SHARE = 10.0, 0.5
#: Sensors of power lag behind: blocks are at least so long for them, and warmed up for so many seconds.
_LEAST_POWER_BLOCK_S, _SETTLE_S = 0.5, 0.25


def measure_latency(
    candidates: Sequence[Candidate],
    load: Load,
    *,
    spec: AnySpec,
    picture: Picture | None = None,
    warmup: int = MIN_INFERENCES,
    seed: int = 0,
    keep: Callable[[list[Latency]], None] | None = None,
    root: Path = Path("/"),
    progress: Progress = SILENT,
    command: Sequence[str] = WORKER,
) -> list[Latency]:
    """Time the candidates against each other; the results are in their order.

    Args:
        candidates: what to time; each one's baseline must be among them.
        load: images per inference, threads, seconds for each candidate, and what else is measured.
        spec: the model's; inputs are random-normal images of its size, for values do not change the time of dense
            arithmetic.
        picture: what is answered to from end to end; nothing is without it.
        warmup: unrecorded inferences after opening, at the least; they go on until they are steady.
        seed: of the inputs, the order of the blocks, and the bootstrap.
        keep: called with what was measured so far, marked partial, when something ends this while it times: Ctrl-C,
            or a signal. What ended it is raised afterwards.
        root: where /proc and /sys lie.
        progress: where to report to.
        command: starts a worker.

    The cold start is the time from just before the worker process is spawned to its first logits: starting Python,
    importing numpy and the backend, opening (and compiling) the model, the first inference. The file is in the page
    cache if something read it before. The memory is the most that this process ever had resident while it was timed.

    Raises:
        InputError: if a number is out of range, a baseline is missing, or energy cannot be read where it was named.

    """
    _check(candidates, load)
    threads = load.threads or usable_cores()
    nvidia = any(_on_nvidia(candidate) for candidate in candidates)
    energy = _source(load, gpu=nvidia, root=root)
    records = {candidate.name: Record(name=candidate.name) for candidate in candidates}
    run = BenchmarkRun(candidates, records, load, threads, seed, environment(root))
    with scratch_folder() as folder, ExitStack() as stack:
        opened: list[tuple[Record, WorkerProcess]] = []
        for index, candidate in enumerate(progress.track(candidates, total=len(candidates), label="Opening variants")):
            worker = stack.enter_context(WorkerProcess(_subfolder(folder, index), command=command))
            job = BenchmarkJob(
                backend=candidate.backend,
                model=str(candidate.model.absolute()),
                settings=dict(candidate.settings),
                threads=threads,
                shape=(load.batch, spec.channels, *spec.image_size),
                seed=seed,
                warmup=max(warmup, MIN_INFERENCES),
                warmup_s=min(_MOST_WARM_UP_S, _WARM_UP_SHARE * load.duration_s),
                spawned_ns=worker.spawned_ns,
            )
            record = records[candidate.name]
            if _open(record, worker, job):
                opened.append((record, worker))
        _tell_unsteady(opened, progress)
        conditions = run.conditions = Conditions(
            (worker.pid for _, worker in opened), root=root, gpus=Gpus(root) if nvidia else None
        )
        if isinstance(energy, PowerSource):
            run.meter = stack.enter_context(Meter(energy))
            run.idle = measure_idle(run.meter, conditions, load.duration_s, progress)
        else:
            run.idle = Idle((), energy)
        plan, turns = _turns(opened, load, run.meter)
        try:
            measure_rounds(
                turns,
                run.rounds,
                plan,
                duration_s=load.duration_s,
                shuffler=random.Random(seed),  # noqa: S311  # shuffles, hides nothing
                conditions=conditions,
                enough=_enough(run),
                progress=progress,
            )
            run.tell_disturbed(progress)
            for turn in progress.track(turns, total=len(turns), label="End to end and throughput"):
                if turn.record.stopped is None:
                    _measure_extras(turn, run, conditions, picture, progress)
            return latencies(run)
        except BaseException as signal:
            if isinstance(signal, Exception) or keep is None or not run.rounds:
                raise
            keep(latencies(run, partial=True))
            raise


def _check(candidates: Sequence[Candidate], load: Load) -> None:
    load.check()
    names = {candidate.name for candidate in candidates}
    missing = [candidate for candidate in candidates if candidate.baseline not in names]
    if len(names) < len(candidates) or missing:
        what = f"'{missing[0].baseline}' is not timed" if missing else "two candidates have the same name"
        raise InputError(f"cannot compare: {what}", remedy="time every variant once, together with its float32")


def _on_nvidia(candidate: Candidate) -> bool:
    try:
        return backend_class(candidate.backend).nvidia
    except InputError:  # its worker says that there is no such engine
        return False


def _source(load: Load, *, gpu: bool, root: Path) -> PowerSource | str:
    """Return where energy is read from, or why from nowhere."""
    try:
        return source(load.energy_from, gpu=gpu, root=root)
    except NoSource as reason:
        return str(reason)


def _subfolder(folder: Path, index: int) -> Path:
    path = folder / str(index)
    path.mkdir()
    return path


def _open(record: Record, worker: WorkerProcess, job: BenchmarkJob) -> bool:
    """Note how the candidate starts; return whether it could be opened."""
    try:
        record.start = start_of(worker.open(job, timeout_s=_OPEN_TIMEOUT_S))
    except WorkerStopped as stopped:
        record.stopped = str(stopped)
        worker.close()  # one that hangs must not take the others' time
        return False
    return True


def _tell_unsteady(opened: Sequence[tuple[Record, WorkerProcess]], progress: Progress) -> None:
    for record, _ in opened:
        if record.start is not None and not record.start.warm_up.steady:
            seconds = record.start.warm_up.seconds
            progress.note(f"{record.name} was not steady after {seconds:.1f} s of warming up: its times still changed")


def _turns(opened: Sequence[tuple[Record, WorkerProcess]], load: Load, meter: Meter | None) -> tuple[Plan, list[Turn]]:
    usual = [(record, worker, record.start.typical_ns) for record, worker in opened if record.start is not None]
    lags = meter is not None and meter.source.lags
    plan = plan_blocks(
        [typical_ns for *_, typical_ns in usual],
        load.duration_s,
        precise=load.precision is not None,
        least_block_s=_LEAST_POWER_BLOCK_S if lags else 0.0,
    )
    turns = []
    for (record, worker, typical_ns), count in zip(usual, plan.inferences, strict=True):
        settle = round(_SETTLE_S * 1e9 / typical_ns) if lags else 0
        turns.append(Turn(record, worker, TimedBlock(warmup=max(2, count // 10, settle), inferences=count), typical_ns))
    return plan, turns


def _measure_extras(
    turn: Turn, run: BenchmarkRun, conditions: Conditions, picture: Picture | None, progress: Progress
) -> None:
    """Measure what is measured of a candidate by itself."""
    extras = run.extras[turn.record.name] = Extras()
    if picture is not None:
        try:
            extras.end_to_end = measure_end_to_end(turn, picture, run.load.duration_s)
        except WorkerStopped as stopped:
            progress.note(f"{turn.record.name} was not timed from end to end: {stopped}")
            turn.worker.close()
            return
    if run.load.sweep:

        def disturbed() -> Callable[[], list[str]]:
            before = conditions.now()
            return lambda: too_much(conditions.load_since(before))

        extras.sweep = measure_sweep(turn, run.load.duration_s, run.threads, disturbed, progress)


def _enough(run: BenchmarkRun) -> Callable[[Sequence[Round]], bool]:
    """Return what says whether the rounds that count are enough; never, where a time was asked for."""
    if run.load.precision is None:
        return lambda _: False
    until = UntilPrecise(run.load.precision)
    records = [run.records[candidate.name] for candidate in run.candidates]
    baselines = [run.records[candidate.baseline] for candidate in run.candidates]

    def enough(rounds: Sequence[Round]) -> bool:
        run.use(rounds)
        return until(len(rounds), lambda: widest(records, baselines))

    return enough
