"""Which layers go back to float, and why; on a model with one layer that INT8 ruins."""

import math
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_files import optimize_files, verified

from edgevit.graph.editing import set_linear
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.saving import save, serialize
from edgevit.quantization.accuracy.criteria import KlLimit, holds, measure_loss
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.search import Search, fewest
from edgevit.quantization.accuracy.sensitivity import Form, rank_layers
from edgevit.quantization.emit import emit
from edgevit.quantization.float_fallback import float_in, note_float_in, revert_to_float
from edgevit.quantization.ptq import CalibrationImages, PtqModel

BAD = "blocks.1.mlp.fc2"
FORMS = {
    "asymmetric": (Form("onnxruntime", "onnxruntime", {}, 8), Form("openvino", "openvino", {}, 8)),
    "symmetric": (Form("portable", "onnxruntime", {}, 8),),
}
SCHEMES = tuple(FORMS)
ALLOWED = 2e-6  # nats: between what BAD alone costs, and all others together


class Planted(NamedTuple):
    optimized: dict[str, PtqModel]
    evaluator: Evaluator


@pytest.fixture(scope="module")
def planted(quantized, tmp_path_factory):
    """Return a model that is the same in float, but one channel in front of ``BAD``, which it ignores, is enormous."""
    folder = tmp_path_factory.mktemp("planted")
    model = load_graph(quantized.path)
    layers = {layer.name: layer for layer in find_linears(model.graph)}
    before, bad = layers[BAD.replace("fc2", "fc1")], layers[BAD]
    bias, weight = before.bias.copy(), bad.weight.copy()
    bias[3], weight[3] = 2000, 0
    set_linear(model.graph, before, before.weight, bias)
    set_linear(model.graph, bad, weight, bad.bias)
    save(model, folder / "model.onnx")
    places = {scheme: folder / f"{scheme}.onnx" for scheme in SCHEMES}
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    _, optimized = optimize_files(folder / "model.onnx", images, places)
    others = quantized.preprocess.normalize(np.random.default_rng(1).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8))
    models = {scheme: one.ptq for scheme, one in optimized.items()}
    return Planted(models, Evaluator(folder / "model.onnx", [others[:16], others[16:]]))


def never(_form):
    raise AssertionError("layers were ranked without need")


@pytest.fixture(scope="module")
def ranked(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranked")
    return {
        scheme: rank_layers(planted.optimized[scheme], planted.evaluator, FORMS[scheme][0], folder)
        for scheme in SCHEMES
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ranking_names_each_layer_once_and_the_bad_one_first(quantized, ranked, scheme):
    assert sorted(cost.layer for cost in ranked[scheme]) == sorted(quantized.optimized_layers(scheme))
    first, *others = ranked[scheme]
    assert first.layer == BAD
    assert first.kl > 10 * others[0].kl
    kls = [cost.kl for cost in ranked[scheme]]
    assert kls == sorted(kls, reverse=True)
    assert kls[-1] > 0


def test_without_classes_layers_are_ranked_by_noise(planted, tmp_path):
    one = planted.optimized["asymmetric"]
    costs = rank_layers(one, planted.evaluator, FORMS["asymmetric"][0], tmp_path, measure="sqnr_db")
    assert costs[0].layer == BAD
    assert {cost.kl for cost in costs} == {None}
    assert [cost.sqnr_db for cost in costs] == sorted(cost.sqnr_db for cost in costs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_bad_layer_alone_goes_back_to_float_and_is_told_why(quantized, planted, ranked, tmp_path, scheme):
    count = len(quantized.optimized_layers(scheme))
    one, limit = planted.optimized[scheme], KlLimit(ALLOWED)
    found = Search(one, planted.evaluator, FORMS[scheme], limit, tmp_path).run(lambda _form: ranked[scheme])
    (fallback,) = found.plan.float_layers()
    assert fallback.layer == BAD
    assert f"number 1 of {count}" in fallback.reason
    assert "on 24 images" in fallback.reason
    assert found.plan.limit.passed
    assert f"1 of {count} layers returned to float" in found.plan.limit.reason
    assert found.plan.sensitivity == ranked[scheme]
    saved = found.save(tmp_path / "model.onnx", tmp_path / "plan.json")
    assert PtqModel.load(verified(tmp_path / "model.onnx"), tmp_path / "plan.json").plan == saved.plan
    for form in FORMS[scheme]:
        emit(found, form.dialect, tmp_path / "int8.onnx")
        outputs = planted.evaluator.outputs(tmp_path / "int8.onnx", form.backend)
        assert holds(limit, measure_loss(limit, planted.evaluator.reference, outputs))


def test_layers_are_ranked_in_the_form_that_breaks_the_limit(planted, ranked, tmp_path):
    """In the first one the bad layer is float already, and would be the last of the ranking."""
    one = planted.optimized["asymmetric"]
    one = replace(one, plan=note_float_in(one.plan, "onnxruntime", {BAD: "raced"}))
    asked = []

    def rank(form):
        asked.append(form.dialect)
        return ranked["asymmetric"]

    found = Search(one, planted.evaluator, FORMS["asymmetric"], KlLimit(ALLOWED), tmp_path).run(rank)
    assert asked == ["openvino"]
    assert [layer.layer for layer in found.plan.float_layers() if "alone" in layer.reason] == [BAD]


def test_a_layer_that_is_float_in_a_dialect_makes_up_for_its_weights_alone(planted, tmp_path):
    """Nothing rounds its input there: what was to make up for that would be an error itself."""
    one = planted.optimized["asymmetric"]
    others = [name for name in one.plan.integer_layers() if name != "head"]
    noted = replace(one, plan=note_float_in(one.plan, "onnxruntime", dict.fromkeys(others, "raced")))
    emit(float_in(noted, "onnxruntime"), "onnxruntime", tmp_path / "model.onnx")
    found = planted.evaluator.score(planted.evaluator.outputs(tmp_path / "model.onnx"))
    assert found.sqnr_db > 35


def test_a_limit_that_holds_returns_nothing_and_ranks_nothing(planted, tmp_path):
    one = planted.optimized["symmetric"]
    before = serialize(one.model)
    search = Search(one, planted.evaluator, FORMS["symmetric"], KlLimit(1), tmp_path)
    found = search.run(never)
    assert (found.plan.float_layers(), found.plan.limit.passed) == ((), True)
    assert serialize(found.model) == before
    assert found.plan == msgspec.structs.replace(one.plan, limit=found.plan.limit)


def test_where_nothing_holds_the_nearest_is_kept_and_what_would_hold_is_said(planted, ranked, tmp_path):
    one = planted.optimized["symmetric"]
    found = Search(one, planted.evaluator, FORMS["symmetric"], KlLimit(0), tmp_path).run(
        lambda _form: ranked["symmetric"]
    )
    assert not found.plan.limit.passed
    assert found.plan.integer_layers() == (ranked["symmetric"][-1].layer,)
    assert "0 allowed" in found.plan.limit.reason
    would = float(found.plan.limit.reason.split("--max-kl ")[1].split()[0])
    assert 0 < would < ranked["symmetric"][0].kl


def test_a_layer_that_the_limit_holds_without_is_not_returned(planted, ranked, tmp_path):
    """Though it is ranked before the one that matters."""
    bad, *others = ranked["symmetric"]
    misled = (others[0], others[1], bad, *others[2:])
    one = planted.optimized["symmetric"]
    search = Search(one, planted.evaluator, FORMS["symmetric"], KlLimit(ALLOWED), tmp_path)
    found = search.run(lambda _form: misled)
    assert [each.layer for each in found.plan.float_layers()] == [BAD]
    assert found.plan.limit.passed


def test_a_returned_layer_has_its_weight_back(planted, tmp_path):
    one = planted.optimized["symmetric"]
    back = revert_to_float(one, {BAD: "because"})
    before, after = ({layer.name: layer.weight for layer in find_linears(each.model.graph)} for each in (one, back))
    assert np.array_equal(after[BAD], one.unrounded[BAD])
    assert not np.array_equal(after[BAD], before[BAD])
    for name in before.keys() - {BAD}:
        assert np.array_equal(after[name], before[name])
    assert [(each.layer, each.reason) for each in back.plan.float_layers()] == [(BAD, "because")]
    everything = revert_to_float(one, dict.fromkeys(before, "all"))
    emit(everything, "portable", tmp_path / "float.onnx")
    outputs, exact = planted.evaluator.outputs(tmp_path / "float.onnx"), planted.evaluator.reference
    np.testing.assert_allclose(outputs, exact, atol=1e-3 * np.abs(exact).max())  # rewritten, not rounded


@given(most=st.integers(1, 300), needed=st.integers(1, 400))
def test_the_fewest_are_found_in_few_trials(most, needed):
    asked = []

    def enough(count):
        asked.append(count)
        return count >= needed

    assert fewest(most, enough) == (needed if needed <= most else None)
    assert len(asked) <= 2 * math.log2(most) + 3
    assert all(1 <= count <= most for count in asked)


@given(most=st.integers(1, 60), pattern=st.lists(st.booleans(), min_size=60, max_size=60))
def test_what_is_found_was_asked_for(most, pattern):
    answers = {}

    def enough(count):
        return answers.setdefault(count, pattern[count - 1])

    found = fewest(most, enough)
    assert answers[found] if found else not answers[most]
