"""What a graph is tidied to, compared with what onnx-ir's passes make of it."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir.passes import common

from edgevit.graph.saving import put_in_order, tidy

GRAPHS = {
    "nothing to do": "float[4, 8] x) => (float[4, 8] y) { h = Add(x, w) y = Neg(h) }",
    "a node that nobody reads": "float[4, 8] x) => (float[4, 8] y) { h = Add(x, w) u = Neg(h) v = Abs(u) y = Neg(h) }",
    "an output that nobody reads": "float[4, 8] x) => (float[4, 8] y) { h, mask = Dropout(x) y = Add(h, w) }",
    "two outputs that nobody reads": "float[4, 8] x) => (float[4, 8] y) { y, m, d = LayerNormalization(x, w) }",
    "an output that must stay": "float[4, 8] x) => (float[2, 8] y) { y, z = Split <num_outputs = 2> (x) }",
    "a constant that nobody reads": "float[4, 8] x) => (float[4, 8] y) { y = Neg(x) }",
    "no last input": "float[4, 8] x) => (float[4, 8] y) { h = Clip(x, low, ) y = Add(h, w) }",
    "no input in the middle": "float[4, 8] x) => (float[4, 8] y) { h = Clip(x, , low) y = Add(h, w) }",
    "normalising with what was trained": "float[4, 8] x) => (float[4, 8] y) { h = Add(x, w) "
    "y = BatchNormalization <training_mode = 0> (h, w, w, w, w) }",
    "branches": "float[4, 8] x, bool c) => (float[4, 8] y) { h = Neg(x) u = Neg(h) y = If (c) <then_branch = t () => "
    "(float[4, 8] a) { a = Add(h, w) b = Neg(h) }, else_branch = e () => (float[4, 8] d) { d = Abs(h) }> }",
}
CONSTANTS = {"w": np.ones(8, np.float32), "low": np.array(0, np.float32)}


def content(model):
    return ir.to_proto(model).SerializeToString()


@pytest.mark.parametrize("text", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_graph_is_as_onnx_irs_passes_leave_it(parse, text, backwards):
    ours, theirs = parse(f"g ({text}", CONSTANTS), parse(f"g ({text}", CONSTANTS)
    for model in (ours, theirs) if backwards else ():
        turn(model.graph)
    tidy(ours)
    common.RemoveUnusedNodesPass()(theirs)
    theirs.graph.sort()
    assert content(ours) == content(theirs)


def test_a_node_that_gives_nothing_is_removed(parse):
    model = parse(f"g ({GRAPHS['nothing to do']}", CONSTANTS)
    model.opset_imports["own"] = 1
    model.graph.append(ir.Node("own", "Print", [model.graph.inputs[0]], outputs=()))
    tidy(model)
    assert [node.op_type for node in model.graph] == ["Add", "Neg"]


def test_an_export_is_tidy(exported):
    model = ir.load(exported.path)
    before = content(model)
    tidy(model)
    assert content(model) == before


@given(
    reads=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9),
    order=st.randoms(use_true_random=False),
)
def test_nodes_come_behind_what_they_read_and_else_where_they_were(reads, order):
    places = list(range(len(reads)))
    order.shuffle(places)
    ours, theirs = sums(reads, places), sums(reads, places)
    put_in_order(ours)
    theirs.sort()
    assert [node.name for node in ours] == [node.name for node in theirs]
    seen = {None}
    for node in ours:
        assert {value.producer() for value in node.inputs} <= seen
        seen.add(node)


def sums(reads, places):
    """Return a graph of sums of two values each, by how many values were there before, its nodes in these places."""
    x = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    values = [x]
    for number, indices in enumerate(reads):
        values += ir.node("Add", [values[each % len(values)] for each in indices], name=f"n{number}").outputs
    nodes = [values[1 + place].producer() for place in places]
    return ir.Graph([x], values[-1:], nodes=nodes, opset_imports={"": 20})


def turn(graph):
    """Put the nodes of ``graph`` into the opposite of their order."""
    graph.extend(reversed(list(graph)))
