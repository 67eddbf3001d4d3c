"""Configs and images that EdgeViT's preprocessing is compared on with transformers' and timm's."""

import io

import numpy as np
from PIL import Image, ImageOps

HALF = [0.5, 0.5, 0.5]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}


def square(edge):
    return {"height": edge, "width": edge}


def _short(edge, crop=None):
    return {"size": {"shortest_edge": edge}, "crop_size": square(crop or edge)}


#: Class and file of image processors, in the shapes of public checkpoints, at smaller sizes.
PROCESSORS = [
    ("ViT", {"size": square(48), "resample": 2}),
    ("ViT", {"size": 48, "resample": 2, "image_mean": HALF, "image_std": HALF}),
    ("ViT", {"size": [32, 64], "resample": 3}),
    ("ViT", {"size": {"height": 64, "width": 32}, **IMAGENET}),
    ("ViT", {"size": square(40), "do_normalize": False}),
    ("ViT", {"size": square(40), "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}),
    ("ViT", {"size": square(33), "resample": 0}),
    ("ViT", {"size": square(33), "resample": 1}),
    ("ViT", {"size": square(33), "resample": 4}),
    ("ViT", {"size": square(33), "resample": 5}),
    ("ViT", {"do_resize": True}),
    ("ViT", {"size": {"shortest_edge": 50}, "do_center_crop": True, "crop_size": square(44)}),
    ("ViT", {"size": square(36), "do_convert_rgb": True, "image_mean": 0.5, "image_std": 0.25}),
    ("ViT", {"size": square(36), "do_normalize": None, "do_rescale": True, "do_center_crop": None}),
    ("ViT", {"size": square(36), "do_rescale": None}),
    ("DeiT", {"size": square(52), "crop_size": square(45), "do_center_crop": None, **IMAGENET}),
    ("CLIP", {"do_resize": None, **_short(48)}),
    ("DeiT", {"size": square(52), "crop_size": square(45), **IMAGENET}),
    ("DeiT", {"size": 52, "crop_size": 44, "resample": 3, **IMAGENET}),
    ("DeiT", {"size": square(51), "crop_size": {"height": 44, "width": 33}}),
    ("DeiT", {"size": square(40), "do_center_crop": False, "resample": 2}),
    ("DeiT", {"size": {"height": 60, "width": 40}, "crop_size": {"height": 48, "width": 32}}),
    ("DeiT", {}),
    ("Beit", {"size": square(48), "do_center_crop": False, "resample": 2}),
    ("Beit", {"size": square(56), "do_center_crop": True, "crop_size": square(48)}),
    ("Beit", {"size": 48, "image_mean": HALF, "image_std": HALF}),
    ("Beit", {}),
    ("CLIP", {**_short(48), **OPENAI}),
    ("CLIP", {"size": 48, "crop_size": 48, "do_center_crop": True}),
    ("CLIP", {**_short(56, 49)}),
    ("CLIP", {**_short(40, 56)}),
    ("CLIP", {"size": {"shortest_edge": 64}, "crop_size": {"height": 32, "width": 61}}),
    ("CLIP", {"size": square(48), "do_center_crop": False}),
    ("CLIP", {"do_resize": False, **_short(48)}),
    ("CLIP", {"do_resize": False, "size": {"shortest_edge": 30}, "crop_size": {"height": 31, "width": 62}}),
    ("CLIP", {"size": {"max_height": 48, "max_width": 60}, "crop_size": square(48)}),
    ("CLIP", {}),
    ("ChineseCLIP", {"size": square(48), "do_center_crop": False, **OPENAI}),
    ("Siglip", {"size": square(48), "image_mean": HALF, "image_std": HALF}),
    ("Siglip", {"size": square(57), "resample": 2}),
    ("Siglip", {"size": {"height": 32, "width": 80}}),
    ("Siglip", {}),
    ("Bit", {**_short(56, 48), **IMAGENET}),
    ("Bit", {**_short(48, 48), "resample": 2, **IMAGENET}),
    ("Bit", {**_short(63, 42), **IMAGENET}),
    ("Bit", {}),
    ("Blip", {"size": square(48), **OPENAI}),
    ("Pvt", {"size": square(48)}),
    ("OwlViT", {"size": square(48)}),
    ("ConvNext", {"size": {"shortest_edge": 48}, "crop_pct": 0.875, **IMAGENET}),
    ("ConvNext", {"size": {"shortest_edge": 48}, **IMAGENET}),
    ("ConvNext", {"size": {"shortest_edge": 45}, "crop_pct": 0.95, "resample": 2}),
    ("ConvNext", {"size": 48, "crop_pct": 1.0}),
    ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
    # The long edge bounded, alone or beside the short one.
    ("CLIP", {**_short(48), "size": {"shortest_edge": 48, "longest_edge": 60}}),
    ("CLIP", {"size": {"shortest_edge": 48, "longest_edge": 64}, "crop_size": {"height": 48, "width": 64}}),
    ("Bit", {"size": {"shortest_edge": 31, "longest_edge": 33}, "crop_size": square(48), "resample": 2}),
    ("ViT", {"size": {"shortest_edge": 40, "longest_edge": 40}, "do_center_crop": True, "crop_size": square(37)}),
    ("Sam", {"size": {"longest_edge": 64}, "pad_size": square(64)}),
    ("Sam", {"size": {"longest_edge": 45}, "pad_size": {"height": 48, "width": 64}, "image_mean": HALF}),
    ("Sam", {"size": {"longest_edge": 33}, "do_pad": False, "do_center_crop": True, "crop_size": square(40)}),
    ("Sam", {"do_resize": False, "pad_size": {"height": 210, "width": 320}, "do_normalize": False}),
    ("Sam", {"size": {"longest_edge": 57}, "pad_size": 57, "resample": 3, "rescale_factor": 1 / 127.5}),
    # Padded below and at the right, after all else; to what it is already; or not, as the class has it.
    ("ViT", {"size": {"height": 40, "width": 30}, "do_pad": True, "pad_size": square(48), **IMAGENET}),
    ("ViT", {"size": square(48), "do_pad": True, **IMAGENET}),
    ("DeiT", {"size": square(50), "crop_size": square(45), "do_pad": True, "pad_size": {"height": 45, "width": 64}}),
    ("CLIP", {**_short(48, 40), **OPENAI, "do_pad": True, "pad_size": square(56)}),
    ("CLIP", {**_short(30, 40), **OPENAI, "do_pad": True, "pad_size": square(56)}),
    ("CLIP", {"size": {"shortest_edge": 40, "longest_edge": 64}, "do_center_crop": False, "do_pad": True,
              "pad_size": square(64), **OPENAI}),
    ("Siglip", {"size": {"max_height": 48, "max_width": 64}, "do_pad": True, "pad_size": {"height": 48, "width": 64}}),
    ("Blip", {"do_resize": False, "do_pad": True, "pad_size": [210, 310], **OPENAI}),
    ("Siglip", {"size": square(32), "do_pad": True, "pad_size": 48, "rescale_factor": 1 / 127.5, "image_mean": 1.0}),
    ("Beit", {"size": square(40), "do_pad": True, "pad_size": square(64)}),
    ("ConvNext", {"size": 48, "do_pad": True, "pad_size": square(64)}),
    # Padded to a square first.
    ("Llava", {**_short(48), "do_pad": True}),
    ("Llava", {**_short(48, 40), "do_pad": True, **IMAGENET}),
    ("Llava", {**_short(40, 56), "do_pad": True, "image_mean": HALF}),
    ("Llava", {"size": {"shortest_edge": 48, "longest_edge": 44}, "do_center_crop": False, "do_pad": True}),
    ("Llava", {"size": {"height": 40, "width": 56}, "do_center_crop": False, "do_pad": True, "do_normalize": False}),
    ("Llava", {"do_resize": False, "crop_size": {"height": 80, "width": 120}, "do_pad": True}),
    ("Llava", {**_short(48)}),
]  # fmt: skip

#: timm's pretrained_cfg: vit, deit, clip, siglip, eva, convnext, dinov2 and others, square and not.
TIMM = [
    {"input_size": size, "crop_pct": crop_pct, "crop_mode": mode, "interpolation": interpolation, **statistics}
    for size, crop_pct, mode, interpolation, statistics in [
        ([3, 48, 48], 0.9, "center", "bicubic", {"mean": HALF, "std": HALF}),
        ([3, 48, 48], 0.875, "center", "bilinear", {}),
        ([3, 48, 48], 1.0, "center", "bicubic", {"mean": OPENAI["image_mean"], "std": OPENAI["image_std"]}),
        ([3, 48, 48], 0.95, "squash", "bicubic", {"mean": HALF, "std": HALF}),
        ([3, 48, 48], 1.0, "squash", "bicubic", {"mean": HALF, "std": HALF}),
        ([3, 48, 48], 1.0, "border", "bicubic", {"mean": HALF, "std": HALF}),
        ([3, 48, 48], 0.9, "border", "bilinear", {}),
        ([3, 45, 45], 0.9, "center", "nearest", {}),
        ([3, 45, 45], 0.965, "center", "lanczos", {}),
        ([3, 45, 45], 0.9, "center", "box", {}),
        ([3, 45, 45], 0.9, "center", "hamming", {}),
        ([3, 64, 32], 0.95, "center", "bicubic", {"mean": HALF, "std": HALF}),
        ([3, 32, 64], 0.875, "center", "bicubic", {}),
        ([3, 64, 32], 1.0, "center", "bilinear", {}),
        ([3, 64, 32], 0.9, "squash", "bicubic", {}),
        ([3, 32, 64], 1.0, "squash", "bicubic", {}),
        ([3, 64, 32], 0.9, "border", "bicubic", {}),
        ([3, 33, 65], 1.0, "border", "bicubic", {"mean": [0.0] * 3, "std": [1.0] * 3}),
        ([3, 48, 48], None, None, None, {}),
        ([3, 49, 49], 1.1, "center", "bicubic", {}),
    ]
]

#: DINOv3's processor, which needs torchvision.
DINOV3 = [
    {"size": square(48), **IMAGENET},
    {"size": {"height": 32, "width": 64}},
    {"size": square(65), "resample": 2, "image_mean": HALF, "image_std": HALF},
]


def images():
    """Return six images by name: as their libraries are given them, upright and in RGB."""
    return {name: ImageOps.exif_transpose(image).convert("RGB") for name, image in sources().items()}


def sources():
    """Return six images as they come: large, small, portrait, grey, with alpha, and turned by EXIF."""
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(90, 64, 5).save(turned, "PNG", exif=exif)
    alpha = photo(70, 70, 4)
    alpha.putalpha(Image.linear_gradient("L").resize((70, 70)))
    return {
        "large": photo(301, 203, 0),
        "small": photo(23, 31, 1),
        "portrait": photo(75, 140, 2),
        "grey": photo(101, 80, 3).convert("L"),
        "alpha": alpha,
        "turned": Image.open(turned),
    }


def photo(width, height, seed):
    """Return an image with smooth parts, edges and noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), 3)
    pixels = np.asarray(coarse, dtype=np.int16) + random.integers(-30, 31, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
