"""Limits that INT8 must keep, the layers that go back to float for them, and what users get wrong about both."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
from tiny import SHAPES, SPEC, content

from edgevit.bundle.store import Bundle
from edgevit.cli.app import run
from edgevit.data.batches import Unreadable
from edgevit.data.shapes import load_shapes
from edgevit.quantization.plan import QuantizationPlan
from edgevit.recipes import load_recipe
from edgevit.stages.fallback import AccuracyCriteria
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.stages.rules import Rules
from edgevit.targets import load_target

BAD = "blocks.1.mlp.fc2"
LINEARS = 4 * SPEC.depth + 2  # with the head and the patch embedding
LIMIT = ("--max-kl", "0.003")  # nats: without BAD in integers the model keeps it, with it does not


@pytest.fixture(scope="module")
def planted_checkpoint(tmp_path_factory, tiny_checkpoint):
    """Return the checkpoint with an enormous channel in front of ``BAD`` that it ignores.

    INT8 has no steps left for the others, nor has the second product of what that leaves.
    """
    import torch

    from edgevit.models.loading import load_checkpoint

    whole = load_checkpoint(str(tiny_checkpoint))
    weights = dict(whole.weights)
    bias, weight = f"{BAD.replace('fc2', 'fc1')}.bias", f"{BAD}.weight"
    weights[bias] = weights[bias].index_fill(0, torch.tensor([3]), 3e4)
    weights[weight] = weights[weight].index_fill(1, torch.tensor([3]), 0.0)
    path = tmp_path_factory.mktemp("planted") / "planted.safetensors"
    replace(whole, weights=weights).save(path)
    return path


@pytest.fixture(scope="module")
def planted_bundle(planted_checkpoint):
    path = planted_checkpoint.with_suffix(".edgevit")
    assert run(["export", str(planted_checkpoint), "-o", str(path), "--data", SHAPES, "--json"]) == 0
    return path


@pytest.fixture
def planted(tmp_path, planted_bundle):
    """Return a bundle of the planted model with float32 alone, to be changed at will."""
    return shutil.copytree(planted_bundle, tmp_path / "planted.edgevit")


@pytest.fixture
def unlabelled(pictures):
    path = pictures[0].with_name("list.csv")
    path.write_text("path\n" + "".join(f"{picture.name}\n" for picture in pictures))
    return path


def test_the_layer_that_int8_ruins_goes_back_to_float_and_everyone_is_told(edgevit, planted):
    done = edgevit("quantize", planted, "--data", SHAPES, *LIMIT, "--json")
    assert done.code == 0, done.err
    assert "Measuring accuracy on 24 images of shapes" in done.err
    assert "Calibrating on 72 images" in done.err
    assert "All layers in integers: KL is" in done.err
    made = {variant["name"]: variant for variant in done.data()["variants"]}
    for name in ("int8-onnxruntime", "int8-openvino"):
        (fallback,) = made[name]["fallback"]
        assert fallback["layer"] == BAD
        assert f"number 1 of {LINEARS}" in fallback["reason"]
        assert made[name]["limit"]["passed"]
        assert made[name]["kernels"]["float_linears"] == [BAD]
        assert made[name]["kernels"]["integer_linears"] == LINEARS - 1
    assert (made["float32-openvino"]["fallback"], made["float32-openvino"]["limit"]) == ([], None)
    assert done.data()["sensitivity"][0]["layer"] == BAD

    shown = edgevit("inspect", planted)
    assert f"int8-onnxruntime, int8-openvino: {BAD} stays float: number 1 of {LINEARS}" in shown.out
    assert "run in float" not in shown.out  # which would be a failure
    built = edgevit("build", planted, "--target", "x86-openvino", "--precision", "int8", "--json")
    assert built.code == 0
    assert built.data()["variants"][0]["fallback"] == made["int8-openvino"]["fallback"]
    assert edgevit("report", planted).code == 0
    assert "Kept float" in (planted / "report/index.html").read_text()
    data = json.loads((planted / "report/report.json").read_bytes())
    assert data["variants"][-1]["fallback"][0]["layer"] == BAD


def test_a_limit_that_cannot_be_kept_ends_with_1_and_keeps_the_best(edgevit, planted):
    done = edgevit("quantize", planted, "--data", SHAPES, "--max-kl", "0", "--dialect", "onnxruntime")
    assert done.code == 1
    assert "int8-onnxruntime: limit missed: KL is " in done.out
    assert "0 allowed" in done.out
    assert "would hold" in done.out
    assert "try: more calibration images" in done.out
    variant = Bundle.open(planted).variant("int8-onnxruntime")
    assert not variant.limit.passed
    assert variant.kernels.integer_linears >= 1
    assert BAD in {fallback.layer for fallback in variant.fallback}
    assert "limit missed" in edgevit("inspect", planted).out


def test_points_of_top1_decide_where_there_are_labels(edgevit, exported):
    done = edgevit("quantize", exported, "--data", SHAPES, "--max-drop", "100", "--dialect", "onnxruntime", "--json")
    assert done.code == 0, done.err
    assert "each of which is 4.2 points" in done.err
    variant = done.data()["variants"][-1]
    assert variant["fallback"] == []
    assert "100 allowed" in variant["limit"]["reason"]
    assert "top-1" in variant["limit"]["reason"]
    assert done.data()["sensitivity"] == []  # nothing had to be ranked


def test_all_layers_costs_are_ranked(edgevit, planted):
    recipe = planted.with_name("lax.toml")
    recipe.write_text("[rewrites]\nchannel_equalization = 0.125\n")
    arguments = ("quantize", planted, "--data", SHAPES, "--samples", "16", "--dialect", "portable", "--sensitivity")
    arguments += ("--recipe", recipe)
    done = edgevit(*arguments, "--json")
    assert done.code == 0, done.err
    costs = done.data()["sensitivity"]
    assert len(costs) == LINEARS - 1  # signed activations leave the patch embedding a convolution
    assert {cost["scheme"] for cost in costs} == {"symmetric"}
    assert costs[0]["layer"] == BAD
    kls = [cost["kl"] for cost in costs]
    assert kls == sorted(kls, reverse=True)
    assert all(cost["sqnr_db"] > 0 for cost in costs[1:])
    (variant,) = done.data()["variants"]
    assert (variant["fallback"], variant["limit"]) == ([], None)  # this recipe has no limits
    assert "What each layer costs alone (symmetric activations)" in edgevit(*arguments).out


def test_the_default_recipe_returns_it_by_itself(edgevit, planted):
    done = edgevit("quantize", planted, "--data", SHAPES, "--json")
    assert done.code == 0, done.err
    assert "int8-onnxruntime may be too far from float32: KL is " in done.err
    for variant in done.data()["variants"]:
        if "int8" in variant["name"]:
            assert [layer["layer"] for layer in variant["fallback"]] == [BAD]
            assert variant["limit"]["passed"]
            assert "0.002 allowed" in variant["limit"]["reason"]
    measured = edgevit("validate", planted, "--data", SHAPES, "--json").data()["variants"]
    assert all(each["kl"] < 0.004 for each in measured if "int8" in each["name"])


def test_a_model_that_keeps_the_recipes_limit_is_not_searched(edgevit, exported):
    done = edgevit("quantize", exported, "--data", SHAPES, "--dialect", "onnxruntime", "--json")
    assert "too far" not in done.err
    (variant,) = [each for each in done.data()["variants"] if "int8" in each["name"]]
    assert (variant["fallback"], variant["limit"]) == ([], None)


def test_a_verdict_is_not_another_engines(edgevit, planted):
    assert edgevit("quantize", planted, "--data", SHAPES, "--dialect", "onnxruntime").code == 0
    done = edgevit("build", planted, "--target", "x86-openvino", "--precision", "int8", "--json")
    assert done.code == 0, done.err
    assert "The limit was judged in the dialect onnxruntime" in done.err
    manifest = Bundle.open(planted)
    assert manifest.variant("int8-openvino").limit is None
    assert manifest.variant("int8-openvino").fallback == manifest.variant("int8-onnxruntime").fallback
    assert manifest.variant("int8-onnxruntime").limit.passed


@pytest.mark.parametrize("broken", [[9], [0, 9]])
def test_images_to_judge_by_that_cannot_be_read_are_made_up_for(edgevit, exported, tmp_path, broken):
    for index in range(10):
        load_shapes("test", "size=16,count=16").image(index).save(tmp_path / f"{index}.png")
    for index in broken:
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{index}.png\n" for index in range(10)))
    for seed in range(3):
        arguments = ("--data", tmp_path / "list.csv", "--samples", "9", "--seed", seed, "--dialect", "onnxruntime")
        done = edgevit("quantize", exported, *arguments)
        assert done.code == 0, done.err


def test_what_does_not_run_here_is_judged_by_its_portable_form(planted, monkeypatch):
    """As on a machine without the device that a target is for."""
    monkeypatch.setattr("edgevit.stages.build.asked", lambda *_: nullcontext(None))
    monkeypatch.setattr("edgevit.stages.build.check", lambda *_: None)
    images = DataSource(SHAPES, "train", Unreadable(), samples=32)
    rules = Rules.of(load_recipe("default"), "int8", classes=SPEC.classes)
    made = quantize(Bundle.open(planted), images, {"portable": load_target("portable")}, rules=rules)
    (variant,) = [each for each in made.variants if each.precision == "int8"]
    assert BAD in [layer.layer for layer in variant.fallback]


def test_both_ways_to_store_activations_are_searched(planted):
    targets = {name: load_target(name) for name in ("x86-onnxruntime", "tensorrt")}
    images = DataSource(SHAPES, "train", Unreadable())
    result = quantize(
        Bundle.open(planted), images, targets, rules=Rules(criteria=AccuracyCriteria(max_kl=float(LIMIT[1])))
    )
    assert result.sensitivity.keys() == {"asymmetric", "symmetric"}
    for name in ("int8-onnxruntime", "int8-tensorrt"):
        assert [fallback.layer for fallback in result.bundle.variant(name).fallback] == [BAD]
    for file in ("plan.json", "plan-symmetric.json"):
        plan = QuantizationPlan.load(result.bundle.verify_extra(f"calibration/{file}").path)
        assert [each.layer for each in plan.float_layers()] == [BAD]
    names = {file.path.rpartition("/")[2] for file in result.bundle.manifest.extra}
    assert names == {"table.npz", "plan.json", "plan-symmetric.json", "model.onnx", "model-symmetric.onnx"}


def test_without_labels_it_must_be_said_how_far_logits_may_move(edgevit, exported, unlabelled):
    before = content(exported)
    arguments = ("quantize", exported, "--data", unlabelled, "--dialect", "onnxruntime", "--max-drop", "1")
    message, remedy = edgevit(*arguments).failure()
    assert "no labels" in message
    assert "--max-kl" in remedy
    assert content(exported) == before
    done = edgevit(*arguments, "--max-kl", "1")
    assert done.code == 0, done.err
    assert "only --max-kl counts" in done.err
    assert "KL is" in done.out


def test_labels_that_are_not_the_models_cannot_tell_its_top1(edgevit, exported, pictures):
    images = pictures[0].with_name("list.csv")
    images.write_text("path,label\n" + "".join(f"{picture.name},dog\n" for picture in pictures))
    done = edgevit("quantize", exported, "--data", images, "--max-drop", "1")
    assert done.code == 2
    message, remedy = done.failure()
    assert "'dog'" in message
    assert "--max-kl" in remedy


def test_an_embedding_model_keeps_a_cosine(edgevit, embedding):
    refused = [edgevit("quantize", embedding, "--data", SHAPES, limit, "1") for limit in ("--max-drop", "--max-kl")]
    for done in refused:
        assert done.code == 2
        assert "--min-cosine" in done.failure()[1]
    done = edgevit(
        *("quantize", embedding, "--data", SHAPES, "--dialect", "onnxruntime", "--min-cosine", "0.5", "--sensitivity"),
        "--json",
    )
    assert done.code == 0, done.err
    assert "the mean cosine is 0.9" in done.data()["variants"][-1]["limit"]["reason"]
    costs = done.data()["sensitivity"]
    assert {cost["kl"] for cost in costs} == {None}
    assert [cost["sqnr_db"] for cost in costs] == sorted(cost["sqnr_db"] for cost in costs)


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic"])
def test_what_has_no_plan_of_layers_takes_no_limit(edgevit, exported, precision):
    before = content(exported)
    done = edgevit("quantize", exported, "--data", SHAPES, "--precision", precision, "--max-drop", "1")
    assert done.code == 2
    assert "for int8" in done.failure()[0]
    assert content(exported) == before


def test_a_recipe_can_ask_for_it_in_the_pipeline(edgevit, planted_checkpoint, tmp_path):
    recipe = tmp_path / "own.toml"
    fields = 'description = "d"\nsamples = 32\nobserver = "minmax"\nseed = 0\nwhy = "w"\n'
    recipe.write_text(f"{fields}max_kl = {LIMIT[1]}\n")
    path = tmp_path / "whole.edgevit"
    done = edgevit(
        *("pipeline", planted_checkpoint, "--data", SHAPES, "-o", path, "--target", "x86-onnxruntime"),
        *("--recipe", recipe, "--duration", "0.02", "--max-drop", "100", "--json"),
    )
    assert done.code == 0, done.err
    variant = done.data()["variants"][-1]
    assert [fallback["layer"] for fallback in variant["fallback"]] == [BAD]
    recipe.write_text(f"{fields}max_kl = -1\n")
    assert edgevit("quantize", path, "--data", SHAPES, "--recipe", recipe).code == 2
