"""Augmentation of single images before they become arrays: random crops, and RandAugment."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from edgevit.data.images import decode_image
from edgevit.data.preprocess import FILTERS, Preprocess
from edgevit.training.recipe import TrainRecipe

_GREY = 128

Operation = Callable[[Image.Image, float], Image.Image]


def augmented_pixels(
    image: Image.Image, preprocess: Preprocess, recipe: TrainRecipe, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the pixels (H, W, C) of ``image`` in the model's size and channel order, cropped and changed at random.

    Raises:
        ImageError: if the image cannot be used.
    """
    if not recipe.draws_on_whole_images:
        return preprocess.geometry(image)
    if recipe.crop < 1:
        sized = random_crop(image, preprocess, recipe.crop, random)
    else:
        plain = msgspec.structs.replace(preprocess, channel_order="L" if preprocess.channel_order == "L" else "RGB")
        pixels = plain.geometry(image)
        sized = Image.fromarray(pixels[..., 0] if preprocess.channels == 1 else pixels)
    changed = randaugment(sized, recipe.randaugment, recipe.magnitude, random)
    pixels = np.asarray(changed, dtype=np.uint8).reshape(*preprocess.size, preprocess.channels)
    return pixels[..., ::-1] if preprocess.channel_order == "BGR" else pixels


def random_crop(image: Image.Image, preprocess: Preprocess, least: float, random: np.random.Generator) -> Image.Image:
    """Cut out ``least`` to all of the area, with sides of 3:4 to 4:3, and scale it to the model's size.

    This is the crop of Szegedy et al. 2015; where ten draws do not fit in the image, the centre is taken.
    """
    image = decode_image(image).convert("L" if preprocess.channel_order == "L" else "RGB")
    height, width = preprocess.size
    box = _box(image.width, image.height, least, random)
    return image.resize((width, height), FILTERS[preprocess.interpolation], box=box)


def _box(width: int, height: int, least: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = random.uniform(least, 1) * width * height
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(random.integers(width - wide + 1)), int(random.integers(height - high + 1))
            return left, top, left + wide, top + high
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def randaugment(image: Image.Image, count: int, magnitude: float, random: np.random.Generator) -> Image.Image:
    """Apply ``count`` operations, drawn with replacement, of strength ``magnitude`` (0..10) and random sign.

    Cubuk et al. 2020, with the operations and strengths of that paper.
    """
    for _ in range(count):
        operation = OPERATIONS[int(random.integers(len(OPERATIONS)))]
        image = operation(image, magnitude / 10 * (1 if random.random() < 0.5 else -1))
    return image


def _affine(image: Image.Image, across: float, down: float, tilt_x: float, tilt_y: float) -> Image.Image:
    fill = _GREY if image.mode == "L" else (_GREY,) * 3
    matrix = (1, tilt_x, across * image.width, tilt_y, 1, down * image.height)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill)


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    fill = _GREY if image.mode == "L" else (_GREY,) * 3
    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=fill)


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength: enhancer(image).enhance(1 + 0.9 * strength)


#: Each takes an image and a strength from -1 to 1; those without a direction use its size alone.
OPERATIONS: tuple[Operation, ...] = (
    lambda image, _: image,
    lambda image, _: ImageOps.autocontrast(image),
    lambda image, _: ImageOps.equalize(image),
    lambda image, strength: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    _rotate,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    lambda image, strength: _affine(image, 0, 0, 0.3 * strength, 0),
    lambda image, strength: _affine(image, 0, 0, 0, 0.3 * strength),
    lambda image, strength: _affine(image, 0.3 * strength, 0, 0, 0),
    lambda image, strength: _affine(image, 0, 0.3 * strength, 0, 0),
)
