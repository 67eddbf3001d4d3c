"""ONNX files are hostile until they are read: whatever is in one ends in a model or in a GraphError."""

import hashlib
import shutil
import warnings
from functools import partial

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgevit.errors import EdgeViTError, GraphError
from edgevit.graph import onnx_file
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata import OPSET
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.onnx_file import read_onnx, shown

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)


def simple():
    """Return the smallest model: images of 2x2, flattened and multiplied."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"], name="head")],
        "simple",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.arange(48, dtype=np.float32).reshape(12, 4) / 48, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def written(tmp_path, model):
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file(tmp_path):
    model = simple()
    model.producer_name, model.producer_version = "some\x1bone", "1.2"
    path = written(tmp_path, model)
    file = read_onnx(path)
    assert file.producer == "some?one 1.2 opset 18"
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [one.version for one in file.model.opset_import] == [OPSET]


def test_weights_in_another_file(external_vits, tmp_path):
    path = external_vits["external"]
    data = path.with_name(path.name + ".data")
    file = read_onnx(path)
    digests = "".join(hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, data))
    assert file.sha256 == hashlib.sha256(digests.encode()).hexdigest()
    assert not any(tensor.HasField("data_location") and tensor.data_location for tensor in file.model.graph.initializer)
    shutil.copy(path, tmp_path)
    with pytest.raises(GraphError):  # without its weights
        read_onnx(tmp_path / path.name)
    (tmp_path / data.name).symlink_to(data)
    with pytest.raises(GraphError):
        read_onnx(tmp_path / path.name)


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "", "nowhere", ".", "a/../../weights", "with\0nul"])
def test_weights_are_read_from_the_files_folder_alone(tmp_path, location):
    (tmp_path / "weights").write_bytes(bytes(192))
    folder = tmp_path / "folder"
    folder.mkdir()
    model = simple()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(GraphError):
        read_onnx(written(folder, model))


@pytest.mark.parametrize(("key", "value"), [("offset", "100"), ("offset", "-4"), ("length", "4"), ("length", "x")])
def test_parts_of_files_that_are_not_there(tmp_path, key, value):
    (tmp_path / "weights").write_bytes(bytes(192))
    model = simple()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    tensor.external_data.add(key=key, value=value)
    with pytest.raises(GraphError):
        read_onnx(written(tmp_path, model))


def contrib(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("Rfft", ["flat"], ["unused"], domain="com.microsoft"))


def quantized(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "scale"))
    model.graph.node.append(helper.make_node("QuantizeLinear", ["flat", "scale"], ["unused"]))


def looping(model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [12, 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [12, 4]),
        ],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "most"))
    model.graph.node.append(helper.make_node("Loop", ["most", "", "w"], ["unused"], body=body))


def functional(model):
    model.opset_import.append(helper.make_opsetid("mine", 1))
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], [node], [helper.make_opsetid("", 18)]))


def quantized_by_onnxruntime(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("QAttention", ["flat"] * 8, ["unused"], domain="com.microsoft"))


def quantized_in_a_branch(model):
    inner = helper.make_node("QuantizeLinear", ["flat", "scale"], ["inner"])
    output = helper.make_tensor_value_info("inner", TensorProto.UINT8, ["n", 12])
    branch = helper.make_graph([inner], "branch", [], [output])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch))


def branching_on_pixels(model):
    """Give two graphs of which the first pixel decides between."""
    branches = []
    for name in ("Relu", "Neg"):
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 12])
        branches.append(helper.make_graph([helper.make_node(name, ["flat"], [name])], name, [], [output]))
    model.graph.node.append(helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0))
    model.graph.node.append(helper.make_node("Cast", ["largest"], ["positive"], to=TensorProto.BOOL))
    model.graph.node.append(
        helper.make_node("If", ["positive"], ["chosen"], then_branch=branches[0], else_branch=branches[1])
    )
    model.graph.output.append(helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["n", 12]))


def drawing(model):
    model.graph.node.insert(0, helper.make_node("RandomUniformLike", ["x"], ["noise"]))
    model.graph.node.insert(1, helper.make_node("Add", ["x", "noise"], ["noisy"]))
    model.graph.node[2].input[0] = "noisy"


def dropping(model, *, ratio=0.5, training=True, node=False):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(ratio), "ratio"))
    mode = numpy_helper.from_array(np.array(training), "training")
    if node:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["training"], value=mode))
    else:
        model.graph.initializer.append(mode)
    model.graph.node.append(helper.make_node("Dropout", ["flat", "ratio", "training"], ["unused"]))


@pytest.mark.parametrize(
    ("change", "message", "remedy"),
    [
        (drawing, "draws random numbers: RandomUniformLike", "without what is random"),
        (dropping, "draws random numbers: Dropout", "without what is random"),
        (partial(dropping, node=True), "draws random numbers: Dropout", "without what is random"),
        (contrib, "operators that are not ONNX's own: com.microsoft.Rfft", "torch.onnx.export"),
        (quantized, "is quantized already: it has QuantizeLinear", "float32 model"),
        (looping, "branches or loops.*: Loop", "dynamo=True"),
        (functional, "operators of its own, such as Twice", "inline_local_functions"),
        (quantized_by_onnxruntime, "is quantized already: it has QAttention", "float32 model"),
        (quantized_in_a_branch, "is quantized already: it has QuantizeLinear", "float32 model"),
        (branching_on_pixels, "branches or loops.*: If", "dynamo=True"),
    ],
)
def test_what_a_vit_has_not(tmp_path, change, message, remedy):
    model = simple()
    change(model)
    with pytest.raises(GraphError, match=message) as caught:
        read_onnx(written(tmp_path, model))
    assert remedy.replace("\\", "") in caught.value.remedy


@pytest.mark.parametrize("said", [{"training": False}, {"ratio": 0}])
def test_a_dropout_that_drops_nothing_is_taken(tmp_path, said):
    model = simple()
    dropping(model, **said)
    read_onnx(written(tmp_path, model))


def test_files_that_are_too_large(tmp_path, monkeypatch):
    path = written(tmp_path, simple())
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 100)
    with pytest.raises(GraphError, match="larger than 2 GiB"):
        read_onnx(path)


def test_a_constant_that_claims_more_than_it_has(tmp_path):
    model = simple()
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(GraphError):
        read_onnx(written(tmp_path, model))


def test_no_file(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(GraphError, match="there is no file"):
            read_onnx(path)


CONTENT = simple().SerializeToString()


def outcome(tmp_path, content):
    """Open ``content``, which must end in a model or in an error that EdgeViT raises on purpose."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            write_verified(open_onnx(path, "model", MetadataOverrides()), tmp_path / "written.onnx", IMAGES)
        except EdgeViTError as error:
            return error
    return None


any_times = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)


@given(content=st.binary(max_size=100))
@example(content=b"")
@any_times
def test_random_bytes_are_refused(tmp_path, content):
    assert isinstance(outcome(tmp_path, content), EdgeViTError)


@given(length=st.integers(0, len(CONTENT) - 1))
@any_times
def test_a_truncated_file_never_ends_in_another_error(tmp_path, length):
    outcome(tmp_path, CONTENT[:length])


@given(position=st.integers(0, len(CONTENT) - 1), patch=st.binary(min_size=1, max_size=3))
@any_times
def test_damaged_bytes_never_end_in_another_error(tmp_path, position, patch):
    outcome(tmp_path, CONTENT[:position] + patch + CONTENT[position + len(patch) :])


@given(st.text())
def test_names_are_shown_in_one_short_line(name):
    text = shown(name)
    assert len(text) <= 43
    assert text.isprintable()


def test_the_simple_model_is_whole():
    onnx.checker.check_model(simple(), full_check=True)
