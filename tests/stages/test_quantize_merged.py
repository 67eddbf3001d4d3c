"""Token budgets from the calibration images to the variants; see tests/graph for what merging does to a graph."""

import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from notes import Notes
from tiny import SHAPES, content

from edgevit.bundle.manifest import TokenMerging
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.errors import BundleError, DoesNotPayError, GraphError, InputError, VerificationError
from edgevit.graph.linears import open_graph
from edgevit.quantization.plan import QuantizationPlan
from edgevit.recipes import load_recipe
from edgevit.runtime import load
from edgevit.stages import calibrate, token_budget
from edgevit.stages import quantize_merged as quantize_merged_module
from edgevit.stages.build import build
from edgevit.stages.fallback import AccuracyCriteria
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.stages.quantize_merged import quantize_merged
from edgevit.stages.rules import Rules
from edgevit.stages.validate import validate
from edgevit.targets import load_target

IMAGES = DataSource(SHAPES, "train", Unreadable(), samples=16)
TARGETS = {"x86-onnxruntime": load_target("x86-onnxruntime")}
RULES = Rules.of(load_recipe("default"), "int8", classes=8)
WIDE = AccuracyCriteria(min_cosine=0.1)
MERGING = TokenMerging(budget=0.8, share=0.8, schedule=(6, 0))


def test_a_budget_adds_a_variant_beside_the_one_with_all_tokens(quantized):
    before = Bundle.open(quantized)
    made = quantize_merged(before, IMAGES, TARGETS, 0.8, rules=RULES)
    assert made.names == ("int8-onnxruntime-tokens80",)
    (variant,) = made.variants
    merging = variant.token_merging
    assert merging is not None
    assert merging.share <= 0.82
    assert merging.schedule[0] > 0
    assert {each.name for each in before.manifest.variants} < {each.name for each in made.bundle.manifest.variants}
    plan = QuantizationPlan.load(made.bundle.verify_extra("calibration-tokens80/plan.json").path)
    assert plan.token_merging == merging
    with load(quantized, variant=variant.name) as model:
        golden = made.bundle.golden()
        found = model.infer(model.prepare(golden.images))
    assert np.corrcoef(found.ravel(), golden.logits.ravel())[0, 1] > 0.9


def test_the_engines_file_has_as_many_tokens_fewer(quantized):
    bundle = quantize(Bundle.open(quantized), IMAGES, TARGETS, rules=RULES, merging=MERGING).bundle
    file = bundle.verify_files("int8-onnxruntime-tokens80")
    with open_graph(file) as model:
        sizes = [value.shape for node in model.graph for value in node.outputs if node.op_type == "Log"]
    assert [size[1] for size in sizes if size is not None] in ([], [11])  # 17 tokens, 6 merged
    with open_graph(bundle.verify_extra("calibration-tokens80/model.onnx").path) as model:
        logs = [node for node in model.graph if node.op_type == "Log"]
    assert len(logs) == 1


def test_ranges_are_those_of_merged_tokens(quantized):
    bundle = quantize(Bundle.open(quantized), IMAGES, TARGETS, rules=RULES).bundle
    bundle = quantize(bundle, IMAGES, TARGETS, rules=RULES, merging=MERGING).bundle
    merged, whole = (
        QuantizationPlan.load(bundle.verify_extra(f"{folder}/plan.json").path)
        for folder in ("calibration-tokens80", "calibration")
    )
    scales = [
        {each.name: each.quantization.activation_scale for each in plan.linears if each.quantization}
        for plan in (merged, whole)
    ]
    changed = {name for name in scales[0] if scales[0][name] != scales[1].get(name)}
    assert "blocks.1.mlp.fc1" in changed  # behind the merge
    assert "blocks.0.attn.qkv" not in changed  # before it


def test_a_build_takes_what_was_decided_for_its_budget(quantized):
    bundle = quantize(Bundle.open(quantized), IMAGES, TARGETS, rules=RULES, merging=MERGING).bundle
    built = build(bundle, "x86-onnxruntime", TARGETS["x86-onnxruntime"], "int8", token_budget=0.8).bundle
    assert built.variant("int8-onnxruntime-tokens80").token_merging == MERGING
    with pytest.raises(BundleError, match="has not been calibrated") as caught:
        build(bundle, "x86-onnxruntime", TARGETS["x86-onnxruntime"], "int8", token_budget=0.7)
    assert "--token-budget 0.7" in caught.value.remedy
    with pytest.raises(InputError, match="tokens are merged in int8 and fp8"):
        build(bundle, "x86-onnxruntime", TARGETS["x86-onnxruntime"], "float32", token_budget=0.8)


def test_a_variant_with_merged_tokens_is_validated_as_any_other(quantized):
    bundle = quantize(Bundle.open(quantized), IMAGES, TARGETS, rules=RULES, merging=MERGING).bundle
    validated, _ = validate(bundle, DataSource(SHAPES, "test", Unreadable(), samples=32))
    accuracy = validated.variant("int8-onnxruntime-tokens80").accuracy
    assert accuracy is not None
    assert accuracy.agreement is not None
    assert accuracy.kl is not None
    assert accuracy.kl > 0


def _takes(monkeypatch, ratio: float) -> None:
    """Let merged tokens take ``ratio`` of the time of all, in every race."""
    times = np.linspace(1.0, 1.1, 15)
    monkeypatch.setattr(quantize_merged_module, "time_in_turns", lambda *_: np.stack([times, ratio * times], axis=1))


def _expect(monkeypatch, merge_time: float) -> None:
    """Let merging take that share of the model's time in what is expected."""
    monkeypatch.setattr(token_budget, "_latencies", lambda *_: [])
    monkeypatch.setattr(token_budget, "_MERGE_TIME", merge_time)


def test_that_trained_weights_are_replaced_is_said(quantized):
    bundle, lost = Bundle.open(quantized), "and the weights that were trained for its budget"
    trained = msgspec.structs.replace(MERGING, student_sha256="0" * 64)
    student = bundle.verify_float32().path
    bundle = quantize(bundle, IMAGES, TARGETS, rules=RULES, merging=trained, student=student).bundle
    again, plain = Notes(), Notes()
    bundle = quantize(bundle, IMAGES, TARGETS, rules=RULES, merging=trained, student=student, progress=again).bundle
    quantize(bundle, IMAGES, TARGETS, rules=RULES, merging=MERGING, progress=plain)
    assert "int8-onnxruntime-tokens80 replaces the one of that name" in again.said
    assert f"int8-onnxruntime-tokens80 replaces the one of that name, {lost}" in plain.said


def test_auto_declines_where_merging_takes_more_than_it_saves(quantized, monkeypatch):
    _expect(monkeypatch, 1.0)
    bundle = Bundle.open(quantized)
    made = quantize_merged(bundle, IMAGES, TARGETS, "auto", rules=RULES)
    assert made.names == ()
    (error,) = made.failed.values()
    assert isinstance(error, DoesNotPayError)
    assert "what merging takes is more than it saves" in error.message
    assert error.remedy == "use int8-onnxruntime"
    assert made.bundle.manifest == bundle.manifest


def test_variants_with_all_tokens_that_auto_makes_first_are_named(exported, monkeypatch):
    _expect(monkeypatch, 1.0)
    rules = replace(RULES, criteria=AccuracyCriteria(max_kl=1e-12))
    made = quantize_merged(Bundle.open(exported), IMAGES, TARGETS, "auto", rules=rules)
    assert "int8-onnxruntime" in made.names
    assert {each.name for each in made.bundle.manifest.variants} == {"float32", *made.names}
    assert not made.passed  # INT8 with all tokens misses the limit
    assert list(made.failed) == ["int8-onnxruntime with merged tokens"]


def test_auto_declines_where_the_engine_is_not_shown_to_be_faster(quantized, monkeypatch):
    _expect(monkeypatch, 0.001)
    _takes(monkeypatch, 1.0)
    bundle = Bundle.open(quantized)
    rules = replace(RULES, criteria=AccuracyCriteria(max_kl=1.0))
    made = quantize_merged(bundle, IMAGES, TARGETS, "auto", rules=rules)
    assert made.names == ()
    (error,) = made.failed.values()
    assert "is not shown to be faster with onnxruntime here: it takes 1.00 of the time" in error.message
    assert made.passed
    assert Bundle.open(quantized).manifest == bundle.manifest


def test_auto_goes_on_without_a_target_that_takes_no_int8_of_the_model(dense, monkeypatch):
    _expect(monkeypatch, 0.001)
    _takes(monkeypatch, 0.9)
    bundle = Bundle.open(dense)
    targets = {**TARGETS, "rtx-desktop": load_target("rtx-desktop")}
    typed = bundle.manifest.typed_outputs
    rules = replace(Rules.of(load_recipe("default"), "int8", classes=0, typed=typed), criteria=WIDE)
    if all(each.name != "int8-onnxruntime" for each in bundle.manifest.variants):
        bundle = quantize(bundle, IMAGES, TARGETS, rules=rules).bundle
    made = quantize_merged(bundle, IMAGES, targets, "auto", rules=rules)
    assert [each.partition("-tokens")[0] for each in made.names] == ["int8-onnxruntime"]
    (failed,) = made.failed
    assert failed == "int8-tensorrt-rtx-sm120"
    with pytest.raises(GraphError, match="one row of numbers"):
        quantize_merged(bundle, IMAGES, {"rtx-desktop": targets["rtx-desktop"]}, "auto", rules=rules)


def test_auto_takes_the_smallest_budget_that_keeps_the_limit(quantized, monkeypatch):
    _expect(monkeypatch, 0.001)
    _takes(monkeypatch, 0.9)
    wide, narrow = (
        quantize_merged(Bundle.open(quantized), IMAGES, TARGETS, "auto", rules=replace(RULES, criteria=criteria))
        for criteria in (AccuracyCriteria(max_kl=5.0), AccuracyCriteria(max_kl=0.02))
    )
    (of_wide,), (of_narrow,) = wide.variants, narrow.variants
    assert of_wide.token_merging is not None
    assert of_narrow.token_merging is not None
    assert of_wide.token_merging.budget < of_narrow.token_merging.budget
    assert of_narrow.limit is not None
    assert of_narrow.limit.passed


def test_auto_declines_where_no_budget_keeps_the_limit(quantized, monkeypatch):
    _expect(monkeypatch, 0.001)
    rules = replace(RULES, criteria=AccuracyCriteria(max_kl=1e-9))
    made = quantize_merged(Bundle.open(quantized), IMAGES, TARGETS, "auto", rules=rules)
    assert made.names == ()
    (error,) = made.failed.values()
    assert "no budget keeps the limit" in error.message


def test_a_variant_that_is_not_faster_or_misses_the_limit_is_not_added(quantized, monkeypatch):
    monkeypatch.setattr(calibrate, "EVERY_S", 0)  # what was seen of each image is kept, and to go
    bundle = Bundle.open(quantized)

    def refused(made):
        return {name: DoesNotPayError("it is slow", remedy="use another") for name in made}

    made = quantize(bundle, IMAGES, TARGETS, rules=RULES, merging=MERGING, refused=refused)
    assert made.names == ()
    assert list(made.failed) == ["int8-onnxruntime-tokens80"]
    assert Bundle.open(quantized).manifest == bundle.manifest
    assert not (quantized / ".calibrating").exists()


def test_a_limit_that_merging_alone_breaks_is_said_before_anything_is_rounded(quantized):
    rules = replace(RULES, criteria=AccuracyCriteria(max_kl=1e-9))
    with pytest.raises(VerificationError, match="costs too much before anything is rounded"):
        quantize_merged(Bundle.open(quantized), IMAGES, TARGETS, 0.8, rules=rules)


def test_budgets_that_cannot_be_are_refused(quantized):
    bundle = Bundle.open(quantized)
    with pytest.raises(InputError, match="too small for this model"):
        quantize_merged(bundle, IMAGES, TARGETS, 0.01, rules=RULES)
    with pytest.raises(InputError, match="needs calibration images"):
        quantize_merged(bundle, None, TARGETS, 0.8, rules=RULES)
    with pytest.raises(InputError, match="tokens are merged in int8 and fp8, not in fp16"):
        quantize_merged(bundle, IMAGES, TARGETS, 0.8, "fp16", rules=RULES)


def test_a_budget_that_is_too_small_is_answered_with_one_that_is_not(quantized, monkeypatch):
    bundle = Bundle.open(quantized)
    with pytest.raises(InputError, match="too small for this model") as refused:
        quantize_merged(bundle, IMAGES, TARGETS, 0.01, rules=RULES)
    budget = re.search(r"--token-budget (0\.\d+), say", refused.value.remedy)
    assert budget is not None
    assert quantize_merged(bundle, IMAGES, TARGETS, float(budget[1]), rules=RULES).names
    monkeypatch.setattr(token_budget, "find_schedule", lambda *_: None)
    with pytest.raises(InputError) as refused:
        quantize_merged(bundle, IMAGES, TARGETS, 0.95, rules=RULES)
    assert "leave --token-budget out" in refused.value.remedy


def test_a_budget_is_had_where_no_time_is_seen_to_be_saved(quantized, monkeypatch):
    monkeypatch.setattr(token_budget, "_latencies", lambda *_: [])
    monkeypatch.setattr(token_budget, "_in_shares", lambda _, work, __: (np.full_like(work, 1 / len(work)), 0.01))
    (variant,) = quantize_merged(Bundle.open(quantized), IMAGES, TARGETS, 0.8, rules=RULES).variants
    assert variant.token_merging is not None
    assert any(variant.token_merging.schedule)
    assert variant.token_merging.share < 0.9


def test_a_model_without_attention_of_the_usual_form_is_refused(quantized, monkeypatch):
    from edgevit.graph import token_stream

    monkeypatch.setattr(token_stream, "find_attentions", lambda _: [])
    with pytest.raises(GraphError, match="tokens cannot be merged"):
        quantize_merged(Bundle.open(quantized), IMAGES, TARGETS, 0.8, rules=RULES)


def test_auto_makes_nothing_of_a_model_whose_tokens_cannot_be_merged(exported, monkeypatch):
    from edgevit.graph import token_stream

    monkeypatch.setattr(token_stream, "find_attentions", lambda _: [])
    before = content(exported)
    with pytest.raises(GraphError, match="tokens cannot be merged"):
        quantize_merged(Bundle.open(exported), IMAGES, TARGETS, "auto", rules=RULES)
    assert content(exported) == before
