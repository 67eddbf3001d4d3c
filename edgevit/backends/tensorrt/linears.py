"""How an engine executes each Linear layer, from what TensorRT's inspector tells of its kernels.

The inspector of a detailed engine gives a JSON object for each kernel, with the names of the ONNX nodes that became it.
Fields and names of kernels are those of the builder's detailed log, which TensorRT-RTX 1.7.1 writes without a GPU.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgevit.backends.base import LinearKernel, join_parts
from edgevit.errors import BundleError

_NODE = re.compile(r"\[ONNX Layer: ([^\]]+(?:\[\d+\])?)\]")
#: What kernels that multiply by a matrix are called, among others; the rest is attention, norms and moving of data.
_PRODUCTS = re.compile(r"gemm|fusion|matrix|matmul", re.IGNORECASE)
#: What EdgeViT calls the nodes that belong to a Linear layer, after the layer's own name.
_BELONGING = re.compile(r"\.(input|weight)\.\w+\Z|\.add_bias\Z|\.centre\Z")
_TYPES = {"float": "float32", "fp32": "float32", "half": "float16", "fp16": "float16", "int8": "int8", "fp8": "float8"}


class _Tensor(msgspec.Struct, rename={"kind": "Datatype", "described": "Format/Datatype", "sizes": "Dimensions"}):
    kind: str = ""
    described: str = ""
    sizes: list[int] = []

    @property
    def type(self) -> str:
        """Name of the type, as numpy has it; as TensorRT has it where it is another."""
        given = self.kind or self.described
        return next((ours for theirs, ours in _TYPES.items() if theirs in given.lower()), given)


class _Kernel(
    msgspec.Struct,
    rename={"name": "Name", "type": "LayerType", "inputs": "Inputs", "constants": "Constants", "origin": "Metadata"},
):
    name: str
    type: str = ""
    inputs: list[_Tensor] = []
    constants: list[_Tensor] = []
    origin: str = ""


class _Inspection(msgspec.Struct, rename={"layers": "Layers"}):
    layers: list[Any] = []  # of an engine that was built without details: names alone


def linear_kernels(inspection: str) -> list[LinearKernel]:
    """Return the kernel of each Linear layer in the JSON of TensorRT's inspector; none where it tells names alone.

    Raises:
        BundleError: if it is not what the inspector writes.

    """
    try:
        told = msgspec.json.decode(inspection, type=_Inspection)
        kernels = [msgspec.convert(each, type=_Kernel) for each in told.layers if isinstance(each, dict)]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BundleError(
            f"TensorRT's inspector tells of the engine what is not understood: {error}",
            remedy="build this variant again, on this machine",
        ) from error
    return join_parts(linear for kernel in kernels for linear in _linears(kernel))


def _linears(kernel: _Kernel) -> list[LinearKernel]:
    weight = next((each for each in kernel.constants if sum(size > 1 for size in each.sizes) > 1), None)
    if weight is None or not kernel.inputs or not _PRODUCTS.search(f"{kernel.type} {kernel.name}"):
        return []
    integer = weight.type == kernel.inputs[0].type == "int8"
    nodes = [node for node in _NODE.findall(kernel.origin) if not _BELONGING.search(node)]
    return [
        LinearKernel(layer=node, kernel=f"{kernel.type} {kernel.name}", integer=integer, weight=weight.type)
        for node in nodes
    ]
