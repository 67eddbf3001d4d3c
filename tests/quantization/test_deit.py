"""The whole way from a real ViT to INT8, judged on real photos."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from deit import BATCH, infer
from numpy.typing import NDArray
from onnx_files import emit

from edgevit.bundle.manifest import Kernels
from edgevit.bundle.store import Bundle
from edgevit.quantization.plan import QuantizationPlan
from edgevit.statistics import agreement, mean_kl, sqnr_db

pytestmark = [pytest.mark.shared, pytest.mark.slow]


class Measured(NamedTuple):
    exact: NDArray[np.float32]
    int8: NDArray[np.float32]
    kernels: Kernels


class Case(NamedTuple):
    """A dialect, the engine that runs it, and what its INT8 must show: KL, SQNR in dB and agreement with float32."""

    dialect: str
    backend: str
    kl: float
    sqnr_db: float
    agreement: float


CASES = [
    Case("onnxruntime", "onnxruntime", 0.0030, 24.5, 0.985),
    Case("openvino", "openvino", 0.0030, 24.5, 0.985),
    Case("portable", "onnxruntime", 0.0030, 24.5, 0.98),
]


@pytest.fixture(scope="module")
def measured(deit):
    found = {}
    for case in CASES:
        bundle = Bundle.open(deit.quantized() if case.dialect != "portable" else deit.portable())
        variant = bundle.variant(f"int8-{case.dialect}")
        if case.dialect == "portable":
            int8 = infer(case.backend, bundle.verify_files(variant.name), deit.images(), variant.settings)
        else:
            int8 = deit.answers(case.backend, "int8")
        found[case] = Measured(deit.answers(case.backend), int8, variant.kernels)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.dialect)
def test_all_linear_layers_run_in_integers(measured, case):
    kernels = measured[case].kernels
    assert kernels.linears == kernels.integer_linears >= 49  # engines may multiply for query, key and value apart
    assert kernels.float_linears == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.dialect)
def test_the_logits_are_near_float32(measured, case):
    exact, int8 = measured[case][:2]
    assert mean_kl(exact, int8) < case.kl
    assert sqnr_db(exact, int8) > case.sqnr_db


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.dialect)
def test_agreement_with_float32_is_as_it_should_as_far_as_200_photos_can_tell(measured, case):
    exact, int8 = measured[case][:2]
    agreeing = int((exact.argmax(axis=1) == int8.argmax(axis=1)).sum())
    # The chance of so few or fewer, were it that much of all photos. A single photo is half a point here.
    chance = sum(math.comb(200, k) * case.agreement**k * (1 - case.agreement) ** (200 - k) for k in range(agreeing + 1))
    assert chance > 0.01, f"{agreeing} of 200 agree"


def test_both_backends_agree_in_float32(measured):
    exact = {case.backend: measured[case].exact for case in CASES}
    np.testing.assert_allclose(exact["onnxruntime"], exact["openvino"], atol=1e-3)
    assert agreement(exact["onnxruntime"], exact["openvino"]) >= 0.999


def test_openvinos_ir_answers_as_the_onnx_it_was_made_of(deit, tmp_path):
    model, plan = deit.optimized()
    emit(model, QuantizationPlan.load(plan), "openvino", tmp_path / "int8.onnx")
    images = deit.images()[::4]
    exact = deit.answers("openvino")
    exact = exact.reshape(-1, BATCH, exact.shape[1])[::4].reshape(-1, exact.shape[1])
    # Opened with nothing set, which is the same arithmetic on every processor.
    int8 = infer("openvino", Bundle.open(deit.quantized()).verify_files("int8-openvino"), images)
    for source, found in ((deit.float32(), exact), (tmp_path / "int8.onnx", int8)):
        expected = infer("openvino", source, images)
        assert agreement(expected, found) == 1
        np.testing.assert_allclose(found, expected, atol=1e-4)
