"""What TensorRT writes of kernels and nodes, read back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.backends.tensorrt.kernel_log import Tensor, parse_graph, parse_inspection, parse_kernels
from edgevit.errors import BundleError

NAMES = st.text("abc/.[]0_", min_size=1, max_size=12).filter(lambda name: "][ONNX" not in name)
KINDS = {"Half": "float16", "Float": "float32", "Int8": "int8", "FP8": "float8"}
TENSORS = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.lists(st.integers(1, 500), max_size=4)), max_size=3)


def tensor(kind, shape):
    return (
        f"{{ Name: t, Dimensions: [{','.join(map(str, shape))}], Strides: [1], StrideOrder: [0], Datatype: {kind}, "
        "Format: (Linear) Row major linear format }"
    )


@given(name=NAMES, inputs=TENSORS, constants=TENSORS, outputs=TENSORS, nodes=st.lists(NAMES, max_size=4))
def test_a_line_of_a_kernel(name, inputs, constants, outputs, nodes):
    held = f", Constants: [ {', '.join(tensor(*each) for each in constants)}]" if constants else ""
    line = (
        f"Name: {name}_myl0_1, LayerType: gemm, Inputs: [ {', '.join(tensor(*each) for each in inputs)}]{held}, "
        f"Outputs: [ {', '.join(tensor(*each) for each in outputs)}], TacticName: x, StreamId: 0, "
        f"Metadata: {''.join(f'[ONNX Layer: {node}]' for node in nodes)}"
    )
    (found,) = parse_kernels(["Layers:", line, "Engine Metadata:"])
    assert (found.name, found.layer_type, found.nodes) == (f"{name}_myl0_1", "gemm", tuple(nodes))
    for read, written in ((found.inputs, inputs), (found.constants, constants), (found.outputs, outputs)):
        assert [(each.type, list(each.shape)) for each in read] == [(KINDS[kind], shape) for kind, shape in written]


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_lines_are_read(lines):
    parse_kernels(lines)
    parse_kernels([f"Name: {line}" for line in lines])
    parse_graph([f"a [MatMul] inputs: {line}" for line in lines])


def test_lines_of_nodes():
    nodes = parse_graph(
        [
            "Importing initializer: w",
            "Parsing node: blocks.0.qkv[1] [MatMul]",
            "wdq [DequantizeLinear] inputs: [w -> (32, 32)[INT8]], [s -> (32)[HALF]], [optional input, not set], ",
            "wdq [DequantizeLinear] outputs: [wf -> (32, 32)[HALF]], ",
            "blocks.0.qkv[1] [MatMul] inputs: [x -> (-1, 197, 32)[HALF]], [wf -> (32, 32)[HALF]], ",
            "blocks.0.qkv[1] [MatMul] outputs: [y -> (-1, 197, 32)[HALF]], ",
            "Importing initializer: s",
        ]
    )
    assert list(nodes) == ["wdq", "blocks.0.qkv[1]"]
    dequantize, product = nodes.values()
    assert (dequantize.op_type, product.op_type) == ("DequantizeLinear", "MatMul")
    given, weight = product.inputs
    assert (given.name, given.tensor, given.shape) == ("x", Tensor("float16", (-1, 197, 32)), (-1, 197, 32))
    assert [value.name for value in product.outputs] == ["y"]
    assert [value.name for value in (given, *dequantize.inputs, weight) if value.const_value] == ["w", "s", "wf"]
    assert (weight.producer(), weight.consumers()) == (dequantize, [product])
    assert (given.producer(), given.is_graph_input(), weight.is_graph_input()) == (None, True, False)


@pytest.mark.parametrize(
    "described",
    [
        {"Format/Datatype": "Row major Int8 format"},  # TensorRT 8.6
        {"Format/Datatype": "Int8"},  # TensorRT 10
        {"Datatype": "Int8", "Format": "Row major linear FP32 format (kLINEAR)"},  # TensorRT 11
    ],
)
@pytest.mark.parametrize("separator", ["", "\x1e", "\x1f"])
def test_an_inspectors_json(described, separator):
    layer = {
        "Name": "fc1_myl0_3",
        "LayerType": "gemm",
        "Inputs": [{"Name": "a", "Dimensions": [1, 4], **described}],
        "Outputs": [{"Name": "b", "Dimensions": [1, 8], "Format/Datatype": "Row major linear FP16 format"}],
        "Metadata": separator.join(f"[ONNX Layer: {name}]" for name in ("fc1", "qkv[0]", "add bias")),
    }
    (found,) = parse_inspection(json.dumps({"Layers": [layer], "Bindings": ["a", "b"]}))
    assert (found.name, found.layer_type, found.nodes) == ("fc1_myl0_3", "gemm", ("fc1", "qkv[0]", "add bias"))
    assert found.inputs == (Tensor("int8", (1, 4)),)
    assert found.outputs == (Tensor("float16", (1, 8)),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"Layers": 1}',
        '{"Layers": ["conv1"]}',  # an engine that was built without details
        '{"Layers": [{"Name": "a"}]}',
        '{"Layers": [{"Name": "a", "LayerType": "b", "Inputs": [{"Name": "c"}]}]}',
    ],
)
def test_what_is_no_inspectors_json(text):
    with pytest.raises(BundleError, match="does not tell what the engine's kernels are"):
        parse_inspection(text)
