"""What is said of variants whose tokens are merged: by which budget, what is left, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from edgevit.bundle.manifest import Manifest, TokenMerging, Variant
from edgevit.models.spec import AnySpec, ModelSpec
from edgevit.report import formats


def merged_tokens(manifest: Manifest) -> list[str]:
    """Return a line for the variants that merge the same tokens: budget, multiply-adds left, and where."""
    found: dict[TokenMerging, list[str]] = {}
    for variant in manifest.variants:
        if variant.token_merging is not None:
            found.setdefault(variant.token_merging, []).append(variant.name)
    return [
        formats.printable(
            f"{', '.join(names)}: {left_in_words(merging, manifest.model)}; merged: {where(merging.schedule)}",
            limit=600,
        )
        for merging, names in found.items()
    ]


def left_in_words(merging: TokenMerging, model: AnySpec) -> str:
    """Return the budget, what is left of multiply-adds and tokens, and whether weights were trained for it."""
    work = f"token budget {merging.budget:g}, {formats.percent(merging.share, 1000)} of the multiply-adds"
    before = first_block_tokens(model)
    left = f"{merging.merged} tokens fewer" if before is None else f"{before - merging.merged} of {before} tokens"
    trained = "" if merging.student_sha256 is None else ", with weights trained for it"
    return f"{work}, {left} at the end{trained}"


def where(schedule: Sequence[int]) -> str:
    """Return which blocks, from 0 on, merge how many tokens: those beside one another that merge as many together."""
    said = []
    for count, those in groupby(enumerate(schedule), key=lambda each: each[1]):
        blocks = [block for block, _ in those]
        if not count:
            continue
        if len(blocks) == 1:
            said.append(f"{count} in block {blocks[0]}")
        else:
            said.append(f"{count} in each of blocks {blocks[0]} to {blocks[-1]}")
    return ", ".join(said) or "none"


def merging_data(variant: Variant, model: AnySpec) -> dict[str, Any] | None:
    """Return what the report has of a variant's merged tokens, with how many there are first and last if it is known.

    None where none are merged.
    """
    merging = variant.token_merging
    if merging is None:
        return None
    before = first_block_tokens(model)
    return {
        "tokens_before": before,
        "tokens_after": None if before is None else before - merging.merged,
        "left": left_in_words(merging, model),
        "where": where(merging.schedule),
    }


def first_block_tokens(model: AnySpec) -> int | None:
    """Return how many tokens the first block has; None of a third-party file, which does not tell."""
    return model.tokens if isinstance(model, ModelSpec) else None


def whole_of(variant: Variant, variants: Iterable[Variant]) -> str | None:
    """Return the name of the variant with all tokens that one with merged tokens is made like; None if there is none.

    It is itself for a variant that merges none.
    """
    if variant.token_merging is None:
        return variant.name
    like = (variant.precision, variant.backend, variant.target)
    return next(
        (
            each.name
            for each in variants
            if each.token_merging is None and (each.precision, each.backend, each.target) == like
        ),
        None,
    )
