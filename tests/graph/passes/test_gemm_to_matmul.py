import numpy as np
import onnx_ir as ir
import pytest

from edgevit.graph.passes.gemm_to_matmul import GemmToMatMul

random = np.random.default_rng(0)


def gemm(parse, attributes: str, weight: tuple[int, ...], bias: np.ndarray) -> ir.Model:
    text = f"layer (float[batch, 6] x) => (float[batch, 4] y) {{ y = Gemm <{attributes}> (x, weight, bias) }}"
    return parse(text, {"weight": random.normal(size=weight).astype(np.float32), "bias": bias})


@pytest.mark.parametrize("bias", [random.normal(size=4).astype(np.float32), np.zeros(4, np.float32)])
def test_a_linear_layer_becomes_matmul_and_add(parse, run, bias):
    model = gemm(parse, "transB = 1", (4, 6), bias)
    x = random.normal(size=(3, 6)).astype(np.float32)
    before = run(model, x=x)
    assert GemmToMatMul()(model).modified
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul", "Add"]
    np.testing.assert_allclose(run(model, x=x), before, atol=1e-6)


def test_a_graph_without_gemm_is_left_alone(parse):
    model = gemm(parse, "transB = 1", (4, 6), np.zeros(4, np.float32))
    GemmToMatMul()(model)
    assert not GemmToMatMul()(model).modified


@pytest.mark.parametrize(
    ("attributes", "weight"),
    [("transB = 0", (6, 4)), ("transB = 1, alpha = 2.0", (4, 6)), ("transA = 1, transB = 1", (4, 6))],
)
def test_another_gemm_is_refused(parse, attributes, weight):
    with pytest.raises(ir.passes.PostconditionError, match="Gemm"):
        GemmToMatMul()(gemm(parse, attributes, weight, np.zeros(4, np.float32)))
