"""What treats each token (B, N, D) by itself."""

from __future__ import annotations

import onnx_ir as ir

TOKEN_AXIS = 1  # the axis of tokens in (B, N, D)

#: Where the bias is among the inputs of ONNX's Attention, and of com.microsoft's MultiHeadAttention.
BIAS = {"Attention": 3, "MultiHeadAttention": 5}

#: Operators that treat each token by itself, with the positions of the inputs that hold tokens.
ROW_WISE = {
    "Add": (0, 1),
    "Attention": (0,),  # each query looks at all keys and values, but at no other query
    "Cast": (0,),
    "DequantizeLinear": (0,),
    "Div": (0, 1),
    "Erf": (0,),
    "Gelu": (0,),
    "LayerNormalization": (0,),
    "LpNormalization": (0,),
    "MatMul": (0,),
    "MatMulIntegerToFloat": (0,),
    "Max": (0, 1),
    "Mean": (),  # all
    "Mul": (0, 1),
    "MultiHeadAttention": (0,),  # as Attention
    "QuantizeLinear": (0,),
    "Reciprocal": (0,),
    "ReduceMax": (0,),
    "Relu": (0,),
    "Sigmoid": (0,),
    "Sub": (0, 1),
    "Tanh": (0,),
}


def row_inputs(node: ir.Node) -> tuple[int, ...]:
    """Return the positions of the inputs of ``node`` that hold tokens, if it treats each token by itself."""
    return ROW_WISE[node.op_type] or tuple(range(len(node.inputs)))


def is_row_wise(node: ir.Node) -> bool:
    """Say whether ``node`` treats each token (B, N, D) by itself, and all that it takes is known to hold tokens."""
    tokens = tokens_of(node.outputs[0])
    if node.op_type not in ROW_WISE or tokens is None:
        return False
    inputs = [node.inputs[position] for position in row_inputs(node)]
    if not all(tokens_of(value) == tokens or same_for_all(value) for value in inputs):
        return False
    match node.op_type:
        case "LayerNormalization" | "LpNormalization":
            return node.attributes.get_int("axis", -1) in (-1, 2)
        case "ReduceMax":
            return _reduces_features(node)
        case "MatMul" | "MatMulIntegerToFloat":
            return _rank(node.inputs[1]) == 2
        case "QuantizeLinear" | "DequantizeLinear":
            return _rank(node.inputs[1]) == 0
        case "Attention" | "MultiHeadAttention":
            return len(node.inputs) == 3 or bias_of_keys(node) is not None  # no mask
        case _:
            return True


def bias_of_keys(attention: ir.Node) -> ir.Value | None:
    """Return what a fused ``attention`` adds to the scores, (B, 1, 1, N), if it is the same for all queries."""
    position = BIAS.get(attention.op_type)
    bias = None if position is None or len(attention.inputs) <= position else attention.inputs[position]
    expand = None if bias is None else bias.producer()
    source = expand.inputs[0] if expand is not None and expand.op_type == "Expand" else None
    return source if source is not None and _rank(source) == 4 and source.shape[2] == 1 else None  # type: ignore[index]


def tokens_of(value: ir.Value | None) -> int | None:
    """Return how many tokens ``value`` holds as (B, N, D), None if it is anything else."""
    shape = None if value is None else value.shape
    size = shape[TOKEN_AXIS] if shape is not None and len(shape) == 3 else None
    return size if isinstance(size, int) else None


def same_for_all(value: ir.Value | None) -> bool:
    """Say whether ``value`` is a constant with nothing of its own for each token."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and (len(tensor.shape) < 2 or tensor.shape[-2] == 1)


def _reduces_features(node: ir.Node) -> bool:
    """Say whether ``node`` reduces the last axis alone, and keeps it."""
    axes: list[int] = list(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = ir.convenience.get_const_tensor(node.inputs[1])
        axes = [] if tensor is None else tensor.numpy().tolist()
    return axes in ([-1], [2]) and node.attributes.get_int("keepdims", 1) == 1


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)
