"""What goes into a backend and comes out of it: how to build, a session, and what both look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Precision
from edgevit.errors import BundleError, DataError

if TYPE_CHECKING:
    from typing_extensions import Self


#: Why nothing runs on the accelerator beside a Jetson's GPU.
NO_DLA = "a DLA does not run MatMul, of which a Vision Transformer is made: there is nothing for it to do"

#: Of an NVIDIA GPU: 8.7 is an Orin's.
ComputeCapability = Annotated[str, msgspec.Meta(pattern=r"\A[1-9]\d?\.\d\Z")]
_BatchSize = Annotated[int, msgspec.Meta(ge=1, le=4096)]


class BatchProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many images a model is built to take at once: at least, usually (what it is tuned for), at the most."""

    min: _BatchSize = 1
    opt: _BatchSize = 1
    max: _BatchSize = 1

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"a batch of {self.min} to {self.max} images has no {self.opt} in it")


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backend is told of the device that it builds for; None leaves it to the backend.

    ``settings`` are those that the file will be opened with; ``batch`` None keeps any number of images, where the
    engine can. ``compute_capability`` is an NVIDIA GPU's; ``workspace_mb``, in MiB, is how much memory the build may
    take. ``precision`` is what the model is, where an engine is told that beside the model.
    """

    settings: Mapping[str, str] = {}
    batch: BatchProfile | None = None
    compute_capability: ComputeCapability | None = None
    workspace_mb: int | None = None
    precision: Precision | None = None


#: For the machine that EdgeViT runs on, and any number of images.
ANY_DEVICE = BuildOptions()


class LinearKernel(msgspec.Struct, frozen=True, kw_only=True):
    """How one Linear layer is executed: the layer's name in the float32 graph, the backend's kernel, its type.

    ``weight`` is the type that the weight has in memory, such as float32, int8 or uint4. ``integer`` is False where the
    kernel does not say what it multiplies in, as with those that take weights alone in integers.
    """

    layer: str
    kernel: str
    integer: bool
    weight: str


def join_products(kernels: Iterable[LinearKernel]) -> list[LinearKernel]:
    """Return ``kernels`` with those of one layer as one, which is integer if they all are.

    A layer may be computed by several products: one each for query, key and value, or a residual one beside it.
    """
    joined: dict[str, LinearKernel] = {}
    for kernel in kernels:
        first = joined.get(kernel.layer, kernel)
        integer = kernel.integer and first.integer
        if not kernel.integer:
            first = kernel  # what runs in float is what a message must name
        joined[kernel.layer] = msgspec.structs.replace(first, integer=integer)
    return list(joined.values())


class Session(Protocol):
    """A model, loaded and ready; a context manager that frees it."""

    @property
    def largest_batch(self) -> int | None:
        """How many images it computes at once at the most; more are computed in parts. None where it takes any."""
        ...

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes) of preprocessed images (B, C, H, W), in an array of their own.

        Of a model with other outputs a row has all of them, flattened, one after the other.

        Raises:
            DataError: if the images do not fit the model.

        """
        ...

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, read from the backend's own optimised graph.

        Raises:
            MissingDependencyError: if a package that reads that graph is not installed.

        """
        ...

    def integer_products(self) -> frozenset[str]:
        """Return the convolutions and products of two activations that are seen to run in integers.

        They go by the names of their nodes, and of their outputs. One that the engine does not show is not among them.

        Raises:
            MissingDependencyError: as ``linear_kernels``.

        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def merge_settings(backend: str, known: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the settings ``given`` over those that a backend takes by itself.

    Raises:
        BundleError: if one is given that the backend does not have.

    """
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise BundleError(
            f"{backend} has no setting '{unknown[0]}'",
            remedy=f"use {', '.join(known)}" if known else "leave the settings empty",
        )
    return {**known, **given}


def split(images: NDArray[np.float32], most: int) -> list[NDArray[np.float32]]:
    """Return ``images`` (B, ...) in parts of at most ``most``, one after the other; no images are one part too."""
    return [images[start : start + most] for start in range(0, max(1, len(images)), most)]


def as_rows(outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what a model gives (B, ...) as one row of numbers for each image: all outputs, one after the other."""
    rows = [output if output.ndim == 2 else output.reshape(len(output), -1) for output in outputs]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


def check_images(images: NDArray[np.float32], expected: Sequence[int | None]) -> None:
    """Check that ``images`` are float32 of the shape ``expected``; None stands for any size.

    Raises:
        DataError: if they are not.

    """
    fits = images.ndim == len(expected) and all(
        size is None or size == found for size, found in zip(expected, images.shape, strict=True)
    )
    if not fits or images.dtype != np.float32:
        shape = ", ".join("any" if size is None else str(size) for size in expected)
        raise DataError(
            f"the model takes float32 images ({shape}), not {images.dtype} {images.shape}",
            remedy="use the preprocessing that the model was exported with",
        )
