"""The torch module that converters to other engines start from: it gives what onnxruntime gives for the same graph."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from small_dense import Dense, write
from small_hybrid import SmallHybrid, small_hybrid

from edgevit.errors import GraphError
from edgevit.graph.linears import load_graph
from edgevit.graph.running import largest_difference, run_all_outputs
from edgevit.graph.torch_module import TorchGraph

NEAR = 1e-5  # of the largest number


def answers(module, images):
    with torch.no_grad():
        found = [module(torch.from_numpy(image)) for image in images]
    each = [one if isinstance(one, tuple) else (one,) for one in found]
    return [np.concatenate([one[index].numpy() for one in each]) for index in range(len(each[0]))]


def compare(path, *, positive=False):
    """Check that the file at ``path`` and its module answer alike, exported and traced, too; return the module."""
    model = load_graph(path)
    module = TorchGraph(model)
    sizes = [int(size) for size in list(model.graph.inputs[0].shape)[1:]]
    random = np.random.default_rng(0)
    images = [random.normal(size=(1, *sizes)).astype(np.float32) for _ in range(2)]
    images = [np.abs(image) + 0.1 if positive else image for image in images]
    expected = run_all_outputs(path, images)
    assert any(np.ptp(each) > 0 for each in expected)
    first = torch.from_numpy(images[0])
    exported = torch.export.export(module, (first,), strict=False).module()
    with warnings.catch_warnings():  # it goes some day; pnnx asks for it until then
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, first)
    for each in (module, exported, traced):
        assert largest_difference(answers(each, images), expected, least=1e-6) <= NEAR
    return module


def one_node(tmp_path, kind, *constants, size=(1, 4, 6, 6), outputs=1, opset=20, **attributes):
    """Write a graph of one operator, of an image and ``constants``."""
    names = [f"c{index}" for index in range(len(constants))]
    given = [name if value is not None else "" for name, value in zip(names, constants, strict=True)]
    found = [f"y{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *given], found, name="it", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", *size[1:]])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in found],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, constants, strict=True)
            if value is not None
        ],
    )
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def test_a_vit_is_the_same_in_torch_and_its_layers_are_torchs_own(tiny_exported):
    module = compare(tiny_exported / "float32/model.onnx")
    kinds = [type(layer).__name__ for layer in module.layers]
    assert kinds.count("Linear") == 4 * 2 + 1
    assert kinds.count("LayerNorm") == 2 * 2 + 1
    assert kinds.count("Conv2d") == 1


def test_several_outputs_come_in_their_order(tiny_dense):
    module = compare(tiny_dense / "float32/model.onnx")
    with torch.no_grad():
        assert len(module(torch.zeros(1, 3, 16, 16))) == 3


def test_a_hybrid_of_convolutions_is_the_same(tmp_path):
    compare(small_hybrid(tmp_path / "hybrid.onnx", SmallHybrid()))


def test_masks_and_the_sizes_that_torchs_exporter_computes_are_the_same(tmp_path):
    torch.manual_seed(0)
    write(Dense(3), tmp_path / "masks.onnx", "masks")
    compare(tmp_path / "masks.onnx")


def test_a_graph_that_takes_images_of_any_size_is_refused(write_graph):
    path = write_graph("g (float[batch, 3, h, w] x) => (float[batch, 3, h, w] y) { y = Relu(x) }", {})
    with pytest.raises(GraphError, match="any size"):
        TorchGraph(load_graph(path))


ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"),
    [
        ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 1]}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ("BatchNormalization", [2 * ONES, ONES, 0.5 * ONES, 3 * ONES], {"epsilon": 0.1}),
        ("Clip", [np.float32(-0.5), np.float32(0.7)], {}),
        ("Clip", [None, np.float32(0.7)], {}),
        ("Conv", [np.ones((2, 4, 3, 2), np.float32)], {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
        ("Conv", [np.ones((8, 1, 3, 3), np.float32)], {"group": 4, "dilations": [2, 2], "pads": [0, 1, 2, 3]}),
        ("ConvTranspose", [np.ones((4, 2, 3, 3), np.float32)], {"strides": [2, 2], "output_padding": [1, 1]}),
        ("Expand", [np.array([1, 4, 6, 6])], {}),
        ("Flatten", [], {"axis": 2}),
        ("Gather", [np.array(-1)], {"axis": 2}),
        ("Gather", [np.array([[3, 0], [1, 1]])], {"axis": -1}),
        ("Gelu", [], {"approximate": "tanh"}),
        ("GlobalAveragePool", [], {}),
        ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}),
        ("HardSwish", [], {}),
        ("LayerNormalization", [np.ones((6, 6), np.float32), np.ones((6, 6), np.float32)], {"axis": -2}),
        ("LayerNormalization", [np.ones(6, np.float32)], {"epsilon": 0.1}),
        ("LeakyRelu", [], {"alpha": 0.2}),
        ("Pad", [np.array([0, 0, 1, 0, 0, 0, 0, 2]), np.float32(0.5)], {}),
        ("ReduceL2", [np.array([1])], {"keepdims": 0}),
        ("ReduceMean", [np.array([-1, -2])], {}),
        ("ReduceMax", [], {}),
        ("Resize", [None, None, np.array([1, 4, 12, 9])], {"mode": "linear"}),
        ("Resize", [None, np.array([1, 1, 2, 2], np.float32)], {"mode": "cubic"}),
        (
            "Resize",
            [None, np.array([1, 1, 2, 2], np.float32)],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
        ("Slice", [np.array([1, -3]), np.array([9, 2**62]), np.array([1, 3]), np.array([2, 1])], {}),
        ("Softmax", [], {"axis": 1}),
        ("Squeeze", [np.array([0])], {}),
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Unsqueeze", [np.array([1, -1])], {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operator_is_the_same(tmp_path, kind, constants, attributes):
    compare(one_node(tmp_path, kind, *constants, **attributes))


def test_split_gives_all_of_its_parts(tmp_path):
    compare(one_node(tmp_path, "Split", np.array([1, 3]), outputs=2, axis=1))
    compare(one_node(tmp_path, "Split", outputs=2, axis=2, num_outputs=2))


@pytest.mark.parametrize(
    ("kind", "constants", "attributes", "message"),
    [
        ("CumSum", [np.array(1)], {}, "CumSum 'it' is not among the operators"),
        ("Slice", [np.array([-1]), np.array([-9]), np.array([3]), np.array([-1])], {}, "goes backwards"),
        ("Pad", [np.array([0, 0, 1, 0, 0, 0, 1, 0])], {"mode": "reflect"}, "pads by 'reflect'"),
        ("Resize", [None, None, np.array([1, 4, 3, 3])], {"mode": "linear", "antialias": 1}, "in a way"),
        ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}, "pads one side more"),
    ],
)
def test_what_has_no_form_in_torch_is_refused_by_name(tmp_path, kind, constants, attributes, message):
    path = one_node(tmp_path, kind, *constants, **attributes)
    with pytest.raises(GraphError, match=message) as caught:
        TorchGraph(load_graph(path))
    assert caught.value.remedy


def test_sizes_that_a_graph_computes_are_constants(write_graph):
    path = write_graph(
        """g (float[batch, 2, 3, 4] x) => (float[batch, n] y) {
            s = Shape(x)
            b = Gather(s, zero)
            rest = Constant<value = int64[1] {-1}>()
            b1 = Unsqueeze(b, zero1)
            to = Concat<axis = 0>(b1, rest)
            y = Reshape(x, to)
        }""",
        {"zero": np.array(0), "zero1": np.array([0])},
    )
    module = compare(path)
    assert len(module._steps) == 1


def test_an_output_that_is_the_same_for_all_images_is_refused(write_graph):
    path = write_graph(
        "g (float[batch, 1, 2, 2] x) => (float[1] y) { y = Identity(one) }", {"one": np.ones(1, np.float32)}
    )
    with pytest.raises(GraphError, match="the same for all images"):
        TorchGraph(load_graph(path))
