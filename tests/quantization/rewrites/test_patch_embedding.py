import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes import common

from edgevit.data.preprocess import Preprocess
from edgevit.graph.editing import add_constant
from edgevit.graph.linears import find_linears
from edgevit.quantization.emit.hoist_quantize import HoistQuantizeLinear
from edgevit.quantization.rewrites.patch_embedding import multiply_patches

COLOUR = Preprocess(size=(8, 12), resize=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GREY = Preprocess(size=(8, 12), resize=None, mean=(0.13,), std=(0.31,), channel_order="L")
GRAPH = """net (float[batch, 3, 8, 12] images) => (float[batch, 6, 5] tokens) {
    map = Conv <strides = [4, 4]> (images, weight, bias)
    flat = Reshape (map, shape)
    tokens = Transpose <perm = [0, 2, 1]> (flat)
}"""
SHAPE = np.array([0, 5, 6])
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)


def model_of(text=GRAPH, channels=3, kernel=(4, 4), shape=SHAPE):
    random = np.random.default_rng(1)
    weight = random.normal(size=(5, channels, *kernel)).astype(np.float32)
    constants = {"weight": weight, "bias": random.normal(size=5).astype(np.float32), "shape": shape}
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    model = ir.from_proto(model)
    next(node for node in model.graph if node.op_type == "Conv").name = "embed"
    common.ShapeInferencePass()(model)
    return model


def run(model, images):
    model.graph.sort()
    common.RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def quantized_patches(preprocess):
    """Return a model that gives the bytes of the patches that its patch embedding reads, as onnxruntime's has them."""
    channels = preprocess.channels
    model = model_of(GRAPH.replace("batch, 3", f"batch, {channels}"), channels)
    assert multiply_patches(model.graph, preprocess) == "embed"
    (layer,) = find_linears(model.graph)
    scale, zero_point = (
        add_constant(model.graph, name, np.asarray(value))
        for name, value in (("scale", np.float32(1)), ("zero_point", np.uint8(0)))
    )
    quantize = ir.node("QuantizeLinear", [layer.input, scale, zero_point], name="embed.input.quantize")
    (output,) = quantize.outputs
    output.name, output.shape, output.dtype = "bytes", layer.input.shape, ir.DataType.UINT8
    model.graph.append(quantize)
    model.graph.outputs[:] = [output]
    common.RemoveUnusedNodesPass()(model)
    assert HoistQuantizeLinear()(model).modified
    return model


def cut(pixels, step=4):
    """Cut pixels (B, H, W, C) into patches (B, N, C * step * step)."""
    batch, height, width, channels = pixels.shape
    strips = pixels.reshape(batch, height // step, step, width // step, step, channels)
    return strips.transpose(0, 1, 3, 5, 2, 4).reshape(batch, -1, channels * step * step)


def test_it_gives_the_same_tokens():
    model = model_of()
    images = COLOUR.normalize(PIXELS)
    expected = run(model, images)
    assert multiply_patches(model.graph, COLOUR) == "embed"
    np.testing.assert_allclose(run(model, images), expected, atol=1e-4)
    assert "Conv" not in [node.op_type for node in model.graph]
    (layer,) = find_linears(model.graph)
    assert (layer.name, layer.weight.shape) == ("embed", (48, 5))


def test_grey_images_patches_that_are_no_squares_and_no_bias():
    text = GRAPH.replace("batch, 3", "batch, 1").replace("strides = [4, 4]", "strides = [2, 6]")
    text = text.replace("weight, bias", "weight").replace("batch, 6, 5", "batch, 8, 5")
    model = model_of(text, channels=1, kernel=(2, 6), shape=np.array([0, 5, 8]))
    images = GREY.normalize(PIXELS[..., :1])
    expected = run(model, images)
    assert multiply_patches(model.graph, GREY) == "embed"
    np.testing.assert_allclose(run(model, images), expected, atol=1e-4)


def test_attributes_that_say_what_is_so_anyway_are_no_obstacle():
    said = "strides = [4, 4], pads = [0, 0, 0, 0], dilations = [1, 1], group = 1"
    assert multiply_patches(model_of(GRAPH.replace("strides = [4, 4]", said)).graph, COLOUR) == "embed"


def test_a_bias_that_is_named_and_left_out_is_none():
    model = model_of()
    convolution = next(node for node in model.graph if node.op_type == "Conv")
    convolution.replace_input_with(2, None)
    images = COLOUR.normalize(PIXELS)
    expected = run(model.clone(), images)
    assert multiply_patches(model.graph, COLOUR) == "embed"
    np.testing.assert_allclose(run(model, images), expected, atol=1e-4)


def test_a_bias_that_is_computed_stays():
    text = GRAPH.replace("weight, bias", "weight, twice").replace("map =", "twice = Add (bias, bias) map =")
    model = model_of(text.replace("float[batch, 3, 8, 12] images", "float[batch, 3, 8, 12] images, float[5] bias"))
    assert multiply_patches(model.graph, COLOUR) is None


@pytest.mark.parametrize(
    "text",
    [
        GRAPH.replace("strides = [4, 4]", "strides = [4, 8]").replace("batch, 6", "batch, 4"),
        GRAPH.replace("strides = [4, 4]", "strides = [4, 4], pads = [0, 0, 0, 4]").replace("batch, 6", "batch, 8"),
        GRAPH.replace("strides = [4, 4]", 'strides = [4, 4], auto_pad = "SAME_UPPER"'),
        GRAPH.replace("8, 12]", "9, 12]"),  # the last row is left out
        GRAPH.replace("tokens = Transpose", "sum = ReduceSum (images) again = Transpose").replace(
            "(flat)", "(flat) tokens = Add (again, sum)"
        ),
        GRAPH.replace("(images, weight", "(twice, weight").replace("map =", "twice = Add (images, images) map ="),
    ],
    ids=["gaps", "pads", "auto_pad", "left over", "read twice", "changed before"],
)
def test_anything_else_stays_a_convolution(text):
    columns = 4 if "4, 8]" in text else 8 if "0, 4]" in text else 6
    model = model_of(text, shape=np.array([0, 5, columns]))
    assert multiply_patches(model.graph, COLOUR) is None
    assert "Conv" in [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    "preprocess",
    [GREY, Preprocess(size=(8, 8), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)],
    ids=["channels", "size"],
)
def test_a_preprocessing_of_other_images_is_not_believed(preprocess):
    assert multiply_patches(model_of().graph, preprocess) is None


@given(data=st.data())
@settings(max_examples=40)
def test_the_bytes_that_it_reads_are_the_pixels(data):
    """Whatever mean and deviation are: 127.5, as of a mean of 0.5, lies between two zero points."""
    means, deviations = st.just(0.5) | st.floats(0, 1), st.floats(0.01, 1)
    preprocess = Preprocess(
        size=(8, 12),
        resize=None,
        mean=tuple(data.draw(st.lists(means, min_size=3, max_size=3))),
        std=tuple(data.draw(st.lists(deviations, min_size=3, max_size=3))),
    )
    found = run(quantized_patches(preprocess), preprocess.normalize(PIXELS))
    np.testing.assert_array_equal(found, cut(PIXELS))


def test_all_levels_survive_and_what_lies_beyond_is_clipped():
    preprocess = Preprocess(size=(8, 12), resize=None, mean=(0.5,), std=(0.5,), channel_order="L")
    model = quantized_patches(preprocess)
    pixels = np.resize(np.arange(256, dtype=np.uint8), (3, 8, 12, 1))
    images = preprocess.normalize(pixels)
    np.testing.assert_array_equal(run(model, images), cut(pixels))
    images[0], images[1] = -10, 10
    assert [set(each.ravel().tolist()) for each in run(model, images)[:2]] == [{0}, {255}]
