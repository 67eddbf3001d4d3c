"""FP16, dynamic INT8 and weights alone on a real ViT, judged on real photos."""

import math
import warnings

import numpy as np
import pytest
import torch
from deit import infer
from once import once
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx_files import emit_dynamic, emit_float16, emit_weights_int4, emit_weights_int8, scan_float16
from tiny import ENGINES

from edgevit.backends import get_backend
from edgevit.backends.base import BuildOptions
from edgevit.errors import VerificationError
from edgevit.quantization.float16.convert import Float16Plan
from edgevit.quantization.weight_only.dynamic import check_dynamic
from edgevit.statistics import agreement, mean_kl, sqnr_db
from edgevit.targets import load_target

pytestmark = [pytest.mark.shared, pytest.mark.slow]


@pytest.fixture(scope="module")
def whole(deit):
    """Return the model, photos in batches, and what it answers for them."""
    return deit.float32(), deit.images(), deit.answers("onnxruntime")


@pytest.fixture(scope="module")
def some(whole):
    """Return the model, every fifth of the batches, and what it answers for these: enough for a mean."""
    path, images, exact = whole
    return path, images[::5], exact.reshape(len(images), -1, exact.shape[1])[::5].reshape(-1, exact.shape[1])


@pytest.fixture(scope="module")
def float16(deit, tmp_path_factory):
    def make(folder):
        plan = scan_float16(deit.float32(), deit.calibration(16), total=2)
        emit_float16(deit.float32(), plan, folder / "float16.onnx")
        plan.save(folder / "plan.json")

    folder = once(tmp_path_factory, "deit-float16", make)
    return Float16Plan.load(folder / "plan.json"), folder / "float16.onnx"


def test_deit_fits_float16_whole(deit, float16):
    plan, path = float16
    assert plan.float32_nodes == {}
    assert path.stat().st_size < 0.51 * deit.float32().stat().st_size


@pytest.mark.parametrize("backend", ENGINES)
def test_fp16_is_near_float32(whole, float16, backend, tmp_path):
    _, images, exact = whole
    model = get_backend(backend).build(float16[1], tmp_path)[0]
    found = infer(backend, model, images)
    assert mean_kl(exact, found) <= 0.0002
    assert sqnr_db(exact, found) >= 40
    # The chance of so few or fewer, were it 99.7 % of all photos. A single photo is half a point here.
    agreeing = round(200 * agreement(exact, found))
    chance = sum(math.comb(200, k) * 0.997**k * 0.003 ** (200 - k) for k in range(agreeing + 1))
    assert chance > 0.01, f"{agreeing} of 200 agree"


def test_openvinos_ir_answers_as_the_float16_onnx_it_was_made_of(whole, float16, tmp_path):
    images = whole[1][::5]
    expected = infer("openvino", float16[1], images)
    found = infer("openvino", get_backend("openvino").build(float16[1], tmp_path)[0], images)
    assert agreement(expected, found) == 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("engine", "precision", "error"),
    [
        # Two engines differ as much in float32.
        ("openvino", "float32", 1e-5),
        ("openvino", "fp16", 1e-5),
        ("onnxruntime", "float32", 1e-5),
        # It rounds to float16 on the way, and another last digit before that is another digit of float16 behind it.
        ("onnxruntime", "fp16", 1e-3),
    ],
)
def test_pixels_give_the_same_logits(whole, float16, engine, precision, error, tmp_path):
    source = whole[0] if precision == "float32" else float16[1]
    backend, images = get_backend(engine), whole[1][::12]
    options = BuildOptions(settings={"INPUT": "uint8-nhwc"})
    expected = infer(engine, backend.build(source, tmp_path / "float")[0], images)
    found = infer(engine, backend.build(source, tmp_path / "pixels", options)[0], images)
    np.testing.assert_allclose(found, expected, atol=error * np.abs(expected).max())


class MatMul(OpRun):
    """A product whose sums are taken in float32, as on processors with float16, and rounded once."""

    op_domain = ""

    def _run(self, a, b):
        return ((a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype),)


class Conv(OpRun):
    """The same for the patch embedding."""

    op_domain = ""

    def _run(self, images, weight, bias, strides=None, **_):
        arguments = (torch.from_numpy(each.astype(np.float32)) for each in (images, weight, bias))
        return (torch.nn.functional.conv2d(*arguments, stride=strides).numpy().astype(images.dtype),)


def test_fp16_is_near_float32_where_every_result_is_float16_in_earnest(whole, float16):
    # No engine here computes in float16; ONNX's reference does, slowly.
    _, images, exact = whole
    session = ReferenceEvaluator(str(float16[1]), new_ops=[MatMul, Conv])
    chosen = [batch[:1] for batch in images[::2]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = np.concatenate([session.run(None, {"images": image})[0] for image in chosen])
    assert mean_kl(exact[::16], found) <= 0.0002
    assert 40 <= sqnr_db(exact[::16], found) < 58  # onnxruntime's, in float32 with float16 weights, has 59


def test_dynamic_int8_on_onnxruntime(some, tmp_path):
    path, images, exact = some
    emit_dynamic(path, tmp_path / "int8.onnx")
    found = infer("onnxruntime", tmp_path / "int8.onnx", images, {"images": "one-by-one"})
    assert mean_kl(exact, found) < 0.005
    assert sqnr_db(exact, found) > 21


WEIGHTS = {"int8": emit_weights_int8, "int4": emit_weights_int4}


@pytest.fixture(scope="module")
def weights_alone(deit, tmp_path_factory):
    """Return a function that gives the file with weights in a precision, which both engines take, made once."""

    def emitted(precision):
        def make(folder):
            WEIGHTS[precision](deit.float32(), folder / "model.onnx")

        return once(tmp_path_factory, f"deit-weights-{precision}", make) / "model.onnx"

    return emitted


def test_dynamic_int8_on_openvino(some, weights_alone, tmp_path):
    _, images, exact = some
    backend, settings = get_backend("openvino"), load_target("x86-openvino").settings_for("int8-dynamic")
    model = backend.build(weights_alone("int8"), tmp_path / "ir")[0]
    try:
        check_dynamic(backend, model, settings, images[0])
    except VerificationError:
        pytest.skip("OpenVINO does not quantize dynamically on this processor")
    found = infer("openvino", model, images, settings)
    assert mean_kl(exact, found) < 0.002
    assert sqnr_db(exact, found) > 26


@pytest.mark.parametrize(
    ("precision", "kl", "decibels"), [("int8", 0.002, 27), ("int4", 0.1, 10)], ids=["int8", "int4"]
)
@pytest.mark.parametrize("backend", ENGINES)
def test_weights_alone(some, weights_alone, precision, kl, decibels, backend, tmp_path):
    _, images, exact = some
    found = infer(backend, get_backend(backend).build(weights_alone(precision), tmp_path / "built")[0], images)
    assert mean_kl(exact, found) < kl
    assert sqnr_db(exact, found) > decibels
