"""How many tokens each block of a ViT can merge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgevit.errors import SpecError
from edgevit.models.spec import ModelSpec


def check_mergeable(spec: ModelSpec) -> None:
    """Check that tokens of such a model can be merged.

    Raises:
        SpecError: if not.

    """
    reason = ""
    if spec.rotary is not None or spec.relative_positions:
        reason = "its attention depends on the positions of queries and keys, and a merged token has several"
    elif spec.query_key_norm:
        reason = "its attention has a norm on queries and keys, which is not recognised in its graph"
    if reason:
        raise SpecError(f"tokens cannot be merged in this model: {reason}", remedy="use it without --token-budget")


def check_schedule(spec: ModelSpec, schedule: Sequence[int]) -> None:
    """Check that a model can merge ``schedule[i]`` tokens in block i: half of the patches' tokens that are left.

    Raises:
        SpecError: if not.

    """
    check_mergeable(spec)
    problem = impossible_schedule_reason(spec.tokens, spec.prefix_tokens, spec.depth, schedule)
    if problem is not None:
        raise SpecError(problem.message, remedy=problem.remedy)


class Problem(NamedTuple):
    """What is wrong, and what to do about it."""

    message: str
    remedy: str


def impossible_schedule_reason(tokens: int, prefix: int, blocks: int, schedule: Sequence[int]) -> Problem | None:
    """Return why ``blocks`` cannot merge ``tokens`` by ``schedule``, none of the first ``prefix``; None if they can."""
    if len(schedule) != blocks:
        return Problem(
            f"the schedule is of {len(schedule)} blocks, the model has {blocks}", "give one number for each block"
        )
    left = tokens
    for number, count in enumerate(schedule):
        most = most_merged(left, prefix)
        if not 0 <= count <= most:
            return Problem(f"block {number} cannot merge {count} of {left} tokens", f"merge 0 to {most} there")
        left -= count
    return None


def most_merged(tokens: int, prefix: int) -> int:
    """Return how many of ``tokens`` one block can merge, none of the first ``prefix``."""
    first_a, first_b = prefix + prefix % 2, prefix + 1 - prefix % 2
    return max(0, min(len(range(first_a, tokens, 2)) - 1, len(range(first_b, tokens, 2))))
