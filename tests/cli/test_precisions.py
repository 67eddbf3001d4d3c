"""Every precision through every command, and what users get wrong about them."""

import json

import pytest
from tiny import SHAPES, content

from edgevit.bundle.manifest import PRECISIONS
from edgevit.bundle.store import Bundle

NEED_IMAGES = ("int8", "fp16", "fp8")  # fp8 is for TensorRT: tests/cli/test_kernels.py
NEED_NONE = ("int8-dynamic", "int8-weights", "int4-weights")


def names(path):
    return [variant.name for variant in Bundle.open(path).manifest.variants]


def test_these_are_all():
    assert set(PRECISIONS) == {"float32", *NEED_IMAGES, *NEED_NONE}


@pytest.mark.parametrize("precision", ["fp16", *NEED_NONE])
def test_from_quantize_to_predict(edgevit, exported, precision, tmp_path):
    data = ("--data", SHAPES) if precision in NEED_IMAGES else ()
    done = edgevit("quantize", exported, "--precision", precision, *data, "--json")
    assert done.code == 0, done.err
    made = {variant["name"]: variant for variant in done.data()["variants"]}
    wanted = [f"{precision}-onnxruntime", f"{precision}-openvino"]
    assert made.keys() == {*wanted, "float32-onnxruntime", "float32-openvino"}
    assert done.data()["float32_nodes"] == {}
    float32 = Bundle.open(exported).variant("float32").bytes
    # The smallest of models has much beside its weights.
    assert made[wanted[0]]["bytes"] < (0.8 if precision == "fp16" else 0.75) * float32

    done = edgevit("validate", exported, "--data", SHAPES, "--max-drop", "100", "--json")
    assert done.code == 0
    measured = {variant["name"]: variant for variant in done.data()["variants"]}
    for name in wanted:
        assert measured[name]["precision"] == precision
        assert measured[name]["agreement"] >= (0.6 if precision == "int4-weights" else 0.95)
        assert 5 < measured[name]["sqnr_db"] < 120  # it is near float32, but not float32 itself

    done = edgevit(
        "benchmark", exported, "--duration", "0.02", "--variant", wanted[0], "--variant", wanted[1], "--json"
    )
    assert done.code == 0, done.err
    assert {variant["name"] for variant in done.data()["variants"]} == {
        *wanted,
        "float32-onnxruntime",
        "float32-openvino",
    }
    assert edgevit("report", exported).code == 0
    page = (exported / "report/index.html").read_text()
    shown = edgevit("inspect", exported)
    assert shown.code == 0
    shapes = tmp_path / "photo.png"
    Bundle.open(exported).golden().images[0].save(shapes)
    for name in wanted:
        assert name in page
        assert name in shown.out
        assert edgevit("predict", exported, shapes, "--variant", name).code == 0


def test_only_int8_dynamic_on_onnxruntime_is_shown_to_be_integer(edgevit, exported):
    for precision in NEED_NONE:
        assert edgevit("quantize", exported, "--precision", precision).code == 0
    found = {variant.name: variant.kernels for variant in Bundle.open(exported).manifest.variants}
    assert found["int8-dynamic-onnxruntime"].integer_linears == 9
    assert found["int8-dynamic-openvino"] is None  # OpenVINO does not tell
    for name in ("int8-weights-onnxruntime", "int8-weights-openvino", "int4-weights-onnxruntime"):
        assert (found[name].linears, found[name].integer_linears) == (9, 0)


def test_settings_say_how_openvino_must_be_opened(edgevit, exported):
    for precision in NEED_NONE:
        assert edgevit("quantize", exported, "--precision", precision, "--dialect", "openvino").code == 0
    manifest = Bundle.open(exported)
    sizes = {
        precision: manifest.variant(f"{precision}-openvino").settings.get("DYNAMIC_QUANTIZATION_GROUP_SIZE")
        for precision in NEED_NONE
    }
    assert sizes == {"int8-dynamic": "64", "int8-weights": None, "int4-weights": "32"}


def test_settings_say_that_onnxruntime_takes_images_one_by_one(edgevit, exported):
    assert edgevit("quantize", exported, "--precision", "int8-dynamic", "--dialect", "onnxruntime").code == 0
    assert Bundle.open(exported).variant("int8-dynamic-onnxruntime").settings == {"images": "one-by-one"}


@pytest.mark.parametrize("precision", NEED_NONE)
def test_build_needs_no_images_either(edgevit, exported, precision):
    done = edgevit("build", exported, "--target", "x86-onnxruntime", "--precision", precision, "--json")
    assert done.code == 0, done.err
    assert names(exported) == ["float32", f"{precision}-onnxruntime"]


def test_build_takes_what_quantize_has_found_for_fp16(edgevit, exported):
    refused = edgevit("build", exported, "--target", "x86-onnxruntime", "--precision", "fp16")
    assert refused.code == 2
    message, remedy = refused.failure()
    assert "has not been calibrated for fp16" in message
    assert f"edgevit quantize {exported} --precision fp16 --data IMAGES" in remedy
    done = edgevit("quantize", exported, "--precision", "fp16", "--data", SHAPES, "--dialect", "openvino")
    assert done.code == 0, done.err
    assert json.loads((exported / "float16/plan.json").read_bytes())["float32_nodes"] == {}
    assert edgevit("build", exported, "--target", "x86-onnxruntime", "--precision", "fp16").code == 0
    assert names(exported) == ["float32", "float32-openvino", "fp16-openvino", "fp16-onnxruntime"]


def test_pipeline_takes_several(edgevit, tmp_path, tiny_checkpoint):
    path = tmp_path / "whole.edgevit"
    done = edgevit(
        *("pipeline", tiny_checkpoint, "--data", SHAPES, "-o", path, "--target", "x86-onnxruntime"),
        *("--precision", "fp16", "--precision", "int8-dynamic", "--duration", "0.02", "--max-drop", "100", "--json"),
    )
    assert done.code == 0, done.err
    assert [variant["name"] for variant in done.data()["variants"]] == [
        *("float32", "float32-onnxruntime", "fp16-onnxruntime", "int8-dynamic-onnxruntime")
    ]


@pytest.mark.parametrize(
    ("typed", "closest"),
    [("int7", "int8"), ("fp-16", "fp16"), ("int8-dynamik", "int8-dynamic"), ("int4", "int4-weights"), ("?", "float32")],
)
@pytest.mark.parametrize("command", ["quantize", "build"])
def test_a_precision_that_there_is_not(edgevit, exported, typed, closest, command):
    before = content(exported)
    options = ("--data", SHAPES) if command == "quantize" else ("--target", "x86-openvino")
    done = edgevit(command, exported, "--precision", typed, *options)
    assert done.code == 2
    message, remedy = done.failure()
    assert message == f"there is no precision '{typed}'"
    assert closest in remedy
    assert content(exported) == before


@pytest.mark.parametrize("precision", NEED_IMAGES)
def test_no_images_where_they_are_needed(edgevit, exported, precision):
    before = content(exported)
    dialect = ("--dialect", "tensorrt") if precision == "fp8" else ()
    done = edgevit("quantize", exported, "--precision", precision, *dialect)
    assert done.code == 2
    message, remedy = done.failure()
    assert message == f"{precision} needs calibration images"
    chosen = {"int8": "", "fp16": " --precision fp16", "fp8": " --precision fp8 --dialect tensorrt"}[precision]
    assert remedy.startswith(f"edgevit quantize {exported}{chosen} --data IMAGES")
    assert "int8-dynamic" in remedy
    assert content(exported) == before


def test_float32_is_not_quantized(edgevit, exported):
    done = edgevit("quantize", exported, "--precision", "float32")
    assert done.code == 2
    message, remedy = done.failure()
    assert message == "float32 is not quantized"
    assert "edgevit build" in remedy


def test_images_that_nobody_needs_are_not_looked_at(edgevit, exported):
    done = edgevit("quantize", exported, "--precision", "int8-weights", "--data", "nowhere/photos")
    assert done.code == 0
    assert "int8-weights needs no images: those of nowhere/photos are not looked at" in done.err


def test_a_target_that_does_not_take_it(edgevit, exported, tmp_path):
    target = tmp_path / "small.toml"
    target.write_text(
        'description = "a test"\nbackend = "onnxruntime"\ndialect = "onnxruntime"\n'
        'precisions = ["float32", "int8"]\nwhy = "a test wants it"\n'
    )
    done = edgevit("build", exported, "--target", target, "--precision", "fp16")
    assert done.code == 2
    message, remedy = done.failure()
    assert message == f"target {target} does not take fp16"
    assert remedy == "use --precision float32 or int8"


def test_a_node_that_stays_float32_is_named(edgevit, exported, monkeypatch):
    from edgevit.quantization.float16 import scan as float16_scan

    monkeypatch.setattr(float16_scan, "LARGEST", 12.0)
    done = edgevit("quantize", exported, "--precision", "fp16", "--data", SHAPES, "--dialect", "onnxruntime")
    assert done.code == 0, done.err
    assert " stays float32: its " in done.out
    again = edgevit(
        *("quantize", exported, "--precision", "fp16", "--data", SHAPES, "--dialect", "onnxruntime", "--json")
    )
    assert len(again.data()["float32_nodes"]) > 0
