"""``edgevit inspect --kernels``, and the precisions and forms that only it tells apart."""

import json

import pytest
from rtx import needs_rtx
from tiny import SHAPES, SPEC, VARIANTS

from edgevit.bundle.store import Bundle

LINEARS = 4 * SPEC.depth + 1
PROFILE = """
description = "an RTX 4060"
backend = "tensorrt-rtx"
device = "GPU"
weight_bits = 8
dialect = "tensorrt"
precisions = ["int8", "fp8"]
attention = "quantized"
compute_capability = "8.9"
why = "for a test"
"""


def test_engines_that_are_here_are_asked(edgevit, quantized):
    done = edgevit("inspect", quantized, "--kernels", "--json")
    assert done.code == 0, done.err
    found = {each["variant"]: each for each in done.data()["variants"]}
    assert list(found) == list(VARIANTS)
    for name, each in found.items():
        assert len(each["linears"]) == LINEARS + name.startswith("int8")  # the patch embedding, too
        assert {linear["integer"] for linear in each["linears"]} == {name.startswith("int8")}
        assert each["report"] is each["unknown"] is None
    shown = edgevit("inspect", quantized, "--kernels", "--variant", "int8-openvino").out
    assert f"int8-openvino: {LINEARS + 1} of {LINEARS + 1} Linear layers in integers" in shown
    assert "blocks.1.mlp.fc2" not in shown
    assert f"edgevit inspect {quantized} --kernels --all" in shown
    shown = edgevit("inspect", quantized, "--kernels", "--all", "--variant", "int8-openvino").out
    assert "blocks.1.mlp.fc2" in shown
    assert {each["variant"]: len(each["convolutions"]) for each in found.values()} == {
        name: int(name.startswith("float32")) for name in VARIANTS
    }  # the patch embedding, which INT8 has among the Linear layers
    assert "int8-onnxruntime" not in shown


def test_what_users_get_wrong(edgevit, quantized):
    done = edgevit("inspect", quantized, "--variant", "float32")
    assert done.code == 2
    assert done.failure()[1].endswith("--kernels --variant NAME")
    assert edgevit("inspect", quantized, "--all").failure()[1].endswith("--kernels --all")
    done = edgevit("inspect", quantized, "--kernels", "--variant", "int8-openvin")
    assert done.code == 2
    assert "int8-openvino" in done.failure()[1]


def test_an_engine_that_is_not_built_yet(edgevit, exported):
    assert edgevit("quantize", exported, "--data", SHAPES, "--dialect", "tensorrt").code == 0
    done = edgevit("inspect", exported, "--kernels", "--variant", "int8-tensorrt", "--json")
    assert done.code == 0
    (found,) = done.data()["variants"]
    assert "an engine is built on the device" in found["unknown"]
    assert "kernels not known" in edgevit("inspect", exported, "--kernels").out


@needs_rtx
def test_engines_for_another_gpu_are_known_by_their_build(edgevit, exported, tmp_path):
    profile = tmp_path / "ada.toml"
    profile.write_text(PROFILE)
    assert edgevit("quantize", exported, "--data", SHAPES, "--dialect", "tensorrt").code == 0
    for precision in ("int8", "fp8"):
        done = edgevit("build", exported, "--target", profile, "--precision", precision)
        assert done.code == 0, done.err
    done = edgevit("inspect", exported, "--kernels", "--json")
    found = {each["variant"]: each for each in done.data()["variants"]}
    int8, fp8 = (found[f"{precision}-tensorrt-rtx-sm89"] for precision in ("int8", "fp8"))
    assert {linear["kernel"] for linear in int8["linears"]} == {"gemm int8"}
    assert int8["report"]["counts"]["fused_attentions"] == {"int8": SPEC.depth}
    assert {linear["kernel"] for linear in fp8["linears"]} == {"gemm float8"}
    kernels = int8["report"]["kernels"]
    assert len(kernels) == int8["report"]["counts"]["kernels"]
    assert any("blocks.0.attn.softmax" in kernel["nodes"] for kernel in kernels if kernel["kind"] == "attention")
    shown = edgevit("inspect", exported, "--kernels", "--all", "--variant", "int8-tensorrt-rtx-sm89").out
    # One more than there are layers: the first fc2 multiplies what rounding leaves of its input, too.
    assert f"{LINEARS + 1} products in int8, {SPEC.depth} fused attentions in int8" in shown
    assert "_gemm_mha_v2" in shown
    shown = edgevit("inspect", exported, "--kernels", "--variant", "fp8-tensorrt-rtx-sm89").out
    assert "warning: 'blocks.0.attn' and 1 more is not one kernel" in shown

    report = exported / "int8-tensorrt-rtx-sm89" / "kernels.json"
    report.write_text(report.read_text().replace("gemm int8", "gemm int4"))
    done = edgevit("inspect", exported, "--kernels")
    assert done.code == 2
    assert "damaged" in done.failure()[0]


def test_fp8_is_for_tensorrt_alone(edgevit, exported):
    done = edgevit("quantize", exported, "--precision", "fp8", "--data", SHAPES)
    assert done.code == 2
    assert "does not take fp8" in done.failure()[0]
    assert "a target of dialect tensorrt" in done.failure()[1]


def test_fp8_without_calibration_says_what_to_type(edgevit, exported):
    done = edgevit("build", exported, "--target", "tensorrt", "--precision", "fp8")
    assert done.code == 2
    assert "--precision fp8 --dialect tensorrt --data IMAGES" in done.failure()[1]
    done = edgevit("quantize", exported, "--precision", "fp8", "--dialect", "tensorrt", "--data", SHAPES, "--json")
    assert done.code == 0, done.err
    variant = Bundle.open(exported).variant("fp8-tensorrt")
    assert (variant.precision, variant.backend) == ("fp8", "tensorrt")
    assert json.loads((exported / "calibration" / "plan-symmetric.json").read_text())["attentions"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"8.9"', '"8.6"'), "fp8 needs compute capability 8.9 or later, not 8.6"),
        (('dialect = "tensorrt"', 'dialect = "tensorrt-legacy"'), "tensorrt-rtx does not take 'tensorrt-legacy'"),
    ],
)
def test_a_target_that_cannot_do_fp8(edgevit, exported, tmp_path, change, problem):
    profile = tmp_path / "wrong.toml"
    profile.write_text(PROFILE.replace(*change))
    done = edgevit("build", exported, "--target", profile, "--precision", "fp8")
    assert done.code == 2
    assert problem in done.failure()[0]
