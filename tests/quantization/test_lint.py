"""Every rule, broken by one file; and files that break none."""

import re

import numpy as np
import pytest

from edgevit.errors import VerificationError
from edgevit.quantization.emit import DIALECTS
from edgevit.quantization.lint import check_tensorrt, lint

ONE = np.float32(0.1)
ZERO, FIVE = np.int8(0), np.int8(5)
WEIGHT = np.ones((4, 4), dtype=np.int8)
SCALES = np.full(4, 0.1, dtype=np.float32)
ACTIVATION = "[q] i = QuantizeLinear(x, s, z) [dq] a = DequantizeLinear(i, s, z)"
PRODUCT = "[wdq] b = DequantizeLinear<axis = 1>(w, ws) y = MatMul(a, b)"
GOOD = {"s": ONE, "z": ZERO, "w": WEIGHT, "ws": SCALES}

BROKEN = {
    "zero-point": (f"{ACTIVATION} {PRODUCT}", GOOD | {"z": FIVE}, ["q", "dq"]),
    "signed-activations": (f"{ACTIVATION} {PRODUCT}", GOOD | {"z": np.uint8(0)}, ["q", "dq"]),
    "int32-bias": (
        f"{ACTIVATION} [wdq] b = DequantizeLinear<axis = 1>(w, ws) p = MatMul(a, b)"
        "[bdq] d = DequantizeLinear(c, s) y = Add(p, d)",
        GOOD | {"c": np.ones(4, dtype=np.int32)},
        ["bdq"],
    ),
    "integer-operators": (
        "[q] i = QuantizeLinear(x, s, z) [product] o = QLinearMatMul(i, s, z, w, s, z, s, z)"
        "y = DequantizeLinear(o, s, z)",
        GOOD,
        ["product"],
    ),
    "dynamic-quantization": (
        "[range] i, t, u = DynamicQuantizeLinear(x) a = DequantizeLinear(i, t, u)" + PRODUCT,
        GOOD,
        ["range"],
    ),
    "per-tensor-activations": (
        "[q] i = QuantizeLinear<axis = 1>(x, ws, zs) [dq] a = DequantizeLinear<axis = 1>(i, ws, zs)" + PRODUCT,
        GOOD | {"zs": np.zeros(4, dtype=np.int8)},
        ["q", "dq"],
    ),
    "weight-axis": (f"{ACTIVATION} {PRODUCT.replace('axis = 1', 'axis = 0')}", GOOD, ["wdq"]),
    "standard-operators": ("[gelu] y = com.microsoft.Gelu(x)", {}, ["gelu"]),
    "attention-all-or-none": (
        f"{ACTIVATION} t = Transpose<perm = [1, 0]>(x) p = MatMul(a, t) [softmax] m = Softmax(p) y = MatMul(m, x)",
        GOOD,
        ["softmax"],
    ),
}


def graph(body):
    return f"g (float[4, 4] x) => (float[4, 4] y) {{ {body} }}"


@pytest.mark.parametrize("rule", BROKEN)
def test_the_node_that_breaks_a_rule_is_named(write_graph, rule):
    body, constants, nodes = BROKEN[rule]
    path = write_graph(graph(body), constants, domains=("com.microsoft",) if "microsoft" in body else ())
    broken = [(each.rule, each.node) for each in lint(path)]
    assert broken[: len(nodes)] == [(rule, node) for node in nodes]
    # A dynamic range is UINT8 too: that rule follows from the other.
    assert {other for other, _ in broken} <= {rule, "signed-activations"}
    with pytest.raises(VerificationError, match=re.escape(f"'{nodes[0]}'") + f".*{rule}"):
        check_tensorrt(path)


def test_float16_scales_before_opset_19_are_named(write_graph):
    # They cannot be in a valid file, but a Constant node or a careless conversion of types makes them.
    body = "[q] i = QuantizeLinear(x, s, z) [dq] y = DequantizeLinear(i, s, z)"
    text = f"g (float16[4] x) => (float16[4] y) {{ {body} }}"
    constants = {"s": np.float16(0.1), "z": ZERO}
    assert lint(write_graph(text, constants, opset=19)) == []
    assert [(each.rule, each.node) for each in lint(write_graph(text, constants, opset=18))] == [
        *(("scale-opset", node) for node in ("q", "dq")),
    ]


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        (f"{ACTIVATION} {PRODUCT}", GOOD),
        (f"{ACTIVATION} {PRODUCT.replace('axis = 1', 'axis = -1')}", GOOD),
        (
            f"{ACTIVATION} b = DequantizeLinear<axis = 0>(w, ws) y = Gemm<transB = 1>(a, b)",
            GOOD,
        ),
        (
            f"{ACTIVATION} t = Transpose<perm = [1, 0]>(a) p = MatMul(a, t) m = Softmax(p)"
            "j = QuantizeLinear(m, s, z) n = DequantizeLinear(j, s, z) y = MatMul(n, a)",
            GOOD,
        ),
    ],
)
def test_what_breaks_no_rule(write_graph, body, constants):
    path = write_graph(graph(body), constants)
    assert lint(path) == []
    check_tensorrt(path)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_dialects_for_tensorrt_break_no_rule_and_those_for_other_engines_do(quantized, dialect):
    broken = {each.rule for each in lint(quantized.int8[dialect])}
    if dialect == "onnxruntime":
        assert broken == {"standard-operators", "signed-activations", "zero-point"}
    elif dialect == "openvino":
        assert broken == {"signed-activations", "zero-point"}
    else:
        assert broken == set()


def test_the_float_model_breaks_no_rule(quantized):
    assert lint(quantized.path) == []
