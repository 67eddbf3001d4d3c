"""An engine on the GPU: named tensors, pinned memory, CUDA graphs, several contexts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ctypes import c_void_p
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.base import BatchProfile, LinearKernel, check_images
from edgevit.backends.kernel_report import KERNELS, KernelReport
from edgevit.backends.pool import Pool
from edgevit.backends.tensorrt.bindings import NAMES, Bindings
from edgevit.backends.tensorrt.cuda import CudaDevice, Driver, Event
from edgevit.backends.tensorrt.log import Log, make_logger
from edgevit.backends.tensorrt.settings import TensorRTSettings
from edgevit.bundle.measured import Transfers
from edgevit.errors import BundleError, MissingError

if TYPE_CHECKING:
    from typing_extensions import Self

#: Runs whose copies and computing are timed apart, and those before them that do not count.
_RUNS, _WARM_UP = 11, 3


class TensorRTSession:
    """An engine, ready to run; what is larger than its batch is cut."""

    def __init__(self, bindings: Bindings, driver: Driver, path: Path, settings: TensorRTSettings) -> None:
        self._bindings, self._path = bindings, path
        self._log = Log()
        self._logger = make_logger(bindings, self._log)
        with ExitStack() as stack:
            self._device = stack.enter_context(CudaDevice(driver))
            self._runtime, self._engine = self._load(settings)
            self._tensors = _Tensors(bindings, self._engine, path)
            captures = settings.cuda_graph == "auto" and not _captures_itself(bindings)
            self._lanes = Pool(
                _Lane(self._device, _context(bindings, self._engine, settings), self._tensors, self._log, captures)
                for _ in range(int(settings.contexts))
            )
            self._stack = stack.pop_all()

    @property
    def largest_batch(self) -> int:
        """How many images the engine takes at once, by its optimization profile."""
        return self._tensors.batch.max

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits (B, classes) of preprocessed images (B, C, H, W).

        A batch is spread over the contexts, in parts that the engine takes.

        Raises:
            DataError: if the images do not fit the model.
            MissingError: if the GPU cannot go on.

        """
        tensors = self._tensors
        check_images(images, (None, *tensors.sizes))
        self._device.use()
        logits = np.empty((len(images), tensors.classes), dtype=np.float32)
        size = min(tensors.batch.max, max(tensors.batch.min, -(-len(images) // len(self._lanes))))
        starts = range(0, len(images), size)
        with self._lanes.borrow(max(1, len(starts))) as lanes:
            for start, lane in zip(starts, itertools.cycle(lanes), strict=False):
                lane.submit(images[start : start + size], logits[start : start + size])
            for lane in lanes:
                lane.collect()
        return logits

    def transfers(self, images: NDArray[np.float32]) -> Transfers:
        """Return what copying and computing of as many ``images`` (B, C, H, W) as the engine takes at once take.

        They are medians of runs one after the other, by CUDA events, and not of a CUDA graph, in which they cannot be
        told apart: computing takes a little longer than it does there.

        Raises:
            DataError: if the images do not fit the model.
            MissingError: if the GPU cannot go on.

        """
        check_images(images, (None, *self._tensors.sizes))
        self._device.use()
        part = images[: self._tensors.batch.max]
        marks = [self._device.event() for _ in range(4)]
        with self._lanes.borrow() as (lane,):
            runs = [lane.timed(part, marks) for _ in range(_WARM_UP + _RUNS)][_WARM_UP:]
        to_device_ms, compute_ms, to_host_ms = (median(each) for each in zip(*runs, strict=True))
        return Transfers(to_device_ms=to_device_ms, compute_ms=compute_ms, to_host_ms=to_host_ms)

    def linear_kernels(self) -> list[LinearKernel]:
        """Return how each Linear layer is executed, from the report of the engine's kernels that lies beside it.

        None of them if there is no report: trtexec, which may have built the engine, does not tell.

        Raises:
            BundleError: if the report is damaged.

        """
        report = self._report()
        return [] if report is None else list(report.linears)

    def integer_products(self) -> frozenset[str]:
        """Return the convolutions and products of two activations in INT8, from the same report.

        Raises:
            BundleError: if the report is damaged.

        """
        report = self._report()
        return frozenset() if report is None else report.integer_nodes()

    def _report(self) -> KernelReport | None:
        path = self._path.with_name(KERNELS)
        return KernelReport.load(path) if path.is_file() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._lanes  # contexts before the engine, the engine before its runtime, all before the GPU's context
        del self._engine, self._runtime
        self._stack.close()

    def _load(self, settings: TensorRTSettings) -> tuple[Any, Any]:
        trt = self._bindings.trt
        runtime = trt.Runtime(self._logger)
        if settings.host_code == "yes":
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(self._path.read_bytes())
        if engine is None:
            name = f"{NAMES[self._bindings.flavour]} {self._bindings.version}"
            raise BundleError(
                f"{name} cannot load {self._path}: {self._log.reason()}",
                remedy="build this variant again, on this machine",
            )
        return runtime, engine


class _Tensors:
    """An engine's input and output: names, sizes, and how many images it takes."""

    def __init__(self, bindings: Bindings, engine: Any, path: Path) -> None:  # noqa: ANN401
        trt = bindings.trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if (len(inputs), len(outputs)) != (1, 1):
            raise BundleError(
                f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, not one of each",
                remedy="give a model that `edgevit export` or `edgevit quantize` made",
            )
        (self.input,), (self.output,) = inputs, outputs
        if any(engine.get_tensor_dtype(name) != trt.DataType.FLOAT for name in names):
            raise BundleError(f"{path} does not take and give float32", remedy="build this variant again")
        images, *sizes = tuple(engine.get_tensor_shape(self.input))
        self.sizes: tuple[int, ...] = tuple(sizes)
        self.classes = int(tuple(engine.get_tensor_shape(self.output))[-1])
        if images > 0:
            self.batch = BatchProfile(min=images, opt=images, max=images)
        else:
            shapes = [tuple(shape) for shape in engine.get_tensor_profile_shape(self.input, 0)]
            self.batch = BatchProfile(min=shapes[0][0], opt=shapes[1][0], max=shapes[2][0])


def _captures_itself(bindings: Bindings) -> bool:
    """Say whether CUDA graphs are for TensorRT to capture, as in TensorRT-RTX, which compiles kernels while it runs."""
    return bindings.has("IRuntimeConfig.cuda_graph_strategy")


def _context(bindings: Bindings, engine: Any, settings: TensorRTSettings) -> Any:  # noqa: ANN401
    """Return a new context."""
    trt = bindings.trt
    if bindings.has("IRuntimeConfig.cuda_graph_strategy"):
        runtime_config = engine.create_runtime_config()
        if settings.cuda_graph == "auto":
            runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(runtime_config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise MissingError(
            "there is not enough memory on the GPU for the model",
            remedy="close other programs that use the GPU, or build for a smaller batch",
        )
    return context


class _Lane:
    """One context with a stream and memory of its own: one part of a batch at a time."""

    def __init__(self, device: CudaDevice, context: Any, tensors: _Tensors, log: Log, captures: bool) -> None:  # noqa: ANN401, FBT001
        self._context, self._tensors, self._log = context, tensors, log
        self._stream = device.stream()
        largest = tensors.batch.max
        self._images = device.pinned((largest, *tensors.sizes))
        self._logits = device.pinned((largest, tensors.classes))
        self._addresses = device.allocate(self._images.nbytes), device.allocate(self._logits.nbytes)
        for name, address in zip((tensors.input, tensors.output), self._addresses, strict=True):
            context.set_tensor_address(name, address)
        self._pending: NDArray[np.float32] | None = None
        #: By the number of images: a graph, or None where there is to be none.
        self._graphs: dict[int, c_void_p | None] = {}
        self._captures = captures

    def submit(self, images: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Begin with ``images``, at most as many as the engine takes; ``collect`` fills ``logits``."""
        self.collect()
        count = self._fill(images)
        self._pending = logits
        self._run(count)

    def timed(self, images: NDArray[np.float32], marks: Sequence[Event]) -> tuple[float, ...]:
        """Run ``images`` once; return the milliseconds between the four ``marks``, with one step between each two."""
        self.collect()
        count = self._fill(images)
        self._set_count(count)
        marks[0].record(self._stream)
        for step, mark in zip(self._steps(count), marks[1:], strict=True):
            step()
            mark.record(self._stream)
        self._stream.wait()
        return tuple(later.since_ms(earlier) for earlier, later in itertools.pairwise(marks))

    def _fill(self, images: NDArray[np.float32]) -> int:
        """Put ``images`` where the GPU reads them; return how many it computes."""
        count = max(len(images), self._tensors.batch.min)
        self._images[: len(images)] = images
        self._images[len(images) : count] = 0  # where an engine takes no fewer
        return count

    def collect(self) -> None:
        """Wait for what was begun, and hand it over."""
        if self._pending is not None:
            self._stream.wait()
            self._pending[:] = self._logits[: len(self._pending)]
            self._pending = None

    def _run(self, count: int) -> None:
        if count not in self._graphs:  # the first time, TensorRT prepares what may not be captured
            self._set_count(count)
            self._enqueue(count)
            self._stream.wait()
            self._graphs[count] = self._captured(count)
            return
        graph = self._graphs[count]
        if graph is None:
            self._set_count(count)
            self._enqueue(count)
        else:
            self._stream.launch(graph)

    def _set_count(self, count: int) -> None:
        self._context.set_input_shape(self._tensors.input, (count, *self._tensors.sizes))

    def _enqueue(self, count: int) -> None:
        for step in self._steps(count):
            step()

    def _steps(self, count: int) -> tuple[Callable[[], None], ...]:
        """Return what puts copying to the GPU, computing, and copying back into the stream."""
        where_in, where_out = self._addresses
        return (
            lambda: self._stream.copy_in(where_in, self._images[:count]),
            self._compute,
            lambda: self._stream.copy_out(self._logits[:count], where_out),
        )

    def _compute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise MissingError(
                f"TensorRT cannot run the model: {self._log.reason()}",
                remedy="close other programs that use the GPU, or build this variant again on this machine",
            )

    def _captured(self, count: int) -> c_void_p | None:
        """Return the work for ``count`` images as a CUDA graph; None where that cannot be: it runs as well without."""
        if not self._captures:
            return None
        try:
            return self._stream.capture(lambda: self._enqueue(count))
        except MissingError:  # the driver's word, or TensorRT's
            return None
