"""Which input and output of a graph are used, and which graphs have none that could be."""

import onnx
import pytest
from onnx import TensorProto, helper

from edgevit.errors import GraphError, InputError
from edgevit.graph.interface import interface_of, onnx_outputs_in
from edgevit.graph.onnx_file import read_onnx


def graph(
    tmp_path, shape=("n", 3, 8, 8), kind=TensorProto.FLOAT, *, inputs=("x",), outputs=("y",), answer=TensorProto.FLOAT
):
    """Write a graph from ``inputs`` of ``shape`` to ``outputs`` (n, m)."""
    nodes = [
        helper.make_node("Flatten", [inputs[0]], ["flat"]),
        helper.make_node("Cast", ["flat"], ["cast"], to=answer),
    ]
    nodes += [helper.make_node("Identity", ["cast"], [name]) for name in outputs]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
            [helper.make_tensor_value_info(name, answer, ["n", "m"]) for name in outputs],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "model.onnx")
    return read_onnx(tmp_path / "model.onnx")


def test_sizes_that_are_fixed_and_not(tmp_path):
    face = interface_of(graph(tmp_path))
    assert (face.input, face.names, face.batch, face.channels, face.image_size) == ("x", ("y",), None, 3, (8, 8))
    face = interface_of(graph(tmp_path, (1, "c", "h", 8)))
    assert (face.batch, face.channels, face.height, face.width, face.image_size) == (1, None, None, 8, None)
    assert interface_of(graph(tmp_path, (0, 3, 8, 8))).batch is None  # what some exporters write for any


def test_the_output(tmp_path):
    face = interface_of(graph(tmp_path, outputs=("a", "logits", "b")))
    assert (face.names, face.left_out, face.typed) == (("logits",), ("a", "b"), False)
    assert interface_of(graph(tmp_path, outputs=("a", "b"))).names == ("a",)
    assert interface_of(graph(tmp_path, outputs=("a", "logits")), onnx_outputs_in(["a"])).names == ("a",)


def test_outputs_that_are_named(tmp_path):
    file = graph(tmp_path, outputs=("a", "logits", "b"))
    face = interface_of(file, onnx_outputs_in(["b=embedding", "a"]))
    assert (face.outputs, face.left_out, face.typed) == ((("b", "embedding"), ("a", None)), ("logits",), True)
    assert not interface_of(file, onnx_outputs_in(["b=embedding"])).typed
    with pytest.raises(GraphError, match="has no output 'logit'") as caught:
        interface_of(file, onnx_outputs_in(["logit"]))
    assert "did you mean logits" in caught.value.remedy
    with pytest.raises(InputError, match="'depht' is no kind of output") as caught:
        onnx_outputs_in(["a=depht"])
    assert "a=depth" in caught.value.remedy
    with pytest.raises(InputError, match="named twice"):
        onnx_outputs_in(["a", "a=any"])


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_floats_are_read_as_float32(tmp_path, kind):
    file = graph(tmp_path, kind=kind, answer=kind)
    assert [value.type.tensor_type.elem_type for value in (*file.model.graph.input, *file.model.graph.output)] == [1, 1]
    assert interface_of(file).names == ("y",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": ("x", "mask")}, r"has 2 inputs \(x, mask\), not one"),
        ({"kind": TensorProto.UINT8}, "is uint8, not float32"),
        ({"shape": ("n", 12)}, "has 2 axes, images"),
        ({"shape": ("n", 8, 8, 3)}, "has 8 channels, which seem to come last"),
        ({"shape": ("n", 4, 8, 8)}, "has 4 channels, EdgeViT gives 1 or 3"),
        ({"shape": (8, 3, 8, 8)}, "takes 8 images at a time"),
        ({"answer": TensorProto.INT64}, "the output 'y' of .* is not float32"),
    ],
)
def test_graphs_that_do_not_take_images_to_answers(tmp_path, given, message):
    with pytest.raises(GraphError, match=message) as caught:
        interface_of(graph(tmp_path, **given))
    assert caught.value.remedy
