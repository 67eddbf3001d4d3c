"""Names of a graph as the rest of EdgeViT can rely on them, whatever they were."""

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from edgevit.graph.passes.name_uniquely import NameUniquely

names = st.none() | st.text(max_size=300) | st.sampled_from(["images", "logits", "a[0]", "a[rest]", "same"])


def chain(given_names):
    """Return a model of one node for each name, whose values have the same names."""
    images = ir.Value(name="x", shape=ir.Shape(["n", 3]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, value = [], images
    for name in given_names:
        nodes.append(ir.node("Relu", [value], name=name))
        value = nodes[-1].outputs[0]
        value.name = name
    graph = ir.Graph([images], [value], nodes=nodes, opset_imports={"": 20}, name="chain")
    return ir.Model(graph, ir_version=9)


@given(st.lists(names, min_size=1, max_size=6))
def test_every_node_and_value_has_a_name_of_its_own(given_names):
    model = chain(given_names)
    NameUniquely()(model)
    graph = model.graph
    assert (graph.inputs[0].name, graph.outputs[0].name) == ("images", "logits")
    nodes = [node.name for node in graph]
    values = ["images", *(node.outputs[0].name for node in graph)]
    for found in (nodes, values):
        assert all(found)
        assert len(set(found)) == len(found)
    assert all(name.isascii() and name.isprintable() for name in nodes)
    assert all(len(name) <= 210 for name in nodes)


def test_good_names_stay():
    good = ["/blocks/blocks.0/attn/qkv/MatMul", "node_linear_3", "dense[0]", "a.rest", "x.centre"]
    model = chain(good)
    NameUniquely()(model)
    assert [node.name for node in model.graph] == good
