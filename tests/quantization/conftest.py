"""A small ViT, exported, calibrated and planned once for all tests here."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import calibrate, emit, make_plan
from random_vit import PREPROCESS, random_model

from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import ModelSpec
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.emit import DIALECTS, scheme_of
from edgevit.quantization.plan import QuantizationPlan

if TYPE_CHECKING:
    from edgevit.models.vit import VisionTransformer

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5)
LAYERS = [
    *(f"blocks.{block}.{layer}" for block in (0, 1) for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    "head",
]


class Quantized(NamedTuple):
    layers: list[str]
    model: "VisionTransformer"
    path: Path
    preprocess: Preprocess
    images: NDArray[np.float32]
    table: CalibrationTable
    plan: QuantizationPlan
    plans: dict[str, QuantizationPlan]  # by dialect
    int8: dict[str, Path]

    def optimized_layers(self, scheme: str) -> list[str]:
        """Return the Linear layers of the optimized model: with unsigned activations the patch embedding is one."""
        return ["patch_embed.proj", *self.layers] if scheme == "asymmetric" else self.layers


@pytest.fixture(scope="session")
def quantized(tmp_path_factory, exported_vit) -> Quantized:
    folder = tmp_path_factory.mktemp("quantized")
    pixels = np.random.default_rng(0).integers(0, 256, size=(12, 16, 16, 3), dtype=np.uint8)
    images = PREPROCESS.normalize(pixels)
    path = exported_vit(SPEC)
    table = calibrate(path, [images[:8], images[8:]], total=2)
    plans = {dialect: make_plan(path, table, scheme=scheme_of(dialect)) for dialect in DIALECTS}
    int8 = {dialect: folder / f"{dialect}.onnx" for dialect in DIALECTS}
    for dialect, target in int8.items():
        emit(path, plans[dialect], dialect, target)
    return Quantized(LAYERS, random_model(SPEC), path, PREPROCESS, images, table, make_plan(path, table), plans, int8)
