"""ViTs that others have exported: Linear layers as MatMul and Add, or as Gemm."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgevit.backends import get_backend
from edgevit.errors import GraphError
from edgevit.quantization.calibrate import calibrate
from edgevit.quantization.emit import emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.linears import find_linears, load_graph
from edgevit.quantization.prepare import CalibrationImages, prepare
from edgevit.statistics import sqnr_db

TOKENS = 17
DIALECTS = {"onnxruntime": "asymmetric", "openvino": "asymmetric", "portable": "symmetric"}


@pytest.fixture(scope="module")
def exported(timm, tmp_path_factory):
    """Return a small ViT of timm's as torch writes it, by torch's old exporter and by its new one."""
    folder = tmp_path_factory.mktemp("foreign")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        images, names = torch.zeros(2, 3, 32, 32), {"input_names": ["x"], "output_names": ["y"]}
        old, new, fixed = (folder / f"{name}.onnx" for name in ("old", "new", "fixed"))
        axes = {"dynamic_axes": {"x": {0: "b"}}}
        torch.onnx.export(model, (images,), old, dynamo=False, opset_version=17, **names, **axes)
        torch.onnx.export(model, (images,), fixed, dynamo=False, opset_version=17, **names)
        shapes = ({0: torch.export.Dim("b")},)
        torch.onnx.export(
            model, (images,), new, dynamo=True, verbose=False, external_data=False, dynamic_shapes=shapes, **names
        )
    return {"old": old, "new": new, "fixed": fixed, "gemm": as_gemm(old, folder / "gemm.onnx")}


def as_gemm(source, path):
    """Write ``source`` with a Gemm between two Reshapes for each MatMul and Add, as other exporters do."""
    model = onnx.load(source)
    graph = model.graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    nodes, gemm = [], {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            gemm[node.output[0]] = node
            continue
        product = next((gemm.pop(name) for name in node.input if name in gemm), None)
        if product is None:
            nodes.append(node)
            continue
        assert node.op_type == "Add"
        (bias,) = (name for name in node.input if name != product.output[0])
        name, (width, outputs) = product.name, constants[product.input[1]].shape
        for key, shape in (("in", [-1, width]), ("out", [-1, TOKENS, outputs])):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), f"{name}.{key}"))
        flat, short = f"{name}.flat", f"{name}.short"
        nodes += [
            onnx.helper.make_node("Reshape", [product.input[0], f"{name}.in"], [flat], name=f"{name}.flatten"),
            onnx.helper.make_node("Gemm", [flat, product.input[1], bias], [short], name=name),
            onnx.helper.make_node("Reshape", [short, f"{name}.out"], [node.output[0]], name=f"{name}.unflatten"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("name", "operators"), [("old", 8), ("new", 8), ("gemm", 0)])
def test_a_vit_of_timms_is_quantized(exported, tmp_path, name, operators):
    path = exported[name]
    kinds = [layer.product.op_type for layer in find_linears(load_graph(path).graph)]
    assert (kinds.count("MatMul"), len(kinds)) == (operators, 9)
    images = np.random.default_rng(0).normal(size=(24, 3, 32, 32)).astype(np.float32)
    source = CalibrationImages(lambda: iter([images]), 1)
    _, prepared = prepare(path, source, {scheme: tmp_path / f"{scheme}.onnx" for scheme in set(DIALECTS.values())})
    exact = onnxruntime.InferenceSession(path).run(None, {"x": images})[0]
    for dialect, scheme in DIALECTS.items():
        plan = prepared[scheme].plan
        assert len(plan.integer_layers()) == 9
        emit(prepared[scheme].model, plan, dialect, tmp_path / "int8.onnx")
        backend = "openvino" if dialect == "openvino" else "onnxruntime"
        with get_backend(backend).open(tmp_path / "int8.onnx", threads=0, settings={}) as session:
            check_kernels(session, plan.integer_layers())
            assert sqnr_db(exact, session.infer(images)) > 30


def test_a_file_with_a_fixed_batch_is_refused(exported):
    with pytest.raises(GraphError, match="takes 2 images at a time") as caught:
        calibrate(exported["fixed"], [], total=0)
    assert "dynamic" in caught.value.remedy
