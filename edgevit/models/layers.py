"""Layers that only some families of ViTs have; shapes in comments as in ``vit.py``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.models.spec import Activation, ModelSpec


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


class GatedMlp(nn.Module):
    """A linear layer whose first half, activated, gates the second, then another (SwiGLU, Shazeer 2020)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.activation: Activation = spec.activation
        self.fc1 = nn.Linear(spec.width, 2 * spec.mlp_width)
        self.fc2 = nn.Linear(spec.mlp_width, spec.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        gate, values = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(activate(gate, self.activation) * values)


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
