"""A Vision Transformer that merges tokens that are alike (ToMe, Bolya et al. 2023), to be trained as it will be used.

It does what the pass ``MergeTokens`` writes into its graph: each block has a number of tokens that it merges behind its
attention, by the mean of its keys over the heads. Of the patches' tokens, those in even places (A) each find the one in
an odd place (B) that is most like them; those of A that are most alike go into it, weighed by how many patches each
stands for. Gradients flow through the tokens, not through the choice of which are merged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgevit.models.token_schedule import check_schedule
from edgevit.models.vit import Block, VisionTransformer


class MergingVisionTransformer(VisionTransformer):
    """``model`` with its very weights, merging ``schedule[i]`` tokens behind the attention of block i.

    Tokens that it gives are as many as ever: each has what the one has that it went into.

    Raises:
        SpecError: if tokens of such a model cannot be merged, or not so many.
    """

    def __init__(self, model: VisionTransformer, schedule: Sequence[int]) -> None:
        check_schedule(model.spec, schedule)
        with torch.device("meta"):
            super().__init__(model.spec)
        self.load_state_dict(model.state_dict(), assign=True)
        self.schedule = tuple(schedule)

    def forward_blocks(self, images: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:  # each (B, N, D)
        """Return all tokens as the blocks whose numbers are ``wanted`` give them, before the last norm."""
        x = self.embed(images)
        merged = MergedTokens(self.spec.prefix_tokens)
        found = {}
        for number, (block, count) in enumerate(zip(self.blocks, self.schedule, strict=True)):
            assert isinstance(block, Block)  # noqa: S101 - for mypy
            query, key, value = block.attn.project(block.norm1(x))
            x = x + block.attn.mix(query, key, value, merged.bias)
            if count:
                x, merged = merged.merge(x, key.detach().float().mean(dim=1), count)
            x = x + block.mlp(block.norm2(x))
            if number in wanted:
                found[number] = merged.restore(x)
        return found


class MergingEmbedder(MergingVisionTransformer):
    """The same, giving all normalised tokens (B, N, D) beside the features (B, features)."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return features and tokens."""
        tokens = self.forward_features(images)
        return self.forward_head(tokens), tokens


@dataclass(frozen=True, slots=True)
class MergedTokens:
    """What became of the tokens so far; nothing is said of sizes and places where none was merged.

    The first ``prefix`` stay as they are. ``sizes`` (B, n, 1) are the patches that each stands for, ``places`` (B, N)
    where each of the first N tokens is now.
    """

    prefix: int
    sizes: Tensor | None = None
    places: Tensor | None = None

    @property
    def bias(self) -> Tensor | None:
        """What attention adds to the scores of each key (B, 1, 1, n): one that stands for s patches counts s times."""
        return None if self.sizes is None else self.sizes.log()[:, None, None, :, 0]

    def merge(self, tokens: Tensor, metric: Tensor, count: int) -> tuple[Tensor, MergedTokens]:
        """Return what is left of ``tokens`` (B, n, D) when ``count`` are merged by ``metric`` (B, n, d), and where."""
        sizes = tokens.new_ones(*tokens.shape[:2], 1) if self.sizes is None else self.sizes
        prefix, total = self.prefix, tokens.shape[1]
        in_a = torch.arange(prefix + prefix % 2, total, 2, device=tokens.device)
        in_b = torch.arange(prefix + 1 - prefix % 2, total, 2, device=tokens.device)
        unit = functional.normalize(metric, dim=-1)
        best, partner = (unit[:, in_a] @ unit[:, in_b].transpose(1, 2)).max(dim=2)  # (B, a) each
        order = best.argsort(dim=1, descending=True, stable=True)
        gone, kept = order[:, :count], order[:, count:]
        target = partner.gather(1, gone)  # of B

        def moved(value: Tensor) -> Tensor:  # (B, n, f), added up
            a = _take(value[:, in_a], gone)
            return value[:, in_b].scatter_add(1, target[..., None].expand_as(a), a)

        def joined(value: Tensor, of_b: Tensor) -> Tensor:
            return torch.cat([value[:, :prefix], _take(value[:, in_a], kept), of_b], dim=1)

        size = moved(sizes)
        left = joined(tokens, moved(tokens * sizes) / size)
        stays = in_a.numel() - count
        places = torch.arange(total, device=tokens.device).repeat(len(tokens), 1)
        places[:, in_b] = prefix + stays + torch.arange(in_b.numel(), device=tokens.device)
        of_a = torch.empty_like(order)
        of_a.scatter_(1, kept, (prefix + torch.arange(stays, device=tokens.device)).expand_as(kept))
        of_a.scatter_(1, gone, prefix + stays + target)
        places[:, in_a] = of_a
        if self.places is not None:
            places = places.gather(1, self.places)
        return left, MergedTokens(prefix, joined(sizes, size), places)

    def restore(self, tokens: Tensor) -> Tensor:
        """Return ``tokens`` (B, n, D) with a row for each of the first tokens again (B, N, D)."""
        return tokens if self.places is None else _take(tokens, self.places)


def _take(value: Tensor, numbers: Tensor) -> Tensor:
    """Return the rows (B, k, f) of ``value`` (B, n, f) that ``numbers`` (B, k) say, of each image its own."""
    return value.gather(1, numbers[..., None].expand(-1, -1, value.shape[-1]))
