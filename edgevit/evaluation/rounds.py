"""Rounds of blocks: one block of each candidate in a shuffled order; disturbed rounds are measured again.

Short blocks side by side make slow changes of the machine hit all candidates alike, so that the ratio of two blocks of
one round can be trusted where their times cannot. What disturbs the machine in one round makes all of it count no more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from edgevit.evaluation.conditions import Conditions, Watched
from edgevit.evaluation.figures import MIN_ROUNDS, Record
from edgevit.evaluation.messages import TimedBlock, Timings
from edgevit.evaluation.worker_process import WorkerProcess, WorkerStopped
from edgevit.progress import Progress

#: Rounds that are aimed at; a valid result needs figures.MIN_ROUNDS.
ROUNDS = 30
#: Rounds of a run that goes on until it is precise.
MOST_ROUNDS = 1000
#: Inferences that a block has at least, and at most.
MIN_INFERENCES = 3
MAX_INFERENCES = 10_000
#: Of the duration, what the planned rounds take; the rest is for those that are measured again.
_PLANNED_SHARE = 0.8
#: Seconds of a block where the width of intervals decides how many there are.
_PRECISE_BLOCK_S = 0.3
_BLOCK_TIMEOUT_S = 30.0
#: A block may take this many times as long as the warm-up lets expect.
_PATIENCE = 20


class Turn(NamedTuple):
    """A candidate that is being measured: its worker, its inferences per block, and what it took before, each."""

    record: Record
    worker: WorkerProcess
    block: TimedBlock
    typical_ns: float


class Round(NamedTuple):
    """One block of each candidate that runs, by its name, and what was watched meanwhile."""

    blocks: Mapping[str, Timings]
    watched: Watched


class Plan(NamedTuple):
    """How many rounds are wanted, and the inferences per block of each candidate."""

    rounds: int
    inferences: list[int]


def plan_blocks(
    typical_ns: Sequence[float], duration_s: float, *, precise: bool = False, least_block_s: float = 0.0
) -> Plan:
    """Return the plan for candidates whose inferences usually take ``typical_ns``.

    Fast candidates get ``ROUNDS`` blocks of equal time that take ``_PLANNED_SHARE`` of ``duration_s``. Where
    ``MIN_INFERENCES`` of the slowest, or ``least_block_s``, take longer than such a block, there are fewer rounds, so
    that it too ends in about ``duration_s``. With ``precise`` there are as many short blocks as fit: fewer are run once
    the intervals are narrow enough.
    """
    block_s = _PLANNED_SHARE * duration_s / ROUNDS
    if precise:
        block_s = min(block_s, _PRECISE_BLOCK_S)
    block_s = max(block_s, least_block_s)
    wanted = min(MOST_ROUNDS, max(ROUNDS, int(_PLANNED_SHARE * duration_s / block_s))) if precise else ROUNDS
    inferences = [min(MAX_INFERENCES, max(MIN_INFERENCES, round(block_s * 1e9 / typical))) for typical in typical_ns]
    longest_s = max([least_block_s, *(MIN_INFERENCES * typical / 1e9 for typical in typical_ns)])
    rounds = wanted if longest_s * wanted <= duration_s else int(duration_s / longest_s)
    return Plan(max(1, rounds), inferences)


def measure_rounds(
    turns: list[Turn],
    rounds: list[Round],
    plan: Plan,
    *,
    duration_s: float,
    shuffler: random.Random,
    conditions: Conditions,
    enough: Callable[[Sequence[Round]], bool],
    progress: Progress,
) -> None:
    """Append to ``rounds``, whole ones only, until there are enough that count, or the time is over.

    All that are planned are run; those that were disturbed are measured again while ``duration_s`` for each candidate
    lasts. ``enough`` is asked of those that count, from the fewest on that a valid result has.
    """

    def wanted() -> Iterator[None]:
        deadline = time.monotonic() + duration_s * len(turns)
        while any(turn.record.stopped is None for turn in turns):
            quiet = undisturbed(rounds)
            if len(quiet) >= MIN_ROUNDS and enough(quiet):
                return
            over = len(quiet) >= plan.rounds or time.monotonic() >= deadline
            if len(rounds) >= plan.rounds and over:
                return
            yield

    with conditions.watching():
        for _ in progress.track(wanted(), total=plan.rounds, label="Timing"):  # more where some are measured again
            shuffler.shuffle(turns)
            conditions.begin()
            blocks = {}
            for turn in turns:
                if turn.record.stopped is None and (timings := _measured(turn)) is not None:
                    blocks[turn.record.name] = timings
                    conditions.look()
            rounds.append(Round(blocks, conditions.end()))


def undisturbed(rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds that nothing disturbed."""
    return [each for each in rounds if not each.watched.reasons]


def _measured(turn: Turn) -> Timings | None:
    """Return a block of one candidate; None if its worker has stopped."""
    expected_s = (turn.block.warmup + turn.block.inferences) * turn.typical_ns / 1e9
    try:
        return turn.worker.measure(turn.block, timeout_s=_BLOCK_TIMEOUT_S + _PATIENCE * expected_s)
    except WorkerStopped as stopped:
        turn.record.stopped = str(stopped)
        turn.worker.close()
        return None
