"""Figures of outputs that are no logits, against their definitions written out another way."""

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.evaluation.output_accuracy import OutputsMeasure
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.models.outputs import Output, dims_of

RNG = np.random.default_rng(0)


def output(kind, *shape, name=None):
    return Output(name=name or kind, kind=kind, shape=shape, dims=dims_of(kind, shape))


def rows(*parts):
    return np.concatenate([np.asarray(part, dtype=np.float32).reshape(len(part), -1) for part in parts], axis=1)


def measured(outputs, before, after, limits=None, batch=2):
    measure = OutputsMeasure(outputs)
    for at in range(0, len(before), batch):
        measure.add(before[at : at + batch], after[at : at + batch])
    return measure.accuracy(limits or OutputLimits(), data="data", data_sha256="0" * 64)


@pytest.mark.parametrize(("kind", "shape"), [("tokens", (6, 8)), ("features", (8, 2, 3)), ("any", (48,))])
def test_cosines_and_ratios(kind, shape):
    before = RNG.normal(size=(5, *shape)).astype(np.float32)
    after = before + 0.1 * RNG.normal(size=before.shape).astype(np.float32)
    (found,) = measured([output(kind, *shape)], rows(before), rows(after)).outputs
    one, other = (
        np.moveaxis(each, 1, -1).reshape(-1, 8) if kind == "features" else each.reshape(-1, shape[-1])
        for each in (before, after)
    )
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other, strict=True)]
    assert found.cosine_mean == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.cosine_p1 == pytest.approx(np.percentile(cosines, 1), abs=1e-6)
    whole = 20 * np.log10(np.linalg.norm(one) / np.linalg.norm(one - other))
    assert found.sqnr_db == pytest.approx(whole, abs=1e-3)
    if kind == "any":
        assert found.sqnr_db_p1 is None
    else:
        ratios = 20 * np.log10(np.linalg.norm(one, axis=1) / np.linalg.norm(one - other, axis=1))
        assert found.sqnr_db_mean == pytest.approx(ratios.mean(), abs=1e-3)
        assert found.sqnr_db_p1 == pytest.approx(np.percentile(ratios, 1), abs=1e-3)
    assert found.passed


def test_masks():
    before = np.zeros((2, 3, 2, 2), dtype=np.float32)
    after = before.copy()
    truth, seen = [[0, 0, 1, 1], [0, 0, 0, 0]], [[0, 1, 1, 1], [0, 0, 0, 0]]
    for image in range(2):
        for place in range(4):
            before[image, truth[image][place], place // 2, place % 2] = 1
            after[image, seen[image][place], place // 2, place % 2] = 1
    (found,) = measured(
        [output("segmentation", 3, 2, 2)], rows(before), rows(after), OutputLimits(min_miou=0.7)
    ).outputs
    assert found.miou == pytest.approx((5 / 6 + 2 / 3) / 2)  # the class that neither has is left out
    assert found.pixel_accuracy == pytest.approx(7 / 8)
    assert found.passed
    (found,) = measured([output("segmentation", 3, 2, 2)], rows(before), rows(after)).outputs
    assert (found.passed, found.reason) == (False, "mIoU 0.7500 with float32, at least 0.95 wanted")


@pytest.mark.parametrize(
    ("before", "after"), [([0.4, 0.6, 0.9, 0.1], [0.6, 0.7, 0.9, 0.1]), ([-1, 1, 9, -9], [1, 2, 9, -9])]
)
def test_masks_of_one_channel(before, after):
    kind = output("segmentation", 1, 2, 2)
    (found,) = measured([kind], rows([before]), rows([after])).outputs
    assert found.miou == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_depth():
    before = np.array([[1, 2, 4, 0], [2, 2, 2, 2]], dtype=np.float32)
    after = np.array([[1.2, 2, 5.2, 3], [2, 2, 2, 1]], dtype=np.float32)
    (found,) = measured([output("depth", 1, 2, 2)], rows(before), rows(after), OutputLimits(min_delta1=0.7)).outputs
    assert found.delta1 == pytest.approx(5 / 7)
    assert found.abs_rel == pytest.approx((0.2 + 0.3 + 0.5) / 7, abs=1e-6)
    assert found.passed
    for most, passed in ((0.143, True), (0.142, False)):
        limits = OutputLimits(min_delta1=0.7, max_abs_rel=most)
        (found,) = measured([output("depth", 1, 2, 2)], rows(before), rows(after), limits).outputs
        assert found.passed == passed
        assert "AbsRel 0.1429" in found.reason
    assert found.reason.endswith("0.142 allowed (--max-abs-rel)")
    (found,) = measured([output("depth", 1, 2, 2)], rows(before), rows(after), OutputLimits(max_abs_rel=1)).outputs
    assert "delta-1 0.7143" in found.reason, "the other limit is still there"
    assert not found.passed


def test_logits_and_a_number_that_is_not_finite():
    before, after = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    after[0] = [0, 1, 0, 0]
    found = measured([output("logits", 4)], before, after, OutputLimits(max_drop=25))
    assert found.outputs[0].agreement == 0.75
    assert found.passed
    after[0, 0] = np.nan
    found = measured([output("logits", 4)], before, after)
    assert (found.passed, found.reason) == (False, "logits: some numbers are not finite")


def test_boxes():
    outputs = [output("scores", 3, 3), output("boxes", 3, 4)]
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])
    sure, nothing = [9, 0, 0], [0, 0, 9]
    scores = np.array([sure, [0, 9, 0], nothing])
    moved = boxes + np.array([[0.05, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    (_, found) = measured(outputs, rows([scores], [boxes]), rows([scores], [moved])).outputs
    overlap = (0.15 * 0.2) / (2 * 0.2 * 0.2 - 0.15 * 0.2)
    assert found.box_agreement == 1
    assert found.box_iou == pytest.approx((1 + overlap) / 2, abs=1e-5)
    far = boxes + np.array([[0.15, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    (_, found) = measured(outputs, rows([scores], [boxes]), rows([scores], [far])).outputs
    assert found.box_agreement == pytest.approx(0.5)
    assert not found.passed
    another = np.array([[0, 9, 0], [0, 9, 0], nothing])  # another class
    (_, found) = measured(outputs, rows([scores], [boxes]), rows([another], [boxes])).outputs
    assert found.box_agreement == pytest.approx(0.5)
    none = np.array([nothing] * 3)  # nothing is found: the surest of both are compared
    (_, found) = measured(outputs, rows([none], [boxes]), rows([none], [boxes])).outputs
    assert found.box_agreement == 1


def test_corners_without_scores():
    boxes = np.array([[[0, 0, 2, 2], [4, 4, 6, 6]]])
    moved = np.array([[[0, 1, 2, 3], [4, 4, 6, 6]]])
    (found,) = measured([output("corners", 2, 4)], rows(boxes), rows(moved)).outputs
    assert (found.box_agreement, found.score_difference) == (0.5, None)


def test_the_worst_output_decides():
    outputs = [output("tokens", 2, 4), output("depth", 2, 2)]
    before = rows(RNG.normal(size=(2, 8)), np.ones((2, 4)))
    after = before + rows(np.zeros((2, 8)), 0.5 * np.ones((2, 4)))
    found = measured(outputs, before, after)
    assert [each.passed for each in found.outputs] == [True, False]
    assert (found.passed, found.agreement) == (False, None)
    assert found.reason.startswith("depth: delta-1 0.0000")
    assert found.sqnr_db == found.outputs[1].sqnr_db
    assert found.outputs[0].sqnr_db is None


def test_limits_that_decide_on_nothing():
    with pytest.raises(InputError, match="--min-miou decides on none of the model's outputs: tokens") as caught:
        OutputLimits(min_miou=0.9).check((output("tokens", 2, 2),))
    assert "--min-cosine" in caught.value.remedy
    with pytest.raises(InputError, match="--min-delta1 decides on none"):
        OutputLimits(min_delta1=0.9).check(())
    with pytest.raises(InputError, match="--max-abs-rel decides on none"):
        OutputLimits(max_abs_rel=0.1).check((output("tokens", 2, 2),))
    OutputLimits(max_drop=1).check(())
    OutputLimits(max_abs_rel=0.1).check((output("depth", 2, 2),))
