import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes import common

from edgevit.quantization.emit.hoist_quantize import HoistQuantizeLinear

MOVED = """net (float[batch, 3, 2, 4] images) => (uint8[batch, 8, 3] bytes) {
    scaled = Mul (images, factor)
    levels = Add (scaled, summand)
    flat = Reshape (levels, shape)
    rows = Transpose <perm = [0, 2, 1]> (flat)
    bytes = QuantizeLinear (rows, scale, zero_point)
}"""
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 2, 4)).astype(np.float32)


def model_of(text=MOVED, **changed):
    constants = {
        "factor": np.array([60, 50, 40], dtype=np.float32).reshape(3, 1, 1),
        "summand": np.array([120, 110.25, 100.5], dtype=np.float32).reshape(3, 1, 1),
        "shape": np.array([0, 3, 8]),
        "scale": np.array(1.5, dtype=np.float32),
        "zero_point": np.array(3, dtype=np.uint8),
        **changed,
    }
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def check(model):
    """Compare what the graph gives before and after the pass; return the operators after it."""
    before = run(model)
    modified = HoistQuantizeLinear()(model).modified
    common.RemoveUnusedNodesPass()(model)
    found = run(model)
    assert np.abs(found.astype(int) - before).max() <= (1 if modified else 0)  # a number between two may fall to either
    return [node.op_type for node in model.graph]


def run(model):
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})[0]


def test_bytes_are_moved_and_channels_scaled_by_the_quantization():
    assert check(model_of()) == ["Add", "QuantizeLinear", "Reshape", "Transpose"]


def test_an_addition_that_changes_next_to_nothing_is_left_out():
    summand = np.array([120, 150.3, 99.6], dtype=np.float32).reshape(3, 1, 1)  # 80, 100.2 and 66.4 steps
    assert check(model_of(summand=summand)) == ["QuantizeLinear", "Reshape", "Transpose"]


@pytest.mark.parametrize(
    "changed",
    [
        {"factor": np.array([60, -50, 40], dtype=np.float32).reshape(3, 1, 1)},
        {"summand": np.array([1200, 110, 100], dtype=np.float32).reshape(3, 1, 1)},
        {"factor": np.array([60, 50, 40, 30], dtype=np.float32)},
    ],
    ids=["negative", "no such zero point", "along another axis"],
)
def test_what_does_not_fit_scale_and_zero_point_stays_in_front(changed):
    assert check(model_of(**changed)) == ["Mul", "Add", "QuantizeLinear", "Reshape", "Transpose"]


@pytest.mark.parametrize(
    "text",
    [
        MOVED.replace("bytes)", "bytes, float[batch, 8, 3] rows)"),
        MOVED.replace("rows = Transpose", "other = Relu (flat) rows = Transpose").replace(
            "bytes)", "bytes, float[batch, 3, 8] other)"
        ),
    ],
    ids=["an output", "another consumer"],
)
def test_values_that_others_read_stay_floats(text):
    operators = check(model_of(text))
    assert operators.index("QuantizeLinear") > operators.index("Reshape")


def test_one_scale_for_each_row_stays_where_it_is():
    text = MOVED.replace("QuantizeLinear (", "QuantizeLinear <axis = 2> (")
    model = model_of(text, scale=np.full(3, 1.5, dtype=np.float32), zero_point=np.full(3, 3, dtype=np.uint8))
    assert check(model) == ["Mul", "Add", "Reshape", "Transpose", "QuantizeLinear"]
