"""Which layer each product of an optimised file computes, by the names of the weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit.backends.onnx_kernels import read_kernels


def write_chain(path, weights):
    """Write a product for each of ``weights``, one behind the other; ``layer0`` is the first."""
    nodes = [
        helper.make_node("MatMul", [f"x{index}", name], [f"x{index + 1}"], name=f"layer{index}")
        for index, name in enumerate(weights)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x0", nodes[-1].output[0])]
    held = [numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in weights]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], held)), path)
    return path


@pytest.mark.parametrize(
    ("given", "optimised"),
    [
        (("p", "q"), ("p_T", "FusedBack_q")),
        (("p", "q"), ("FusedBack_p_T", "q")),
        (("p", "p_T"), ("p", "p_T")),
        (("FusedBack_p", "p"), ("FusedBack_p", "p")),
        (("FusedBack_p", "q_T"), ("FusedBack_p_T", "FusedBack_q_T")),
        (("p", "FusedBack_q"), ("p", "FusedBack_q")),
    ],
)
def test_a_weight_is_known_by_its_own_name_or_by_what_onnxruntime_makes_of_it(given, optimised, tmp_path):
    model, made = write_chain(tmp_path / "a.onnx", given), write_chain(tmp_path / "b.onnx", optimised)
    graph = onnx.load(made)
    for node in graph.graph.node:
        node.name = f"fused {node.name}"
    onnx.save(graph, made)
    assert [each.layer for each in read_kernels(model, made).linears] == ["layer0", "layer1"]
