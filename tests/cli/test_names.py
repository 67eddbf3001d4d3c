"""Names that users gave to layers stay theirs, even those that look like names of a rewrite."""

import json

import onnx
import pytest
from tiny import ENGINES

from edgevit.backends import get_backend
from edgevit.bundle.store import Bundle

RENAMED = {0: "dense[0]", 1: "a.rest", 2: "x.centre", 3: "dense", 4: "b.residual", 5: "dense.split_0"}


@pytest.fixture
def renamed(external_vits, tmp_path):
    """Return an ONNX file whose first products have names such as ``RENAMED``, with their names in order."""
    model = onnx.load(external_vits["old"])
    constants = {each.name for each in model.graph.initializer}
    products = [each for each in model.graph.node if each.op_type == "MatMul" and each.input[1] in constants]
    for index, name in RENAMED.items():
        products[index].name = name
    onnx.save(model, tmp_path / "renamed.onnx")
    return tmp_path / "renamed.onnx", [each.name for each in products]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_whole_way(edgevit, renamed, tmp_path, engine):
    source, names = renamed
    bundle, data = tmp_path / "vit.edgevit", "shapes:size=40,count=32"
    options = ("--mean", "0.5", "--std", "0.25", "--resize", "squash")
    assert edgevit("export", source, "-o", bundle, "--data", data, *options).code == 0
    done = edgevit("quantize", bundle, "--data", data, "--dialect", engine)
    assert done.code == 0, done.err
    shown = {each["variant"]: each for each in edgevit("inspect", bundle, "--kernels", "--json").data()["variants"]}
    for variant in (f"float32-{engine}", f"int8-{engine}"):
        layers = [each["layer"] for each in shown[variant]["linears"]]
        assert set(RENAMED.values()) <= set(layers), layers
        assert len(layers) == len(set(layers))
    manifest = Bundle.open(bundle).manifest
    kernels = next(each.kernels for each in manifest.variants if each.name == f"int8-{engine}")
    assert kernels.float_linears == ()
    assert edgevit("report", bundle, "-o", tmp_path / "report").code == 0
    assert get_backend(engine)
    plan = json.loads(Bundle.open(bundle).verify_extra("calibration/plan.json").path.read_text())
    assert set(RENAMED.values()) <= {each["name"] for each in plan["linears"]}
    assert set(RENAMED.values()) <= set(names)


@pytest.mark.parametrize("name", ["att.{}", "/encoder/Softmax_{}", "blocks.{}.att", "{}"])
def test_each_attention_is_quantized_whatever_its_softmax_is_called(edgevit, external_vits, tmp_path, name):
    model = onnx.load(external_vits["old"])
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    for index, node in enumerate(softmaxes):
        node.name = name.format(index)
    onnx.save(model, tmp_path / "renamed.onnx")
    bundle, data = tmp_path / "vit.edgevit", "shapes:size=40,count=32"
    options = ("--mean", "0.5", "--std", "0.25", "--resize", "squash")
    assert edgevit("export", tmp_path / "renamed.onnx", "-o", bundle, "--data", data, *options).code == 0
    done = edgevit("quantize", bundle, "--data", data, "--dialect", "openvino")
    assert done.code == 0, done.err
    variant = Bundle.open(bundle).variant("int8-openvino")
    (attention,) = (each for each in variant.kernels.arithmetic if each.kind == "attention")
    assert attention.nodes - attention.float_nodes == len(softmaxes)  # query times key; softmax times value is float
