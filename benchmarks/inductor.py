"""PyTorch's compiler as one more backend, for comparison only; also a benchmark's worker that knows it.

python benchmarks/inductor.py        is what edgevit.evaluation.worker is, and can open "inductor" as well
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgevit import backends
from edgevit.backends.backend import Backend
from edgevit.backends.base import LinearKernel
from edgevit.evaluation import worker


class InductorSession:
    """A program that ``torch.export.save`` wrote, compiled at the first inference."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch
        import torch._inductor.config as config

        if importable("torchao"):
            import torchao.quantization.pt2e  # noqa: F401  # registers the operators of a quantized program
            from torchao.quantization.pt2e import lowering  # noqa: F401

        config.freezing = True
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._model = torch.compile(torch.export.load(path).module())

    @property
    def largest_batch(self) -> int | None:
        """Say nothing: it takes what it was exported for."""
        return None

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes) of images (B, C, H, W), which must be as many as at export."""
        with self._torch.no_grad():
            logits: NDArray[np.float32] = self._model(self._torch.from_numpy(images)).float().numpy().copy()
        return logits

    def linear_kernels(self) -> list[LinearKernel]:
        """Return nothing: inductor's kernels are not examined here."""
        return []

    def integer_products(self) -> frozenset[str]:
        """Return nothing, likewise."""
        return frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def importable(name: str) -> bool:
    """Return whether there is a package called ``name``."""
    import importlib.util

    return importlib.util.find_spec(name) is not None


def open_session(backend: str, model: Path, threads: int, settings: Mapping[str, str]) -> object:
    """Open ``model`` with one of EdgeViT's backends, or with inductor."""
    if backend == "inductor":
        return InductorSession(model, threads)
    return backends.get_backend(backend).open(model, threads=threads, settings=settings)


class _Inductor:
    name = "inductor"

    def open(self, model: Path, *, threads: int, settings: Mapping[str, str]) -> InductorSession:  # noqa: ARG002
        return InductorSession(model, threads)


def _get_backend(name: str) -> Backend | _Inductor:
    return _Inductor() if name == "inductor" else backends.get_backend(name)


if __name__ == "__main__":
    worker.get_backend = _get_backend  # type: ignore[assignment]
    sys.exit(worker.main())
