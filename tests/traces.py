"""What torch's exporter makes, kept: it takes seconds for the smallest model, and tests export the same ones."""

import hashlib
from copy import copy
from functools import cache, partial
from pathlib import Path

import msgspec
import onnx
import onnx_ir as ir
from once import made
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgevit.graph import torch_export
from edgevit.models.vit import VisionTransformer

trace = torch_export.trace
_registry = cache(ONNXRegistry.from_torchlib)


def keep(shelf: Path) -> None:
    """Export from now on with what is kept: traces on ``shelf``, and the list of operators that torch can translate."""
    torch_export.trace = partial(traced, shelf)
    ONNXRegistry.from_torchlib = staticmethod(_own_registry)


def traced(shelf: Path, model: VisionTransformer) -> ir.Model:
    """Return what ``torch_export.trace`` does, which is called once for each spec with the same weights."""
    digest = hashlib.sha256(msgspec.json.encode(model.spec))
    digest.update(msgspec.json.encode(torch_export.typed_outputs(model)))
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())

    def make(folder: Path) -> None:
        (folder / "traced.onnx").write_bytes(ir.to_proto(trace(model)).SerializeToString())

    folder = made(shelf, f"trace-{digest.hexdigest()[:32]}", make)
    return ir.from_proto(onnx.load_from_string((folder / "traced.onnx").read_bytes()))


def _own_registry(*args: object, **options: object) -> ONNXRegistry:
    """Return what ``ONNXRegistry.from_torchlib`` does; it asks each of 700 functions for its signature every time."""
    own = copy(_registry(*args, **options))
    own.functions = {target: list(found) for target, found in own.functions.items()}
    return own
