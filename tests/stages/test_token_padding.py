"""Rows are added to the tokens where the engine is shown to be faster so, and nowhere else."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from notes import Notes
from tiny import SHAPES

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.errors import BundleError
from edgevit.quantization.kernel_check import KernelError
from edgevit.recipes import FallbackLimits, load_recipe
from edgevit.report.table import padded_tokens
from edgevit.runtime import load
from edgevit.stages import build, token_padding
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.stages.rules import Rules
from edgevit.targets import load_target

IMAGES = DataSource(SHAPES, "train", Unreadable(), samples=8)
TARGETS = {name: load_target(name) for name in ("x86-openvino", "x86-onnxruntime")}
RULES = Rules.of(load_recipe("default"), "int8", classes=8)
FASTER, NOT_CLEARLY = 0.9, 0.99


@pytest.fixture
def takes(monkeypatch):
    """Return a function that lets padded tokens take a share of the time; the model has 17 of them."""
    monkeypatch.setattr(token_padding, "_LEAST_TOKENS", 17)

    def let(share):
        times = np.linspace(1.0, 1.1, 15)
        monkeypatch.setattr(token_padding, "time_in_turns", lambda *_: np.stack([times, share * times], axis=1))

    return let


def quantized_by(path, target, rules=RULES):
    """Quantize again and return the variant, what it answers, and what was said of its tokens."""
    notes = Notes()
    made = quantize(Bundle.open(path), IMAGES, {target: TARGETS[target]}, rules=rules, progress=notes)
    (variant,) = made.variants
    with load(path, variant=variant.name) as model:
        answers = model.infer_images(made.bundle.golden().images)
    return variant, answers, [note for note in notes.said if "tokens" in note], made.bundle


def test_tokens_are_padded_where_that_is_faster_and_answers_stay(quantized, takes):
    pytest.importorskip("openvino")
    takes(NOT_CLEARLY)
    before, expected, said, bundle = quantized_by(quantized, "x86-openvino")
    assert said == []
    plain = bundle.verify_files(before.name).with_suffix(".bin").stat().st_size
    takes(FASTER)
    variant, found, said, bundle = quantized_by(quantized, "x86-openvino")
    assert said == ["int8-openvino: 17 tokens are padded to 24: 0.90 of the time here"]
    assert before.token_padding is None
    padding = variant.token_padding
    assert (padding.tokens, padding.padded, round(padding.share, 2)) == (17, 24, FASTER)
    assert padded_tokens([before, variant]) == [
        "int8-openvino: 17 tokens are padded to 24: 0.90 of the time where it was built"
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert variant.kernels == before.kernels
    text = bundle.verify_files(variant.name).read_text(encoding="utf-8")
    assert re.search(r"<dim>24</dim>", text)
    assert plain <= bundle.verify_files(variant.name).with_suffix(".bin").stat().st_size < plain + 2000


def test_what_is_built_again_as_layers_return_to_float_is_padded_again(quantized, takes):
    pytest.importorskip("openvino")
    takes(FASTER)
    rules = replace(RULES, fallback=FallbackLimits(max_kl=6e-5))
    variant, _, said, _ = quantized_by(quantized, "x86-openvino", rules)
    assert variant.fallback
    assert variant.limit.passed
    assert len(said) == 2  # once with all layers in integers


def test_nothing_is_padded_for_an_engine_that_does_not_gain(quantized, takes):
    takes(0.5)
    _, _, said, bundle = quantized_by(quantized, "x86-onnxruntime")
    assert said == []
    graph = onnx.load(bundle.verify_files("int8-onnxruntime")).graph
    assert "Pad" not in {node.op_type for node in graph.node}


def test_few_tokens_are_not_padded(quantized, takes, monkeypatch):
    pytest.importorskip("openvino")
    takes(0.5)
    monkeypatch.setattr(token_padding, "_LEAST_TOKENS", 18)
    assert quantized_by(quantized, "x86-openvino")[2] == []


def test_a_file_that_answers_otherwise_is_not_taken(quantized, takes, monkeypatch):
    pytest.importorskip("openvino")
    takes(0.5)
    monkeypatch.setattr(token_padding, "_SAME_SQNR", 1e3)
    answers = token_padding._alike
    monkeypatch.setattr(
        token_padding, "_alike", lambda expected, found, outputs: answers(expected, found + 1e-3, outputs)
    )
    assert quantized_by(quantized, "x86-openvino")[2] == []


@pytest.mark.parametrize(
    "error",
    [
        KernelError("head runs in float", layers={"head": "brgemm_f32"}, engine="openvino", remedy=""),
        BundleError("OpenVINO cannot load it", remedy=""),
    ],
    ids=["misses integer kernels", "is not compiled"],
)
def test_what_is_padded_and_fails_is_not_taken(quantized, takes, monkeypatch, error):
    pytest.importorskip("openvino")
    takes(0.5)
    compile_once = build._compile_once

    def fails(*arguments):
        made = compile_once(*arguments)
        if any(getattr(each, "plan", None) and each.plan.padded for each in arguments):
            raise error
        return made

    monkeypatch.setattr(build, "_compile_once", fails)
    variant, _, said, _ = quantized_by(quantized, "x86-openvino")
    assert said == [f"int8-openvino: its tokens stay 17, with rows added it cannot be built: {error.message}"]
    assert variant.token_padding is None
    assert variant.kernels.integer_linears == variant.kernels.linears


def test_what_is_kept_for_other_targets_knows_nothing_of_it(quantized, takes):
    pytest.importorskip("openvino")
    takes(FASTER)
    *_, bundle = quantized_by(quantized, "x86-openvino")
    assert b'"padded":[]' in bundle.verify_extra("calibration/plan.json").path.read_bytes().replace(b" ", b"")
