"""How many tokens each block of a ViT merges: what can be done, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from edgevit.errors import SpecError
from edgevit.models.spec import ModelSpec

_SKIPPED = 3  # one block in so many, at the beginning, merges nothing where none is measured: tokens still differ there


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
    if len(schedule) != spec.depth:
        raise SpecError(
            f"the schedule is of {len(schedule)} blocks, the model has {spec.depth}",
            remedy="give one number for each block",
        )
    left = spec.tokens
    for number, count in enumerate(schedule):
        most = most_merged(left, spec.prefix_tokens)
        if not 0 <= count <= most:
            raise SpecError(f"block {number} cannot merge {count} of {left} tokens", remedy=f"merge 0 to {most} there")
        left -= count


def most_merged(tokens: int, prefix: int) -> int:
    """Return how many of ``tokens`` one block can merge, none of the first ``prefix``."""
    first_a, first_b = prefix + prefix % 2, prefix + 1 - prefix % 2
    return max(0, min(len(range(first_a, tokens, 2)) - 1, len(range(first_b, tokens, 2))))


def share_of_work(spec: ModelSpec, schedule: Sequence[int]) -> float:
    """Return the multiply-adds of a model with ``schedule`` as a share, 0..1, of those without."""
    return _work(spec, schedule) / _work(spec, [0] * spec.depth)


def even_schedule(spec: ModelSpec, budget: float) -> tuple[int, ...]:
    """Return a schedule with at most the share ``budget`` of the multiply-adds, with as much to merge in each block.

    The first third of the blocks and the last, behind which there is hardly anything to save, merge nothing.

    Raises:
        SpecError: if tokens of such a model cannot be merged, or so many that not enough is left.

    """
    check_mergeable(spec)
    schedule = (0,) * spec.depth
    for count in range(1, spec.tokens):
        schedule = tuple(_even(spec, count))
        if share_of_work(spec, schedule) <= budget:
            return schedule
    raise SpecError(
        f"merging leaves at least {share_of_work(spec, schedule):.2f} of the multiply-adds of this model",
        remedy=f"give a budget above {share_of_work(spec, schedule):.2f}",
    )


def _even(spec: ModelSpec, count: int) -> Iterator[int]:
    left = spec.tokens
    for number in range(spec.depth):
        merges = spec.depth // _SKIPPED <= number < max(1, spec.depth - 1)
        merged = min(count, most_merged(left, spec.prefix_tokens)) if merges else 0
        yield merged
        left -= merged


def _work(spec: ModelSpec, schedule: Sequence[int]) -> int:
    """Return the multiply-adds of embedding, blocks and head."""
    inner = spec.heads * spec.head_width
    counts = [spec.tokens, *(spec.tokens - merged for merged in accumulate(schedule))]
    mlp = spec.width * spec.mlp_width * (3 if spec.gated_mlp else 2)
    blocks = sum(
        before * 4 * spec.width * inner + 2 * before * before * inner + behind * mlp
        for before, behind in pairwise(counts)
    )
    patches = (spec.tokens - spec.prefix_tokens) * spec.channels * spec.patch_size[0] * spec.patch_size[1] * spec.width
    return blocks + patches + spec.width * spec.classes
