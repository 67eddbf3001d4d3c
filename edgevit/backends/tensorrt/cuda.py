"""The GPU through its driver's own library, by ctypes: nothing has to be installed beside the driver.

Names and arguments are those of the CUDA driver API. Handles and addresses are passed as ctypes objects of 64 bits: of
a bare int ctypes would pass 32. TensorRT works in the same context, the device's primary one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.tensorrt.bindings import on_jetson
from edgevit.errors import MissingDependencyError, MissingError

if TYPE_CHECKING:
    from typing_extensions import Self

_LIBRARY = "libcuda.so.1"
_FIRST = 0  # of the GPUs that CUDA_VISIBLE_DEVICES leaves

_NAME_BYTES = 128
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no waiting for the default stream
_TIMED = 0  # CU_EVENT_DEFAULT
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do does not spoil a capture


class CudaError(MissingError):
    """The driver could not do something; ``code`` is its number for why."""

    def __init__(self, function: str, code: int, text: str) -> None:
        super().__init__(
            f"the GPU's driver cannot go on: {text} in {function}",
            remedy="close other programs that use the GPU's memory, or lower the batch; if it stays, restart the GPU",
        )
        self.code = code


def load_library() -> Any:  # noqa: ANN401 - functions as C has them
    """Return the driver's library.

    Raises:
        MissingDependencyError: if there is none.

    """
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise MissingDependencyError(
            f"there is no NVIDIA driver here: {_LIBRARY} does not load",
            remedy=_how_to_get(),
        ) from error


def _how_to_get() -> str:
    if on_jetson():
        return "sudo apt install nvidia-jetpack"
    return "on a machine with an NVIDIA GPU: sudo apt install nvidia-driver (Ubuntu: sudo ubuntu-drivers install)"


class Driver:
    """The functions of the driver's library; each raises a CudaError where it fails."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401
        self._library = library

    def call(self, function: str, *arguments: object) -> None:
        """Call ``function``."""
        code = getattr(self._library, function)(*arguments)
        if code:
            raise CudaError(function, code, self._text(code))

    def _text(self, code: int) -> str:
        name = c_char_p()
        self._library.cuGetErrorName(c_int(code), byref(name))
        return name.value.decode() if name.value else f"error {code}"


def open_driver() -> Driver:
    """Start the driver; nothing of TensorRT may be touched before, for without one it can end the process.

    Raises:
        MissingDependencyError: if there is no driver, or no GPU.

    """
    driver = Driver(load_library())
    count = c_int()
    try:
        driver.call("cuInit", c_uint(0))
        driver.call("cuDeviceGetCount", byref(count))
    except CudaError as error:
        raise MissingDependencyError(
            f"the NVIDIA driver finds no GPU: {error.message.rpartition(': ')[2]}",
            remedy="see what nvidia-smi says; in a container, start it with the GPU (--gpus all)",
        ) from error
    if not count.value:
        raise MissingDependencyError(
            "the NVIDIA driver finds no GPU", remedy="see what nvidia-smi says, and what CUDA_VISIBLE_DEVICES is set to"
        )
    return driver


class CudaDevice:
    """The first GPU and its memory; a context manager that frees what was not freed."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._device, self._context = c_int(), c_void_p()
        driver.call("cuDeviceGet", byref(self._device), c_int(_FIRST))
        self._stack = ExitStack()

    @property
    def name(self) -> str:
        """Return what the GPU is called."""
        text = ctypes.create_string_buffer(_NAME_BYTES)
        self._driver.call("cuDeviceGetName", text, c_int(_NAME_BYTES), self._device)
        return text.value.decode(errors="replace")

    @property
    def compute_capability(self) -> str:
        """Return the GPU's, such as 8.7."""
        found = [c_int(), c_int()]
        for value, attribute in zip(found, (_CAPABILITY_MAJOR, _CAPABILITY_MINOR), strict=True):
            self._driver.call("cuDeviceGetAttribute", byref(value), c_int(attribute), self._device)
        return f"{found[0].value}.{found[1].value}"

    def __enter__(self) -> Self:
        self._driver.call("cuDevicePrimaryCtxRetain", byref(self._context), self._device)
        self._stack.callback(self._driver.call, "cuDevicePrimaryCtxRelease_v2", self._device)
        self.use()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.use()
        self._stack.close()

    def use(self) -> None:
        """Let this thread work on the GPU."""
        self._driver.call("cuCtxSetCurrent", self._context)

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory is free; on a Jetson it is the machine's own."""
        free, total = c_size_t(), c_size_t()
        self._driver.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes of the GPU's memory, which are freed with the device."""
        address = c_uint64()
        self._driver.call("cuMemAlloc_v2", byref(address), c_size_t(size))
        self._stack.callback(self._driver.call, "cuMemFree_v2", address)
        return address.value

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a float32 array in memory that the GPU reads and writes itself; freed with the device."""
        count = int(np.prod(shape))
        address = c_void_p()
        self._driver.call("cuMemHostAlloc", byref(address), c_size_t(4 * count), c_uint(0))
        self._stack.callback(self._driver.call, "cuMemFreeHost", address)
        memory = (ctypes.c_float * count).from_address(address.value or 0)
        array: NDArray[np.float32] = np.ctypeslib.as_array(memory).reshape(shape)
        return array

    def stream(self) -> Stream:
        """Return a new queue of work; it ends with the device."""
        handle = c_void_p()
        self._driver.call("cuStreamCreate", byref(handle), c_uint(_NON_BLOCKING))
        self._stack.callback(self._driver.call, "cuStreamDestroy_v2", handle)
        return Stream(self._driver, self._stack, handle)

    def event(self) -> Event:
        """Return a new mark in time; it ends with the device."""
        handle = c_void_p()
        self._driver.call("cuEventCreate", byref(handle), c_uint(_TIMED))
        self._stack.callback(self._driver.call, "cuEventDestroy_v2", handle)
        return Event(self._driver, handle)


class Event:
    """A mark in a stream: the moment at which the GPU has done all before it."""

    def __init__(self, driver: Driver, handle: c_void_p) -> None:
        self._driver, self._event = driver, handle

    def record(self, stream: Stream) -> None:
        """Put the mark into ``stream``."""
        self._driver.call("cuEventRecord", self._event, c_void_p(stream.handle))

    def since_ms(self, earlier: Event) -> float:
        """Return the milliseconds from ``earlier`` on, by the GPU's clock; both must have been reached."""
        found = c_float()
        self._driver.call("cuEventElapsedTime", byref(found), earlier._event, self._event)
        return found.value


class Stream:
    """A queue of work on the GPU."""

    def __init__(self, driver: Driver, stack: ExitStack, handle: c_void_p) -> None:
        self._driver, self._stack = driver, stack
        self._stream = handle

    @property
    def handle(self) -> int:
        """Return what TensorRT knows the stream by."""
        return self._stream.value or 0

    def copy_in(self, address: int, array: NDArray[np.float32]) -> None:
        """Copy a pinned array to the GPU's memory at ``address``."""
        self._driver.call(
            "cuMemcpyHtoDAsync_v2", c_uint64(address), c_void_p(array.ctypes.data), c_size_t(array.nbytes), self._stream
        )

    def copy_out(self, array: NDArray[np.float32], address: int) -> None:
        """Copy from the GPU's memory at ``address`` to a pinned array."""
        self._driver.call(
            "cuMemcpyDtoHAsync_v2", c_void_p(array.ctypes.data), c_uint64(address), c_size_t(array.nbytes), self._stream
        )

    def wait(self) -> None:
        """Wait until all of it is done."""
        self._driver.call("cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> c_void_p:
        """Return a CUDA graph of what ``work`` puts into the stream, which is not done then but launched later.

        Raises:
            CudaError: if something in it cannot be captured.

        """
        graph, launchable = c_void_p(), c_void_p()
        self._driver.call("cuStreamBeginCapture_v2", self._stream, c_int(_THREAD_LOCAL))
        try:
            work()
        finally:
            self._driver.call("cuStreamEndCapture", self._stream, byref(graph))
        try:
            self._driver.call("cuGraphInstantiateWithFlags", byref(launchable), graph, c_uint64(0))
        finally:
            self._driver.call("cuGraphDestroy", graph)
        self._stack.callback(self._driver.call, "cuGraphExecDestroy", launchable)
        return launchable

    def launch(self, graph: c_void_p) -> None:
        """Put all that ``graph`` holds into the stream."""
        self._driver.call("cuGraphLaunch", graph, self._stream)
