"""TensorRT's bindings of a version, as a module that has what the listing of that version names, and nothing else.

An engine of it adds up the pixels of each image, and gives that times 1, 2, 3... as logits: enough to see whether
images, batches and buffers go where they belong. What EdgeViT does not use raises NotImplementedError; what a version
does not have, AttributeError.
"""

from __future__ import annotations

import enum
import json
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
from fake_cuda import FakeCuda
from trt_contract import Listing

from edgevit.backends.tensorrt.bindings import is_strongly_typed

MAGIC = "fake engine"
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class Fake:
    """Makes the module of one version on one GPU; ``seen`` is what was done with it last."""

    def __init__(self, name: str, listing: Listing, cuda: FakeCuda) -> None:
        self.listing, self.cuda = listing, cuda
        self.flavour = "tensorrt-rtx" if name.startswith("rtx") else "tensorrt"
        self.seen = SimpleNamespace(flags=set(), properties={}, timings=None, contexts=0, host_code=False)
        self.module = ModuleType("tensorrt_rtx" if self.flavour == "tensorrt-rtx" else "tensorrt")
        self.module.__version__ = listing.version
        for enumeration, values in listing.enums.items():
            setattr(self.module, enumeration, enum.IntEnum(enumeration, values))
        for kind, members in listing.classes.items():
            setattr(self.module, kind, self._class(kind, members))

    @property
    def typed(self) -> bool:
        return is_strongly_typed(self.flavour, self.listing.version)

    def _class(self, kind: str, members: list[str]) -> type:
        made = globals().get(f"_{kind}", object)
        own = {} if made is object else vars(made)
        names = {name: value for name, value in own.items() if name in members or name.startswith("_")}
        for member in members:
            if member in SEVERITIES and kind == "ILogger":
                names[member] = SEVERITIES.index(member)
            names.setdefault(member, _missing(kind, member))

        def refuse(self: Any, name: str, value: object) -> None:
            if name not in members and not name.startswith("_"):
                raise AttributeError(f"'{kind}' object has no attribute '{name}'")
            object.__setattr__(self, name, value)

        names |= {"__setattr__": refuse, "_fake": self}
        names.pop("__dict__", None)
        names.pop("__weakref__", None)
        return type(kind, (), names)

    def make(self, kind: str, **values: Any) -> Any:
        """Return an object of the module's class ``kind``, with hidden values."""
        made = object.__new__(getattr(self.module, kind))
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made


def _missing(kind: str, member: str) -> property:
    def get(self: Any) -> Any:
        if member in vars(self):
            return vars(self)[member]
        raise NotImplementedError(f"the fake {kind} has no {member}")

    return property(get, lambda self, value: vars(self).__setitem__(member, value))


class _ILogger:
    def __init__(self) -> None:
        pass


class _IProgressMonitor:
    def __init__(self) -> None:
        pass


class _Builder:
    def __init__(self, logger: Any) -> None:
        if self._fake.flavour == "tensorrt" and "cuInit" not in self._fake.cuda.calls:
            raise SystemError("the process would have ended: the driver was not started")
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        fake = self._fake
        names = [flag.name for flag in fake.module.NetworkDefinitionCreationFlag if flags >> flag & 1]
        if fake.typed != ("STRONGLY_TYPED" in names) or (fake.listing.version == "8.6.1") > ("EXPLICIT_BATCH" in names):
            raise RuntimeError(f"a network of {fake.listing.version} with {names}")
        return fake.make("INetworkDefinition", _flags=names, _parser=None, _graph=None)

    def create_builder_config(self) -> Any:
        return self._fake.make("IBuilderConfig", _flags={"TF32"}, _properties={}, _profiles=[], _cache=None)

    def create_optimization_profile(self) -> Any:
        return self._fake.make("IOptimizationProfile", _shapes={})

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        fake = self._fake
        if network._parser() is None:
            self._logger.log(1, "the weights are gone: the parser was")
            return None
        hidden = vars(config)
        monitor = hidden.get("progress_monitor")
        for step in _steps(monitor):
            if not step():
                return None
        if any(node.op_type == "Unbuildable" for node in network._graph.node):
            self._logger.log(1, "no kernel for Unbuildable")
            return None
        self._logger.log(4, "Name: gemm, LayerType: gemm, Inputs: [")
        fake.seen.flags, fake.seen.timings = config._flags, config._cache
        fake.seen.properties = {**config._properties, **{k: v for k, v in hidden.items() if not k.startswith("_")}}
        (entry,), (result,) = network._graph.input, network._graph.output
        engine = {
            "magic": MAGIC,
            "version": fake.listing.version,
            "input": (entry.name, _shape(entry)),
            "output": (result.name, _shape(result)),
            "profile": config._profiles[0]._shapes.get(entry.name) if config._profiles else None,
        }
        return np.frombuffer(json.dumps(engine).encode(), dtype=np.uint8)  # a buffer, as IHostMemory is


def _steps(monitor: Any) -> list[Any]:
    if monitor is None:
        return []
    return [
        lambda: (monitor.phase_start("Building", None, 2), monitor.phase_start("Timing", "Building", 10)),
        *(lambda step=step: monitor.step_complete("Timing", step) for step in range(10)),
        lambda: (monitor.phase_finish("Timing"), True),
        *(lambda step=step: monitor.step_complete("Building", step) for step in range(2)),
        lambda: (monitor.phase_finish("Building"), True),
    ]


def _shape(value: Any) -> list[int]:
    return [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]


class _INetworkDefinition:
    @property
    def num_inputs(self) -> int:
        return len(self._graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._graph.output)

    def get_input(self, index: int) -> Any:
        entry = self._graph.input[index]
        return self._fake.make("ITensor", name=entry.name, shape=tuple(_shape(entry)))


class _OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._network = weakref.ref(network)
        self._errors: list[Any] = []
        object.__setattr__(network, "_parser", weakref.ref(self))

    def parse_from_file(self, path: str) -> bool:
        network = self._network()
        assert network is not None, "nobody has kept the network"
        object.__setattr__(network, "_graph", onnx.load(path).graph)
        for index, node in enumerate(network._graph.node):
            if node.op_type == "Unparsable":
                values = {
                    "node": lambda index=index: index,
                    "desc": lambda: "Assertion failed:\n  no such operator",
                    "node_name": lambda node=node: node.name,
                    "node_operator": lambda node=node: node.op_type,
                }
                has = self._fake.listing.classes["ParserError"]
                known = {name: value for name, value in values.items() if name in has}
                self._errors.append(SimpleNamespace(**known))
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class _IBuilderConfig:
    def set_flag(self, flag: Any) -> None:
        assert not (self._fake.typed and flag.name in ("FP16", "INT8")), "precision is in the types"
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._properties[pool.name] = size

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._properties[feature.name] = enable

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        assert vars(self)["num_compute_capabilities"] == index + 1
        self._properties["compute_capability"] = capability.name
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        if content and not content.startswith(b"timings"):
            return None
        return self._fake.make("ITimingCache", _content=content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        object.__setattr__(self, "_cache", cache)
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class _ITimingCache:
    def serialize(self) -> Any:
        return bytearray(self._content + b"timings")


class _IOptimizationProfile:
    def set_shape(self, name: str, *shapes: Any) -> None:
        self._shapes[name] = shapes


class _Runtime:
    def __init__(self, logger: Any) -> None:
        if "cuInit" not in self._fake.cuda.calls:
            raise SystemError("the process would have ended: the driver was not started")
        self._logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        try:
            told = json.loads(bytes(content))
        except ValueError:
            self._logger.log(1, "Serialization assertion failed.\nIn parsePlan")
            return None
        self._fake.seen.host_code = vars(self).get("engine_host_code_allowed", False)
        return self._fake.make("ICudaEngine", _told=told, _runtime=self)


class _ICudaEngine:
    @property
    def num_io_tensors(self) -> int:
        return 2

    def _sides(self) -> dict[str, Any]:
        return dict((self._told["input"], self._told["output"]))

    def get_tensor_name(self, index: int) -> str:
        return list(self._sides())[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self._fake.module.TensorIOMode
        return mode.INPUT if name == self._told["input"][0] else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._fake.module.DataType.FLOAT

    def get_tensor_shape(self, name: str) -> Any:
        return self._sides()[name]

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return self._told["profile"]

    def create_execution_context(self, config: Any = None) -> Any:
        self._fake.seen.contexts += 1
        self._fake.seen.cuda_graph_strategy = vars(config).get("cuda_graph_strategy") if config is not None else None
        return self._fake.make("IExecutionContext", _engine=self, _addresses={}, _shape=None)

    def create_runtime_config(self) -> Any:
        return self._fake.make("IRuntimeConfig")

    def create_engine_inspector(self) -> Any:
        return self._fake.make("EngineInspector")


class _EngineInspector:
    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        tensor = {"Name": "x", "Dimensions": [1, 16], "Format/Datatype": "Row major linear FP32"}
        layer = {"Name": "a", "LayerType": "gemm", "Inputs": [tensor], "Outputs": [tensor]}
        return json.dumps({"Layers": [layer]})


class _IExecutionContext:
    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        limits = self._engine._told["profile"]
        assert limits is None or limits[0][0] <= shape[0] <= limits[2][0]
        object.__setattr__(self, "_shape", tuple(shape))
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda, shape, told = self._fake.cuda, self._shape, self._engine._told
        where_in, where_out = (self._addresses[told[side][0]] for side in ("input", "output"))

        def run() -> None:
            images = np.frombuffer(cuda.read(where_in, 4 * int(np.prod(shape))), dtype=np.float32).reshape(shape)
            cuda.write(where_out, expected_logits(images, told["output"][1][-1]).tobytes())

        return cuda.enqueue(stream, run)


def expected_logits(images: np.ndarray, classes: int) -> np.ndarray:
    """Return what an engine answers."""
    sums = images.sum(axis=(1, 2, 3), dtype=np.float32)
    return (sums[:, None] * np.arange(1, classes + 1, dtype=np.float32)).astype(np.float32)
