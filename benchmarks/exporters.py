"""What planted outliers cost in INT8, by how a ViT of ``nn.MultiheadAttention`` was exported to ONNX.

The weights of each model are changed so that it computes the same, but with outliers: LayerNorm's weights times 30 in
three channels, values times 50 in three, or 60 added to two tokens. What is printed is the SQNR of INT8's logits to
float32's, on onnxruntime and OpenVINO, without outliers and with each kind.

    python benchmarks/exporters.py            # all exporters; a minute
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common
from torch import Tensor, nn

from edgevit.backends import get_backend
from edgevit.errors import GraphError
from edgevit.files import sha256_of
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.linears import load_graph
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.quantization import emit
from edgevit.quantization.calibration.calibrate import calibrate
from edgevit.quantization.ptq import CalibrationImages, ExactRewrites, optimize
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.recipes import NO_REWRITES
from edgevit.statistics import sqnr_db

WIDTH, HEADS, TOKENS, SIDE = 64, 4, 17, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as is assumed of a file that does not say


class Block(nn.Module):
    """A pre-norm block as PyTorch's users write it."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens behind the block."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A small ViT with tokens or images first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.blocks = nn.Sequential(*[Block(batch_first=batch_first) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(images.shape[0], -1, -1), patches], dim=1) + self.positions
        x = self.norm(self.blocks(x if self.batch_first else x.transpose(0, 1)))
        return self.head(x[:, 0] if self.batch_first else x[0])


def vit(*, batch_first: bool, outliers: str = "none") -> ViT:
    """Return the model with random weights, which are the same whatever ``outliers`` there are."""
    torch.manual_seed(0)
    model = ViT(batch_first=batch_first).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    with torch.no_grad():
        if outliers == "tokens":
            model.positions[0, [4, 9], 7] += 60
        for block in model.blocks:
            _plant(block, outliers)
    return model


def _plant(block: Block, outliers: str) -> None:
    attention = block.attention
    if outliers == "norms":
        for norm, reader in ((block.norm1, attention.in_proj_weight), (block.norm2, block.mlp[0].weight)):
            norm.weight[[3, 11, 27]] *= 30
            norm.bias[[3, 11, 27]] *= 30
            reader[:, [3, 11, 27]] /= 30
    if outliers == "values":
        channels = [2, 19, 40]
        rows = [2 * WIDTH + channel for channel in channels]
        attention.in_proj_weight[rows] *= 50
        attention.in_proj_bias[rows] *= 50
        attention.out_proj.weight[:, channels] /= 50


def old(opset: int, batch: int | None = None, side: int = SIDE) -> Callable[[nn.Module, Path], object]:
    """Return torch's older exporter for any number of images, or for ``batch``, of ``side`` pixels."""
    axes = {} if batch else {"dynamic_axes": {"x": {0: "b"}}}

    def write(model: nn.Module, path: Path) -> object:
        images = (torch.zeros(batch or 1, 3, side, side),)
        return torch.onnx.export(model, images, path, dynamo=False, opset_version=opset, input_names=["x"], **axes)

    return write


def new(batch: int | None = None, side: int = SIDE) -> Callable[[nn.Module, Path], object]:
    """Return torch's newer exporter for any number of images, or for ``batch``, of ``side`` pixels."""
    shapes = None if batch else ({0: torch.export.Dim("b")},)

    def write(model: nn.Module, path: Path) -> object:
        images = (torch.zeros(batch or 2, 3, side, side),)
        return torch.onnx.export(
            model, images, path, dynamo=True, verbose=False, dynamic_shapes=shapes, external_data=False
        )

    return write


EXPORTERS = {
    "dynamo=False, opset 14": old(14),
    "dynamo=False, opset 17": old(17),
    "dynamo=False, opset 17, one image": old(17, 1),
    "dynamo=True": new(),
    "dynamo=True, one image": new(1),
}
OUTLIERS = ("none", "norms", "values", "tokens")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hide what the exporters print."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def figures(model: nn.Module, write: Callable[[nn.Module, Path], object], folder: Path) -> dict[str, float]:
    """Return the SQNR of each engine's INT8 in dB."""
    given, bundled = folder / "given.onnx", folder / "model.onnx"
    pixels = np.random.default_rng(1).integers(0, 256, size=(128, 3, SIDE, SIDE)) / 255
    images = ((pixels - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]).astype(np.float32)
    with quietly():
        write(model, given)
    write_verified(open_onnx(given, given.name, MetadataOverrides(image_size=(SIDE, SIDE))), bundled, images[:8])
    exact = onnxruntime.InferenceSession(bundled).run(None, {"images": images[64:]})[0]
    return {engine: sqnr_db(exact, _int8(bundled, engine, images, folder)) for engine in ("onnxruntime", "openvino")}


def _int8(path: Path, engine: str, images: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    source = CalibrationImages(lambda: iter(np.split(images[:64], 4)), 4)
    model = load_graph(path)
    common.ShapeInferencePass()(model)
    rotated = rotate_stream(model.graph)
    table = calibrate(model, source.read(), total=4, model_sha256=sha256_of(path), rotated=rotated)
    check = ExactRewrites(path, source)
    made = optimize(model, table, source, "asymmetric", check=check, observer="minmax", rewrites=NO_REWRITES)
    emit.emit(made, engine, folder / f"{engine}.onnx")
    with get_backend(engine).open(folder / f"{engine}.onnx", threads=1, settings={}) as session:
        return session.infer(images[64:])


def main() -> None:
    """Print the table."""
    print("| model | exported by | engine | " + " | ".join(OUTLIERS) + " |")
    print("| --- | --- | --- |" + " --- |" * len(OUTLIERS))
    with tempfile.TemporaryDirectory() as place:
        for batch_first in (True, False):
            for name, write in EXPORTERS.items():
                which = f"{'images' if batch_first else 'tokens'} first | {name}"
                try:
                    found = [
                        figures(vit(batch_first=batch_first, outliers=each), write, Path(place)) for each in OUTLIERS
                    ]
                except GraphError as error:
                    print(f"| {which} | refused: {str(error).partition(': ')[0].rpartition('/')[2]} |", flush=True)
                    continue
                for engine in found[0]:
                    row = " | ".join(f"{each[engine]:.1f} dB" for each in found)
                    print(f"| {which} | {engine} | {row} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
