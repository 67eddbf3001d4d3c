"""Draw images of text, for models that read or find it: photos that show none say nothing of what INT8 costs these.

    python benchmarks/images_of_text.py FOLDER --photos PHOTOS [--lines 1] [--size 320 48] [--count 96] [--seed 0]

Those of benchmarks/results/outliers.md are 128 (--seed 0) on the photos for calibration and 64 (--seed 1) on those for
evaluation: text_line_calibration and text_line_evaluation, and with ``--lines 5 --size 320 320`` text_page_calibration
and text_page_evaluation.

One line on a plain ground or a photo for a recogniser, several on photos for a detector (``--lines 5 --size 320 320``).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

WORDS: tuple[str, ...] = (
    "the",
    "of",
    "and",
    "river",
    "stone",
    "2026",
    "market",
    "open",
    "street",
    "EXIT",
    "48",
    "kg",
    "price",
    "total",
)
WORDS += ("sum", "garden", "light", "window", "paper", "small", "large", "north", "south")
Size = tuple[int, int]  # width and height


def draw(chance: random.Random, photos: list[Path], size: Size, most_lines: int) -> Image.Image:
    """Return one image with some lines of words."""
    alone = most_lines == 1
    plain = alone and chance.random() < 0.5
    if plain:
        image = Image.new("RGB", size, tuple(chance.randrange(170, 256) for _ in range(3)))
    else:
        with Image.open(chance.choice(photos)) as photo:
            image = photo.convert("RGB").resize(size)
    canvas, height = ImageDraw.Draw(image), size[1] // most_lines
    for line in range(1 if alone else chance.randrange(2, most_lines + 1)):
        font = ImageFont.load_default(size=chance.randrange(height // 2, 3 * height // 4))
        colour = (30, 30, 60) if plain else chance.choice([(0, 0, 0), (255, 255, 255), (255, 230, 0)])
        words = " ".join(chance.choice(WORDS) for _ in range(chance.randrange(2, 4)))
        place = (chance.randrange(2, 20), line * height + chance.randrange(2, 10))
        canvas.text(place, words, fill=colour, font=font)
    return image


def main() -> None:
    """Write the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos to write on")
    parser.add_argument("--lines", type=int, default=1, help="at the most (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 48), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png", ".JPEG"))
    chance = random.Random(options.seed)  # noqa: S311 - the same images each time
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in track(range(options.count), description="Images"):
        image = draw(chance, photos, tuple(options.size), options.lines)
        image.save(options.folder / f"{number:03}.png")


if __name__ == "__main__":
    main()
