"""A model that OpenVINO has compiled, for any number of images."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import LinearKernel, as_rows, check_images, split
from edgevit.backends.openvino_ir import note_of
from edgevit.backends.openvino_kernels import integer_products, linear_kernels
from edgevit.backends.pixels import as_taken, shape_of_images
from edgevit.backends.pool import Pool
from edgevit.bundle.pack import PackedModel
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError
from edgevit.graph.node_facts import by_weight, noted_products

if TYPE_CHECKING:
    from typing_extensions import Self


class OpenVINOSession:
    """A model that OpenVINO has compiled.

    It takes any number of images. Where the model itself takes fewer or more at once, they go through it in parts, the
    last filled up; where OpenVINO runs several requests side by side, as for throughput, they share the images.

    A model for any number of images is compiled a second time for one alone: with all shapes known OpenVINO plans
    memory and kernels beforehand, which takes a tenth of the time off and more (``benchmarks/openvino_shapes.py``). It
    is compiled for ``batch`` at first, and for the other only once it meets that.
    """

    def __init__(
        self,
        converted: Any,  # noqa: ANN401
        compile_model: Callable[[Any], Any],
        source: Path | PackedModel,
        preprocess: Preprocess | None,
        running: Callable[[], AbstractContextManager[None]],
        batch: int,
    ) -> None:
        self._source = source  # weights in memory are used where they are
        model = source if isinstance(source, Path) else source.path
        if len(converted.inputs) != 1 or not converted.outputs:
            raise BundleError(
                f"{model} has {len(converted.inputs)} inputs and {len(converted.outputs)} outputs, not one input",
                remedy="give a model that `edgevit export` or `edgevit quantize` made",
            )
        if _static_only() and converted.inputs[0].get_partial_shape()[0].is_dynamic:
            converted = _for_images(converted, max(1, converted.inputs[0].get_partial_shape()[0].get_min_length()))
        images, *image = converted.inputs[0].get_partial_shape()
        self._least, self._most = images.get_min_length(), max(0, images.get_max_length())
        sizes = [size.get_length() if size.is_static else None for size in image]
        self._preprocess = preprocess
        self._shape = shape_of_images([None, *sizes], preprocess, model)
        self._converted, self._compile, self._running = converted, compile_model, running
        self._takes_one = self._least <= 1 and self._most != 1
        self._compiling = threading.Lock()
        self._requests: dict[bool, Pool[Any]] = {}  # by whether they are for one image alone
        self._first = self._requests_for(batch)

    @property
    def largest_batch(self) -> int | None:
        """How many images it computes at once at the most; None where it takes any number."""
        return self._most or None

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes), or all outputs, of preprocessed images (B, C, H, W).

        A model that takes uint8 pixels is given those that the images were made of.

        Raises:
            DataError: if the images are not of that shape.
            BundleError: if OpenVINO cannot compile the model for more than one image, or cannot run it.

        """
        check_images(images, self._shape)
        share = -(-len(images) // len(self._first))
        parts = split(images, max(1, self._least, min(share, self._most) if self._most else share))
        logits: list[NDArray[np.float32]] = []
        with self._requests_for(max(map(len, parts))).borrow(len(parts)) as requests:
            for start in range(0, len(parts), len(requests)):
                logits += self._run(requests, [self._filled(part) for part in parts[start : start + len(requests)]])
        return logits[0][: len(images)] if len(logits) == 1 else np.concatenate(logits)[: len(images)]

    def _requests_for(self, batch: int) -> Pool[Any]:
        """Return what runs up to ``batch`` images each."""
        alone = self._takes_one and batch == 1
        if (found := self._requests.get(alone)) is not None:
            return found
        with self._compiling:
            if alone not in self._requests:
                compiled = self._compile(_for_images(self._converted, 1) if alone else self._converted)
                if not self._requests:
                    self._compiled = compiled
                self._requests[alone] = _requests_of(compiled)
            return self._requests[alone]

    def _run(self, requests: list[Any], parts: list[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the logits of ``parts``, one for each request at most."""
        with self._running(), ExitStack() as waiting:  # whatever happens, no request is left behind that is busy
            running = requests[: len(parts)]
            for request, part in zip(running, parts, strict=True):
                request.start_async([part], share_inputs=True)
                waiting.callback(request.wait)
        return [self._rows(request) for request in running]

    def _rows(self, request: Any) -> NDArray[np.float32]:  # noqa: ANN401
        """Return what a request has computed, in memory of its own: the next images go into the same tensors."""
        given = [request.get_output_tensor(place).data for place in range(len(self._converted.outputs))]
        return as_rows(given) if len(given) > 1 else as_rows(given).copy()

    def _filled(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Return what the model takes for ``images``: no fewer than it must have, in the type of its input."""
        if len(images) < self._least:
            images = np.pad(images, ((0, self._least - len(images)), (0, 0), (0, 0), (0, 0)))
        return as_taken(images, self._preprocess)

    def profiled(self, images: NDArray[np.float32]) -> list[Any]:
        """Run ``images`` as one request does, and return what OpenVINO counted of each operator."""
        with self._requests_for(len(images)).borrow(1) as requests:
            self._run(requests, [self._filled(images)])
            found: list[Any] = requests[0].get_profiling_info()
            return found

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, read from the compiled model.

        With a batch that it does not know, OpenVINO chooses kernels when it meets one: an image is run first.
        """
        products = by_weight(noted_products(note_of(self._converted, "products")))
        return linear_kernels(self._runtime_model(), products)

    def integer_products(self) -> frozenset[str]:
        """Return the convolutions and products of two activations that run in integers, read from the same model."""
        return integer_products(self._runtime_model())

    def _runtime_model(self) -> Any:  # noqa: ANN401
        image = self._filled(np.zeros([1, *(size or 1 for size in self._shape[1:])], dtype=np.float32))
        with self._first.borrow(len(self._first)) as requests:  # each, as streams choose for themselves
            self._run(requests, [image] * len(requests))
        return self._compiled.get_runtime_model()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._requests, self._first, self._compiled, self._compile, self._converted


def _static_only() -> bool:
    """Say whether models are compiled here for fixed numbers of images only: on ARM64, images go one at a time.

    OpenVINO 2026.4.1 computes INT8 wrongly there with a dynamic batch, by up to 3.2 in logits; with a static one it
    is right.
    """
    return platform.machine().lower() in ("aarch64", "arm64")


def _for_images(converted: Any, count: int) -> Any:  # noqa: ANN401
    """Return a copy of a model that takes ``count`` images."""
    one = converted.clone()
    (entry,) = one.inputs
    shape = entry.get_partial_shape()
    shape[0] = count
    one.reshape({entry: shape})
    return one


def _requests_of(compiled: Any) -> Pool[Any]:  # noqa: ANN401
    """Return as many requests as OpenVINO finds best to run side by side; a request serves one thread at a time."""
    count = max(1, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    return Pool(compiled.create_infer_request() for _ in range(count))
