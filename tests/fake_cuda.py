"""A CUDA driver whose GPU is memory of this process: what is queued in a stream happens when somebody waits for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ERRORS = {1: b"CUDA_ERROR_INVALID_VALUE", 2: b"CUDA_ERROR_OUT_OF_MEMORY", 100: b"CUDA_ERROR_NO_DEVICE"}
INVALID, OUT_OF_MEMORY, NO_DEVICE = ERRORS
STREAM_CAPTURE_UNSUPPORTED = 900
#: What work takes on the GPU's clock: all that TensorRT enqueues at once, a copy to it, one back.
COMPUTE_MS, TO_DEVICE_MS, TO_HOST_MS = 4.0, 0.5, 0.25

_DEVICE_BASE = 0x7F00_0000_0000  # far from addresses of the host: mistaking one for the other fails
_MIB = 1 << 20


@dataclass
class Stream:
    queue: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None


class FakeCuda:
    """Stands in for ``libcuda.so.1``; functions return CUDA's error codes."""

    def __init__(self, *, compute_capability: str = "8.7", gpus: int = 1, mib: int = 8192) -> None:
        self.compute_capability = compute_capability
        self.gpus = gpus
        self.free = mib * _MIB
        #: Names of functions that fail, with the code that they return.
        self.failing: dict[str, int] = {}
        self.calls: list[str] = []
        self.memory: dict[int, bytearray] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.contexts = 0
        self.now_ms = 0.0
        self.events: dict[int, float | None] = {}
        self._next = _DEVICE_BASE

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if not name.startswith("cu"):
            return found

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            return self.failing.get(name) or found(*arguments) or 0

        return call

    def alive(self) -> int:
        """Return how many things have not been freed."""
        return sum(map(len, (self.memory, self.pinned, self.streams, self.graphs, self.events))) + self.contexts

    def new(self) -> int:
        self._next += 0x1000_0000
        return self._next

    # What TensorRT does on the GPU.

    def enqueue(self, stream: int, work: Callable[[], None], takes_ms: float = COMPUTE_MS) -> bool:
        def timed() -> None:
            work()
            self.now_ms += takes_ms

        found = self.streams[stream]
        (found.queue if found.captured is None else found.captured).append(timed)
        return True

    def read(self, address: int, size: int) -> bytes:
        assert len(self.memory[address]) >= size
        return bytes(self.memory[address][:size])

    def write(self, address: int, content: bytes) -> None:
        assert len(self.memory[address]) >= len(content)
        self.memory[address][: len(content)] = content

    # The driver's functions.

    def cuInit(self, flags):
        return None if self.gpus else NO_DEVICE

    def cuGetErrorName(self, code, name):
        name._obj.value = ERRORS.get(code.value)

    def cuDeviceGetCount(self, count):
        count._obj.value = self.gpus

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal.value

    def cuDeviceGetName(self, text, size, device):
        text.value = b"Fake GPU"

    def cuDeviceGetAttribute(self, value, attribute, device):
        major, minor = map(int, self.compute_capability.split("."))
        value._obj.value = {75: major, 76: minor}[attribute.value]

    def cuDevicePrimaryCtxRetain(self, context, device):
        self.contexts += 1
        context._obj.value = 0xC0

    def cuDevicePrimaryCtxRelease_v2(self, device):
        self.contexts -= 1

    def cuCtxSetCurrent(self, context):
        assert context.value == 0xC0

    def cuMemGetInfo_v2(self, free, total):
        free._obj.value = total._obj.value = self.free

    def cuMemAlloc_v2(self, address, size):
        if size.value > self.free:
            return OUT_OF_MEMORY
        address._obj.value = self.new()
        self.memory[address._obj.value] = bytearray(b"\xff" * size.value)
        return None

    def cuMemFree_v2(self, address):
        del self.memory[address.value]

    def cuMemHostAlloc(self, address, size, flags):
        memory = ctypes.create_string_buffer(b"\xff" * size.value, size.value)
        address._obj.value = ctypes.addressof(memory)
        self.pinned[address._obj.value] = memory

    def cuMemFreeHost(self, address):
        del self.pinned[address.value]

    def cuStreamCreate(self, stream, flags):
        assert flags.value == 1
        stream._obj.value = self.new()
        self.streams[stream._obj.value] = Stream()

    def cuStreamDestroy_v2(self, stream):
        assert not self.streams.pop(stream.value).queue

    def cuStreamSynchronize(self, stream):
        queue = self.streams[stream.value].queue
        while queue:
            queue.pop(0)()

    def cuEventCreate(self, event, flags):
        event._obj.value = self.new()
        self.events[event._obj.value] = None

    def cuEventDestroy_v2(self, event):
        del self.events[event.value]

    def cuEventRecord(self, event, stream):
        self.enqueue(stream.value, lambda: self.events.update({event.value: self.now_ms}), 0.0)

    def cuEventElapsedTime(self, found, start, end):
        if self.events[start.value] is None or self.events[end.value] is None:
            return INVALID
        found._obj.value = self.events[end.value] - self.events[start.value]
        return None

    def cuMemcpyHtoDAsync_v2(self, to, source, size, stream):
        self._check_pinned(source.value, size.value)
        self.enqueue(
            stream.value, lambda: self.write(to.value, ctypes.string_at(source.value, size.value)), TO_DEVICE_MS
        )

    def cuMemcpyDtoHAsync_v2(self, to, source, size, stream):
        self._check_pinned(to.value, size.value)
        self.enqueue(
            stream.value, lambda: ctypes.memmove(to.value, self.read(source.value, size.value), size.value), TO_HOST_MS
        )

    def _check_pinned(self, address: int, size: int) -> None:
        assert any(start <= address and address + size <= start + len(memory) for start, memory in self.pinned.items())

    def cuStreamBeginCapture_v2(self, stream, mode):
        self.streams[stream.value].captured = []

    def cuStreamEndCapture(self, stream, graph):
        found = self.streams[stream.value]
        graph._obj.value = self.new()
        self.graphs[graph._obj.value], found.captured = found.captured, None

    def cuGraphInstantiateWithFlags(self, launchable, graph, flags):
        launchable._obj.value = self.new()
        self.graphs[launchable._obj.value] = self.graphs[graph.value]

    def cuGraphDestroy(self, graph):
        del self.graphs[graph.value]

    cuGraphExecDestroy = cuGraphDestroy

    def cuGraphLaunch(self, graph, stream):
        for work in self.graphs[graph.value]:
            self.enqueue(stream.value, work)
