"""What every backend can do, so that the rest of EdgeViT need not know which one it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self


class LinearKernel(msgspec.Struct, frozen=True, kw_only=True):
    """How one Linear layer is executed: the layer's name in the float32 graph, the backend's kernel, its type."""

    layer: str
    kernel: str
    integer: bool


class Session(Protocol):
    """A model, loaded and ready; a context manager that frees it."""

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes) of preprocessed images (B, C, H, W)."""
        ...

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, read from the backend's own optimised graph."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    """An inference engine."""

    name: str
    #: Name of the optional dependency group that brings it.
    extra: str

    def version(self) -> str:
        """Return the version of the engine.

        Raises:
            MissingDependencyError: if it is not installed.

        """
        ...

    def build(self, model: Path, folder: Path) -> list[Path]:
        """Turn the ONNX file ``model`` into this backend's own files in ``folder``; the first is the one to open."""
        ...

    def open(self, model: Path, *, threads: int, settings: Mapping[str, str]) -> Session:
        """Load a file that ``build`` made; ``threads`` 0 leaves their number to the backend.

        Raises:
            BundleError: if the file is damaged.

        """
        ...
