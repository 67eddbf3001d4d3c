"""Which patches a bundle's variants merge, as its report shows it."""

import base64
import io
import json

import msgspec
import numpy as np
import pytest
from PIL import Image
from tiny import MERGED, SCHEDULES, SHAPES

import edgevit as public
from edgevit.bundle.manifest import TokenMerging
from edgevit.bundle.store import Bundle
from edgevit.report.data import report_data
from edgevit.report.html import render_html, write_report
from edgevit.stages import model_insights
from edgevit.stages.insights import look_into


@pytest.fixture(scope="module")
def looked(tiny_merged):
    """Return a bundle with merged tokens, and what is seen in it."""
    bundle = Bundle.open(tiny_merged)
    return bundle, look_into(bundle)


def test_the_smallest_budget_is_seen(looked):
    _, found = looked
    seen = found.merged
    assert (seen.budget, seen.rows, seen.columns) == (0.6, 4, 4)
    assert seen.variants == MERGED[-2:]
    assert (seen.tokens_before, seen.tokens_after) == (17, 17 - sum(SCHEDULES[0.6]))
    assert len(seen.tokens) == len(seen.pictures) == len(seen.photos) == len(seen.said) == 3
    for tokens, said in zip(seen.tokens, seen.said, strict=True):
        assert len(tokens) == 16
        assert len(set(tokens)) == seen.tokens_after - 1  # but for the class token
        sizes = [count for count in np.bincount(tokens) if count > 1]
        assert said == f"{sum(sizes)} of 16 patches in {len(sizes)} tokens, the largest of {max(sizes)}"
    assert {*seen.photos, *seen.pictures} <= set(found.pictures)


def test_a_third_partys_tokens_tell_how_patches_lie(looked, monkeypatch):
    bundle, found = looked
    monkeypatch.setattr(model_insights, "_grid", lambda _: None)
    monkeypatch.setattr(model_insights, "_VARIANTS", 0)
    assert look_into(bundle).merged == found.merged


def test_patches_of_one_token_look_the_same(looked):
    _, found = looked
    seen = found.merged
    for tokens, name in zip(seen.tokens, seen.pictures, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(found.pictures[name])).convert("RGB"), dtype=np.float64)
        side = picture.shape[0] // 4
        middles = picture[side // 2 :: side, side // 2 :: side].reshape(16, 3)
        for token in set(tokens):
            members = middles[np.array(tokens) == token]
            assert np.ptp(members, axis=0).max() < 12  # but for what a palette does


def test_maps_and_layers_are_those_of_all_tokens(looked):
    _, found = looked
    assert [each.variant for each in found.attention.models] == ["float32", "int8-onnxruntime", "int8-openvino"]
    assert found.layers[0].variants == ("int8-onnxruntime", "int8-openvino")
    assert [line for line in found.missing if "merged" in line] == list(found.missing)
    assert len(found.missing) == 1
    assert [each.token_budget for each in found.calibrations] == [None, 0.8, 0.6]


def test_the_page_draws_them_in_little_room(looked, tmp_path):
    bundle, found = looked
    page, plain = write_report(bundle.manifest, tmp_path / "merged", found)
    without, _ = write_report(bundle.manifest, tmp_path / "without", msgspec.structs.replace(found, merged=None))
    text = page.read_text("utf-8")
    assert "Which patches were merged" in text
    for said in found.merged.said:
        assert text.count(said) == 2  # below the picture, and for those who cannot see it
    assert "8 of 17 tokens are left at the end" in text
    assert page.stat().st_size - without.stat().st_size < 40_000
    read = json.loads(plain.read_bytes())
    assert render_html(read) == text
    assert tuple(read["merged"]["tokens"][0]) == found.merged.tokens[0]
    assert all(base64.b64decode(read["pictures"][name]) == found.pictures[name] for name in found.merged.pictures)


def test_weights_that_were_trained_for_it_may_merge_others(looked):
    bundle, found = looked
    assert not found.merged.trained
    assert "may merge other patches" not in render_html(report_data(bundle.manifest, found))
    trained = msgspec.structs.replace(found.merged, trained=True)
    page = render_html(report_data(bundle.manifest, msgspec.structs.replace(found, merged=trained)))
    assert "may merge other patches" in page


def test_what_cannot_be_seen_is_said(looked, monkeypatch):
    bundle, _ = looked
    wrong = TokenMerging(budget=0.5, share=0.5, schedule=(1, 2, 3))
    *others, last = bundle.manifest.variants
    variants = (*others, msgspec.structs.replace(last, token_merging=wrong))
    broken = msgspec.structs.replace(bundle.manifest, variants=variants)
    monkeypatch.setattr(model_insights, "_VARIANTS", 0)
    found = look_into(Bundle(bundle.path, broken))
    assert found.merged is None
    assert any("Which patches were merged is not shown: the schedule is of 3 blocks" in line for line in found.missing)
    assert found.attention is not None


def test_the_step_that_lost_it_is_told_of_merged_tokens_too(merged):
    public.validate(merged, data=SHAPES, max_drop=100)
    details = look_into(Bundle.open(merged), models=False).details
    for name in MERGED[-3:]:
        assert details[name].steps.missing is None, name
