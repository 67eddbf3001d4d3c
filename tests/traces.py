"""What torch's exporter makes, kept: it takes seconds for the smallest model, and tests export the same ones."""

import hashlib
from collections.abc import Mapping
from copy import copy
from functools import cache, partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from once import made
from torch._export import utils as export_utils
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgevit.graph import torch_export
from edgevit.models.vit import VisionTransformer

trace = torch_export.trace
_registry = cache(ONNXRegistry.from_torchlib)


def keep(shelf: Path) -> None:
    """Export from now on with what is kept: traces on ``shelf``, and what torch lists of its operators each time."""
    torch_export.trace = partial(traced, shelf)
    ONNXRegistry.from_torchlib = staticmethod(_own_registry)
    export_utils._materialize_cpp_cia_ops = cache(export_utils._materialize_cpp_cia_ops)


def traced(shelf: Path, model: VisionTransformer) -> ir.Model:
    """Return what ``torch_export.trace`` does, which is called once for each spec: weights are put into what it gave.

    Where more than the weights as they are lies in a graph, it is called once for each model with the same weights.
    """
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    digest = hashlib.sha256(msgspec.json.encode(model.spec))
    digest.update(msgspec.json.encode(torch_export.typed_outputs(model)))
    digest.update(repr([(name, array.shape, array.dtype) for name, array in weights.items()]).encode())

    def make(folder: Path) -> None:
        graph = trace(model)
        if not _is_of(graph, weights):
            (folder / "own-weights").touch()
        (folder / "traced.onnx").write_bytes(ir.to_proto(graph).SerializeToString())

    folder = made(shelf, f"trace-{digest.hexdigest()[:32]}", make)
    if (folder / "own-weights").exists():
        for array in weights.values():
            digest.update(array.tobytes())
        return _read(made(shelf, f"trace-{digest.hexdigest()[:32]}", make))
    graph = _read(folder)
    for name, value in graph.graph.initializers.items():
        value.const_value = ir.tensor(weights[name], name=name)
    return graph


def _read(folder: Path) -> ir.Model:
    return ir.from_proto(onnx.load_from_string((folder / "traced.onnx").read_bytes()))


def _is_of(graph: ir.Model, weights: Mapping[str, NDArray[np.generic]]) -> bool:
    """Say whether the constants of ``graph`` are ``weights``, by name, and nothing else."""
    held = {name: value.const_value for name, value in graph.graph.initializers.items()}
    return all(
        name in weights and tensor is not None and np.array_equal(tensor.numpy(), weights[name])
        for name, tensor in held.items()
    )


def _own_registry(*args: object, **options: object) -> ONNXRegistry:
    """Return what ``ONNXRegistry.from_torchlib`` does; it asks each of 700 functions for its signature every time."""
    own = copy(_registry(*args, **options))
    own.functions = {target: list(found) for target, found in own.functions.items()}
    return own
