"""Make edgevit/data/fashion_mnist_sample: the sheets of images and sample.json.

    python scripts/make_fashion_mnist_sample.py

The images are drawn without replacement with numpy's PCG64, seed 2017, as many of each class: training images from
the training set, test images from the test set. sample.json says which ones. Every run gives
the same images; with the same Pillow, the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from PIL import Image

from edgevit.data.fashion_mnist import CLASS_NAMES, load_fashion_mnist
from edgevit.files import write_atomically

FOLDER = Path(__file__).resolve().parents[1] / "edgevit" / "data" / "fashion_mnist_sample"
SEED = 2017


def make_sheet(split: Literal["train", "test"], rows: int, columns: int) -> dict[str, object]:
    """Write the sheet of ``split`` with ``rows`` x ``columns`` images and return its entry for sample.json."""
    full = load_fashion_mnist(split)
    random = np.random.default_rng(SEED)
    per_class = rows * columns // len(CLASS_NAMES)
    drawn = [
        random.choice(np.flatnonzero(full.labels == label), size=per_class, replace=False)
        for label in range(len(CLASS_NAMES))
    ]
    indices = np.sort(np.concatenate(drawn))
    tiles = full.pixels[indices, ..., 0]
    edge = tiles.shape[1]
    sheet = tiles.reshape(rows, columns, edge, edge).swapaxes(1, 2).reshape(rows * edge, columns * edge)
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG", optimize=True)
    write_atomically(FOLDER / f"{split}.png", content.getvalue())
    return {
        "indices": indices.tolist(),
        "labels": full.labels[indices].tolist(),
        "values_sha256": hashlib.sha256(tiles.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    sample = {"train": make_sheet("train", rows=25, columns=20), "test": make_sheet("test", rows=50, columns=40)}
    write_atomically(FOLDER / "sample.json", msgspec.json.encode(sample) + b"\n")
