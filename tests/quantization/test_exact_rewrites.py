"""Rewritten models are compared with the float32 file; merged ones with the same tokens merged."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_files import read
from random_vit import exported

from edgevit.errors import VerificationError
from edgevit.graph.editing import set_linear
from edgevit.graph.linears import find_linears
from edgevit.graph.matchings import run_merged
from edgevit.graph.node_facts import Role, role_of
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.running import largest_difference
from edgevit.graph.saving import save
from edgevit.models.spec import ModelSpec
from edgevit.quantization.exact_rewrites import ExactRewrites
from edgevit.quantization.rewrites.attention_scale import fold_attention_scales
from edgevit.quantization.rewrites.rotation import rotate_stream

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5)
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
SCHEDULE = (5, 2)


def images():
    return iter([IMAGES])


@pytest.fixture
def equal_keys(tmp_path, tmp_path_factory):
    """Return the file of a ViT whose keys are the same for all tokens: which of them are merged is left to chance."""
    model = read(exported(tmp_path_factory, SPEC))
    for layer in find_linears(model.graph):
        if layer.name.endswith("attn.qkv"):
            weight = np.array(layer.weight)
            weight[:, SPEC.width : 2 * SPEC.width] *= 1e-7
            set_linear(model.graph, layer, weight, layer.bias)
    save(model, tmp_path / "equal.onnx")
    return tmp_path / "equal.onnx"


def rewritten(path, schedule=SCHEDULE):
    model = read(path)
    assert rotate_stream(model.graph)
    if any(schedule):
        MergeTokens(schedule)(model)
    assert fold_attention_scales(model.graph)
    return model


def matchings(model):
    return [node for node in model.graph if role_of(node) is Role.MATCHING]


@pytest.mark.parametrize("schedule", [(), (0, 0), SCHEDULE])
def test_exact_rewrites_pass(tmp_path_factory, schedule):
    path = exported(tmp_path_factory, SPEC)
    ExactRewrites(path, images, schedule).check(rewritten(path, schedule))


def test_tokens_that_are_equally_alike_may_be_merged_either_way(equal_keys):
    before, after = read(equal_keys), rewritten(equal_keys)
    MergeTokens(SCHEDULE)(before)
    each = [image[None] for image in IMAGES]
    one, other = run_merged(before, each), run_merged(after, each)
    assert largest_difference(one.outputs, other.outputs) > 2e-3  # other tokens were merged
    ExactRewrites(equal_keys, images, SCHEDULE).check(after)
    assert len(matchings(after)) == 4  # it stays as it is
    np.testing.assert_array_equal(run_merged(after, each).outputs[0], other.outputs[0])


def turn_softmax(model):
    next(node for node in model.graph if node.op_type == "Softmax").attributes["axis"] = ir.AttrInt64("axis", 2)


def turn_similarity(model):
    matching = matchings(model)[0]
    least = ir.node("Neg", [matching.inputs[0]])
    matching.replace_input_with(0, least.outputs[0])
    model.graph.insert_before(matching, least)


def lose_sizes(model):
    log = next(node for node in model.graph if node.op_type == "Log")
    log.outputs[0].replace_all_uses_with(log.inputs[0])


@pytest.mark.parametrize("breaking", [turn_softmax, turn_similarity, lose_sizes])
def test_a_rewrite_that_changes_answers_or_what_is_merged_is_noticed(tmp_path_factory, breaking):
    path = exported(tmp_path_factory, SPEC)
    model = rewritten(path)
    breaking(model)
    with pytest.raises(VerificationError, match="changed its answers"):
        ExactRewrites(path, images, SCHEDULE).check(model)


def test_other_tokens_than_were_asked_for_are_noticed(tmp_path_factory):
    path = exported(tmp_path_factory, SPEC)
    with pytest.raises(VerificationError, match="changed its answers"):
        ExactRewrites(path, images, ()).check(rewritten(path))
