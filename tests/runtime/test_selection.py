import platform

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle.manifest import Accuracy, Environment, File, Latency, LimitEvidence, Manifest, Provenance, Variant
from edgevit.data.preprocess import Preprocess
from edgevit.errors import MissingDependencyError, VerificationError
from edgevit.models.spec import ModelSpec
from edgevit.runtime.prediction import predictions
from edgevit.runtime.selection import rank_variants, unsuited_reason
from edgevit.runtime.verification import verify_golden

BOTH = ("onnxruntime", "openvino")


def accuracy(*, passed: bool) -> Accuracy:
    return Accuracy(
        data="d",
        data_sha256="0" * 64,
        images=1,
        top1=None,
        top1_ci95=None,
        top5=None,
        delta_top1=None,
        mcnemar_p=None,
        agreement=1.0,
        kl=0.0,
        sqnr_db=None,
        max_drop=0.5,
        passed=passed,
        reason="",
    )


VNNI, BF16 = ("avx2", "avx512_vnni"), ("avx2", "avx512_vnni", "avx512_bf16")


def latency(p50_ms: float | None, *, batch: int = 1, valid: bool = True, features: tuple[str, ...] = ()) -> Latency:
    return Latency(
        batch=batch,
        threads=1,
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        p99_ms=p50_ms,
        throughput_ips=None,
        speedup_vs_float32=None,
        speedup_ci95=None,
        rss_mb=None,
        cold_start_ms=None,
        valid=valid,
        invalid_reason=None,
        environment=Environment(
            machine=platform.machine(),
            cpu="",
            cpu_features=features,
            cores=1,
            os="",
            python="",
            packages={},
            measured_at="",
        ),
    )


def variant(name: str, backend: str = "onnxruntime", **measured) -> Variant:
    precision = name.partition("-")[0]
    file = File(path=f"{name}/model", sha256="0" * 64, bytes=0)
    return Variant(name=name, precision=precision, backend=backend, target="any", files=(file,), **measured)


def selected(*variants: Variant, backends=BOTH, features=()) -> str:
    manifest = Manifest(
        name="m",
        spec=ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=1),
        preprocess=Preprocess(size=(8, 8), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3),
        labels=("a",),
        provenance=Provenance(source="", weights_sha256="", edgevit="", packages={}, created_at=""),
        variants=variants,
    )
    return rank_variants(manifest, backends, features=features)[0].name


FLOAT32 = variant("float32")
INT8 = variant("int8")
INT8_OPENVINO = variant("int8-openvino", "openvino")


def passing(one: Variant) -> Variant:
    return msgspec.structs.replace(one, accuracy=accuracy(passed=True))


def test_without_times_int8_then_float32_then_any_other():
    int8, int8_openvino, fp16 = passing(INT8), passing(INT8_OPENVINO), passing(variant("fp16"))
    assert selected(FLOAT32, int8, int8_openvino) == "int8"
    assert selected(FLOAT32, int8_openvino, backends=("openvino",)) == "int8-openvino"
    assert selected(FLOAT32, int8_openvino, backends=("onnxruntime",)) == "float32"
    assert selected(fp16, FLOAT32) == "float32"
    assert selected(fp16) == "fp16"


def test_what_nobody_validated_comes_last_however_fast_it_is():
    fast = msgspec.structs.replace(INT8, latency=latency(0.1))
    for unknown in (INT8, fast, variant("fp16"), variant("int4-weights")):
        assert selected(unknown, FLOAT32) == "float32"
        assert selected(unknown, passing(variant("fp16", "openvino"))) == "fp16"
        assert selected(unknown, measured(INT8_OPENVINO, 9.0)) == "int8-openvino"
        assert selected(unknown, measured(INT8_OPENVINO, 9.0), backends=("onnxruntime",)) == unknown.name
    no_integers = ("avx2",)
    assert selected(variant("fp16"), passing(INT8), features=no_integers) == "int8", "slow, but known to be right"
    assert selected(INT8, variant("int8-again")) == "int8", "of equals the first"


def measured(one: Variant, p50_ms: float | None, *, passed: bool = True, **options) -> Variant:
    return msgspec.structs.replace(one, accuracy=accuracy(passed=passed), latency=latency(p50_ms, **options))


def test_the_fastest_that_was_measured_and_passed():
    slow, fast = measured(INT8, 3.0), measured(INT8_OPENVINO, 2.0)
    assert selected(FLOAT32, slow, fast) == "int8-openvino"
    assert selected(FLOAT32, slow, fast, backends=("onnxruntime",)) == "int8"
    assert selected(measured(FLOAT32, 1.0), slow, fast) == "float32", "float32 can win, and then it is the best"
    assert selected(FLOAT32, slow, measured(INT8_OPENVINO, 2.0, valid=False)) == "int8"
    assert selected(FLOAT32, slow, measured(INT8_OPENVINO, None)) == "int8"
    assert selected(FLOAT32, slow, measured(INT8_OPENVINO, 8.0, batch=4)) == "int8-openvino"


def test_a_variant_that_failed_the_gate_is_never_chosen():
    failed = measured(INT8, 0.1, passed=False)
    assert selected(FLOAT32, failed) == "float32"
    assert selected(FLOAT32, failed, measured(INT8_OPENVINO, 9.0)) == "int8-openvino"
    with pytest.raises(MissingDependencyError):
        selected(failed)


@pytest.mark.parametrize("word", ["failed", "not shown"])
@pytest.mark.parametrize("limit", ["speed", "p99", "size", "memory", "energy", "kernels"])
def test_what_a_race_does_not_show_to_keep_its_costs_waits_behind_what_does(limit, word):
    def raced(one, said):
        return msgspec.structs.replace(one, evidence=(LimitEvidence(limit=limit, word=said, reason=""),))

    fast, slow = measured(INT8, 1.0), measured(FLOAT32, 3.0)
    assert selected(slow, raced(fast, word)) == "float32"
    assert selected(FLOAT32, raced(fast, word)) == "float32"
    assert selected(slow, raced(fast, "passed")) == "int8"
    assert selected(raced(fast, word), INT8_OPENVINO) == "int8", "better than what nobody validated"
    assert selected(raced(slow, word), raced(fast, word)) == "int8", "where nothing keeps them"
    there = raced(measured(INT8, 1.0, features=VNNI), word)
    assert selected(measured(FLOAT32, 3.0, features=VNNI), there, features=VNNI) == "float32"
    assert selected(there, measured(variant("fp16"), 0.5, features=BF16), features=("asimd",)) == "fp16"


def test_speed_without_accuracy_proves_nothing():
    fast = msgspec.structs.replace(INT8, latency=latency(0.1))
    assert selected(fast, measured(INT8_OPENVINO, 2.0)) == "int8-openvino"


def test_figures_of_this_kind_of_processor_go_before_those_of_another():
    there = measured(INT8_OPENVINO, 1.0, features=BF16)
    here = measured(INT8, 2.0, features=VNNI)
    assert selected(FLOAT32, here, there, features=VNNI) == "int8"
    assert selected(FLOAT32, here, there, features=BF16) == "int8-openvino"
    assert selected(FLOAT32, here, there, features=("avx2", "avx_vnni")) == "int8-openvino", (
        "a hint, for want of better"
    )


def test_int8_waits_behind_float32_where_integers_may_overflow_and_nobody_measured():
    unmeasured = passing(INT8)
    assert selected(FLOAT32, unmeasured, measured(INT8_OPENVINO, 1.0, features=VNNI), features=("avx2",)) == "float32"
    assert selected(FLOAT32, measured(INT8, 1.0, features=("avx2",)), features=("avx2",)) == "int8", "measured here"
    assert selected(FLOAT32, unmeasured, features=("asimd", "asimddp")) == "int8"
    assert selected(INT8, features=("avx2",)) == "int8", "there is no other"


def test_what_was_raced_with_bf16_is_not_taken_where_there_is_none():
    with_bf16 = msgspec.structs.replace(
        measured(INT8_OPENVINO, 1.0, features=BF16), settings={"INFERENCE_PRECISION_HINT": "bf16"}
    )
    other = measured(INT8, 2.0, features=BF16)
    assert selected(FLOAT32, other, with_bf16, features=BF16) == "int8-openvino"
    assert selected(FLOAT32, other, with_bf16, features=VNNI) == "int8"
    assert unsuited_reason(with_bf16, BF16) is None
    assert "BF16" in unsuited_reason(with_bf16, VNNI)


def test_without_a_backend_the_remedy_installs_one():
    with pytest.raises(MissingDependencyError) as caught:
        selected(FLOAT32, backends=())
    assert caught.value.remedy == "pip install -e '.[onnxruntime]'"


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=8), st.integers(1, 10))
def test_predictions_are_a_sorted_softmax(values, top):
    logits = np.array([values], dtype=np.float32)
    labels = [str(index) for index in range(len(values))]
    (answer,) = predictions(logits, labels, top=top)
    assert len(answer) == min(top, len(values))
    assert answer[0].index == int(logits[0].argmax())
    probabilities = [one.probability for one in answer]
    assert probabilities == sorted(probabilities, reverse=True)
    weights = np.exp(logits[0].astype(np.float64))
    np.testing.assert_allclose(probabilities, [weights[one.index] / weights.sum() for one in answer], rtol=1e-5)
    assert all(one.label == str(one.index) for one in answer)


def test_golden_answers_bound_what_noise_may_do():
    random = np.random.default_rng(3)
    expected = random.standard_normal((8, 1000)).astype(np.float32) * 3
    noise = random.standard_normal(expected.shape).astype(np.float32) * 3

    def at(decibel: float) -> np.ndarray:
        return expected + noise * np.float32(10 ** (-decibel / 20))

    verify_golden(at(15), expected, precision="int8", classes=10)
    verify_golden(at(40) + 5, expected, precision="fp16", classes=10)  # softmax does not see what is added to all
    verify_golden(at(90), expected, precision="float32", classes=10)
    for decibel, precision in ((3, "int8"), (10, "fp16"), (40, "float32")):
        with pytest.raises(VerificationError):
            verify_golden(at(decibel), expected, precision=precision, classes=10)


def test_the_right_shape_of_logits_with_the_wrong_classes_is_found():
    expected = np.full((4, 10), 1.0, np.float32)
    expected[:, 3] = 1.2
    wrong = expected.copy()
    wrong[:, 4] = 1.25
    with pytest.raises(VerificationError):
        verify_golden(wrong, expected, precision="int8", classes=10)


def test_features_are_compared_as_directions_and_not_as_classes():
    expected = np.full((4, 10), 1.0, np.float32)
    expected[:, 3] = 1.2
    near = expected.copy()
    near[:, 4] = 1.25  # another largest feature, and almost the same direction
    verify_golden(near, expected, precision="int8", classes=0)
    with pytest.raises(VerificationError, match="cosine"):
        verify_golden(expected - 1, expected, precision="int8", classes=0)
