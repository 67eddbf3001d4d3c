"""The whole way from a real ViT to INT8, judged on real photos."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import emit

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Kernels
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.plan import QuantizationPlan
from edgevit.statistics import agreement, mean_kl, sqnr_db

pytestmark = [pytest.mark.shared, pytest.mark.slow]


class Measured(NamedTuple):
    exact: NDArray[np.float32]
    int8: NDArray[np.float32]
    kernels: Kernels
    sources: tuple[Path, Path]


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
def measured(deit, tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("deit"), deit.images()
    found = {}
    for case in CASES:
        backend, (model, plan_file) = get_backend(case.backend), deit.optimized(scheme_of(case.dialect))
        source, plan = folder / f"{case.dialect}.onnx", QuantizationPlan.load(plan_file)
        emit(model, plan, case.dialect, source)
        int8 = backend.build(source, folder / case.dialect)[0]
        with backend.open(int8, threads=0, settings={}) as session:
            found[case] = Measured(
                deit.answers(case.backend),
                np.concatenate([session.infer(batch) for batch in images]),
                check_kernels(session, plan.integer_layers()),
                (deit.float32(), source),
            )
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


def test_openvinos_ir_answers_as_the_onnx_it_was_made_of(measured, deit):
    case = next(case for case in CASES if case.backend == "openvino")
    images = deit.images()[::4]
    for source, found in zip(measured[case].sources, measured[case][:2], strict=True):
        with get_backend("openvino").open(source, threads=0, settings={}) as session:  # the same arithmetic
            expected = np.stack([session.infer(batch) for batch in images])
        found = found.reshape(-1, *expected.shape[1:])[::4]
        assert agreement(np.concatenate(expected), np.concatenate(found)) == 1
        np.testing.assert_allclose(found, expected, atol=1e-4)
