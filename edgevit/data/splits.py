"""The parts of a data set: their names, and which part serves which purpose."""

from __future__ import annotations

from typing import Literal

SplitName = Literal["train", "validation", "test"]

FAMILIES: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "training": "train",
    "dev": "validation",
    "testing": "test",
}
"""What parts are called, by folders and in columns, in lower case."""

SERVING: dict[SplitName, tuple[SplitName, ...]] = {
    "train": ("train",),
    "validation": ("validation",),
    "test": ("test", "validation"),
}
"""The parts that serve a purpose, the most wanted first."""
