import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import BundleError, DataError
from edgevit.quantization.arithmetic import dequantize, quantize, weight_scales
from edgevit.quantization.bias import _InputMeans, correct_biases
from edgevit.quantization.emit import DIALECTS, emit
from edgevit.quantization.plan import LinearQuantization, QuantizationPlan


@given(st.integers(0, 1000), st.floats(0.001, 0.05), st.integers(0, 255))
def test_with_the_correction_the_quantized_layer_has_the_mean_of_the_float_one(seed, scale, zero_point):
    random = np.random.default_rng(seed)
    images = random.normal(size=(3, 5, 8)).astype(np.float32)
    weight = random.normal(size=(8, 4)).astype(np.float32)
    scales = weight_scales(weight)
    quantization = LinearQuantization(
        activation_scale=float(np.float32(scale)),
        activation_zero_point=zero_point,
        weight_scales=tuple(scales.tolist()),
    )
    means = _InputMeans(quantization)
    for image in images:
        means.update(image)
    scale, zero = np.float32(scale), np.uint8(zero_point)
    rounded = dequantize(quantize(images, scale, zero), scale, zero)
    product = rounded.astype(np.float64) @ dequantize(quantize(weight, scales, np.int8(0)), scales, np.int8(0))
    corrected = product + means.correction(weight, scales)
    expected = (images.astype(np.float64) @ weight).mean(axis=(0, 1))
    np.testing.assert_allclose(corrected.mean(axis=(0, 1)), expected, atol=1e-5)


def corrected(quantized):
    return correct_biases(quantized.path, quantized.plan, [quantized.images], total=1)


def test_how_images_are_batched_changes_nothing(quantized):
    singly = correct_biases(quantized.path, quantized.plan, (image[None] for image in quantized.images), total=12)
    assert singly == corrected(quantized)


def test_a_corrected_plan_survives_its_file(quantized, tmp_path):
    plan = corrected(quantized)
    assert any(any(linear.quantization.bias_correction) for linear in plan.linears)
    plan.save(tmp_path / "plan.json")
    assert QuantizationPlan.load(tmp_path / "plan.json") == plan


def test_the_correction_reaches_the_logits_of_the_last_layer(quantized, tmp_path):
    """What is added to the head's bias is added to every logit."""
    head = quantized.plan.linears[-1]
    shift = tuple(range(len(head.quantization.weight_scales)))
    shifted = msgspec.structs.replace(
        head, quantization=msgspec.structs.replace(head.quantization, bias_correction=shift)
    )
    plan = msgspec.structs.replace(quantized.plan, linears=(*quantized.plan.linears[:-1], shifted))
    logits = []
    for name, each in (("before", quantized.plan), ("after", plan)):
        emit(quantized.path, each, "onnxruntime", tmp_path / f"{name}.onnx")
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        logits.append(session.run(None, {"images": quantized.images})[0])
    np.testing.assert_allclose(logits[1] - logits[0], np.broadcast_to(shift, logits[0].shape), atol=1e-4)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_correction_of_another_width_is_refused(quantized, tmp_path, dialect):
    plan = quantized.plans[dialect]
    head = plan.linears[-1]
    wrong = msgspec.structs.replace(
        head, quantization=msgspec.structs.replace(head.quantization, bias_correction=(1.0,))
    )
    plan = msgspec.structs.replace(plan, linears=(*plan.linears[:-1], wrong))
    with pytest.raises(BundleError, match="corrects 1 biases of 'head'"):
        emit(quantized.path, plan, dialect, tmp_path / "model.onnx")


def test_what_is_not_finite_or_missing_is_refused(quantized):
    with pytest.raises(BundleError, match="not finite"):
        msgspec.structs.replace(quantized.plan.linears[-1].quantization, bias_correction=(float("nan"),))
    with pytest.raises(DataError, match="no calibration images"):
        correct_biases(quantized.path, quantized.plan, [], total=0)
