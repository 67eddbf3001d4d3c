import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError
from edgevit.graph.passes.take_pixels import TakePixels

COLOUR = Preprocess(size=(4, 6), resize=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GREY = Preprocess(size=(4, 6), resize=None, mean=(0.3,), std=(0.2,), channel_order="L")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)

CONV = "logits = Conv <strides = [2, 3]> (images, weight, bias)"
GRAPH = f"net (float[batch, 3, 4, 6] images) => (float[batch, 5, rows, columns] logits) {{ {CONV} }}"


def constants(channels=3, seed=0):
    random = np.random.default_rng(seed)
    return {
        "weight": random.normal(size=(5, channels, 2, 3)).astype(np.float32),
        "bias": random.normal(size=5).astype(np.float32),
    }


def check(parse, run, text, values, preprocess=COLOUR, pixels=PIXELS, error=1e-5):
    """Compare the graph after the pass, on pixels, with the graph before it, on images that numpy has normalised."""
    model = parse(text, values)
    expected = run(model, images=preprocess.normalize(pixels))
    assert TakePixels(preprocess)(model).modified
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = run(model, images=pixels)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, atol=error * np.abs(expected).max(), rtol=0)
    return model


def test_a_graph_takes_pixels_and_the_output_stays(parse, run):
    model = check(parse, run, GRAPH, constants())
    (images,) = model.graph.inputs
    assert (images.name, images.dtype, str(images.shape)) == ("images", ir.DataType.UINT8, "[batch,4,6,3]")
    assert [node.op_type for node in model.graph] == ["Cast", "Transpose", "Conv"]
    assert {"weight", "bias"}.isdisjoint(model.graph.initializers)


def test_grey_images(parse, run):
    text = GRAPH.replace("batch, 3", "batch, 1")
    check(parse, run, text, constants(channels=1), GREY, PIXELS[..., :1])


def test_a_constant_that_others_read_too_stays_as_it_is(parse, run):
    text = GRAPH.replace("logits = Conv", "x = Conv").replace(
        "}", "scale = ReduceSum (weight) logits = Mul (x, scale) }"
    )
    check(parse, run, text, constants())


@given(data=st.data())
def test_any_normalisation_and_weights(parse, run, data):
    three = st.tuples(*[st.floats(0, 1)] * 3)
    mean, std = data.draw(three), data.draw(st.tuples(*[st.floats(0.05, 1)] * 3))
    values = constants(seed=data.draw(st.integers(0, 1000)))
    values["weight"] *= np.float32(10.0 ** data.draw(st.integers(-4, 4)))
    if data.draw(st.booleans()):
        del values["bias"]
    text = GRAPH if "bias" in values else GRAPH.replace(", bias", "")
    preprocess = Preprocess(size=(4, 6), resize=None, mean=mean, std=std)
    pixels = np.random.default_rng(data.draw(st.integers(0, 1000))).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    check(parse, run, text, values, preprocess, pixels)


def test_the_shape_of_images_is_what_it_was(parse, run):
    check(
        parse,
        run,
        """net (float[batch, 3, 4, 6] images) => (float[batch, 5, rows, columns] logits) {
            shape = Shape (images)
            sizes = Cast <to = 1> (shape)
            largest = ReduceMax (sizes)
            x = Conv <auto_pad = "VALID", strides = [2, 3]> (images, weight, bias)
            logits = Mul (x, largest)
        }""",
        constants(),
    )


HALF = """net (float[batch, 3, 4, 6] images) => (float[batch, 5, rows, columns] logits) {
    half = Cast <to = 10> (images)
    shape = Shape (half)
    sizes = Cast <to = 10> (shape)
    largest = ReduceMax (sizes)
    x = Conv <strides = [2, 3]> (half, weight, bias)
    y = Mul (x, largest)
    logits = Cast <to = 1> (y)
}"""


def test_a_conv_in_float16_is_as_near_as_float16_is(parse, run):
    values = {name: value.astype(np.float16) for name, value in constants().items()}
    model = check(parse, run, HALF, values, error=2 * np.finfo(np.float16).eps)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    assert [value.dtype for value in conv.inputs] == [ir.DataType.FLOAT] * 3
    assert [node.op_type for node in conv.successors()] == ["Cast"]


def test_the_output_of_a_graph_in_float16_keeps_its_name_and_type(parse, run):
    text = """net (float[batch, 3, 4, 6] images) => (float16[batch, 5, rows, columns] logits) {
        half = Cast <to = 10> (images)
        logits = Conv <strides = [2, 3]> (half, weight, bias)
    }"""
    values = {name: value.astype(np.float16) for name, value in constants().items()}
    model = check(parse, run, text, values, error=2 * np.finfo(np.float16).eps)
    assert [value.name for value in model.graph.outputs] == ["logits"]


def test_float16_weights_of_a_float32_conv(parse, run):
    text = GRAPH.replace("logits =", "weight = Cast <to = 1> (half) logits =")
    values = constants()
    check(parse, run, text, {"half": values["weight"].astype(np.float16), "bias": values["bias"]})


@pytest.mark.parametrize(
    ("said", "instead", "message"),
    [
        ("<strides", "<pads = [0, 1, 0, 0], strides", "'taking' pads"),
        ("<strides", '<auto_pad = "SAME_UPPER", strides', "'taking' pads"),
        (CONV, "x = Mul (images, images) logits = Conv (x, weight, bias)", "into Mul, not"),
        (CONV, f"{CONV} seen = Relu (images)", "into Conv and Relu, not"),
        (CONV, f"{CONV} seen = Conv (images, weight)", "into Conv and Conv, not"),
        (CONV, f"half = Cast <to = 10> (images) {CONV} seen = Relu (half)", "into Relu and Conv, not"),
        (CONV, "x = Relu (weight) logits = Conv (images, x, bias)", "not a constant"),
        (CONV, "x = Cast <to = 10> (weight) y = Cast <to = 1> (x) logits = Conv (images, y)", "not a constant"),
        ("images)", "images, float[5, 3, 2, 3] weight)", "not a constant"),
        ("float[batch, 3, 4, 6]", "float[batch, n]", "not float32 images"),
        ("float[batch, 3, 4, 6]", "uint8[batch, 3, 4, 6]", "not float32 images"),
        ("images)", "images, float[1] second)", "not float32 images"),
        ("logits)", "logits, float[batch, 3, 4, 6] images)", "not float32 images"),
        ("logits) {", "logits, float16[batch, 3, 4, 6] half) { half = Cast <to = 10> (images)", "an output"),
    ],
)
def test_what_it_would_not_be_exact_for_is_refused(parse, said, instead, message):
    assert said in GRAPH
    model = parse(GRAPH.replace(said, instead), constants())
    next(node for node in model.graph if node.op_type == "Conv").name = "taking"
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(GraphError, match=message) as caught:
        TakePixels(COLOUR)(model)
    assert caught.value.remedy
    assert ir.to_proto(model).SerializeToString() == before


def test_groups_are_refused(parse):
    text = GRAPH.replace("<strides", "<group = 3, strides").replace("5, rows", "3, rows")
    values = {"weight": np.ones((3, 1, 2, 3), np.float32), "bias": np.zeros(3, np.float32)}
    with pytest.raises(GraphError, match="in groups"):
        TakePixels(COLOUR)(parse(text, values))


def test_other_channels_than_those_of_the_preprocessing_are_refused(parse):
    with pytest.raises(GraphError, match="images of 1 channels"):
        TakePixels(GREY)(parse(GRAPH, constants()))


def test_what_would_overflow_is_refused(parse):
    tiny = Preprocess(size=(4, 6), resize=None, mean=(0.5,) * 3, std=(1e-300,) * 3)
    with pytest.raises(GraphError, match="does not fit float32"):
        TakePixels(tiny)(parse(GRAPH, constants()))


LEVELS = """net (float[batch, 3, 4, 6] images) => (float[batch, 3, 4, 6] logits) {
    scaled = Mul (images, factor)
    levels = Add (scaled, summand)
    logits = Relu (levels)
}"""
BYTES = """net (float[batch, 3, 4, 6] images) => (uint8[batch, 3, 24] logits) {
    bytes = QuantizeLinear (images, scales, zero_points)
    logits = Reshape (bytes, shape)
}"""


def of_channels(values, kind=np.float32):
    return np.asarray(values, dtype=kind).reshape(-1, 1, 1)


def levels(preprocess=COLOUR):
    mean, deviation = 255 * np.array(preprocess.mean), 255 * np.array(preprocess.std)
    return {
        "factor": of_channels(deviation),
        "summand": of_channels(mean),
        "scales": (1 / deviation).astype(np.float32),
        "zero_points": np.rint(mean).astype(np.uint8),
        "shape": np.array([0, 3, 24]),
    }


@pytest.mark.parametrize(
    ("text", "operators"),
    [(LEVELS, ["Cast", "Transpose", "Relu"]), (BYTES, ["Transpose", "Reshape"])],
    ids=["levels", "bytes"],
)
def test_what_makes_the_pixels_again_is_left_out(parse, run, text, operators):
    model = check(parse, run, text, levels(), error=1e-6)
    assert [node.op_type for node in model.graph] == operators


def test_pixels_that_go_on_to_be_quantized_are_bytes_from_the_start(parse, run):
    text = LEVELS.replace("=> (float[batch, 3, 4, 6]", "=> (uint8[batch, 3, 24]").replace(
        "logits = Relu (levels)", "bytes = QuantizeLinear (levels, one, zero) logits = Reshape (bytes, shape)"
    )
    values = {**levels(), "one": np.array(1, dtype=np.float32), "zero": np.array(0, dtype=np.uint8)}
    model = check(parse, run, text, values)
    assert [node.op_type for node in model.graph] == ["Transpose", "Reshape"]


@pytest.mark.parametrize("role", ["factor", "summand"])
def test_levels_that_are_not_the_pixels_are_refused(parse, role):
    values = levels()
    values[role] = values[role] * np.float32(1.01)
    with pytest.raises(GraphError, match="the images go into Mul"):
        TakePixels(COLOUR)(parse(LEVELS, values))
