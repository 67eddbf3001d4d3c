"""TensorRT's timings of kernels, kept for the next build: one file for each version and compute capability.

Of hostile content nothing comes here: the file is the user's own, and TensorRT checks that it fits version and GPU.
"""

from __future__ import annotations

from pathlib import Path

from edgevit.backends.tensorrt.bindings import Flavour
from edgevit.errors import StorageError
from edgevit.files import cache_folder, write_atomically
from edgevit.progress import Progress

_LARGEST = 256 << 20


def timing_cache_path(flavour: Flavour, version: str, compute_capability: str) -> Path:
    """Return where the timings of a version on a GPU are kept."""
    return cache_folder() / flavour / f"timing-{version}-sm{compute_capability.replace('.', '')}.cache"


def load_timings(path: Path) -> bytes:
    """Return what is kept at ``path``; nothing where there is nothing yet, or nothing that can be used."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError:
        return b""
    return content if len(content) <= _LARGEST else b""


def save_timings(path: Path, content: bytes, progress: Progress) -> None:
    """Keep ``content`` at ``path``; where that cannot be, say so: the engine is built all the same."""
    try:
        write_atomically(path, content)
    except StorageError as error:
        progress.note(f"The timings of this build are not kept for the next: {error.message}")
