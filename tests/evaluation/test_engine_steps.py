"""An engine that is not its ONNX is wrong, and rounding is not."""

import msgspec
import numpy as np
import pytest

from edgevit.bundle.manifest import File, Manifest, Provenance, Variant
from edgevit.data.preprocess import Preprocess
from edgevit.evaluation.engine_steps import engine_steps, without_onnx
from edgevit.models.spec import PRESETS

MANIFEST = Manifest(
    name="made-up",
    spec=PRESETS["vit-micro"],
    preprocess=Preprocess(size=(28, 28), resize=None, mean=(0.286,), std=(0.353,), channel_order="L"),
    labels=tuple("abcdefghij"),
    provenance=Provenance(source="", weights_sha256="", edgevit="", packages={}, created_at=""),
    variants=(),
)
RNG = np.random.default_rng(0)
FLOAT32 = (RNG.normal(size=(16, 10)) * 3).astype(np.float32)


def variant(precision, **settings):
    file = File(path="v/model.engine", sha256="a" * 64, bytes=1)
    return Variant(name="v", precision=precision, backend="toy", target="t", files=(file,), settings=settings)


def noisy(of, decibels, seed):
    noise = np.random.default_rng(seed).normal(size=of.shape)
    return (of + noise * np.sqrt(np.square(of).mean() / np.square(noise).mean()) * 10 ** (-decibels / 20)).astype("f4")


def steps(precision, onnx, engine, **settings):
    return engine_steps(MANIFEST, variant(precision, **settings), FLOAT32, onnx, engine, "its ONNX")


@pytest.mark.parametrize("seed", range(5))
def test_rounding_another_way_is_not_wrong(seed):
    # FP16 at its own noise, and INT8 whose engine rounds as if it had never seen the ONNX's rounding.
    assert steps("fp16", noisy(FLOAT32, 60, seed), noisy(FLOAT32, 45, seed + 9)).wrong is None
    assert steps("int8", noisy(FLOAT32, 22, seed), noisy(FLOAT32, 22.5, seed + 9)).wrong is None
    onnx = noisy(FLOAT32, 30, seed)
    assert steps("int8", onnx, noisy(onnx, 30, seed + 9), HINT="bf16").wrong is None


@pytest.mark.parametrize("seed", range(5))
def test_an_engine_that_differs_beyond_rounding_is_wrong_with_the_figures(seed):
    wrong = steps("fp16", noisy(FLOAT32, 60, seed), noisy(FLOAT32, 12, seed + 9)).wrong
    assert wrong.startswith("the engine is wrong: toy is 1")
    assert "at least 30.0 expected of rounding" in wrong
    assert "that ONNX is 60.0 dB from float32" in wrong
    assert steps("int8", noisy(FLOAT32, 30, seed), noisy(FLOAT32, 20, seed + 9)).wrong is not None
    assert steps("float32", FLOAT32, noisy(FLOAT32, 30, seed)).wrong is not None


def test_what_is_near_float32_is_not_wrong_because_its_onnx_cannot_be_run_well():
    found = steps("int4-weights", FLOAT32[::-1] * np.float32(0.05), noisy(FLOAT32, 18, 2))
    assert found.wrong is None
    assert found.missing.startswith("not compared: toy is closer to float32")
    overflowed = FLOAT32.copy()
    overflowed[0, 0] = np.nan
    assert "not compared" in steps("fp16", overflowed, noisy(FLOAT32, 50, 3)).missing
    assert steps("int8", noisy(FLOAT32, 30, 1), noisy(FLOAT32, 29, 2)).missing is None


def test_which_step_lost_it_is_seen():
    found = steps("fp16", FLOAT32, np.roll(FLOAT32, 1, axis=1))
    assert found.onnx_to_float32.sqnr_db is None
    assert found.onnx_to_float32.agreement == 1
    assert found.engine_to_onnx == found.engine_to_float32
    assert found.engine_to_onnx.agreement < 0.5


def test_numbers_that_are_not_finite_are_wrong_only_where_the_onnx_has_none():
    overflowed = FLOAT32.copy()
    overflowed[0, 0] = np.inf
    assert "not finite" in steps("fp16", FLOAT32, overflowed).wrong
    assert steps("fp16", overflowed, overflowed).wrong is None
    assert not steps("fp16", FLOAT32, overflowed).engine_to_float32.finite


def test_where_there_is_no_onnx_it_is_said_and_nothing_is_judged():
    found = without_onnx(MANIFEST, FLOAT32, noisy(FLOAT32, 5, 0), "it is gone" * 200)
    assert found.wrong is None
    assert found.missing.startswith("it is gone")
    assert found.engine_to_float32.sqnr_db == pytest.approx(5, abs=0.1)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
