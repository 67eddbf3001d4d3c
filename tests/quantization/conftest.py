"""A small ViT, exported, calibrated and planned once for all tests here."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgevit.data.preprocess import Preprocess
from edgevit.graph.export import export_onnx
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer
from edgevit.quantization.calibration.calibrate import calibrate
from edgevit.quantization.calibration.statistics import CalibrationTable
from edgevit.quantization.emit import DIALECTS, emit, scheme_of
from edgevit.quantization.plan import QuantizationPlan, make_plan

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5)
LAYERS = [
    *(f"blocks.{block}.{layer}" for block in (0, 1) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    "head",
]


class Quantized(NamedTuple):
    layers: list[str]
    model: VisionTransformer
    path: Path
    preprocess: Preprocess
    images: NDArray[np.float32]
    table: CalibrationTable
    plan: QuantizationPlan
    plans: dict[str, QuantizationPlan]  # by dialect
    int8: dict[str, Path]

    def prepared_layers(self, scheme: str) -> list[str]:
        """Return the Linear layers of the prepared model: with unsigned activations the patch embedding is one."""
        return ["patch_embed.proj", *self.layers] if scheme == "asymmetric" else self.layers


@pytest.fixture(scope="session")
def quantized(tmp_path_factory) -> Quantized:
    folder = tmp_path_factory.mktemp("quantized")
    torch.manual_seed(0)
    model = VisionTransformer(SPEC).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    preprocess = Preprocess(size=(16, 16), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, size=(12, 16, 16, 3), dtype=np.uint8)
    images = preprocess.normalize(pixels)
    path = folder / "model.onnx"
    export_onnx(model, path, preprocess=preprocess, labels=tuple("abcde"))
    table = calibrate(path, [images[:8], images[8:]], total=2)
    plans = {dialect: make_plan(path, table, scheme=scheme_of(dialect)) for dialect in DIALECTS}
    int8 = {dialect: folder / f"{dialect}.onnx" for dialect in DIALECTS}
    for dialect, target in int8.items():
        emit(path, plans[dialect], dialect, target)
    return Quantized(LAYERS, model, path, preprocess, images, table, make_plan(path, table), plans, int8)
