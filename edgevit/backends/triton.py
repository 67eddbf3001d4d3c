"""How Triton Inference Server runs a variant's own file, by a backend of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class TritonModel(NamedTuple):
    """What Triton needs to know of a variant's file.

    ``platform`` is Triton's name for backend and format where it has one. ``files`` go into the folder of a version,
    under these names; ``described_by`` is the file that says what the model takes and gives. ``largest_batch`` is how
    many images it takes at once at the most, None where that is Triton's to choose. ``parameters`` are the backend's.
    ``notes`` say what is otherwise than in EdgeViT.
    """

    backend: str
    files: Mapping[str, Path]
    described_by: Path
    platform: str | None = None
    on_gpu: bool = False
    largest_batch: int | None = None
    parameters: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
