"""Find the convolution that cuts images into patches and embeds them."""

from __future__ import annotations

import onnx_ir as ir


def embedding_before(node: ir.Node) -> ir.Node | None:
    """Return the convolution that ``node`` turns into tokens, (B, D, h, w) -> (B, D, h w) -> (B, h w, D), if it does.

    Values must have shapes.
    """
    if node.op_type != "Transpose" or list(node.attributes.get_ints("perm", ())) != [0, 2, 1]:
        return None
    reshape = _producer(node)
    if reshape is None or reshape.op_type != "Reshape" or not _read_once(reshape):
        return None
    convolution = _producer(reshape)
    if convolution is None or convolution.op_type != "Conv" or not _read_once(convolution):
        return None
    before, after = convolution.outputs[0].shape, reshape.outputs[0].shape
    return convolution if before is not None and after is not None and before[1] == after[1] else None


def pads(convolution: ir.Node) -> bool:
    """Say whether a convolution reads beyond the edges of its input."""
    attributes = convolution.attributes
    automatic = attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return automatic or any(attributes.get_ints("pads", ()))


def groups(convolution: ir.Node) -> int:
    """Return how many groups of channels a convolution takes apart."""
    return convolution.attributes.get_int("group", 1) or 1


def _producer(node: ir.Node) -> ir.Node | None:
    value = node.inputs[0]
    return None if value is None else value.producer()


def _read_once(node: ir.Node) -> bool:
    """Say whether one node reads the values of what ``node`` gives; its shape others may ask for."""
    value = node.outputs[0]
    return not value.is_graph_output() and sum(user.op_type != "Shape" for user, _ in value.uses()) == 1
