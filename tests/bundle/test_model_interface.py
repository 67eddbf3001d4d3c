"""What a model file takes and gives, held against what onnxruntime and OpenVINO say of it."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgevit.bundle.model_interface import file_interface
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError

TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16"}


def of_onnxruntime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def tensors(found):
        shapes = (tuple(size if isinstance(size, int) else None for size in each.shape) for each in found)
        return tuple((each.name, TYPES[each.type], shape) for each, shape in zip(found, shapes, strict=True))

    return tensors(session.get_inputs()), tensors(session.get_outputs())


def of_openvino(path):
    import openvino

    model = openvino.Core().read_model(str(path))

    def tensors(found):
        shapes = (
            tuple(None if size.is_dynamic else size.get_length() for size in each.partial_shape) for each in found
        )
        types = (each.element_type.to_dtype().name for each in found)
        return tuple(zip((each.any_name for each in found), types, shapes, strict=True))

    return tensors(model.inputs), tensors(model.outputs)


def test_every_variant_is_as_its_engine_says(tiny_quantized, tiny_dense, tiny_embedding):
    for path in (tiny_quantized, tiny_dense, tiny_embedding):
        bundle = Bundle.open(path)
        for variant in bundle.manifest.variants:
            file = bundle.verify_files(variant.name)
            found = file_interface(file)
            assert found == (of_openvino if file.suffix == ".xml" else of_onnxruntime)(file), variant.name
            assert found.inputs[0].shape == (None, 3, 16, 16)


def test_other_types_sizes_and_weights_that_are_inputs(tmp_path):
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [2, "height", 7, 3])]
    weight = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("out,put", TensorProto.FLOAT, [2, "height", 7, 3])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "weight"], ["out,put"]),
    ]
    values = [onnx.numpy_helper.from_array(np.ones(1, np.float32), "weight")]
    graph = helper.make_graph(nodes, "g", [*inputs, weight], [output], values)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    found = file_interface(path)
    assert found.inputs == (("pixels", "uint8", (2, None, 7, 3)),)
    assert found == of_onnxruntime(path)
    import openvino

    for name in ("model.xml", "other.xml"):
        openvino.save_model(openvino.convert_model(str(path)), tmp_path / name, compress_to_fp16=False)
        assert file_interface(tmp_path / name) == of_openvino(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.onnx", b""),
        ("model.onnx", b"\x3a\xff\x01"),
        ("model.onnx", b"\x08\x08"),
        ("model.xml", b"<net>"),
        ("model.xml", b'<!DOCTYPE net [<!ENTITY a "b">]><net/>'),
        ("model.xml", b'<net><layer type="Result" name="a"><port precision="FP32"><dim>x</dim></port></layer></net>'),
        ("model.xml", b'<net><layer type="Result" name="a"><port precision="FP32"><dim>0</dim></port></layer></net>'),
        ("model.xml", b'<net><layer type="Result" name="a"><port precision="odd"/></layer></net>'),
        ("model.xml", b'<?xml version="1.0" encoding="odd"?><net/>'),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match="not a readable model"):
        file_interface(tmp_path / name)
