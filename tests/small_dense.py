"""Small networks of three kinds for dense outputs, as torch exports them: depth, masks, and boxes as DETR's."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, PATCH, WIDTH, HEADS = 32, 4, 32, 2
CLASSES, QUERIES = 3, 24


class Encoder(nn.Module):
    """Patches and two blocks: tokens (B, N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn(1, (SIZE // PATCH) ** 2, WIDTH))
        block = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.patches(images).flatten(2).transpose(1, 2) + self.positions)
        return found


class Dense(nn.Module):
    """Numbers for each pixel (B, channels, H, W), as DPT and Segmenter give them; depth is above 0, and (B, H, W)."""

    def __init__(self, channels: int, *, depth: bool = False) -> None:
        super().__init__()
        self.encoder, self.depth = Encoder(), depth
        self.head = nn.Sequential(nn.Conv2d(WIDTH, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.encoder(images)
        side = SIZE // PATCH
        features = tokens.transpose(1, 2).reshape(-1, WIDTH, side, side)
        pixels = functional.interpolate(self.head(features), (SIZE, SIZE), mode="bilinear", align_corners=False)
        return (functional.softplus(20 * pixels) + 0.1).squeeze(1) if self.depth else pixels


class Attention(nn.Module):
    """Queries (B, Q, D) read tokens (B, N, D), as transformers writes it: ``nn.MultiheadAttention`` keeps the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        given = ((self.query, queries), (self.key, tokens), (self.value, tokens))
        parts = [layer(each).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer, each in given]
        read: Tensor = self.out(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        return read


class Detector(nn.Module):
    """Queries read the tokens: scores (B, Q, classes and none), and boxes (B, Q, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.queries = nn.Parameter(torch.randn(1, QUERIES, WIDTH))
        self.read, self.norm = Attention(), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
        self.scores = nn.Linear(WIDTH, CLASSES + 1)
        self.boxes = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4), nn.Sigmoid())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(images)
        found = self.norm(self.queries + self.read(self.queries.expand(tokens.shape[0], -1, -1), tokens))
        found = found + self.mlp(found)
        return 3 * self.scores(found), self.boxes(found)


class DecodedDetector(nn.Module):
    """As ``Detector``, by ``nn.TransformerDecoder``, tokens or images first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.encoder, self.batch_first = Encoder(), batch_first
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH))
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 2 * WIDTH, 0.0, batch_first=batch_first)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.scores, self.boxes = nn.Linear(WIDTH, CLASSES + 1), nn.Linear(WIDTH, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(images)
        queries = self.queries.expand(tokens.shape[0], -1, -1)
        if self.batch_first:
            found = self.decoder(queries, tokens)
        else:
            found = self.decoder(queries.transpose(0, 1), tokens.transpose(0, 1)).transpose(0, 1)
        return 3 * self.scores(found), self.boxes(found).sigmoid()


def write(model: nn.Module, path: Path, *outputs: str) -> nn.Module:
    """Write ``model`` with the names ``outputs`` to ``path`` by torch's exporter; it takes any number of images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            torch.zeros(2, 3, SIZE, SIZE),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["pixel_values"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ("pixel_values", *outputs)},
        )
    return model
