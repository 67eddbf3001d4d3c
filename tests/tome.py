"""Token merging as its paper says (Bolya et al. 2023, section 3), on timm's modules, one image at a time.

A token is a list of the places that went into it. Nothing is clever here: what it gives is what the graph must give.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def tokens_of_blocks(model: nn.Module, images: Tensor, schedule: Sequence[int]) -> list[Tensor]:
    """Return what each block of timm's ``model`` gives, (B, N, D), each place with what the token has that holds it."""
    each = [_of_one(model, image[None], schedule) for image in images]
    return [torch.cat(blocks) for blocks in zip(*each, strict=True)]


def answers(model: nn.Module, images: Tensor, schedule: Sequence[int]) -> Tensor:
    """Return the logits, or the features, of timm's ``model`` with ``schedule[i]`` tokens merged in block i."""
    found: Tensor = model.forward_head(model.norm(tokens_of_blocks(model, images, schedule)[-1]))
    return found


def _of_one(model: nn.Module, image: Tensor, schedule: Sequence[int]) -> list[Tensor]:
    x = model.norm_pre(model._pos_embed(model.patch_embed(image)))
    places = [[place] for place in range(x.shape[1])]
    found = []
    for block, count in zip(model.blocks, schedule, strict=True):
        sizes = torch.tensor([len(each) for each in places], dtype=torch.float32)
        given = block.norm1(x)
        x = x + block.ls1(block.attn(given, attn_mask=sizes.log().expand(1, 1, len(places), -1)))
        groups = matched(keys(block.attn, given), model.num_prefix_tokens, count)
        x = torch.stack([(x[0, one] * sizes[one, None]).sum(0) / sizes[one].sum() for one in groups])[None]
        places = [[place for member in one for place in places[member]] for one in groups]
        x = x + block.ls2(block.mlp(block.norm2(x)))
        found.append(restored(x, places))
    return found


def keys(attention: nn.Module, x: Tensor) -> Tensor:
    """Return the mean of keys over heads, (N, d), of ``x`` (1, N, D)."""
    key = attention.qkv(x).reshape(x.shape[1], 3, attention.num_heads, attention.head_dim)[:, 1]
    return key.mean(1)


def matched(metric: Tensor, prefix: int, count: int) -> list[list[int]]:
    """Return which tokens are one token afterwards: bipartite soft matching, none of the first ``prefix``."""
    a, b = ([place for place in range(start, len(metric), 2) if place >= prefix] for start in (0, 1))
    if not count:
        return [[place] for place in range(len(metric))]
    unit = functional.normalize(metric, dim=-1)
    best, partner = (unit[a] @ unit[b].T).max(dim=1)
    order = best.argsort(descending=True, stable=True).tolist()
    groups = {place: [place] for place in b}
    for one in order[:count]:
        groups[b[int(partner[one])]].append(a[one])
    return [*([place] for place in range(prefix)), *([a[one]] for one in order[count:]), *groups.values()]


def restored(x: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """Return ``x`` (1, n, D) with a row for each of all ``places``."""
    whole = torch.empty(1, sum(map(len, places)), x.shape[2])
    for row, members in zip(x[0], places, strict=True):
        whole[0, list(members)] = row
    return whole
