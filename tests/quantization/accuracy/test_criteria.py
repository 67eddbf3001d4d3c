"""What may be lost, by three measures, and how that is said."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.models.outputs import Output
from edgevit.quantization.accuracy.criteria import (
    CosineLimit,
    KlLimit,
    SqnrLimit,
    Top1Limit,
    describe_loss,
    holds,
    measure_loss,
)

LOGITS = np.eye(4, dtype=np.float32)
WORSE = LOGITS[[0, 1, 3, 3]]  # the third image is taken for the fourth's class
LABELS = np.arange(4)


def test_points_of_top1():
    limit = Top1Limit(25, LABELS)
    assert measure_loss(limit, LOGITS, WORSE) == 25
    assert measure_loss(limit, WORSE, LOGITS) == -25
    assert holds(limit, 25)
    assert not holds(limit, 25.1)
    assert holds(Top1Limit(0, LABELS), -25)
    assert [limit.say(loss) for loss in (25, 0, -25)] == [
        "top-1 fell 25.00 points",
        "top-1 did not change",
        "top-1 rose 25.00 points",
    ]
    assert limit.option(25) == "--max-drop 25"


def test_nats():
    assert measure_loss(KlLimit(0), LOGITS, LOGITS) == 0
    assert measure_loss(KlLimit(0), LOGITS, WORSE) > 0.05
    assert KlLimit(0.1).say(0.00213) == "KL is 0.00213 nats"


def test_nats_of_the_logits_among_several_outputs():
    outputs = (
        Output(name="embedding", kind="embedding", shape=(2,), dims=("width",)),
        Output(name="logits", kind="logits", shape=(LOGITS.shape[1],), dims=("classes",)),
        Output(name="flag", kind="logits", shape=(1,), dims=("classes",)),
    )
    other = np.zeros((len(LOGITS), 2), np.float32)
    flag = np.ones((len(LOGITS), 1), np.float32)
    before, moved, worse, flagged = (
        np.concatenate(each, axis=1)
        for each in (
            (other, LOGITS, flag),
            (other + 7, LOGITS, flag),
            (other, WORSE, flag),
            (other, LOGITS, flag + 1),
        )
    )
    limit = KlLimit(0, outputs=outputs)
    assert measure_loss(limit, before, moved) == 0
    assert measure_loss(limit, before, worse) == measure_loss(KlLimit(0), LOGITS, WORSE)
    p, q = 1 / (1 + np.exp(-np.array([1.0, 2.0])))
    assert measure_loss(limit, before, flagged) == pytest.approx(
        p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    )


def test_what_is_too_much_does_not_look_as_if_it_were_allowed():
    assert KlLimit(0.002).say(0.0020004) == "KL is 0.0020004 nats"
    assert KlLimit(0.002).say(0.00199999) == "KL is 0.00200 nats"
    assert Top1Limit(0.5, LABELS).say(0.504) == "top-1 fell 0.504 points"
    assert CosineLimit(0.99999999).say(0.000000015) == "the mean cosine is 0.99999998"
    assert CosineLimit(0.99999999).say_allowed() == "at least 0.99999999 wanted"


def test_cosines():
    limit = CosineLimit(0.75)
    assert measure_loss(limit, LOGITS, WORSE) == pytest.approx(0.25)
    assert holds(limit, 0.25)
    assert not holds(limit, 0.2501)
    assert limit.say(0.00012345) == "the mean cosine is 0.999876"  # not 0.999877
    assert limit.say_allowed() == "at least 0.75 wanted"


@pytest.mark.parametrize("limit", [Top1Limit(100, LABELS), KlLimit(1e9), CosineLimit(0), SqnrLimit(-300)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_holds_no_limit(limit, value):
    broken = LOGITS.copy()
    broken[1, 2] = value
    loss = measure_loss(limit, LOGITS, broken)
    assert not holds(limit, loss)
    assert describe_loss(limit, loss) == "some outputs are not finite numbers"


@given(loss=st.floats(1e-9, 100))
def test_the_option_that_is_named_would_hold(loss):
    assert holds(KlLimit(float(KlLimit(0).option(loss).split()[1])), loss)
    assert float(KlLimit(0).option(loss).split()[1]) <= 1.2 * loss + 1e-9
    if loss <= 1:
        cosine = CosineLimit(0.5).option(loss).split()[1]
        assert holds(CosineLimit(float(cosine)), loss)


def test_no_option_allows_what_is_not_finite():
    assert not holds(KlLimit(1e300), math.inf)


@given(st.floats(-20, 80), st.floats(-20, 80))
def test_noise_holds_a_limit_where_its_ratio_is_no_smaller(wanted, ratio):
    reference = np.ones((4, 8), dtype=np.float32)
    outputs = reference + np.float32(10 ** (-ratio / 20))
    limit = SqnrLimit(wanted)
    loss = measure_loss(limit, reference, outputs)
    if abs(wanted - ratio) > 0.01:
        assert holds(limit, loss) == (ratio > wanted)
    assert abs(-10 * np.log10(loss) - ratio) < 0.01
    said = float(limit.say(loss).split()[2])
    assert ratio - 0.12 < said < ratio + 0.01  # never rounded up


def test_outputs_without_noise_hold_any_ratio():
    limit = SqnrLimit(1000.0)
    assert measure_loss(limit, np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)) == 0
    assert holds(limit, 0.0)
    assert limit.say(0.0) == "there is no noise"
