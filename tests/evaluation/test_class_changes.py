"""Which classes are said to have changed, and which mistakes to have grown."""

import numpy as np

from edgevit.evaluation.accuracy_details import MOST_CLASSES, MOST_LETTERS
from edgevit.evaluation.class_changes import LEAST_IMAGES, class_changes, confusion_shifts

NAMES = ("tench", "church", "parachute")


def images(*classes):
    """Return, of classes as (images, lost, gained), who was right before, after, and the labels; others are right."""
    before, after, labels = [], [], []
    for label, (count, lost, gained) in enumerate(classes):
        before += [True] * (count - gained) + [False] * gained
        after += [False] * lost + [True] * (count - lost)
        labels += [label] * count
    return np.array(before), np.array(after), np.array(labels)


def test_a_class_that_lost_many_changed_and_one_that_lost_a_few_did_not():
    found = class_changes(*images((100, 12, 0), (100, 3, 1), (100, 0, 0)), NAMES)
    first, second = found.classes
    assert (first.label, first.images, first.float32, first.variant, first.lost) == ("tench", 100, 100, 88, 12)
    assert first.changed
    assert not second.changed
    assert (second.gained, second.variant - second.float32) == (1, -2)
    assert first.interval[0] < -0.12 < first.interval[1] < 0
    assert (found.measured, found.judged) == (3, 3)


def test_a_class_of_few_images_is_never_called_changed():
    few = LEAST_IMAGES - 1
    found = class_changes(*images((few, few, 0), (100, 0, 0)), NAMES)
    assert found.classes[0].lost == few
    assert not found.classes[0].changed
    assert found.judged == 1


def test_chance_alone_seldom_changes_a_class_however_many_there_are():
    rng = np.random.default_rng(0)
    labels, names = np.repeat(np.arange(100), 50), tuple(map(str, range(100)))
    wrong = 0
    for _ in range(60):
        before, after = rng.uniform(size=(2, len(labels))) < 0.8  # as if both were drawn anew for each image
        wrong += any(each.changed for each in class_changes(before, after, labels, names).classes)
    assert wrong <= 6  # one in 20 expected at the most; 6 of 60 or more come up once in 13 then


def test_many_classes_and_long_names_are_cut():
    count = MOST_CLASSES + 20
    before, after = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    found = class_changes(before, after, np.arange(count), ("x" * 5000,) * count)
    assert len(found.classes) == MOST_CLASSES
    assert all(len(each.label) == MOST_LETTERS for each in found.classes)
    assert found.measured == count


def test_mistakes_that_grew_are_named_and_others_are_not():
    labels = np.array([0, 0, 0, 1, 1, 2])
    before = np.array([0, 0, 1, 1, 2, 2])
    after = np.array([1, 1, 1, 1, 1, 0])
    shifts = confusion_shifts(labels, before, after, NAMES)
    assert [(each.label, each.answer, each.float32, each.variant) for each in shifts] == [
        ("tench", "church", 1, 3),
        ("parachute", "tench", 0, 1),
    ]
