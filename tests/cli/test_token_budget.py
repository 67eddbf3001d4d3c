"""``--token-budget`` as a user types it."""

import json

import pytest
from tiny import SHAPES

from edgevit.cli.values import token_budgets_called
from edgevit.errors import DoesNotPayError
from edgevit.stages import quantize_merged, token_budget


def test_quantize_merges_tokens_and_inspect_and_build_know_it(edgevit, quantized):
    made = edgevit(
        "quantize", quantized, "--data", SHAPES, "--dialect", "onnxruntime", "--token-budget", "0.8", "--json"
    )
    (variant,) = json.loads(made.out)["variants"]
    assert variant["name"] == "int8-onnxruntime-tokens80"
    merging = variant["token_merging"]
    assert merging["budget"] == 0.8
    assert merging["share"] <= 0.82
    built = edgevit("build", quantized, "--target", "x86-onnxruntime", "--token-budget", "0.8")
    assert "int8-onnxruntime-tokens80" in built.out
    assert built.code == 0


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("1.2", "not a share of the multiply-adds between 0 and 1"),
        ("0", "not a share of the multiply-adds between 0 and 1"),
        ("-1", "not a share of the multiply-adds between 0 and 1"),
        ("nan", "not a share of the multiply-adds between 0 and 1"),
        ("0.123", "in whole per cent"),
        ("much", "is no token budget"),
        ("0.01", "is too small for this model"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_with_what_to_type(edgevit, quantized, budget, said):
    found = edgevit("quantize", quantized, "--data", SHAPES, "--dialect", "onnxruntime", "--token-budget", budget)
    assert found.code == 2
    assert said in " ".join(found.err.split())
    assert "try:" in found.err


def test_a_budget_in_per_cent_is_the_same():
    assert token_budgets_called(["80%", "0.8", "auto", "0.75"]) == [0.8, "auto", 0.75]


def test_the_pipeline_makes_them_beside_the_others(edgevit, tiny_checkpoint, tmp_path):
    options = ("--data", SHAPES, "--target", "x86-onnxruntime", "--duration", "0.02", "--max-drop", "100")
    place = tmp_path / "tiny.edgevit"
    done = edgevit("pipeline", tiny_checkpoint, *options, "--token-budget", "0.8", "-o", place, "--json")
    assert done.code == 0, done.err
    found = {each["name"]: each for each in done.data()["variants"]}
    assert found["int8-onnxruntime-tokens80"]["accuracy"]["images"] == found["int8-onnxruntime"]["accuracy"]["images"]
    assert found["int8-onnxruntime-tokens80"]["latency"] is not None


def test_the_pipeline_goes_on_where_a_budget_cannot_be(edgevit, tiny_checkpoint, tmp_path):
    options = ("--data", SHAPES, "--target", "x86-onnxruntime", "--duration", "0.02", "--max-drop", "100")
    place = tmp_path / "tiny.edgevit"
    done = edgevit("pipeline", tiny_checkpoint, *options, "--token-budget", "0.01", "-o", place, "--json")
    assert done.code == 1
    (failed,) = done.data()["failed"]
    assert failed["name"] == "int8, token budget 0.01"
    assert "too small for this model" in failed["error"]
    assert {each["name"] for each in done.data()["variants"]} >= {"float32", "int8-onnxruntime"}


def test_what_auto_refuses_is_no_failure_where_its_budget_was_asked_for_too(
    edgevit, tiny_checkpoint, tmp_path, monkeypatch
):
    def refuse(_, made):
        return {name: DoesNotPayError("it is slow", remedy="use another") for name in made}

    monkeypatch.setattr(quantize_merged._Merging, "_refused", refuse)
    monkeypatch.setattr(token_budget, "_latencies", lambda *_: [])
    monkeypatch.setattr(token_budget, "_MERGE_TIME", 0.001)
    monkeypatch.setattr(quantize_merged, "BUDGETS", (0.8,))
    options = ("--data", SHAPES, "--target", "x86-onnxruntime", "--duration", "0.02", "--max-drop", "100")
    budgets = ("--token-budget", "auto", "--token-budget", "0.8")
    done = edgevit("pipeline", tiny_checkpoint, *options, *budgets, "-o", tmp_path / "tiny.edgevit", "--json")
    found = done.data()
    assert "int8-onnxruntime-tokens80" in {each["name"] for each in found["variants"]}
    assert found["does_not_pay"] == []


def test_a_pipeline_without_int8_has_nothing_to_merge_tokens_in(edgevit, tiny_checkpoint, tmp_path):
    options = ("--data", SHAPES, "--precision", "fp16", "--token-budget", "0.8", "-o", tmp_path / "tiny.edgevit")
    done = edgevit("pipeline", tiny_checkpoint, *options)
    assert done.code == 2
    assert "--precision int8, too" in " ".join(done.err.split())
    assert not (tmp_path / "tiny.edgevit").exists()


def test_other_precisions_and_no_images_are_refused(edgevit, quantized):
    found = edgevit("quantize", quantized, "--token-budget", "0.8", "--precision", "int8-weights")
    assert found.code == 2
    assert "tokens are merged in int8 and fp8" in " ".join(found.err.split())
    found = edgevit("quantize", quantized, "--token-budget", "0.8")
    assert found.code == 2
    assert "needs calibration images" in " ".join(found.err.split())
    assert "--data IMAGES --token-budget 0.8" in " ".join(found.err.split())
    found = edgevit("quantize", quantized, "--student", "my run")
    assert "--data IMAGES --student 'my run'" in " ".join(found.err.split())


def test_a_student_that_is_none_is_refused(edgevit, quantized, tmp_path):
    found = edgevit("quantize", quantized, "--data", SHAPES, "--student", tmp_path)
    assert found.code == 2
    assert "there is no run of edgevit train" in " ".join(found.err.split())
    found = edgevit("quantize", quantized, "--data", SHAPES, "--student", tmp_path, "--token-budget", "0.8")
    assert found.code == 2
    assert "leave --token-budget and --precision out" in " ".join(found.err.split())


def test_a_budget_that_does_not_pay_is_said_without_an_empty_table(edgevit, quantized):
    options = ("--dialect", "onnxruntime", "--token-budget", "auto", "--max-kl", "1e-9")
    done = edgevit("quantize", quantized, "--data", SHAPES, *options)
    first, *_ = done.out.splitlines()
    assert first.startswith("int8-onnxruntime with merged tokens is not made: ")
    assert "variant" not in done.out
    assert "next: edgevit validate" in done.out
