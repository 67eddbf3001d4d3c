"""The whole way from a real ViT to INT8, judged on real photos."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file

from edgevit.backends import BACKENDS, get_backend
from edgevit.bundle.manifest import Kernels
from edgevit.data.batches import Strict, batches
from edgevit.data.preprocess import Preprocess
from edgevit.data.table import load_csv
from edgevit.graph.export import export_onnx
from edgevit.models.spec import PRESETS
from edgevit.models.vit import VisionTransformer
from edgevit.quantization.calibrate import calibrate
from edgevit.quantization.emit import emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.plan import make_plan

pytestmark = [pytest.mark.shared, pytest.mark.slow]

PREPROCESS = Preprocess(size=(224, 224), resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Measured(NamedTuple):
    exact: NDArray[np.float64]
    int8: NDArray[np.float64]
    kernels: Kernels


def photos(shared, name, count):
    dataset = load_csv(shared / "images" / "imagenette" / f"{name}.csv")
    indices = np.arange(0, len(dataset), len(dataset) // count)[:count]
    for batch in batches(dataset, PREPROCESS, batch_size=8, indices=indices, unreadable=Strict()):
        yield batch.images


def log_probabilities(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def measured(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deit")
    model = VisionTransformer(PRESETS["vit-tiny"])
    model.load_state_dict(load_file(shared / "weights" / "deit_tiny_patch16_224.safetensors"))
    path = folder / "float32.onnx"
    export_onnx(model, path, preprocess=PREPROCESS, labels=tuple(map(str, range(1000))))
    plan = make_plan(path, calibrate(path, photos(shared, "calibration", 128), total=16))
    images = list(photos(shared, "evaluation", 200))
    found = {}
    for name in BACKENDS:
        backend = get_backend(name)
        emit(path, plan, name, folder / f"{name}.onnx")
        float32 = backend.build(path, folder / name / "float32")[0]
        int8 = backend.build(folder / f"{name}.onnx", folder / name / "int8")[0]
        with (
            backend.open(float32, threads=0, settings={}) as reference,
            backend.open(int8, threads=0, settings={}) as session,
        ):
            found[name] = Measured(
                np.concatenate([reference.infer(batch) for batch in images]).astype(np.float64),
                np.concatenate([session.infer(batch) for batch in images]).astype(np.float64),
                check_kernels(session, plan.integer_layers()),
            )
    return found


@pytest.mark.parametrize("name", BACKENDS)
def test_all_linear_layers_run_in_integers(measured, name):
    assert measured[name].kernels == Kernels(linears=49, integer_linears=49, float_linears=())


@pytest.mark.parametrize("name", BACKENDS)
def test_the_logits_are_near_float32(measured, name):
    exact, int8, _ = measured[name]
    before, after = log_probabilities(exact), log_probabilities(int8)
    kl = (np.exp(before) * (before - after)).sum(axis=1).mean()
    sqnr = 10 * np.log10((exact**2).sum() / ((int8 - exact) ** 2).sum())
    assert kl < 0.005
    assert sqnr > 21


@pytest.mark.parametrize("name", BACKENDS)
def test_agreement_with_float32_is_97_percent_as_far_as_200_photos_can_tell(measured, name):
    exact, int8, _ = measured[name]
    agreeing = int((exact.argmax(axis=1) == int8.argmax(axis=1)).sum())
    # The chance of so few or fewer, were it 97 % of all photos. A single photo is half a point here.
    chance = sum(math.comb(200, k) * 0.97**k * 0.03 ** (200 - k) for k in range(agreeing + 1))
    assert chance > 0.01, f"{agreeing} of 200 agree"


def test_both_backends_agree_in_float32(measured):
    np.testing.assert_allclose(measured["onnxruntime"].exact, measured["openvino"].exact, atol=1e-3)
