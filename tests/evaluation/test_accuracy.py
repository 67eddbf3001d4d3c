"""Accuracy of a variant against float32."""

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from edgevit.bundle.manifest import Accuracy
from edgevit.errors import DataError
from edgevit.evaluation.accuracy import Interruption, answers_of, collect_logits, measure_accuracy
from edgevit.statistics import mcnemar_p, wilson_interval


def measure(reference, logits, labels=None, **options):
    return measure_accuracy(reference, logits, labels, data="photos", data_sha256="0" * 64, **options)


def one_hot(answers, classes=10):
    return (8 * np.eye(classes)[answers]).astype(np.float32)


def test_counts_what_was_lost_and_gained():
    labels = np.zeros(100, dtype=np.int64)
    before, after = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    before[:10] = 1  # float32 is wrong on 10
    after[8:12] = 2  # the variant mends 8 of them, and spoils 2 others
    result = measure(one_hot(before), one_hot(after), labels)
    assert result.top1 == 0.96
    assert result.top1_ci95 == wilson_interval(96, 100)
    assert result.delta_top1 == pytest.approx(0.06)
    assert result.mcnemar_p == mcnemar_p(2, 8)
    assert result.agreement == 0.88  # images 8 and 9 are wrong in both, with different answers
    assert result.images == 100
    assert result.passed
    assert result.reason == "top-1 rose 6.00 points"


def test_float32_against_itself_is_perfect():
    logits = np.random.default_rng(0).standard_normal((50, 10)).astype(np.float32)
    labels = np.arange(50) % 10
    result = measure(logits, logits, labels)
    assert (result.delta_top1, result.mcnemar_p, result.agreement, result.kl) == (0, 1, 1, 0)
    assert result.sqnr_db is None
    assert result.passed


@pytest.mark.parametrize(("classes", "measured"), [(5, False), (6, True)])
def test_top5_only_where_it_can_be_wrong(classes, measured):
    logits = np.random.default_rng(0).standard_normal((40, classes)).astype(np.float32)
    labels = np.arange(40) % classes
    top5 = measure(logits, logits, labels).top5
    assert (top5 is not None) == measured
    if top5 is not None:
        worst = logits.argmin(axis=1)
        assert top5 == (worst != labels).mean()


@pytest.mark.parametrize("labels", [None, np.full(20, -1)])
def test_without_labels_only_the_distance_is_measured(labels):
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((20, 10)).astype(np.float32)
    result = measure(reference, reference + np.float32(1e-4), labels)
    assert (result.top1, result.top1_ci95, result.top5, result.delta_top1, result.mcnemar_p) == (None,) * 5
    assert result.agreement == 1
    assert result.passed


def test_logits_that_are_not_numbers_fail_and_can_still_be_written_down():
    logits = one_hot(np.zeros(200, dtype=np.int64))
    broken = logits.copy()
    broken[7, 3] = np.nan
    result = measure(logits, broken, np.zeros(200, dtype=np.int64))
    assert not result.passed
    assert result.top1 == 0.995
    assert (result.kl, result.sqnr_db) == (None, None)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Accuracy) == result


@pytest.mark.parametrize(
    ("reference", "logits", "labels", "words"),
    [
        (np.zeros((3, 4)), np.zeros((3, 5)), None, "cannot be compared"),
        (np.zeros((0, 4)), np.zeros((0, 4)), None, "cannot be compared"),
        (np.zeros((3, 4)), np.zeros((3, 4)), np.zeros(2, dtype=np.int64), "2 labels for 3 images"),
        (np.zeros((3, 4)), np.zeros((3, 4)), np.array([0, 4, 1]), "label 4 is not one of the model's 4 classes"),
        (np.zeros((3, 4)), np.zeros((3, 4)), np.array([0, -1, 1]), "1 of 3 images have no label"),
    ],
)
def test_what_does_not_fit_is_refused(reference, logits, labels, words):
    with pytest.raises(DataError, match=words) as caught:
        measure(reference.astype(np.float32), logits.astype(np.float32), labels)
    assert caught.value.remedy


@dataclass
class Recorder:
    """A progress that remembers."""

    tracked: list = field(default_factory=list)

    def track(self, items, *, total, label):
        for item in items:
            self.tracked.append((total, label))
            yield item


class Doubler:
    def infer(self, images):
        return 2 * images.reshape(len(images), -1)


def test_collect_logits_keeps_the_order_and_tells_progress():
    images = np.arange(14, dtype=np.float32).reshape(7, 1, 1, 2)
    progress = Recorder()
    batches = (images[start : start + 3] for start in (0, 3, 6))
    answers = answers_of({"a": Doubler(), "b": Doubler()}, batches, total=3, progress=progress)
    logits = collect_logits(answers)
    assert list(logits) == ["a", "b"]
    for values in logits.values():
        assert np.array_equal(values, 2 * images.reshape(7, 2))
    assert progress.tracked == [(3, "Validating")] * 3


def test_answers_want_images():
    with pytest.raises(DataError, match="no images"):
        list(answers_of({"a": Doubler()}, [], total=0))


class Stopping(Doubler):
    """Is interrupted in its third batch."""

    def __init__(self, after=2):
        self.left = after

    def infer(self, images):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().infer(images)


def test_ctrl_c_keeps_the_batches_that_all_have_answered():
    images, interruption = np.ones((2, 1, 1, 2), dtype=np.float32), Interruption()
    sessions = {"a": Doubler(), "b": Stopping()}
    logits = collect_logits(answers_of(sessions, [images] * 5, total=5, interruption=interruption))
    assert interruption.raised
    assert {name: len(rows) for name, rows in logits.items()} == {"a": 4, "b": 4}


@pytest.mark.parametrize("interruption", [None, Interruption()])
def test_ctrl_c_before_a_batch_was_answered_ends_it(interruption):
    images = np.ones((2, 1, 1, 2), dtype=np.float32)
    with pytest.raises(KeyboardInterrupt):
        list(answers_of({"a": Stopping(0)}, [images], total=1, interruption=interruption))
