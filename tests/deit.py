"""The pretrained DeiT-tiny and the photos in ../shared, for what is judged on a real ViT."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from once import once
from safetensors.torch import load_file

from edgevit.data.batches import Strict, batches
from edgevit.data.csv_table import load_csv
from edgevit.data.preprocess import Preprocess
from edgevit.graph.torch_export import export_onnx
from edgevit.models.spec import PRESETS
from edgevit.models.vit import VisionTransformer

PREPROCESS = Preprocess(size=(224, 224), resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def photos(shared: Path, name: str, count: int) -> Iterator[NDArray[np.float32]]:
    """Yield ``count`` photos from all over the list ``name``, prepared, in batches of 8."""
    dataset = load_csv(shared / "images" / "imagenette" / f"{name}.csv")
    indices = np.arange(0, len(dataset), len(dataset) // count)[:count]
    for batch in batches(dataset, PREPROCESS, batch_size=8, indices=indices, unreadable=Strict()):
        yield batch.images


def float32(shared: Path, factory: pytest.TempPathFactory) -> Path:
    """Return the model as it is exported, to be read and not changed."""

    def make(folder: Path) -> None:
        model = VisionTransformer(PRESETS["vit-tiny"])
        model.load_state_dict(load_file(shared / "weights" / "deit_tiny_patch16_224.safetensors"))
        export_onnx(model, folder / "float32.onnx", preprocess=PREPROCESS, labels=tuple(map(str, range(1000))))

    return once(factory, "deit", make) / "float32.onnx"
