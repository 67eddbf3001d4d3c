"""How often images of each class were taken for each class, as shades of a matrix."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

from PIL import Image

from edgevit.plots import svg

_NUMBERED = 20  # classes up to which cells have room for their numbers, and rows for their names
_LONGEST = 20  # letters of a name
_CELL, _MATRIX = 40, 800  # pixels of a cell that is numbered, and of a matrix of more classes
_NAMES, _TOP, _RIGHT = 168, 40, 16
_SHADE = (11, 110, 110)

ConfusionCounts = Sequence[Sequence[int]]
ConfusionShares = Sequence[Sequence[float]]


def draw_confusion(counts: ConfusionCounts, labels: Sequence[str], title: str) -> bytes:
    """Return the file that shows ``counts``: rows are the classes of images, columns what they were taken for."""
    count = len(labels)
    shares = [[number / max(1, sum(row)) for number in row] for row in counts]
    named = count <= _NUMBERED
    side, left = (_CELL * count, _NAMES) if named else (_MATRIX, 72)
    width, height = left + max(side, 240) + _RIGHT, _TOP + side + left
    parts = [svg.text_element(title, left, 22, class_="heading")]
    if named:
        parts += [*_cells(counts, shares, left), *_names(labels, left, _TOP + side)]
    else:
        parts.append(_shades(shares, left, side))
    parts.append(svg.element("rect", class_="axis", x=left, y=_TOP, width=side, height=side, fill="none"))
    parts.append(svg.text_element("is", left - 8, _TOP - 6, text_anchor="end"))
    parts.append(svg.text_element("taken for", left - 8, _TOP + side + 20, text_anchor="end"))
    return svg.standalone(svg.plot(parts, width, height, f"Confusion matrix: {title}"), width, height)


def _cells(counts: ConfusionCounts, shares: ConfusionShares, left: int) -> Iterator[str]:
    for row, numbers in enumerate(counts):
        for column, number in enumerate(numbers):
            if not number:
                continue
            x, y, share = left + _CELL * column, _TOP + _CELL * row, shares[row][column]
            yield svg.element("rect", class_="cell", x=x, y=y, width=_CELL, height=_CELL, fill_opacity=share)
            dense = "count dense" if share > 0.5 else "count"
            yield svg.text_element(str(number), x + _CELL / 2, y + _CELL / 2 + 4, class_=dense, text_anchor="middle")


def _names(labels: Sequence[str], left: int, bottom: int) -> Iterator[str]:
    for index, label in enumerate(labels):
        name = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        middle = _CELL * index + _CELL / 2 + 4
        yield svg.text_element(name, left - 8, _TOP + middle, text_anchor="end")
        yield svg.text_element(
            name, 0, 0, text_anchor="end", transform=f"translate({left + middle} {bottom + 8}) rotate(-90)"
        )


def _shades(shares: ConfusionShares, left: int, side: int) -> str:
    """Return the matrix as an image within the plot: a million cells would be a file of 100 MB."""
    picture = Image.new("RGBA", (len(shares), len(shares)))
    picture.putdata([(*_SHADE, round(255 * share)) for row in shares for share in row])
    content = io.BytesIO()
    picture.save(content, "PNG")
    link = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return svg.element("image", x=left, y=_TOP, width=side, height=side, href=link, style="image-rendering: pixelated")
