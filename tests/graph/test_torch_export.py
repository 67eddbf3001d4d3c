import math
import os
import subprocess
import sys
from collections import Counter

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError
from edgevit.graph import torch_export
from edgevit.graph.torch_export import export_onnx
from edgevit.models.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("traced_anew")


def test_inputs_and_outputs(exported):
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    spec = exported.model.spec
    assert (images.name, images.type) == ("images", "tensor(float)")
    assert images.shape == ["batch", spec.channels, *spec.image_size]
    assert (logits.name, logits.shape, logits.type) == ("logits", ["batch", spec.classes], "tensor(float)")


def test_only_the_operators_that_the_model_needs(exported):
    spec = exported.model.spec
    depth = spec.depth
    pool = {"Gather": 1} if spec.pooling == "class" else {"Slice": 1, "ReduceMean": 1}
    assert Counter(node.op_type for node in exported.graph()) == {
        "Conv": 1,
        "Shape": 1,  # the class token, once for each image
        "Expand": 1,
        "Concat": 2,
        "LayerNormalization": 2 * depth + 1,
        "Gelu": depth,
        "Split": depth,
        "Softmax": depth,
        "Mul": depth,
        "MatMul": (4 + 2) * depth + 1,  # Linear layers, and attention
        "Add": (4 + 2) * depth + 1 + 1,  # biases, residuals, and positions
        "Reshape": 4 * depth + 1,
        "Transpose": 4 * depth + 1,
        **pool,
    }


def test_every_linear_layer_is_a_matmul_and_an_add_under_the_modules_name(exported):
    graph = exported.graph()
    nodes = {node.name: node for node in graph}
    linears = {name: module for name, module in exported.model.named_modules() if isinstance(module, nn.Linear)}
    assert len(linears) == 4 * exported.model.spec.depth + 1
    for name, module in linears.items():
        matmul = nodes[name]
        (add,) = matmul.successors()
        assert (matmul.op_type, add.op_type) == ("MatMul", "Add")
        assert add.inputs[0] is matmul.outputs[0]
        weight, bias = matmul.inputs[1], add.inputs[1]
        assert (weight.name, bias.name) == (f"{name}.weight", f"{name}.bias")
        np.testing.assert_array_equal(weight.const_value.numpy(), module.weight.detach().numpy().T)
        np.testing.assert_array_equal(bias.const_value.numpy(), module.bias.detach().numpy())
    constant = [n.name for n in graph if n.op_type == "MatMul" and n.inputs[1].is_initializer()]
    assert sorted(constant) == sorted(linears)


def test_layers_that_start_alike_have_constants_of_their_own(small):
    """A fresh model's biases are all zero, which the exporter's optimiser merges into one."""
    names = set(small.graph().initializers)
    assert names >= set(small.model.state_dict())
    assert all(name.startswith("constant_") for name in names - set(small.model.state_dict()))


def test_names_are_readable(small):
    nodes = {node.name: node.op_type for node in small.graph()}
    assert len(nodes) == len(list(small.graph()))
    assert nodes["patch_embed.proj"] == "Conv"
    assert nodes["blocks.1.norm2"] == nodes["norm"] == "LayerNormalization"
    assert nodes["blocks.0.mlp.gelu"] == "Gelu"
    assert nodes["blocks.0.attn.softmax"] == "Softmax"
    assert nodes["blocks.0.attn.split"] == "Split"


def test_no_constant_is_unused_or_twice_there(exported):
    constants = list(exported.graph().initializers.values())
    assert all(value.uses() for value in constants)
    contents = Counter((value.dtype, tuple(value.shape), value.const_value.tobytes()) for value in constants)
    assert max(contents.values()) == 1


def test_layernorm_and_gelu_are_exact(exported):
    for node in exported.graph():
        if node.op_type == "LayerNormalization":
            assert node.attributes["axis"].as_int() == -1
            assert math.isclose(node.attributes["epsilon"].as_float(), exported.model.spec.norm_epsilon, rel_tol=1e-6)
        if node.op_type == "Gelu":
            assert node.attributes["approximate"].as_string() == "none"


def test_metadata_describes_the_model(exported):
    model = ir.load(exported.path)
    metadata = model.metadata_props
    assert set(metadata) == {"edgevit.spec", "edgevit.preprocess", "edgevit.labels", "edgevit.products"}
    assert msgspec.json.decode(metadata["edgevit.spec"], type=ModelSpec) == exported.model.spec
    assert msgspec.json.decode(metadata["edgevit.preprocess"], type=Preprocess) == exported.preprocess
    assert msgspec.json.decode(metadata["edgevit.labels"], type=tuple[str, ...]) == exported.labels
    assert (model.producer_name, model.opset_imports) == ("edgevit", {"": 20})


def test_the_file_holds_nothing_of_the_machine_that_made_it(exported):
    content = exported.path.read_bytes()
    for trace in (b"pkg.torch", b"pkg.onnxscript", b"stack_trace", b".py", os.fsencode(os.getcwd())):  # noqa: PTH109
        assert trace not in content
    assert [file.name for file in exported.path.parent.iterdir()] == ["model.onnx"]


def test_the_model_is_left_as_it_was(exported):
    assert exported.model.training
    assert all(parameter.requires_grad for parameter in exported.model.parameters())


def test_equal_weights_give_equal_bytes_and_no_chatter(small, tmp_path):
    script = """
import sys, torch, msgspec
from pathlib import Path
from edgevit.data.preprocess import Preprocess
from edgevit.graph.torch_export import export_onnx
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer
spec, preprocess, labels = msgspec.json.decode(sys.argv[1], type=tuple[ModelSpec, Preprocess, tuple[str, ...]])
torch.manual_seed(0)
export_onnx(VisionTransformer(spec), Path(sys.argv[2]), preprocess=preprocess, labels=labels)
"""
    arguments = msgspec.json.encode((small.model.spec, small.preprocess, small.labels)).decode()
    again = tmp_path / "again.onnx"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, arguments, str(again)], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert again.read_bytes() == small.path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("one", "two")}, "2 labels for 5 classes"),
        ({"preprocess": Preprocess(size=(8, 8), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)}, "3 channels of 8x8"),
        (
            {"preprocess": Preprocess(size=(16, 16), resize=None, mean=(0.5,), std=(0.5,), channel_order="L")},
            "1 channels of 16x16",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(small, tmp_path, change, message):
    arguments = {"preprocess": small.preprocess, "labels": small.labels} | change
    with pytest.raises(GraphError, match=message):
        export_onnx(small.model, tmp_path / "model.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_half_precision_is_refused(small, tmp_path):
    model = type(small.model)(small.model.spec).half()
    with pytest.raises(GraphError, match="not float32") as caught:
        export_onnx(model, tmp_path / "model.onnx", preprocess=small.preprocess, labels=small.labels)
    assert "model.float()" in caught.value.remedy


def test_a_model_too_large_for_one_file_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_export, "LARGEST_FILE", 1000)
    with pytest.raises(GraphError, match="one ONNX file holds 2"):
        export_onnx(small.model, tmp_path / "model.onnx", preprocess=small.preprocess, labels=small.labels)


def test_an_exporter_that_fails_leaves_what_was_there(small, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("no such operator\nand a long explanation")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(GraphError, match=r"no such operator(\ntry: |$)"):
        export_onnx(small.model, path, preprocess=small.preprocess, labels=small.labels)
    assert small.model.training
    assert path.read_bytes() == b"before"


def test_a_malformed_graph_is_refused(small, tmp_path, monkeypatch):
    def spoil(graph):
        graph = ir.load(small.path)
        graph.graph.node("blocks.0.attn.softmax").attributes["axis"] = ir.AttrInt64("axis", 9)
        return graph

    monkeypatch.setattr(torch_export, "simplify_trace", spoil)
    monkeypatch.setattr(torch_export, "trace", lambda model: None)
    with pytest.raises(GraphError, match="malformed"):
        export_onnx(small.model, tmp_path / "model.onnx", preprocess=small.preprocess, labels=small.labels)
    assert not list(tmp_path.iterdir())


def test_shapes_are_noted_for_every_value(exported):
    graph = onnx.load(exported.path).graph
    noted = {value.name for value in (*graph.value_info, *graph.output)}
    assert noted >= {output for node in graph.node for output in node.output}
