"""What config.pbtxt says of a model.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from edgevit.tritonserver.protobuf_text import Message, Symbol, text_of

#: Triton's names of types, by NumPy's; "bytes" are strings of any bytes.
_TYPES: Final[Mapping[str, str]] = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bytes": "TYPE_STRING",
}
#: The folder of the one version that a repository has.
VERSION: Final = "1"
#: Requests that may wait; more are refused at once.
_QUEUE = 64


class TritonInput(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that a model takes; ``dims`` leave out the number of images where the model is batched."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False


class TritonOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that a model gives, and the file with its labels, one a line, if it has some."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    labels: str | None = None


class TritonConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a repository; ``max_batch`` 0 means that its tensors say themselves how many images there are."""

    name: str
    backend: str
    platform: str | None = None
    max_batch: int
    inputs: tuple[TritonInput, ...]
    outputs: tuple[TritonOutput, ...]
    on_gpu: bool = False
    parameters: Mapping[str, str] = {}

    def text(self) -> str:
        """Return config.pbtxt."""
        return text_of(list(self._message()))

    def _message(self) -> Message:
        fields: list[tuple[str, str | int | bool | Symbol | Message]] = [("name", self.name)]
        if self.platform is not None:
            fields.append(("platform", self.platform))
        fields += [("backend", self.backend), ("max_batch_size", self.max_batch)]
        fields += [("input", _input(each)) for each in self.inputs]
        fields += [("output", _output(each)) for each in self.outputs]
        fields.append(("version_policy", [("latest", [("num_versions", 1)])]))
        kind = Symbol("KIND_GPU" if self.on_gpu else "KIND_CPU")
        fields.append(("instance_group", [("count", 1), ("kind", kind)]))
        if self.max_batch > 1:  # what waits goes together; nothing waits for company
            policy: Message = [("timeout_action", Symbol("REJECT")), ("max_queue_size", _QUEUE)]
            fields.append(("dynamic_batching", [("default_queue_policy", policy)]))
        for name, value in self.parameters.items():
            fields.append(("parameters", [("key", name), ("value", [("string_value", value)])]))
        return fields


def _input(tensor: TritonInput) -> Message:
    optional: Message = [("optional", True)] if tensor.optional else []
    return [*_tensor(tensor), *optional]


def _output(tensor: TritonOutput) -> Message:
    labels: Message = [] if tensor.labels is None else [("label_filename", tensor.labels)]
    return [*_tensor(tensor), *labels]


def _tensor(tensor: TritonInput | TritonOutput) -> Message:
    sizes: Message = [("dims", size) for size in tensor.dims]
    return [("name", tensor.name), ("data_type", Symbol(_TYPES[tensor.dtype])), *sizes]
