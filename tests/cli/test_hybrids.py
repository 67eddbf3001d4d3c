"""A network of convolutions and Linear layers goes the whole way, and is told what runs in integers and why not."""

import json

import numpy as np
import pytest
from tiny import SHAPES

from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.stages import convolution_race, convolution_stages, deviation


@pytest.fixture
def exported_hybrid(edgevit, tmp_path):
    return exported(edgevit, tmp_path)


@pytest.fixture
def exported_convolutions(edgevit, tmp_path):
    """Return a bundle of a network without Linear layers."""
    nn = pytest.importorskip("torch").nn
    outputs = len(load_shapes("train").class_names)
    layers = (nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, outputs, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return exported(edgevit, tmp_path, nn.Sequential(*layers), outputs)


def exported(edgevit, folder, module=None, outputs=7):
    from small_hybrid import small_hybrid  # it needs torch, finding the tests does not

    (folder / "labels.txt").write_text("\n".join([*load_shapes("train").class_names, *"abcdefg"][:outputs]))
    bundle = folder / "hybrid.edgevit"
    model = small_hybrid(folder / "hybrid.onnx", module)
    assert edgevit("export", model, "-o", bundle, "--labels", folder / "labels.txt").code == 0
    return bundle


def raced(monkeypatch, *seconds):
    """Let each form of a race take so many ``seconds``; those that there are not take the last."""

    def race(sessions, images):
        sessions[0].infer(images)
        return np.tile((*seconds, *[seconds[-1]] * len(sessions))[: len(sessions)], (15, 1))

    decided_by(race, monkeypatch)


def decided_by(race, monkeypatch):
    """Let the times of ``race`` alone decide, whatever is lost of accuracy."""
    monkeypatch.setattr(convolution_race, "time_in_turns", race)
    monkeypatch.setattr(convolution_stages, "time_in_turns", race)
    monkeypatch.setattr(deviation, "_LEAST_SQNR", 0.0)


def slower_with(engine, monkeypatch):
    """Let INT8 take twice the time of float with ``engine``, and half of it with others."""

    def race(sessions, images):
        factor = 2.0 if engine in type(sessions[0]).__module__ else 0.5
        return np.tile((1.0, *[factor] * (len(sessions) - 1)), (15, 1))

    decided_by(race, monkeypatch)


def quantize(bundle):
    return "quantize", bundle, "--data", SHAPES, "--samples", "8"


def test_convolutions_that_pay_run_in_integers_on_both_engines(edgevit, exported_hybrid, monkeypatch):
    raced(monkeypatch, 1.0, 0.5)
    bundle = exported_hybrid
    done = edgevit(*quantize(bundle), "--min-integer-share", "0.9")
    assert done.code == 0
    said = " ".join((done.out + done.err).split())
    assert "2 of 2 Linear layers and 6 of 6 convolutions in integers, 100 % of the multiply-adds" in said
    for engine in ("onnxruntime", "openvino"):
        assert f"Convolutions in INT8 with {engine}: all; 0.50 of the time" in said
        variant = Bundle.open(bundle).variant(f"int8-{engine}")
        assert variant.kernels.integer_share == 1
        assert variant.fallback == ()
    plan = json.loads((bundle / "calibration/plan.json").read_text())
    assert plan["raced"] == ["onnxruntime", "openvino"]
    names = [each["name"] for each in plan["convolutions"]]
    asked = edgevit("inspect", bundle, "--kernels", "--json").data()["variants"]
    for each in asked:
        found = {one["name"]: one for one in each["convolutions"]}
        assert sorted(found) == sorted(names)
        assert {one["integer"] for one in found.values()} == {each["variant"].startswith("int8")}
        (counted,) = [kind for kind in each["kernels"]["arithmetic"] if kind["kind"] == "Conv"]
        assert sum(one["macs"] for one in found.values()) == counted["macs"]
    shown = edgevit("inspect", bundle, "--kernels", "--all", "--variant", "int8-openvino").out
    assert all(name in shown for name in names)
    rebuilt = edgevit("build", bundle, "--target", "x86-openvino", "--precision", "int8")
    assert "Racing" not in rebuilt.err  # the plan knows


def test_convolutions_that_do_not_pay_stay_float_and_the_verdict_says_so(edgevit, exported_hybrid, monkeypatch):
    raced(monkeypatch, 1.0, 1.3)
    bundle = exported_hybrid
    done = edgevit(*quantize(bundle), "--dialect", "openvino", "--min-integer-share", "0.9")
    assert done.code == 1
    said = " ".join((done.out + done.err).split())
    assert "Convolutions stay float32 with openvino: INT8 took 1.30 of the time" in said
    assert "2 of 2 Linear layers and 0 of 6 convolutions in integers" in said
    assert "stay float: openvino is better off with it in float: INT8 took 1.30 of the time" in said
    variant = Bundle.open(bundle).variant("int8-openvino")
    assert len(variant.fallback) == 6
    edgevit("report", bundle)
    assert "INT8 took 1.30 of the time" in (bundle / "report/index.html").read_text()


def test_stages_that_pay_run_in_integers_and_the_verdict_names_them(edgevit, exported_hybrid, monkeypatch):
    """Of the stages at 16x16, 8x8 and 7x7 the second is slower in integers; without it the model is faster."""
    raced(monkeypatch, 1.0, 1.3)
    given = iter([0.8, 1.2, 0.9, 0.7])
    monkeypatch.setattr(convolution_stages, "time_in_turns", lambda *_: np.tile((1.0, next(given)), (15, 1)))
    bundle = exported_hybrid
    done = edgevit(*quantize(bundle), "--dialect", "openvino", "--json")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "Convolutions in INT8 with openvino, by stage: those that give 16x16 and 7x7, 2 of 3 stages; 0.70 of" in said
    (entry,) = [each for each in done.data()["variants"] if each["name"] == "int8-openvino"]
    stages = entry["convolution_stages"]
    assert [(each["where"], each["integer_convolutions"], each["convolutions"]) for each in stages] == [
        ("16x16", 4, 4),
        ("8x8", 0, 1),
        ("7x7", 1, 1),
    ]
    assert "alone in INT8 it took 1.20 of the time, and had KL" in stages[1]["reason"]
    (kept,) = entry["fallback"]
    assert kept["reason"] == (
        "openvino is better off with it in float: its stage, which gives 8x8, took 1.20 of the time in INT8 alone"
    )
    shown = " ".join(edgevit("inspect", bundle).out.split())
    assert "int8-openvino: convolutions by stage: 16x16 in integers, 8x8 in float, 7x7 in integers" in shown
    assert kept["reason"] in shown
    inspected = edgevit("inspect", bundle, "--json").data()["variants"]
    assert [each["convolution_stages"] for each in inspected if each["name"] == "int8-openvino"] == [stages]
    kernels = Bundle.open(bundle).variant("int8-openvino").kernels
    shares = {each.kind: each.integer_macs / each.macs for each in kernels.arithmetic}
    assert 0 < shares["Conv"] < 1
    rebuilt = edgevit("build", bundle, "--target", "x86-openvino", "--precision", "int8", "--json")
    assert rebuilt.data()["variants"][0]["convolution_stages"] == stages  # the plan knows


def test_a_limit_is_searched_with_convolutions_too(edgevit, exported_hybrid, monkeypatch):
    raced(monkeypatch, 1.0, 0.5)
    bundle = exported_hybrid
    done = edgevit(*quantize(bundle), "--dialect", "openvino", "--max-kl", "0.000001", "--sensitivity")
    assert done.code in (0, 1)
    plan = json.loads((bundle / "calibration/plan.json").read_text())
    ranked = {each["layer"] for each in plan["sensitivity"]}
    assert ranked >= {each["name"] for each in plan["convolutions"]}
    assert plan["limit"]["images"] > 0


def test_what_would_be_float32_under_another_name_is_not_made(edgevit, exported_convolutions, monkeypatch):
    bundle = exported_convolutions
    slower_with("onnxruntime", monkeypatch)
    done = edgevit(*quantize(bundle))
    assert done.code == 0
    assert (
        "int8-onnxruntime is not made: INT8 does not pay with onnxruntime: INT8 took 2.00 of the time; "
        "use float32-onnxruntime"
    ) in " ".join(done.out.split())
    names = [variant.name for variant in Bundle.open(bundle).manifest.variants]
    assert names == ["float32", "float32-onnxruntime", "float32-openvino", "int8-openvino"]
    assert Bundle.open(bundle).variant("int8-openvino").kernels.integer_share == 1
    rebuilt = edgevit("build", bundle, "--target", "x86-onnxruntime", "--precision", "int8")
    assert rebuilt.code == 1
    assert "INT8 does not pay with onnxruntime" in rebuilt.err


def test_where_no_engine_is_faster_in_integers_float32_is_what_is_made(edgevit, exported_convolutions, monkeypatch):
    raced(monkeypatch, 1.0, 1.3)
    bundle = exported_convolutions
    done = edgevit(*quantize(bundle), "--json")
    assert done.code == 0
    assert "Looking for layers" not in done.err  # nothing is in integers
    answer = done.data()
    assert [each["name"] for each in answer["variants"]] == ["float32-onnxruntime", "float32-openvino"]
    assert answer["failed"] == []
    assert answer["does_not_pay"] == [
        {
            "name": f"int8-{engine}",
            "error": f"INT8 does not pay with {engine}: INT8 took 1.30 of the time",
            "remedy": f"use float32-{engine}",
        }
        for engine in ("onnxruntime", "openvino")
    ]
    again = edgevit(*quantize(bundle), "--min-integer-share", "0.5")  # nothing is new, and the gate is not kept
    assert again.code == 1
    assert "int8-openvino: share missed: it is not made, 50 % wanted" in " ".join(again.out.split())


def test_a_dialect_without_convolutions_in_integers_is_refused_for_a_network_of_them(edgevit, exported_convolutions):
    done = edgevit(*quantize(exported_convolutions), "--dialect", "portable")
    assert done.code == 2
    said = " ".join(done.err.split())
    assert "nothing of the model would run in integers: the dialect portable has no form for convolutions" in said
    assert "use float32, or --dialect onnxruntime or openvino" in said
    assert [variant.name for variant in Bundle.open(exported_convolutions).manifest.variants] == ["float32"]


def test_the_pipeline_ends_well_where_integers_do_not_pay(edgevit, tmp_path, exported_convolutions, monkeypatch):
    raced(monkeypatch, 1.0, 1.3)
    model, whole = exported_convolutions / "float32/model.onnx", tmp_path / "whole.edgevit"
    done = edgevit(
        "pipeline", model, "--data", SHAPES, "-o", whole, "--duration", "0.02", "--max-drop", "100", "--json"
    )
    assert done.code == 0, done.err
    assert [each["name"] for each in done.data()["does_not_pay"]] == ["int8-onnxruntime", "int8-openvino"]
