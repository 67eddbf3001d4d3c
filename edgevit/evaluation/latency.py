"""How fast variants are, side by side: interleaved blocks, one process per variant, nothing hidden.

Every candidate runs in its own worker process. Only one works at a time; the others wait, asleep. Rounds of short
blocks, in an order shuffled again for each round, make slow changes of the machine hit all candidates alike, so that
the ratio of two blocks of one round can be trusted where their times cannot.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from edgevit.backends import backend_class
from edgevit.backends.variants import settings_of
from edgevit.bundle.manifest import Latency, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, InputError
from edgevit.evaluation.conditions import Conditions
from edgevit.evaluation.environment import environment
from edgevit.evaluation.figures import Record, Setup, latency_of
from edgevit.evaluation.messages import BenchmarkJob, TimedBlock
from edgevit.evaluation.worker_process import WORKER, WorkerProcess, WorkerStopped
from edgevit.files import scratch_folder
from edgevit.models.spec import AnySpec
from edgevit.processor import most_threads
from edgevit.progress import SILENT, Progress
from edgevit.system import usable_cores

#: Rounds that are aimed at; a valid result needs figures.MIN_ROUNDS.
ROUNDS = 30
#: Inferences that a block has at least, and at most.
MIN_INFERENCES = 3
MAX_INFERENCES = 10_000
_OPEN_TIMEOUT_S = 600.0
_BLOCK_TIMEOUT_S = 30.0
#: A block may take this many times as long as the warm-up lets expect.
_PATIENCE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file to time; ``baseline`` names the candidate that it is compared with, itself for float32."""

    name: str
    backend: str
    model: Path
    settings: Mapping[str, str]
    baseline: str


class _Turn(NamedTuple):
    """A candidate that is being measured: its worker, its inferences per block, and what it took before, each."""

    record: Record
    worker: WorkerProcess
    block: TimedBlock
    typical_ns: float


def baseline_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """Return the float32 variant to compare with: on the same backend, if possible for the same target.

    Else one that was built for any, which is faster than the exported file. A backend without float32, such as
    TensorRT's, is compared with the exported file, which is onnxruntime's.
    """
    if variant.precision == "float32":
        return variant
    every = [other for other in variants if other.precision == "float32"]
    same = [other for other in every if other.backend == variant.backend] or every[:1]
    return next((other for other in same if other.target == variant.target), same[-1] if same else None)


def candidates_of(bundle: Bundle, names: Sequence[str] = ()) -> list[Candidate]:
    """Return the variants called ``names`` (all if none), and the float32 ones to compare them with, files verified.

    Raises:
        BundleError: if there is no such variant, no float32 to compare with, or a file is damaged.

    """
    variants = bundle.manifest.variants
    wanted: dict[str, str] = {}
    for variant in [bundle.variant(name) for name in names] or variants:
        baseline = baseline_of(variant, variants)
        if baseline is None:
            raise BundleError(
                f"there is no float32 variant to compare '{variant.name}' with",
                remedy="make the bundle again with edgevit export, or name the variants to time with --variant",
            )
        wanted |= {variant.name: baseline.name, baseline.name: baseline.name}
    return [
        Candidate(
            name=variant.name,
            backend=variant.backend,
            model=bundle.verify_files(variant.name, backend_class(variant.backend).formats),
            settings=settings_of(variant, {}),
            baseline=wanted[variant.name],
        )
        for variant in variants
        if variant.name in wanted
    ]


def measure_latency(
    candidates: Sequence[Candidate],
    *,
    spec: AnySpec,
    batch: int = 1,
    threads: int = 0,
    duration_s: float = 10.0,
    warmup: int = 10,
    seed: int = 0,
    progress: Progress = SILENT,
    command: Sequence[str] = WORKER,
) -> list[Latency]:
    """Time the candidates against each other; the results are in their order.

    Args:
        candidates: what to time; each one's baseline must be among them.
        spec: the model's; inputs are random-normal images of its size, for values do not change the time of dense
            arithmetic.
        batch: images per inference.
        threads: that each backend may use; 0 means all cores that this process may run on.
        duration_s: seconds of measured inference per candidate, about; a slow model gets fewer rounds, not more time.
        warmup: unrecorded inferences after opening.
        seed: of the inputs, the order of the blocks, and the bootstrap.
        progress: where to report to.
        command: starts a worker.

    The cold start is the time from just before the worker process is spawned to its first logits: starting Python,
    importing numpy and the backend, opening (and compiling) the model, the first inference. The file is in the page
    cache if something read it before. The memory is the most that this process ever had resident.

    Raises:
        InputError: if a number is out of range or a baseline is missing.

    """
    _check(candidates, batch=batch, threads=threads, duration_s=duration_s, warmup=warmup)
    threads = threads or usable_cores()
    place = environment()
    records = {candidate.name: Record(name=candidate.name) for candidate in candidates}
    with scratch_folder() as folder, ExitStack() as stack:
        opened: list[tuple[Record, WorkerProcess, float]] = []
        for index, candidate in enumerate(progress.track(candidates, total=len(candidates), label="Opening variants")):
            worker = stack.enter_context(WorkerProcess(_subfolder(folder, index), command=command))
            job = BenchmarkJob(
                backend=candidate.backend,
                model=str(candidate.model.absolute()),
                settings=dict(candidate.settings),
                threads=threads,
                shape=(batch, spec.channels, *spec.image_size),
                seed=seed,
                warmup=max(warmup, MIN_INFERENCES),
                spawned_ns=worker.spawned_ns,
            )
            typical_ns = _open(records[candidate.name], worker, job)
            if typical_ns is not None:
                opened.append((records[candidate.name], worker, typical_ns))
        rounds, turns = _turns(opened, duration_s)
        conditions = Conditions(worker.pid for _, worker, _ in opened)
        _measure(turns, rounds, random.Random(seed), conditions, progress)  # noqa: S311  # shuffles, hides nothing
        setup = Setup(batch, threads, seed, duration_s, place, tuple(conditions.invalid_reasons()))
    return [latency_of(records[candidate.name], records[candidate.baseline], setup) for candidate in candidates]


def check_load(*, batch: int, threads: int, duration_s: float, warmup: int = 0) -> None:
    """Check the numbers that ``measure_latency`` takes.

    Raises:
        InputError: if one is out of range.

    """
    for name, value, least in (("batch", batch, 1), ("threads", threads, 0), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"{name} is {value}", remedy=f"use --{name} {least} or more")
    if threads > most_threads():
        raise InputError(f"threads is {threads}, more than {most_threads()}", remedy="use --threads 0 for all cores")
    if not 0 < duration_s < math.inf:
        raise InputError(f"duration is {duration_s} s", remedy="use a --duration above 0, such as 10")


def _check(candidates: Sequence[Candidate], *, batch: int, threads: int, duration_s: float, warmup: int) -> None:
    check_load(batch=batch, threads=threads, duration_s=duration_s, warmup=warmup)
    names = {candidate.name for candidate in candidates}
    missing = [candidate for candidate in candidates if candidate.baseline not in names]
    if len(names) < len(candidates) or missing:
        what = f"'{missing[0].baseline}' is not timed" if missing else "two candidates have the same name"
        raise InputError(f"cannot compare: {what}", remedy="time every variant once, together with its float32")


def _subfolder(folder: Path, index: int) -> Path:
    path = folder / str(index)
    path.mkdir()
    return path


def _open(record: Record, worker: WorkerProcess, job: BenchmarkJob) -> float | None:
    """Return the candidate's usual time per inference in nanoseconds, or None if it cannot be opened."""
    try:
        opened = worker.open(job, timeout_s=_OPEN_TIMEOUT_S)
    except WorkerStopped as stopped:
        record.stopped = str(stopped)
        worker.close()  # one that hangs must not take the others' time
        return None
    record.cold_start_ms = opened.cold_start_ms
    return median(opened.warmup_ns)


def _turns(opened: Sequence[tuple[Record, WorkerProcess, float]], duration_s: float) -> tuple[int, list[_Turn]]:
    rounds, inferences = plan_blocks([typical_ns for *_, typical_ns in opened], duration_s)
    return rounds, [
        _Turn(record, worker, TimedBlock(warmup=max(2, count // 10), inferences=count), typical_ns)
        for (record, worker, typical_ns), count in zip(opened, inferences, strict=True)
    ]


def plan_blocks(typical_ns: Sequence[float], duration_s: float) -> tuple[int, list[int]]:
    """Return how many rounds to run, and the inferences per block of each candidate, from their usual times.

    Fast candidates get ``ROUNDS`` blocks of equal time that sum to ``duration_s``. Where ``MIN_INFERENCES`` of the
    slowest take longer than such a block, there are fewer rounds, so that it too ends in about ``duration_s``.
    """
    block_ns = duration_s * 1e9 / ROUNDS
    inferences = [min(MAX_INFERENCES, max(MIN_INFERENCES, round(block_ns / typical))) for typical in typical_ns]
    longest_s = max((MIN_INFERENCES * typical / 1e9 for typical in typical_ns), default=0.0)
    rounds = ROUNDS if longest_s * ROUNDS <= duration_s else int(duration_s / longest_s)
    return max(1, rounds), inferences


def _measure(
    turns: list[_Turn], rounds: int, shuffler: random.Random, conditions: Conditions, progress: Progress
) -> None:
    """Fill the records: one block of each candidate per round, in an order of its own."""
    for _ in progress.track(range(rounds), total=rounds, label="Timing"):
        shuffler.shuffle(turns)
        for turn in turns:
            if turn.record.stopped is None:
                _measure_block(turn)
                conditions.sample()


def _measure_block(turn: _Turn) -> None:
    expected_s = (turn.block.warmup + turn.block.inferences) * turn.typical_ns / 1e9
    try:
        timings = turn.worker.measure(turn.block, timeout_s=_BLOCK_TIMEOUT_S + _PATIENCE * expected_s)
    except WorkerStopped as stopped:
        turn.record.stopped = str(stopped)
        turn.worker.close()
    else:
        turn.record.blocks.append(timings.inference_ns)
        turn.record.rss_mb = timings.rss_mb
