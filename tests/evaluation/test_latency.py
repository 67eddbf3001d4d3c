"""The schedule of a benchmark, with workers that take a time that is known."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle.manifest import File, Variant
from edgevit.errors import BundleError, InputError
from edgevit.evaluation import latency
from edgevit.evaluation.latency import Candidate, candidates_of, measure_latency, plan_blocks
from edgevit.models.spec import ModelSpec

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
SPEC = ModelSpec(image_size=(4, 4), patch_size=(4, 4), width=4, depth=1, heads=1, classes=2, channels=1)


def candidate(name, behaviour="steady", ms=1.0, baseline=None):
    return Candidate(
        name=name,
        backend="fake",
        model=Path("/nowhere", f"{behaviour}.onnx"),
        settings={"ms": str(ms)},
        baseline=baseline or name,
    )


def measure(candidates, **options):
    return measure_latency(candidates, spec=SPEC, command=FAKE, threads=1, warmup=3, **options)


def test_the_speed_up_is_the_ratio_that_the_workers_were_made_with():
    slow, fast = measure([candidate("float32", ms=2), candidate("int8", ms=1, baseline="float32")], duration_s=0.3)
    assert (slow.p50_ms, slow.p90_ms, slow.p99_ms) == pytest.approx((2.0, 2.4, 2.4))
    assert (fast.p50_ms, fast.p90_ms, fast.p99_ms) == pytest.approx((1.0, 1.2, 1.2))
    assert (slow.speedup_vs_float32, slow.speedup_ci95) == (1.0, (1.0, 1.0))
    assert (fast.speedup_vs_float32, *fast.speedup_ci95) == pytest.approx((2.0, 2.0, 2.0), rel=0.1)
    assert fast.cold_start_ms > 1
    assert fast.rss_mb > 5
    assert (fast.batch, fast.threads) == (1, 1)
    assert (fast.invalid_reason is None) == fast.valid


def test_blocks_of_all_candidates_alternate_in_a_seeded_order(monkeypatch):
    def order(seed):
        seen = []
        measure_block = latency._measure_block
        with monkeypatch.context() as patch:
            patch.setattr(latency, "_measure_block", lambda turn: (seen.append(turn.record.name), measure_block(turn)))
            measure([candidate("a", ms=0.1), candidate("b", ms=0.1, baseline="a")], duration_s=0.03, seed=seed)
        return seen

    first = order(1)
    assert all({*first[index : index + 2]} == {"a", "b"} for index in range(0, len(first), 2))
    assert {tuple(first[index : index + 2]) for index in range(0, len(first), 2)} == {("a", "b"), ("b", "a")}
    assert order(1) == first
    assert order(2) != first


@pytest.mark.parametrize(("behaviour", "reason"), [("killed", "signal 9"), ("dies", "illegal instruction")])
def test_a_worker_that_dies_takes_only_its_own_figures_along(behaviour, reason):
    good, bad, other = measure(
        [
            candidate("float32"),
            candidate("int8", behaviour, baseline="float32"),
            candidate("fp16", ms=0.5, baseline="float32"),
        ],
        duration_s=0.1,
    )
    assert bad.p50_ms is None
    assert bad.cold_start_ms is None
    assert not bad.valid
    assert reason in bad.invalid_reason
    assert good.p50_ms >= 1
    assert other.speedup_vs_float32 > 1


def test_without_its_baseline_a_variant_has_times_but_no_speed_up():
    bad, good = measure([candidate("float32", "dies"), candidate("int8", baseline="float32")], duration_s=0.1)
    assert bad.p50_ms is None
    assert good.p50_ms >= 1
    assert good.speedup_vs_float32 is None
    assert good.speedup_ci95 is None
    assert not good.valid
    assert "'float32' stopped" in good.invalid_reason


def test_a_block_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(latency, "_OPEN_TIMEOUT_S", 2.0)
    result = measure([candidate("float32", "hangs")], duration_s=0.1)[0]
    assert "did not answer within 2 s" in result.invalid_reason


def test_ctrl_c_leaves_no_process(monkeypatch):
    pids = []

    def interrupt(turn):
        pids.append(turn.worker.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "_measure_block", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure([candidate("float32")], duration_s=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_slow_model_gets_fewer_rounds_and_is_told_what_to_type():
    result = measure([candidate("float32", ms=30)], duration_s=0.2)[0]
    assert not result.valid
    assert re.search(r"only \d rounds?, 10 are needed: use --duration \d+", result.invalid_reason)


@given(st.lists(st.floats(1e4, 1e9), min_size=1, max_size=5), st.floats(0.1, 60))
def test_the_plan_keeps_to_the_duration(typical_ns, duration_s):
    rounds, inferences = plan_blocks(typical_ns, duration_s)
    assert 1 <= rounds <= latency.ROUNDS
    for typical, count in zip(typical_ns, inferences, strict=True):
        assert latency.MIN_INFERENCES <= count <= latency.MAX_INFERENCES
        seconds = rounds * count * typical / 1e9
        assert seconds <= 1.5 * duration_s or rounds == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 100_000}, "threads is 100000"),
        ({"duration_s": 0}, "duration is 0"),
        ({"duration_s": float("nan")}, "duration is nan"),
        ({"warmup": -1}, "warmup is -1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words) as caught:
        measure_latency([candidate("float32")], spec=SPEC, command=FAKE, **options)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("candidates", "words"),
    [([candidate("int8", baseline="float32")], "'float32' is not timed"), ([candidate("a")] * 2, "the same name")],
)
def test_every_candidate_is_compared_with_another_of_the_run(candidates, words):
    with pytest.raises(InputError, match=words):
        measure(candidates)


def variant(name, precision, backend, target="any"):
    model = File(path=f"{name}/model.onnx", sha256="0" * 64, bytes=1)
    return Variant(name=name, precision=precision, backend=backend, target=target, files=(model,), settings={"a": "b"})


VARIANTS = (
    variant("float32-ort", "float32", "onnxruntime"),
    variant("int8-ort", "int8", "onnxruntime", target="x86"),
    variant("float32-ov", "float32", "openvino"),
    variant("float32-ov-arm", "float32", "openvino", target="arm"),
    variant("int8-ov", "int8", "openvino", target="arm"),
)


@dataclass
class FakeBundle:
    manifest: SimpleNamespace
    verified: list

    def variant(self, name):
        return next(variant for variant in self.manifest.variants if variant.name == name)

    def verify_files(self, name, formats):
        assert formats
        self.verified.append(name)
        return Path("/b", name, "model.onnx")


def bundle_of(*variants):
    return FakeBundle(SimpleNamespace(variants=variants), [])


def test_each_variant_is_compared_with_float32_on_its_own_backend():
    bundle = bundle_of(*VARIANTS)
    found = candidates_of(bundle)
    assert [(each.name, each.baseline) for each in found] == [
        ("float32-ort", "float32-ort"),
        ("int8-ort", "float32-ort"),
        ("float32-ov", "float32-ov"),
        ("float32-ov-arm", "float32-ov-arm"),
        ("int8-ov", "float32-ov-arm"),
    ]
    assert found[1].model == Path("/b/int8-ort/model.onnx")
    assert found[1].settings == {"a": "b"}
    assert bundle.verified == [each.name for each in found]


def test_the_baseline_of_what_was_asked_for_comes_along():
    assert [each.name for each in candidates_of(bundle_of(*VARIANTS), ["int8-ort"])] == ["float32-ort", "int8-ort"]


def test_a_backend_without_float32_is_compared_with_the_exported_file():
    bundle = bundle_of(*VARIANTS, variant("int8-trt", "int8", "tensorrt"))
    found = candidates_of(bundle, ["int8-trt"])
    assert [(each.name, each.baseline) for each in found] == [
        ("float32-ort", "float32-ort"),
        ("int8-trt", "float32-ort"),
    ]


def test_a_variant_without_float32_cannot_be_compared():
    bundle = bundle_of(variant("int8-trt", "int8", "tensorrt"))
    with pytest.raises(BundleError, match="no float32 variant to compare 'int8-trt' with") as caught:
        candidates_of(bundle)
    assert "--variant" in caught.value.remedy
