"""The parts of a data set: what people call them, and which serves what."""

from __future__ import annotations

from typing import Literal

SplitName = Literal["train", "validation", "test"]

FAMILIES: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
"""What folders of parts are called, in lower case."""

VALUES: dict[str, SplitName] = FAMILIES | {
    "training": "train",
    "dev": "validation",
    "testing": "test",
}
"""What a column says of parts, in lower case."""

SERVING: dict[SplitName, tuple[SplitName, ...]] = {
    "train": ("train",),
    "validation": ("validation",),
    "test": ("test", "validation"),
}
"""The parts that serve a purpose, the most wanted first."""
