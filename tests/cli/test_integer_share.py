"""The share of a model's multiply-adds that runs in integers: what is said of it, the warning and the gate."""

import json
import warnings

import pytest
from tiny import SHAPES, SPEC

from edgevit.bundle.manifest import Arithmetic, Kernels
from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.report.arithmetic import in_integers


@pytest.fixture(scope="module")
def hybrid(timm, tmp_path_factory):
    """Return the ONNX file of a network of convolutions and attention."""
    import torch

    path = tmp_path_factory.mktemp("hybrid") / "hybrid.onnx"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = timm.create_model("mobilevit_xxs", num_classes=SPEC.classes).eval()
        torch.onnx.export(
            module,
            torch.zeros(1, 3, 32, 32),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )
    return path


def test_a_vit_runs_in_integers_but_for_its_attention(edgevit, quantized):
    data = edgevit("inspect", quantized, "--json").data()
    found = {each["name"]: each for each in data["variants"]}
    for name in ("int8-onnxruntime", "int8-openvino"):
        kinds = {each["kind"]: each for each in found[name]["kernels"]["arithmetic"]}
        assert set(kinds) == {"Linear", "attention"}  # the patch embedding is a Linear layer
        assert kinds["Linear"]["integer_macs"] == kinds["Linear"]["macs"] > 0
        share = {"int8-onnxruntime": 0, "int8-openvino": 0.5}[name]  # queries times keys, of both products
        assert kinds["attention"]["integer_macs"] == share * kinds["attention"]["macs"]
        assert 0.8 < found[name]["integer_share"] < 1
    assert "multiply-adds" not in edgevit("inspect", quantized).out  # no warning
    shown = edgevit("inspect", quantized, "--kernels", "--variant", "int8-openvino").out
    assert "of the multiply-adds (Linear 100 %, attention 50 %)" in shown


def test_nothing_of_float32_runs_in_integers(edgevit, exported):
    said = edgevit("inspect", exported, "--kernels")
    linears = 4 * SPEC.depth + 1
    assert f"float32: 0 of {linears} Linear layers in integers, 0 % of the multiply-adds" in " ".join(said.out.split())
    (found,) = edgevit("inspect", exported, "--kernels", "--json").data()["variants"]
    kinds = {each["kind"]: each for each in found["kernels"]["arithmetic"]}
    rows, columns = SPEC.grid
    tokens, width = rows * columns + 1, SPEC.width
    products = 4 * width + 2 * 4 * width  # of queries, keys, values and proj, and of the MLP, by each token's numbers
    linear = SPEC.depth * tokens * width * products + width * SPEC.classes
    patches = rows * columns * width * 3 * SPEC.patch_size[0] * SPEC.patch_size[1]
    assert sum(each["macs"] for each in kinds.values()) == linear + patches + SPEC.depth * 2 * tokens**2 * width
    assert {each["integer_macs"] for each in kinds.values()} == {0}
    assert found["integer_share"] == 0


def test_what_stays_float_of_a_hybrid_is_named(edgevit, hybrid, tmp_path):
    bundle, labels = tmp_path / "hybrid.edgevit", tmp_path / "labels.txt"
    labels.write_text("\n".join(load_shapes("train").class_names))
    assert edgevit("export", hybrid, "-o", bundle, "--labels", labels).code == 0
    quantize = ("quantize", bundle, "--data", SHAPES, "--samples", "8", "--dialect", "portable")
    done = edgevit(*quantize, "--min-integer-share", "0.8")
    said = " ".join(done.out.split())
    assert done.code == 1
    assert "warning: " in said
    assert "35 convolutions, " in said
    assert "stay float: this precision or dialect quantizes Linear layers only" in said
    assert "37 of 37 Linear layers and 0 of 35 convolutions in integers, " in said
    assert "of the multiply-adds run in integers, 80 % wanted" in said
    assert "int8-portable" in [variant.name for variant in Bundle.open(bundle).manifest.variants]
    share = Bundle.open(bundle).variant("int8-portable").kernels.integer_share
    assert 0 < share < 0.5
    validate = ("validate", bundle, "--data", SHAPES, "--samples", "8", "--max-drop", "100", "--json")
    assert edgevit(*validate, "--min-integer-share", str(share - 0.01)).code == 0
    failed = edgevit(*validate, "--min-integer-share", str(share + 0.01))
    assert failed.code == 1
    assert list(failed.data()["shares_missed"]) == ["int8-portable"]
    assert {each["integer_share"] for each in failed.data()["variants"]} == {None, share}
    edgevit("report", bundle)
    assert "quantizes Linear layers only" in (bundle / "report" / "index.html").read_text()
    variants = json.loads((bundle / "report" / "report.json").read_text())["variants"]
    assert {each["name"]: each["integer_share"] for each in variants}["int8-portable"] == share


def test_a_precision_without_integers_has_no_share_to_reach(edgevit, exported):
    done = edgevit("quantize", exported, "--precision", "int4-weights", "--min-integer-share", "0.5")
    assert done.code == 2
    assert "int4-weights multiplies in floating point: it has no share of integers to reach" in done.err


def test_a_bundle_of_before_has_no_share_and_no_warning(edgevit, quantized):
    manifest = json.loads((quantized / "manifest.json").read_text())
    for variant in manifest["variants"]:
        if variant.get("kernels"):
            del variant["kernels"]["arithmetic"]
    (quantized / "manifest.json").write_text(json.dumps(manifest))
    assert edgevit("inspect", quantized).code == 0
    shown = edgevit("inspect", quantized, "--kernels", "--variant", "int8-openvino").out
    assert "in integers, an unknown share of the multiply-adds" in shown
    done = edgevit(
        "validate", quantized, "--data", SHAPES, "--samples", "4", "--max-drop", "100", "--min-integer-share", "0.1"
    )
    assert done.code == 1
    assert "is not known, 10 % wanted" in " ".join(done.out.split())


def test_shares_are_never_rounded_up():
    linear = Arithmetic(kind="Linear", macs=10_000, integer_macs=9_999, nodes=2, float_nodes=1, largest_float=("a",))
    kernels = Kernels(linears=2, integer_linears=1, float_linears=("a",), arithmetic=(linear,))
    assert in_integers(kernels) == "1 of 2 Linear layers in integers, 99 % of the multiply-adds (Linear 99 %)"
