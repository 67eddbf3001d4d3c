"""Write tests/data/preprocessing.npz: what timm and DINOv3's processor make of images, which need torchvision.

torchvision does not load beside the torch that EdgeViT is tested with: run this in an environment of its own,

    python -m venv /tmp/values
    /tmp/values/bin/pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers
    /tmp/values/bin/python tests/make_preprocessing_values.py

Images are given to the libraries upright (Pillow's exif_transpose) and in RGB, as transformers' load_image does it.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm.data
from preprocessing_cases import DINOV3, TIMM, images
from transformers.models.dinov3_vit.image_processing_dinov3_vit import DINOv3ViTImageProcessor

PACKAGES = ("torch", "torchvision", "timm", "transformers", "pillow")


def levels(values, mean, std):
    """Return normalised values (C, H, W) as levels 0..255, in tenths, which compress."""
    scale, shift = (np.asarray(x, dtype=np.float64).reshape(-1, 1, 1) for x in (std, mean))
    return np.rint((np.asarray(values, dtype=np.float64) * scale + shift) * 2550).astype(np.int16)


def main():
    found = {"versions": np.array([f"{name} {version(name)}" for name in PACKAGES])}
    for name, image in images().items():
        for number, cfg in enumerate(TIMM):
            config = timm.data.resolve_data_config(pretrained_cfg=cfg)
            values = timm.data.create_transform(**config)(image)
            found[f"timm-{number}-{name}"] = levels(values, config["mean"], config["std"])
        for number, said in enumerate(DINOV3):
            processor = DINOv3ViTImageProcessor(**said)
            values = processor(image, return_tensors="pt")["pixel_values"][0]
            found[f"dinov3-{number}-{name}"] = levels(values, processor.image_mean, processor.image_std)
    path = Path(__file__).parent / "data" / "preprocessing.npz"
    np.savez_compressed(path, **found)
    print(f"{path}: {len(found) - 1} inputs, {path.stat().st_size / 1e6:.2f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
