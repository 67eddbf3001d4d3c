"""Every rule, broken by one file that the real parser rejects or makes less of; and files that break none."""

import re
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from rtx import compiled, needs_rtx

from edgevit.errors import GraphError, VerificationError
from edgevit.quantization.emit import DIALECTS
from edgevit.quantization.lint.tensorrt_rules import check_tensorrt, lint

N = 64  # of rows, features, and tokens: kernels for less are another matter
TENTH = np.float16(0.1)
ZERO, FIVE = np.int8(0), np.int8(5)
WEIGHT = np.random.default_rng(0).integers(-127, 128, (N, N)).astype(np.int8)
SCALES = np.full(N, 0.01, dtype=np.float16)
ACTIVATION = "[q] i = QuantizeLinear(x, s, z) [dq] a = DequantizeLinear(i, s, z)"
PRODUCT = "[wdq] b = DequantizeLinear<axis = 1>(w, ws) [product] y = MatMul(a, b)"
GOOD = {"s": TENTH, "z": ZERO, "w": WEIGHT, "ws": SCALES}


def graph(body, kind="float16"):
    return f"g ({kind}[{N}, {N}] x) => ({kind}[{N}, {N}] y) {{ {body} }}"


class Heads(NamedTuple):
    """Attention over tokens (1, N, 3hd), or (1, N, hd) that one quantized product makes query, key and value of."""

    size: int = 32
    tokens: int = N
    kind: str = "float16"
    quantized: str = "qkpv"
    product: bool = False
    ends_quantized: bool = True
    added: str = ""

    def text(self):
        width = 2 * self.size
        source = "all" if self.product else "x"
        body = [f"[split] q0, k0, v0 = Split<axis = 2, num_outputs = 3>({source})"]
        if self.product:
            body.insert(0, f"{ACTIVATION} [wdq] b = DequantizeLinear<axis = 1>(w, ws) [product] all = MatMul(a, b)")
        for name in "qkv":
            perm = "0, 2, 3, 1" if name == "k" else "0, 2, 1, 3"
            body.append(f"{self._rounded(name)} {name}2 = Reshape({name}1, heads)")
            body.append(f"{name}3 = Transpose<perm = [{perm}]>({name}2)")
        body.append("[scores] s0 = MatMul(q3, k3)")
        if self.added == "computed":
            body.append("largest = ReduceMax<keepdims = 1>(x, last) bias = Reshape(largest, keys)")
        body.append("s1 = Add(s0, bias)" if self.added else "s1 = Identity(s0)")
        body.append(f"[softmax] p0 = Softmax(s1) {self._rounded('p')}")
        body.append("[mixed] m = MatMul(p1, v3) back = Transpose<perm = [0, 2, 1, 3]>(m) o0 = Reshape(back, joined)")
        body.append(f"{self._rounded('o')} y = Identity(o1)")
        wide = width if self.product else 3 * width
        shapes = f"({self.kind}[1, {self.tokens}, {wide}] x) => ({self.kind}[1, {self.tokens}, {width}] y)"
        return f"g {shapes} {{ {' '.join(body)} }}"

    def _rounded(self, name):
        if name in self.quantized or (name == "o" and self.ends_quantized):
            return f"{name}i = QuantizeLinear({name}0, s, z) {name}1 = DequantizeLinear({name}i, s, z)"
        return f"{name}1 = Identity({name}0)"

    def constants(self):
        scale = np.dtype(np.float16 if self.kind == "float16" else np.float32).type
        width = 2 * self.size
        weight = np.random.default_rng(0).integers(-127, 128, (width, 3 * width)).astype(np.int8)
        made = {"w": weight, "ws": np.full(3 * width, 0.01, dtype=scale)} if self.product else {}
        heads = {"heads": np.array([1, self.tokens, 2, self.size]), "joined": np.array([1, self.tokens, width])}
        bias = {
            "": {},
            "constant": {"bias": np.arange(self.tokens).astype(scale).reshape(1, 1, 1, -1)},
            "computed": {"last": np.array([2]), "keys": np.array([1, 1, 1, self.tokens])},
        }
        return {"s": scale(0.02), "z": ZERO} | heads | made | bias[self.added]


LAYER_NORM = (
    "[mean] u = ReduceMean(x, last) [sub] d = Sub(x, u) [pow] e = Pow(d, two) [variance] v = ReduceMean(e, last)"
    "[eps] f = Add(v, tiny) [sqrt] r = Sqrt(f) [div] o = Div(d, r) m = Mul(o, ws) y = Add(m, ws)"
)
LAYER_NORM_CONSTANTS = {"last": np.array([-1]), "two": np.float16(2), "tiny": np.float16(1e-6), "ws": SCALES}

#: By rule: a graph, its constants, and the nodes that break it.
BROKEN = {
    "zero-point": (graph(f"{ACTIVATION} {PRODUCT}"), GOOD | {"z": FIVE}, ["q", "dq"]),
    "signed-activations": (graph(f"{ACTIVATION} {PRODUCT}"), GOOD | {"z": np.uint8(0)}, ["q", "dq"]),
    "int32-bias": (
        graph(
            f"{ACTIVATION} [wdq] b = DequantizeLinear<axis = 1>(w, ws) p = MatMul(a, b)"
            "[bdq] d = DequantizeLinear<axis = 0>(c, ws) y = Add(p, d)"
        ),
        GOOD | {"c": np.ones(N, dtype=np.int32)},
        ["bdq"],
    ),
    "integer-operators": (
        graph("[q] i = QuantizeLinear(x, s, z) [product] o = MatMulInteger(i, w) y = Cast<to = 10>(o)"),
        GOOD,
        ["product"],
    ),
    "dynamic-quantization": (
        graph("[range] i, t, u = DynamicQuantizeLinear(x) a = DequantizeLinear(i, t, u)" + PRODUCT, kind="float"),
        GOOD | {"ws": SCALES.astype(np.float32)},
        ["range"],
    ),
    "per-tensor-activations": (
        graph("[q] i = QuantizeLinear<axis = 1>(x, ws, zs) [dq] a = DequantizeLinear<axis = 1>(i, ws, zs)" + PRODUCT),
        GOOD | {"zs": np.zeros(N, dtype=np.int8)},
        ["q", "dq"],
    ),
    "weight-axis": (graph(f"{ACTIVATION} {PRODUCT.replace('axis = 1', 'axis = 0')}"), GOOD, ["wdq"]),
    "standard-operators": (graph("[gelu] y = com.microsoft.QuickGelu(x)"), {}, ["gelu"]),
    "attention-all-or-none": (Heads(quantized="qk").text(), Heads().constants(), ["softmax"]),
    "attention-output": (Heads(ends_quantized=False).text(), Heads().constants(), ["softmax"]),
    "attention-bias": (Heads(added="computed").text(), Heads(added="computed").constants(), ["softmax"]),
    "attention-size": (Heads(size=80).text(), Heads(size=80).constants(), ["softmax"]),
    "attention-type": (Heads(kind="float", quantized="").text(), Heads(kind="float").constants(), ["softmax"]),
    "layer-normalization": (graph(LAYER_NORM), LAYER_NORM_CONSTANTS, ["sqrt"]),
    "split-product": (Heads(product=True, quantized="").text(), Heads(product=True).constants(), ["product"]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_the_node_that_breaks_a_rule_is_named(write_graph, rule):
    text, constants, nodes = BROKEN[rule]
    path = write_graph(text, constants, domains=("com.microsoft",) if "microsoft" in text else ())
    broken = [(each.rule, each.node) for each in lint(path, "tensorrt")]
    assert broken[: len(nodes)] == [(rule, node) for node in nodes]
    # A dynamic range is UINT8 too: that rule follows from the other.
    assert {other for other, _ in broken} <= {rule, "signed-activations"}
    with pytest.raises(VerificationError, match=re.escape(f"'{nodes[0]}'") + f".*{rule}"):
        check_tensorrt(path, "tensorrt")


#: Operators that multiply integers themselves, as the graph's last but one.
INTEGER_PRODUCTS = {
    "MatMulInteger": "[product] o = MatMulInteger(i, w)",
    "QLinearMatMul": "[product] o = QLinearMatMul(i, s, z, w, s, z, s, z)",
    "ConvInteger": "j = Reshape(i, image) [product] o = ConvInteger(j, kernel)",
    "QLinearConv": "j = Reshape(i, image) [product] o = QLinearConv(j, s, z, kernel, s, z, s, z)",
}


@pytest.mark.parametrize("operator", INTEGER_PRODUCTS)
@needs_rtx
def test_each_operator_that_multiplies_integers_is_named_and_rejected(write_graph, operator):
    body = f"[q] i = QuantizeLinear(x, s, z) {INTEGER_PRODUCTS[operator]} c = Cast<to = 10>(o) y = Reshape(c, flat)"
    shapes = {"image": np.array([1, N, N, 1]), "kernel": np.ones((N, N, 1, 1), dtype=np.int8), "flat": np.array([N, N])}
    # Scales in float32, which is all that these operators take.
    single = {"s": np.float32(0.1), "z": ZERO, "w": WEIGHT} | shapes
    text = f"g (float[{N}, {N}] x) => (float16[{N}, {N}] y) {{ {body} }}"
    path = write_graph(text, single)
    assert ("integer-operators", "product") in [(each.rule, each.node) for each in lint(path, "tensorrt")]
    with pytest.raises(GraphError, match=f"'product'.*{operator}"):
        compiled(path)


REJECTED = {
    "zero-point": "Non-zero zero point is not supported",
    "int32-bias": "input has type Int32",
    "integer-operators": "MatMulInteger",
    "dynamic-quantization": "DynamicQuantizeLinear",
    "standard-operators": "QuickGelu",
}


@needs_rtx
@pytest.mark.parametrize("rule", REJECTED)
def test_the_real_parser_rejects_it(write_graph, rule):
    text, constants, nodes = BROKEN[rule]
    path = write_graph(text, constants, domains=("com.microsoft",) if "microsoft" in text else ())
    with pytest.raises(GraphError, match=f"'{nodes[0]}'.*{REJECTED[rule]}"):
        compiled(path)


@needs_rtx
@pytest.mark.parametrize("rule", ["per-tensor-activations", "weight-axis"])
def test_the_real_compiler_dequantizes_before_it_multiplies(write_graph, rule):
    text, constants, _ = BROKEN[rule]
    (linear,) = compiled(write_graph(text, constants))[1].linears
    assert (linear.kernel, linear.integer) == ("gemm float16", False)


@needs_rtx
def test_the_real_compiler_takes_unsigned_for_signed(write_graph):
    # UINT8 goes through the parser, and what the kernel reads is INT8, in which the upper half is missing.
    text, constants, _ = BROKEN["signed-activations"]
    report = compiled(write_graph(text, constants))[1]
    assert next(kernel for kernel in report.kernels if kernel.kind == "gemm").inputs == ("int8",)


@needs_rtx
@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("attention-all-or-none", "2 of its 4 factors are quantized"),
        ("attention-output", "what it gives is not quantized"),
        ("attention-size", "heads of 16, 32 or 64 features, not 80"),
        ("attention-type", "in float32"),
    ],
)
def test_the_real_compiler_does_not_fuse_it(write_graph, rule, reason):
    text, constants, _ = BROKEN[rule]
    report = compiled(write_graph(text, constants))[1]
    assert report.counts.fused_attentions == {}
    (warning,) = report.warnings
    assert warning.startswith("'softmax' is not one kernel: ")
    assert reason in warning


@needs_rtx
def test_the_real_compiler_multiplies_in_float_what_is_cut_apart(write_graph):
    text, constants, nodes = BROKEN["split-product"]
    report = compiled(write_graph(text, constants))[1]
    assert [(linear.layer, linear.integer) for linear in report.linears] == [(nodes[0], False)]
    assert "'product' is quantized, but multiplied in float16: what it gives is cut apart" in report.warnings[0]


@needs_rtx
@pytest.mark.parametrize(("added", "kind"), [("", "int8"), ("constant", "int8"), ("computed", "float16")])
def test_the_real_compiler_adds_constants_alone_to_what_it_multiplies_in_integers(write_graph, added, kind):
    path = write_graph(Heads(added=added).text(), Heads(added=added).constants())
    report = compiled(path)[1]
    assert report.counts.fused_attentions == {kind: 1}
    assert [each.rule for each in lint(path, "tensorrt")] == ([] if kind == "int8" else ["attention-bias"])
    said = ["'softmax' is quantized, but its kernel multiplies in float16: what is added to its scores is no constant"]
    assert list(report.warnings) == ([] if kind == "int8" else said)


@needs_rtx
def test_the_real_compiler_squares_in_float16_what_is_in_pieces(write_graph):
    whole = graph("[norm] y = LayerNormalization<axis = -1>(x, ws, ws)")
    names = [
        compiled(write_graph(text, LAYER_NORM_CONSTANTS))[1].kernels[0].name
        for text in (whole, BROKEN["layer-normalization"][0])
    ]
    # The first casts to float32 before it takes the mean and squares; the second casts when all that is done.
    assert [name.index("Cast") < name.index("Mean") for name in names] == [True, False]


@needs_rtx
@pytest.mark.parametrize(
    ("heads", "fused"),
    [
        *((Heads(size=size), {"int8": 1}) for size in (16, 32, 64)),
        *((Heads(size=size), {}) for size in (8, 48, 128)),
        (Heads(tokens=512), {"int8": 1}),
        (Heads(tokens=513), {}),
        (Heads(size=80, tokens=577, quantized=""), {"float16": 1}),
        (Heads(kind="float"), {"int8": 1}),
        (Heads(product=True), {"int8": 1}),
    ],
    ids=str,
)
def test_lint_and_the_real_compiler_agree_on_what_is_fused(write_graph, heads, fused):
    path = write_graph(heads.text(), heads.constants())
    assert compiled(path)[1].counts.fused_attentions == fused
    assert [each.rule for each in lint(path, "tensorrt")] == ([] if fused else ["attention-size"])


@needs_rtx
@pytest.mark.parametrize(
    ("operator", "rules"),
    [("Mul", []), ("Div", []), ("Add", ["attention-all-or-none"])],
)
def test_lint_and_the_real_compiler_agree_on_what_may_stand_in_front_of_a_product(write_graph, operator, rules):
    text = Heads().text().replace("MatMul(q3, k3)", "MatMul(scaled, k3)")
    text = text.replace("[scores]", f"scaled = {operator}(q3, s) [scores]")
    path = write_graph(text, Heads().constants())
    report = compiled(path)[1]
    assert report.counts.fused_attentions == ({} if rules else {"int8": 1})
    assert ["3 of its 4 factors" in warning for warning in report.warnings] == [True] * len(rules)
    assert [each.rule for each in lint(path, "tensorrt")] == rules


def test_float16_scales_before_opset_19_are_named(write_graph):
    # ONNX does not know them, and TensorRT 10 asks for that opset; TensorRT-RTX's parser lets them pass.
    text = f"g (float16[4] x) => (float16[4] y) {{ {ACTIVATION.replace(' a ', ' y ')} }}"
    constants = {"s": TENTH, "z": ZERO}
    assert lint(write_graph(text, constants, opset=19), "tensorrt") == []
    early = write_graph(text, constants, opset=18)
    found = [(each.rule, each.node) for each in lint(early, "tensorrt")]
    assert found == [("scale-opset", "q"), ("scale-opset", "dq")]
    with pytest.raises(onnx.shape_inference.InferenceError, match="unsupported type"):
        onnx.checker.check_model(str(early), full_check=True)


def test_what_earlier_versions_do_not_read(write_graph):
    # Those versions are not here to be asked.
    path = write_graph(graph(f"{ACTIVATION} {PRODUCT}"), GOOD, opset=19)
    found = [(each.rule, each.node) for each in lint(path, "tensorrt-legacy")]
    assert found == [*(("legacy-scales", node) for node in ("q", "dq", "wdq")), ("legacy-opset", "g")]
    single = {name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in GOOD.items()}
    path = write_graph(graph(f"{ACTIVATION} {PRODUCT}", kind="float"), single, opset=17)
    assert lint(path, "tensorrt-legacy") == []


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        (graph(f"{ACTIVATION} {PRODUCT}"), GOOD),
        (graph(f"{ACTIVATION} {PRODUCT.replace('axis = 1', 'axis = -1')}"), GOOD),
        (graph(f"{ACTIVATION} b = DequantizeLinear<axis = 0>(w, ws) y = Gemm<transB = 1>(a, b)"), GOOD),
        (Heads().text(), Heads().constants()),
        (Heads(quantized="").text(), Heads().constants()),
    ],
)
def test_what_breaks_no_rule(write_graph, text, constants):
    path = write_graph(text, constants)
    assert lint(path, "tensorrt") == []
    check_tensorrt(path, "tensorrt")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_dialects_for_tensorrt_break_no_rule_and_those_for_other_engines_do(quantized, dialect):
    broken = {each.rule for each in lint(quantized.int8[dialect], dialect)}
    if dialect == "onnxruntime":
        assert broken == {"standard-operators", "signed-activations", "zero-point"}
    elif dialect == "openvino":
        assert broken == {"signed-activations", "zero-point"}
    else:
        assert broken == set()


def test_the_float_model_breaks_no_rule_but_that_its_attention_is_in_float32(quantized):
    assert {each.rule for each in lint(quantized.path, "tensorrt")} == {"attention-type"}
    assert lint(quantized.path, "portable") == []
