"""Layers that only some families of ViTs have; shapes in comments as in ``vit.py``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.models.spec import Activation, ModelSpec, RotaryPositions


def activate(x: Tensor, kind: Activation) -> Tensor:
    """Return the activation ``kind`` of ``x``; QuickGELU is OpenAI's x * sigmoid(1.702 x)."""
    match kind:
        case "gelu":
            return functional.gelu(x)
        case "gelu_tanh":
            return functional.gelu(x, approximate="tanh")
        case "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        case "silu":
            return functional.silu(x)
        case "relu":
            return functional.relu(x)
        case "sigmoid":
            return torch.sigmoid(x)


class NormalizedPatchEmbedding(nn.Module):
    """Flattened patches, projected with a LayerNorm before and one after (vit-pytorch)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.grid, self.patch = spec.grid, spec.patch_size
        values = spec.channels * spec.patch_size[0] * spec.patch_size[1]
        self.norm_in = nn.LayerNorm(values, spec.norm_epsilon)
        self.proj = nn.Linear(values, spec.width)
        self.norm_out = nn.LayerNorm(spec.width, spec.norm_epsilon)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N, D)
        (rows, columns), (height, width) = self.grid, self.patch
        cut = images.unflatten(3, (columns, width)).unflatten(2, (rows, height))  # (B, C, rows, p, columns, p)
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, P)
        return self.norm_out(self.proj(self.norm_in(patches)))


class Rotation(nn.Module):
    """Cosines and sines of the angles by which queries and keys are turned, from frequencies and the grid.

    ``frequencies`` are of rows and of columns (2, L, h, d/2): one for all blocks and heads, or ``own`` of each.
    Tokens before the patches are not turned.
    """

    def __init__(self, spec: ModelSpec, rotary: RotaryPositions) -> None:
        super().__init__()
        self.rotary, self.grid, self.prefix = rotary, spec.grid, spec.prefix_tokens
        blocks, heads = (spec.depth, spec.heads) if rotary.own else (1, 1)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.zeros(2, blocks, heads, spec.head_width // 2))

    def forward(self) -> tuple[Tensor, Tensor]:  # (L, N, h, d) each, L and h 1 where all have the same
        """Return cosines and sines, for both halves of a head."""
        frequencies = self.frequencies
        places = (grid_places(self.rotary, self.grid, axis, frequencies.device) for axis in (0, 1))
        angles = sum(
            place[:, None].to(frequencies.dtype) * frequency[..., None, :]
            for place, frequency in zip(places, frequencies.unbind(), strict=True)
        )
        assert isinstance(angles, Tensor)  # noqa: S101 - there are two axes
        angles = functional.pad(angles, (0, 0, self.prefix, 0))
        angles = torch.cat([angles, angles], dim=-1).transpose(1, 2)
        return angles.cos(), angles.sin()


def grid_places(rotary: RotaryPositions, grid: tuple[int, int], axis: int, device: torch.device) -> Tensor:  # (N,)
    """Return where the patches of a grid lie on ``axis``, 0 for rows: row by row."""
    count = grid[axis]
    places = torch.arange(count, dtype=torch.float32, device=device)
    if rotary.coordinates == "centres":
        places = 2 * ((places + 0.5 + rotary.offset) / count) - 1
    else:
        places = places + rotary.offset
        places = places if rotary.reference is None else places / count * rotary.reference[axis]
    return places.repeat_interleave(grid[1]) if axis == 0 else places.repeat(grid[0])


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:  # (B, N, h, d), (N, h, d) -> (B, N, h, d)
    """Turn each pair of features (x, y), half a head apart, by an angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


class RelativePositions(nn.Module):
    """A number for each head and each distance between two patches, to be added to scores (BEiT, Bao et al. 2022).

    The last three rows of ``table`` are for pairs with the class token: to a patch, from a patch, to itself.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.grid = spec.grid
        self.table = nn.Parameter(torch.zeros(relative_distances(spec.grid), spec.heads))

    def forward(self) -> Tensor:  # (h, N, N)
        """Return what is added to the scores of each query (rows) and key (columns)."""
        rows, columns = self.grid
        place = torch.arange(rows * columns, device=self.table.device)
        row, column = place // columns, place % columns
        steps = (row[:, None] - row + rows - 1) * (2 * columns - 1) + column[:, None] - column + columns - 1
        index = functional.pad(steps, (1, 0, 1, 0), value=0)
        last = self.table.shape[0]
        first = torch.arange(rows * columns + 1, device=index.device) == 0
        index = torch.where(first[:, None], last - 3, torch.where(first, last - 2, index))
        index = torch.where(first[:, None] & first, last - 1, index)
        return self.table[index].permute(2, 0, 1)


def relative_distances(grid: tuple[int, int]) -> int:
    """Return how many distances there are between the patches of a grid, the three with the class token among them."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


class GatedMlp(nn.Module):
    """A linear layer whose first half, activated, gates the second, then another (SwiGLU, Shazeer 2020)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.activation: Activation = spec.activation
        self.fc1 = nn.Linear(spec.width, 2 * spec.mlp_width)
        self.norm = nn.LayerNorm(spec.mlp_width, spec.norm_epsilon) if spec.mlp_norm else nn.Identity()
        self.fc2 = nn.Linear(spec.mlp_width, spec.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        gate, values = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(self.norm(activate(gate, self.activation) * values))


class AttentionPool(nn.Module):
    """One learned query attends to all patches; an MLP is added to what it finds (SigLIP, Zhai et al. 2023).

    The query is the same for every image, so it is kept projected already: one parameter, no linear layer.
    """

    def __init__(self, spec: ModelSpec, mlp: nn.Module) -> None:
        super().__init__()
        self.heads = spec.heads
        self.scale = (spec.width // spec.heads) ** -0.5
        self.query = nn.Parameter(torch.empty(1, 1, spec.width))
        self.kv = nn.Linear(spec.width, 2 * spec.width)
        self.proj = nn.Linear(spec.width, spec.width)
        self.norm = nn.LayerNorm(spec.width, spec.norm_epsilon)
        self.mlp = mlp
        nn.init.trunc_normal_(self.query, std=spec.width**-0.5)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, D)
        key, value = (self._split_heads(part) for part in self.kv(x).chunk(2, dim=-1))  # (B, h, N, d)
        query = self._split_heads(self.query) * self.scale  # (1, h, 1, d)
        weights = (query @ key.transpose(-2, -1)).softmax(dim=-1)  # (B, h, 1, N)
        found = self.proj((weights.to(value.dtype) @ value).transpose(1, 2).flatten(2))  # (B, 1, D)
        return (found + self.mlp(self.norm(found)))[:, 0]

    def _split_heads(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, h, N, d)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class PreLogits(nn.Module):
    """A linear layer and a tanh before the head (Dosovitskiy et al. 2021, in pre-training)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.fc = nn.Linear(spec.pooled_width, spec.pre_logits)

    def forward(self, x: Tensor) -> Tensor:  # (B, D) -> (B, features)
        return torch.tanh(self.fc(x))
