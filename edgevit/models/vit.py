"""The Vision Transformer.

An image is cut into patches, each patch becomes a token, and a pre-norm transformer encoder mixes the tokens
(Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021). Parameter names are timm's, so that its checkpoints load
as they are. What only some families have is in ``layers.py``.

Every linear layer has a bias, and every token a position where there are learned ones: families without some of them
load with zeros there. There
is no LayerScale: it is multiplied into the linear layer before it when a checkpoint is loaded, which is the same.

Shapes in comments: B images, C channels, H x W pixels, P pixels in a patch's values (C*p*p), N tokens including the
class token and registers, D width, h heads, d = D/h features per head.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.models.layers import (
    AttentionPool,
    GatedMlp,
    NormalizedPatchEmbedding,
    PreLogits,
    RelativePositions,
    Rotation,
    activate,
    rotate,
)
from edgevit.models.spec import Activation, ModelSpec


class PatchEmbedding(nn.Module):
    """Cuts an image into p x p patches V and projects each to a token, E = VW + b.

    Stored as a convolution whose stride is its kernel size, which is the same linear map (see ``as_linear``).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.channels, spec.width, spec.patch_size, stride=spec.patch_size)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N-1, D)
        return self.proj(images).flatten(2).transpose(1, 2)

    def as_linear(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N-1, D)
        """Return the same tokens by flattening each patch to V (B, N-1, P) and computing VW + b."""
        patches = functional.unfold(images, self.proj.kernel_size, stride=self.proj.stride)
        return functional.linear(patches.transpose(1, 2), self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d)) V in each head, then a projection.

    Queries and keys may be normalised and turned by their positions; scores may depend on how far apart two tokens lie.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.scale = spec.head_width**-0.5
        inner = spec.heads * spec.head_width  # D, but for models whose heads have a width of their own
        self.qkv = nn.Linear(spec.width, 3 * inner)
        self.q_norm = nn.LayerNorm(spec.head_width, spec.norm_epsilon) if spec.query_key_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(spec.head_width, spec.norm_epsilon) if spec.query_key_norm else nn.Identity()
        self.relative: nn.Module | None = RelativePositions(spec) if spec.relative_positions else None
        self.norm = nn.LayerNorm(inner, spec.norm_epsilon) if spec.attention_norm else nn.Identity()
        self.proj = nn.Linear(inner, spec.width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:  # (B, N, D) -> (B, N, D)
        query, key, value = self.project(x, rotation)
        return self.mix(query, key, value)

    def project(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of ``x`` (B, N, D), each (B, h, N, d)."""
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(x).chunk(3, dim=-1))
        query, key = self.q_norm(query), self.k_norm(key)  # (B, N, h, d)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:  # -> (B, N, D)
        """Return what each query finds, projected; ``bias`` (B, 1, 1, N) is added to the scores of each key."""
        scores = query * self.scale @ key.transpose(-2, -1)  # (B, h, N, N)
        if self.relative is not None:
            scores = scores + self.relative()
        if bias is not None:
            scores = scores + bias
        weights = scores.softmax(dim=-1)
        mixed = weights.to(value.dtype) @ value  # (B, h, N, d); softmax stays in float32 under autocast
        return self.proj(self.norm(mixed.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two linear layers with an activation between them, a GELU as a rule."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.activation: Activation = spec.activation
        self.fc1 = nn.Linear(spec.width, spec.mlp_width)
        self.norm = nn.LayerNorm(spec.mlp_width, spec.norm_epsilon) if spec.mlp_norm else nn.Identity()
        self.fc2 = nn.Linear(spec.mlp_width, spec.width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        return self.fc2(self.norm(activate(self.fc1(x), self.activation)))


class Block(nn.Module):
    """One pre-norm encoder layer: attention, then the MLP, each added to what came in."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width, spec.norm_epsilon)
        self.attn = Attention(spec)
        self.norm2 = nn.LayerNorm(spec.width, spec.norm_epsilon)
        self.mlp = GatedMlp(spec) if spec.gated_mlp else Mlp(spec)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None = None) -> Tensor:  # (B, N, D) -> (B, N, D)
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """A ViT classifier, or an embedding model; ``forward_features`` gives its tokens to other tasks.

    Linear weights start Glorot-uniform with zero biases, as in the original ViT: at widths below a few hundred this
    learns much faster than a fixed deviation of 0.02.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = NormalizedPatchEmbedding(spec) if spec.patch_norm else PatchEmbedding(spec)
        self.cls_token = nn.Parameter(torch.empty(1, 1, spec.width)) if spec.class_token else None
        self.reg_token = (
            nn.Parameter(torch.empty(1, spec.register_tokens, spec.width)) if spec.register_tokens else None
        )
        self.pos_embed: Tensor | None
        match spec.position_embedding:
            case "learned":
                self.pos_embed = nn.Parameter(torch.empty(1, spec.tokens, spec.width))
            case "sincos":
                self.register_buffer("pos_embed", sincos_positions(spec.grid, spec.width, spec.prefix_tokens))
            case "none":
                self.pos_embed = None
        self.rotary = None if spec.rotary is None else Rotation(spec, spec.rotary)
        self.norm_pre = nn.LayerNorm(spec.width, spec.norm_epsilon) if spec.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList([Block(spec) for _ in range(spec.depth)])
        normed = spec.final_norm and not spec.norm_after_pooling
        self.norm = nn.LayerNorm(spec.width, spec.norm_epsilon) if normed else nn.Identity()
        self.fc_norm = nn.LayerNorm(spec.pooled_width, spec.norm_epsilon) if spec.norm_after_pooling else nn.Identity()
        if spec.pooling == "attention":
            self.attn_pool = AttentionPool(spec, Mlp(spec))
        self.pre_logits = PreLogits(spec) if spec.pre_logits else nn.Identity()
        features = spec.pre_logits or spec.pooled_width
        outputs = spec.projection if spec.l2_normalize else spec.classes or spec.projection
        self.head = nn.Linear(features, outputs) if outputs else nn.Identity()
        if spec.classes and spec.l2_normalize:
            self.classifier = nn.Linear(outputs or features, spec.classes)
        if not next(self.parameters()).is_meta:  # there is nothing to fill, and torch would load its compiler for it
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02, a=-0.04, b=0.04)

    def forward_features(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N, D)
        """Return all normalised tokens (B, N, D): the class token, the registers, the patches."""
        last = self.spec.depth - 1
        return self.norm(self.forward_blocks(images, (last,))[last])

    def forward_blocks(self, images: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:  # each (B, N, D)
        """Return all tokens as the blocks whose numbers are ``wanted`` give them, before the last norm."""
        x = self.embed(images)
        found = {}
        for number, (block, rotation) in enumerate(zip(self.blocks, self._rotations(), strict=True)):
            x = block(x, rotation)
            if number in wanted:
                found[number] = x
        return found

    def embed(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N, D)
        """Return the tokens that the first block takes: the class token, the registers, the patches."""
        patches = self.patch_embed(images)
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        x = torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in prefix), patches], dim=1)
        return self.norm_pre(x if self.pos_embed is None else x + self.pos_embed)

    def _rotations(self) -> list[tuple[Tensor, Tensor] | None]:
        """Return by which angles each block turns queries and keys."""
        if self.rotary is None:
            return [None] * len(self.blocks)
        cosines, sines = self.rotary()
        own = len(cosines) > 1
        return [(cosines[number * own], sines[number * own]) for number in range(len(self.blocks))]

    def pool(self, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, D), or (B, 2D)
        """Return one vector per image, as ``spec.pooling`` says."""
        match self.spec.pooling:
            case "class":
                return tokens[:, 0]
            case "mean":
                return tokens[:, self.spec.prefix_tokens :].mean(dim=1)
            case "max":
                return tokens[:, self.spec.prefix_tokens :].amax(dim=1)
            case "mean/max":
                patches = tokens[:, self.spec.prefix_tokens :]
                return 0.5 * (patches.amax(dim=1) + patches.mean(dim=1))
            case "class+mean":
                return torch.cat([tokens[:, 0], tokens[:, self.spec.prefix_tokens :].mean(dim=1)], dim=1)
            case "class+register":
                return tokens[:, :2].flatten(1)
            case "attention":
                return self.attn_pool(tokens[:, self.spec.prefix_tokens :] if self.spec.prefix_tokens else tokens)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes), or (B, features) without a head
        return self.forward_head(self.forward_features(images))

    def forward_head(self, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, classes), or (B, features) without a head
        """Return what the model makes of all its normalised tokens: logits or features."""
        x = self.head(self.pre_logits(self.fc_norm(self.pool(tokens))))
        if not self.spec.l2_normalize:
            return x
        x = functional.normalize(x, dim=-1)
        return self.classifier(x) if self.spec.classes else x


def sincos_positions(
    grid: tuple[int, int], width: int, prefix: int = 1, *, temperature: float = 10_000.0
) -> Tensor:  # (1, prefix + rows*columns, width)
    """Return fixed 2-D positions; those of the ``prefix`` tokens before the patches are zero.

    A quarter of the features each is the sine and cosine of the column and of the row, at ``width // 4`` wavelengths
    (Vaswani et al. 2017, in two dimensions as in MAE, He et al. 2022).
    """
    if torch.get_default_device().type == "meta":  # where only shapes count, arange would load torch's compiler first
        return torch.empty(1, prefix + grid[0] * grid[1], width)
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    frequencies = temperature ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]  # each (rows*columns, width/4)
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(prefix, width, dtype=torch.float64), patches])[None].float()
