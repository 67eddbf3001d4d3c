"""The verdict follows its one rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.evaluation.gate import check_limits, embedding_verdict, floored, images_needed, top1_verdict


@given(st.integers(-1000, 1000), st.floats(0, 20))
def test_with_labels_the_drop_decides(change, max_drop):
    verdict = top1_verdict(delta_top1=change / 10_000, agreement=0.0, finite=True, max_drop=max_drop)
    assert verdict.passed == (change / 100 >= -max_drop or abs(change / 100 + max_drop) < 1e-9)


@pytest.mark.parametrize(
    ("delta", "passed", "words"),
    [
        (-0.005, True, "top-1 fell 0.50 points, 0.5 allowed"),
        (-0.0051, False, "top-1 fell 0.51 points, 0.5 allowed"),
        (0.0, True, "top-1 did not change"),
        (0.001, True, "top-1 rose 0.10 points"),
    ],
)
def test_the_reason_says_it_in_a_line(delta, passed, words):
    assert top1_verdict(delta_top1=delta, agreement=0.9, finite=True) == (passed, words)


def test_a_limit_finer_than_one_image_is_said():
    assert (images_needed(125, 0.5), images_needed(200, 0.5), images_needed(125, 0.0)) == (200, None, None)
    told = top1_verdict(delta_top1=-1 / 125, agreement=0.99, finite=True, images=125).reason
    assert told == "top-1 fell 0.80 points, 0.5 allowed: one of 125 images is 0.80 points; validate on 200 or more"
    for images, max_drop in ((125, 0.8), (10_000, 0.5), (125, 0.0)):
        assert (
            "one of"
            not in top1_verdict(delta_top1=-0.1, agreement=0.9, finite=True, max_drop=max_drop, images=images).reason
        )


def test_without_labels_no_more_answers_may_differ_than_points_may_be_lost():
    assert top1_verdict(delta_top1=None, agreement=0.995, finite=True).passed
    verdict = top1_verdict(delta_top1=None, agreement=0.99, finite=True)
    assert not verdict.passed
    assert "1.00 % of answers differ" in verdict.reason
    assert "--max-drop" in verdict.reason
    assert top1_verdict(delta_top1=None, agreement=0.99, finite=True, max_drop=1.0).passed


@given(st.floats(-1, 1), st.floats(0, 1))
def test_an_embedding_model_is_judged_by_its_cosine(cosine, least):
    verdict = embedding_verdict(cosine=cosine, finite=True, min_cosine=least)
    assert verdict.passed == (cosine >= least or abs(cosine - least) < 1e-9)
    assert not embedding_verdict(cosine=cosine, finite=False, min_cosine=0).passed


def test_a_cosine_below_the_limit_does_not_look_as_if_it_met_it():
    verdict = embedding_verdict(cosine=0.98999, finite=True)
    assert verdict == (False, "mean cosine 0.9899 with float32, at least 0.99 wanted")
    assert floored(1.0) == "1.0000"


@pytest.mark.parametrize(
    ("classes", "max_drop", "min_cosine", "words"), [(8, None, 0.9, "8 classes"), (0, 0.0, None, "for classifiers")]
)
def test_a_limit_of_the_other_kind_is_refused(classes, max_drop, min_cosine, words):
    check_limits(classes=classes, max_drop=None, min_cosine=None)
    with pytest.raises(InputError, match=words) as caught:
        check_limits(classes=classes, max_drop=max_drop, min_cosine=min_cosine)
    assert caught.value.remedy


def test_logits_that_are_not_numbers_fail_however_good_the_rest():
    verdict = top1_verdict(delta_top1=0.1, agreement=1.0, finite=False)
    assert not verdict.passed
    assert "not finite" in verdict.reason
