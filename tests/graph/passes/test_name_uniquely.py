"""Names of a graph as the rest of EdgeViT can rely on them, whatever they were."""

import numpy as np
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from edgevit.graph.passes.name_uniquely import NameUniquely

names = (
    st.none()
    | st.text(max_size=300)
    | st.sampled_from(["images", "logits", "a[0]", "a[rest]", "same", "h\x07", "h\x1b", "h_", "\ufffe", "_"])
)


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
    assert all(name.isprintable() for name in values)


def test_constants_keep_their_values_under_plain_names():
    model = chain(["relu"])
    graph, (node,) = model.graph, model.graph
    graph.name = "a\x1bgraph"
    for number, name in enumerate(["w\x07", "w_", "w\x1b", "w\ufffe", "good one"]):
        tensor = ir.tensor(np.full(3, number, np.float32), name=name)
        graph.register_initializer(ir.Value(name=name, const_value=tensor))
    for value in tuple(graph.initializers.values()):
        added = ir.node("Add", [node.outputs[0], value])
        graph.append(added)
    NameUniquely()(model)
    read = ir.from_proto(ir.to_proto(model)).graph
    assert read.name == "a_graph"
    added = [each.inputs[1] for each in read if each.op_type == "Add"]
    assert [int(value.const_value.numpy()[0]) for value in added] == [0, 1, 2, 3, 4]
    assert all(value.name.isprintable() for value in added)
    assert (added[1].name, added[4].name) == ("w_", "good one")


def test_good_names_stay():
    good = ["/blocks/blocks.0/attn/qkv/MatMul", "node_linear_3", "dense[0]", "a.rest", "x.centre"]
    model = chain(good)
    NameUniquely()(model)
    assert [node.name for node in model.graph] == good
