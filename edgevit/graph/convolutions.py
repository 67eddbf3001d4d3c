"""Find the convolutions of an ONNX graph: those of hybrids are quantized beside Linear layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import float_constant, free_name, set_constant
from edgevit.graph.patches import embedding_before, groups, pads


@dataclass(frozen=True, slots=True)
class Convolution:
    """A Conv with constants: ``weight`` (M, C / groups, ...kernel), ``bias`` (M,) or None."""

    name: str
    node: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    @property
    def input(self) -> ir.Value:
        """The convolution's input (B, C, ...)."""
        value = self.node.inputs[0]
        assert value is not None  # noqa: S101 - convolutions_in takes only nodes that have one
        return value

    @property
    def output(self) -> ir.Value:
        """The convolution's output (B, M, ...), bias included."""
        return self.node.outputs[0]

    @property
    def channels(self) -> int:
        """How many channels the input has."""
        return int(self.weight.shape[1]) * groups(self.node)

    @property
    def depthwise(self) -> bool:
        """Whether each output is made of one channel of the input alone."""
        return self.weight.shape[1] == 1 and groups(self.node) > 1

    @property
    def padded(self) -> bool:
        """Whether zeros are read beyond the edges of the input."""
        return pads(self.node)


def find_convolutions(graph: ir.Graph) -> list[Convolution]:
    """Return the convolutions of ``graph`` that may be quantized, in the order in which they run.

    The one that cuts images into patches is none of them: rewrites make a Linear layer of it, or leave it as it is. So
    is the only one of a graph, if it reads the images. Values must have shapes.
    """
    embeddings = {conv for node in graph if (conv := embedding_before(node)) is not None}
    convolutions = convolutions_in(graph)
    return [
        each
        for each in convolutions
        if not (each.input.is_graph_input() and (each.node in embeddings or len(convolutions) == 1))
        and np.isfinite(each.weight).all()
        and (each.bias is None or np.isfinite(each.bias).all())
    ]


def convolutions_in(graph: ir.Graph) -> list[Convolution]:
    """Return each Conv of ``graph`` whose weight and bias are constants, and whose input is not."""
    found = [each for node in graph if (each := as_convolution(node)) is not None]
    seen: set[str] = set()
    named = []
    for each in found:
        name = each.name if each.name and each.name not in seen else str(each.output.name)
        seen.add(name)
        named.append(Convolution(name, each.node, each.weight, each.bias))
    return named


def as_convolution(node: ir.Node | None) -> Convolution | None:
    """Return what ``node`` is, if it is a Conv with constant weight and bias; None for anything else."""
    if node is None or node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
        return None
    weight = float_constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = float_constant(given)
    if weight is None or (given is not None and bias is None) or float_constant(node.inputs[0]) is not None:
        return None
    return Convolution(node.name or "", node, weight, bias)


class Stage(NamedTuple):
    """The convolutions that give maps of one size, and ``where``: height and width, as 56x56."""

    where: str
    names: tuple[str, ...]


def stages_of(convolutions: Iterable[Convolution], *, most: int) -> tuple[Stage, ...]:
    """Return the stages of a network, in the order in which they begin; what is beyond ``most`` is of the last one.

    What gives one pixel, as squeeze-and-excitation does, is of the stage in which it stands. So is what gives maps of
    a size that the graph does not tell.
    """
    names: dict[str, list[str]] = {}
    waiting: list[str] = []
    where: str | None = None
    for each in convolutions:
        sizes = () if each.output.shape is None else tuple(each.output.shape[2:])
        if all(isinstance(size, int) for size in sizes) and any(size != 1 for size in sizes):
            found = "x".join(map(str, sizes))
            where = found if found in names or len(names) < most else list(names)[-1]
        if where is None:
            waiting.append(each.name)
        else:
            names.setdefault(where, []).extend((*waiting, each.name))
            waiting = []
    if waiting:
        names["one size"] = waiting
    return tuple(Stage(where, tuple(those)) for where, those in names.items())


def fused_output(convolution: Convolution) -> ir.Value:
    """Return what ``convolution`` gives after the ReLU or Clip that alone reads it, which integer kernels take in."""
    output = convolution.output
    users = [user for user, _ in output.uses()]
    if len(users) == 1 and users[0].op_type in ("Relu", "Clip") and not output.is_graph_output():
        return users[0].outputs[0]
    return output


def set_convolution(
    graph: ir.Graph, node: ir.Node, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> None:
    """Give the Conv ``node`` another weight and bias (M,)."""
    if not node.name:
        node.name = free_name(graph, f"{node.outputs[0].name}.conv")
    set_constant(graph, node, 1, f"{node.name}.weight", weight)
    if bias is not None:
        set_constant(graph, node, 2, f"{node.name}.bias", bias)
