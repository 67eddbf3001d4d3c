"""Finds attention and LayerNorm in a graph that any exporter may have written, for the rules of ``lint``."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgevit.backends.tensorrt import limits

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_PASSED_THROUGH = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_ONE_TO_ONE = ("Mul", "Gather", *_PASSED_THROUGH)


@dataclass(frozen=True, slots=True)
class Factors:
    """What an attention multiplies: query, key, what softmax gives, value; and its ``output``."""

    factors: tuple[ir.Value, ...]
    output: ir.Value

    def unfused_reason(self) -> str | None:
        """Return why TensorRT would not fuse it in INT8; None if it does, or the shapes are not known."""
        query, key = self.factors[0].shape, self.factors[1].shape
        size, tokens = (None if shape is None else shape[-1] for shape in (query, key))
        return limits.unfused_reason(size, tokens) if isinstance(size, int) and isinstance(tokens, int) else None

    def product_cut_apart(self) -> ir.Node | None:
        """Return the product with a constant that a Split cuts the query from; None if there is none."""
        split = _behind(self.factors[0], _ONE_TO_ONE)
        product = _behind(split.inputs[0], ("Add",)) if split is not None and split.op_type == "Split" else None
        return product if product is not None and product.op_type == "MatMul" else None


def attention_of(softmax: ir.Node) -> Factors | None:
    """Return what is multiplied in front of and behind ``softmax``, if it is one between two products."""
    if softmax.op_type != "Softmax":
        return None
    scores = _behind(softmax.inputs[0], ("Add", "Mul", "Div", *_PASSED_THROUGH))
    products = [scores] if scores is not None and scores.op_type == "MatMul" else []
    mixed = _products(softmax.outputs[0])
    if not products or not mixed:
        return None
    factors = [value for product in (products[0], mixed[0]) for value in product.inputs]
    return Factors(tuple(value for value in factors if value is not None), mixed[0].outputs[0])


def dequantized(value: ir.Value | None) -> ir.DataType | None:
    """Return the type that ``value`` was dequantized from, None if it was not."""
    node = _behind(value, _ONE_TO_ONE)
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    return node.inputs[0].dtype or ir.DataType.UNDEFINED


def is_quantized(value: ir.Value) -> bool:
    """Say whether ``value`` goes to QuantizeLinear alone, in whatever shape."""
    users = value.consumers()
    return bool(users) and all(
        node.op_type == "QuantizeLinear"
        or (node.op_type in ("Gather", *_PASSED_THROUGH) and is_quantized(node.outputs[0]))
        for node in users
    )


def is_taken_apart(node: ir.Node) -> bool:
    """Say whether ``node`` is the square root of a LayerNorm that is made of single operations."""
    if node.op_type != "Sqrt":
        return False
    variance = _behind(node.inputs[0], ("Add",))
    if variance is None or variance.op_type != "ReduceMean":
        return False
    centred = _behind(variance.inputs[0], ("Pow", "Mul"))
    mean = centred.inputs[1] if centred is not None and centred.op_type == "Sub" else None
    maker = None if mean is None else mean.producer()
    return maker is not None and maker.op_type == "ReduceMean"


def _behind(value: ir.Value | None, through: tuple[str, ...]) -> ir.Node | None:
    """Return the node that ``value`` comes from, if only ``through`` lie between."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in through:
        sources = [source.producer() for source in node.inputs if source is not None and source.producer() is not None]
        node = sources[0] if sources else None
    return node


def _products(value: ir.Value) -> list[ir.Node]:
    """Return the MatMuls that take ``value``, or what Q/DQ make of it."""
    found: list[ir.Node] = []
    for node in value.consumers():
        if node.op_type == "MatMul":
            found.append(node)
        elif node.op_type in (*_QDQ, "Cast", "Identity"):
            found += _products(node.outputs[0])
    return found
