"""The schedule of a benchmark, with workers that take a time that is known."""

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from boards import JETSON_ORIN_NANO, write
from hypothesis import given
from hypothesis import strategies as st
from notes import Notes
from PIL import Image

from edgevit.bundle.manifest import File, Variant
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, InputError
from edgevit.evaluation import latency, rounds
from edgevit.evaluation.candidates import Candidate, candidates_of
from edgevit.evaluation.conditions import Conditions
from edgevit.evaluation.extras import picture_of
from edgevit.evaluation.latency import measure_latency
from edgevit.evaluation.load import Load
from edgevit.evaluation.rounds import plan_blocks
from edgevit.models.spec import ModelSpec

pytestmark = pytest.mark.usefixtures("all_cores")

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


@pytest.fixture
def measure(tmp_path):
    """Return what measures on a machine that nothing disturbs, for its system tells nothing of itself."""

    def measured(candidates, seed=0, root=tmp_path, picture=None, keep=None, **load):
        return measure_latency(
            candidates,
            Load(**{"threads": 1, "energy_from": "none"} | load),
            spec=SPEC,
            command=FAKE,
            seed=seed,
            root=root,
            picture=picture,
            keep=keep,
        )

    return measured


def test_the_speed_up_is_the_ratio_that_the_workers_were_made_with(measure):
    slow, fast = measure([candidate("float32", ms=2), candidate("int8", ms=1, baseline="float32")], duration_s=0.375)
    assert (slow.p50_ms, slow.p90_ms, slow.p99_ms) == pytest.approx((2.0, 2.4, 2.4))
    assert (fast.p50_ms, fast.p90_ms, fast.p99_ms) == pytest.approx((1.0, 1.2, 1.2))
    assert (slow.speedup_vs_float32, slow.speedup_ci95) == (1.0, (1.0, 1.0))
    assert (fast.speedup_vs_float32, *fast.speedup_ci95) == pytest.approx((2.0, 2.0, 2.0), rel=0.1)
    assert fast.cold_start_ms > 1
    assert fast.rss_mb > 5
    assert (fast.batch, fast.threads) == (1, 1)
    assert (fast.invalid_reason is None) == fast.valid


def test_blocks_of_all_candidates_alternate_in_a_seeded_order(measure, monkeypatch):
    def order(seed):
        seen = []
        measure_block = rounds._measured
        with monkeypatch.context() as patch:
            patch.setattr(rounds, "_measured", lambda turn: seen.append(turn.record.name) or measure_block(turn))
            measure([candidate("a", ms=0.1), candidate("b", ms=0.1, baseline="a")], duration_s=0.03, seed=seed)
        return seen

    first = order(1)
    assert all({*first[index : index + 2]} == {"a", "b"} for index in range(0, len(first), 2))
    assert {tuple(first[index : index + 2]) for index in range(0, len(first), 2)} == {("a", "b"), ("b", "a")}
    assert order(1) == first
    assert order(2) != first


@pytest.mark.parametrize(("behaviour", "reason"), [("killed", "signal 9"), ("dies", "illegal instruction")])
def test_a_worker_that_dies_takes_only_its_own_figures_along(measure, behaviour, reason):
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


def test_without_its_baseline_a_variant_has_times_but_no_speed_up(measure):
    bad, good = measure([candidate("float32", "dies"), candidate("int8", baseline="float32")], duration_s=0.1)
    assert bad.p50_ms is None
    assert good.p50_ms >= 1
    assert good.speedup_vs_float32 is None
    assert good.speedup_ci95 is None
    assert not good.valid
    assert "'float32' stopped" in good.invalid_reason


def test_a_block_that_hangs_is_given_up(measure, monkeypatch):
    monkeypatch.setattr(latency, "_OPEN_TIMEOUT_S", 2.0)
    result = measure([candidate("float32", "hangs")], duration_s=0.1)[0]
    assert "did not answer within 2 s" in result.invalid_reason


def test_ctrl_c_leaves_no_process(measure, monkeypatch):
    pids = []

    def interrupt(turn):
        pids.append(turn.worker.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "_measured", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure([candidate("float32")], duration_s=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_slow_model_gets_fewer_rounds_and_is_told_what_to_type(measure):
    result = measure([candidate("float32", ms=30)], duration_s=0.2)[0]
    assert not result.valid
    assert re.search(r"only \d rounds?, 10 are needed: use --duration \d+", result.invalid_reason)


@given(st.lists(st.floats(1e4, 1e9), min_size=1, max_size=5), st.floats(0.1, 60))
def test_the_plan_keeps_to_the_duration(typical_ns, duration_s):
    count_of_rounds, inferences = plan_blocks(typical_ns, duration_s)
    assert 1 <= count_of_rounds <= rounds.ROUNDS
    for typical, count in zip(typical_ns, inferences, strict=True):
        assert rounds.MIN_INFERENCES <= count <= rounds.MAX_INFERENCES
        seconds = count_of_rounds * count * typical / 1e9
        assert seconds <= 1.5 * duration_s or count_of_rounds == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 100_000}, "threads is 100000"),
        ({"duration_s": 0}, "duration is 0"),
        ({"duration_s": float("nan")}, "duration is nan"),
        ({"precision": 0.0}, "precision is 0"),
        ({"precision": 1.5}, "precision is 1.5"),
        ({"energy_from": "hamster"}, "no energy from 'hamster'"),
    ],
)
def test_numbers_out_of_range_are_refused(measure, options, words):
    with pytest.raises(InputError, match=words) as caught:
        measure([candidate("float32")], **{"duration_s": 0.1} | options)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("candidates", "words"),
    [([candidate("int8", baseline="float32")], "'float32' is not timed"), ([candidate("a")] * 2, "the same name")],
)
def test_every_candidate_is_compared_with_another_of_the_run(measure, candidates, words):
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


class Disturbed:
    """Conditions that find what is said of each round; everything else is as on a quiet machine."""

    def __init__(self, monkeypatch, *reasons):
        self.left = list(reasons)
        end = Conditions.end
        monkeypatch.setattr(Conditions, "end", lambda conditions: self.judge(end(conditions)))

    def judge(self, watched):
        reasons = self.left.pop(0) if self.left else ()
        return watched._replace(reasons=reasons)


def test_a_disturbed_round_is_measured_again(measure, monkeypatch):
    Disturbed(monkeypatch, (), ("too loud",), (), ("too hot",))
    found = measure([candidate("float32", ms=0.2), candidate("int8", ms=0.1, baseline="float32")], duration_s=5)[1]
    assert (found.rounds, found.valid) == (30, True)
    assert (found.machine.rounds, found.machine.dropped) == (32, 2)
    assert found.machine.dropped_reasons == ("too loud", "too hot")


def test_where_too_few_rounds_are_left_all_count_and_the_run_is_invalid(measure, monkeypatch):
    loud = ("other processes took 40 % of the cores' time, more than 10 %",)
    Disturbed(monkeypatch, *[loud] * 25)
    found = measure([candidate("float32", ms=1e-5)], duration_s=1e-3)[0]  # which is over when 30 rounds are
    assert (found.rounds, found.valid, found.machine.dropped) == (30, False, 0)
    assert "only 5 of 30 rounds were undisturbed" in found.invalid_reason


def test_a_precision_ends_it_once_it_is_reached(measure):
    found = measure([candidate("float32", ms=1)], duration_s=30, precision=0.02)[0]
    assert found.valid
    assert found.rounds == 20  # the first look
    low, high = found.p50_ci95
    assert (high - low) / 2 <= 0.02 * found.p50_ms


def test_a_signal_keeps_what_was_measured_and_is_raised_again(measure, monkeypatch):
    measured, kept, stop_after = rounds._measured, [], 7

    def interrupted(turn):
        if len(turn.record.blocks) == 0 and next(count) == stop_after:
            raise KeyboardInterrupt
        return measured(turn)

    count = iter(range(1000))
    monkeypatch.setattr(rounds, "_measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(
            [candidate("float32", ms=0.2), candidate("int8", ms=0.1, baseline="float32")],
            duration_s=0.1,
            keep=kept.extend,
        )
    assert [each.partial for each in kept] == [True, True]
    assert [each.rounds for each in kept] == [3, 3]  # whole ones alone
    assert all(not each.valid and each.invalid_reason.startswith("it was interrupted after 3") for each in kept)
    assert kept[1].speedup_vs_float32 == pytest.approx(2, rel=0.3)


def test_a_signal_before_anything_was_measured_keeps_nothing(measure, monkeypatch):
    def interrupt(turn):
        raise KeyboardInterrupt

    kept = []
    monkeypatch.setattr(rounds, "_measured", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure([candidate("float32")], duration_s=0.1, keep=kept.extend)
    assert kept == []


def test_loading_the_first_inference_and_the_warm_up_are_told_apart(measure):
    found = measure([candidate("float32", ms=1)], duration_s=1)[0]
    assert found.load_ms >= 0
    assert found.first_ms >= 0
    assert found.cold_start_ms > found.load_ms + found.first_ms
    assert found.warm_up.steady
    assert found.warm_up.inferences == 3 + 12 * 5
    assert "Mann-Kendall" in found.warm_up.method


def test_what_never_gets_steady_is_said(tmp_path):
    notes = Notes()
    load = Load(threads=1, duration_s=0.02, energy_from="none")
    found = measure_latency([candidate("float32", ms=1)], load, spec=SPEC, command=FAKE, root=tmp_path, progress=notes)[
        0
    ]
    assert not found.warm_up.steady
    assert "float32 was not steady" in notes.said[0]


PICTURE = picture_of(
    Image.new("RGB", (64, 48), "teal"),
    Preprocess(size=(4, 4), resize=4, mean=(0.5,), std=(0.5,), channel_order="L"),
)


def test_an_answer_is_timed_from_end_to_end(measure):
    found = measure([candidate("float32", ms=2)], duration_s=0.1, picture=PICTURE)[0].end_to_end
    assert found.image == "JPEG of 640x480, quality 90, of the bundle's first golden image"
    assert found.images >= 3
    assert found.model_ms in (1.8, 2.0, 2.4)  # decoding takes no time on the clock that inferences move
    assert found.p50_ms == pytest.approx(found.decode_ms + found.prepare_ms + found.model_ms)


def test_a_picture_that_stops_a_worker_takes_no_figures_along(tmp_path):
    notes, broken = Notes(), PICTURE._replace(content=b"no picture")
    load = Load(threads=1, duration_s=0.1, energy_from="none", sweep=True)
    found = measure_latency(
        [candidate("float32", ms=1)], load, spec=SPEC, command=FAKE, root=tmp_path, picture=broken, progress=notes
    )[0]
    assert found.p50_ms == pytest.approx(1.0)
    assert (found.end_to_end, found.sweep) == (None, None)
    assert any("was not timed from end to end" in each for each in notes.said)


def test_throughput_is_swept_over_batch_and_streams(measure, monkeypatch):
    monkeypatch.setattr("edgevit.evaluation.extras.usable_cores", lambda: 2)
    several = replace(candidate("float32"), settings={"ms": "1", "batch": "4"})
    found = measure([several], duration_s=0.1, sweep=True)[0].sweep
    assert [(each.batch, each.streams) for each in found.points] == [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)]
    assert (found.valid, found.streams_are, found.threads) == (True, "threads", 1)


def test_what_does_not_fit_ends_the_sweep_and_is_said(measure, monkeypatch):
    monkeypatch.setattr("edgevit.evaluation.extras.usable_cores", lambda: 1)
    found = measure([candidate("float32", "full", ms=1)], duration_s=0.1, sweep=True)[0]
    assert found.p50_ms == pytest.approx(1.0)
    assert [each.batch for each in found.sweep.points] == [1, 2]
    assert not found.sweep.valid
    assert "it ended at 1 x 4 images" in found.sweep.invalid_reason
    assert "out of memory, says the library" in found.sweep.invalid_reason


def test_the_energy_of_a_jetson_is_measured_and_its_state_told(measure, monkeypatch, tmp_path):
    """The rail shows the same power all the time: nothing is left above idle."""
    for name in ("_LEAST_LAGGING_S", "_MOST_S", "_SETTLE_S"):
        monkeypatch.setattr(f"edgevit.evaluation.energy.{name}", 0.12)
    root = write(tmp_path / "board", JETSON_ORIN_NANO)
    found = measure([candidate("float32", ms=1)], duration_s=20, root=root, energy_from="auto")[0]
    assert found.machine.power_mode == "nvpmodel 2 (MAXN_SUPER)"
    assert found.machine.temperature_c == (49.062, 49.062)
    assert (found.energy.source, found.energy.covers) == ("INA3221 VDD_IN", "the whole module")
    assert found.energy.mj == pytest.approx(0, abs=1e-6)
    assert (found.energy.idle_w, found.energy.load_w) == pytest.approx((5.04 * 1.2, 5.04 * 1.2))
    assert found.energy_reason is None


def test_why_there_is_no_energy_is_said(measure, tmp_path):
    found = measure([candidate("float32", ms=1)], duration_s=0.1, energy_from="auto")[0]
    assert found.energy is None
    assert "no RAPL counters" in found.energy_reason
