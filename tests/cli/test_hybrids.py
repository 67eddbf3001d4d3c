"""A network of convolutions and Linear layers goes the whole way, and is told what runs in integers and why not."""

import json

import pytest
from tiny import SHAPES

from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.stages import convolution_race


@pytest.fixture
def exported_hybrid(edgevit, tmp_path):
    from small_hybrid import small_hybrid  # it needs torch, finding the tests does not

    folder = tmp_path
    (folder / "labels.txt").write_text("\n".join([*load_shapes("train").class_names, *"abcdefg"][:7]))
    bundle = folder / "hybrid.edgevit"
    model = small_hybrid(folder / "hybrid.onnx")
    assert edgevit("export", model, "-o", bundle, "--labels", folder / "labels.txt").code == 0
    return bundle


def raced(monkeypatch, *seconds):
    """Let each form of a race take so many ``seconds``; those that there are not take the last."""

    def race(sessions, images):
        sessions[0].infer(images)
        return convolution_race.np.tile((*seconds, *[seconds[-1]] * len(sessions))[: len(sessions)], (15, 1))

    monkeypatch.setattr(convolution_race, "race", race)


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


def test_a_limit_is_searched_with_convolutions_too(edgevit, exported_hybrid, monkeypatch):
    raced(monkeypatch, 1.0, 0.5)
    bundle = exported_hybrid
    done = edgevit(*quantize(bundle), "--dialect", "openvino", "--max-kl", "0.000001", "--sensitivity")
    assert done.code in (0, 1)
    plan = json.loads((bundle / "calibration/plan.json").read_text())
    ranked = {each["layer"] for each in plan["sensitivity"]}
    assert ranked >= {each["name"] for each in plan["convolutions"]}
    assert plan["limit"]["images"] > 0
