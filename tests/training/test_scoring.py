import numpy as np
import pytest
import torch
from torch.nn import functional
from train_tasks import CPU, PREPROCESS, make_images, make_model

from edgevit.data.dataset import ArrayDataset
from edgevit.errors import DataError
from edgevit.training.distributed import Single
from edgevit.training.scoring import FeatureEvaluationSet, ImageEvaluationSet, score


class Share(Single):
    """One of two processes, whose sums are added by hand."""

    count = 2

    def __init__(self, rank):
        super().__init__(torch.device("cpu"))
        self.rank = rank


def test_a_score_is_cross_entropy_and_a_count_of_what_was_taken_for_what():
    model, images = make_model(), make_images(300)
    result = score(model, ImageEvaluationSet("test", images, images.labels, PREPROCESS), 2, CPU)
    with torch.no_grad():
        logits = model(torch.from_numpy(PREPROCESS.normalize(images.pixels)))
    answers = torch.from_numpy(images.labels)
    assert result.loss == pytest.approx(float(functional.cross_entropy(logits, answers)), rel=1e-5)
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == answers).float().mean()))
    for truth in (0, 1):
        for said in (0, 1):
            assert result.confusion[truth, said] == int(((answers == truth) & (logits.argmax(1) == said)).sum())


def test_the_shares_of_two_processes_are_the_whole():
    model, images = make_model(), make_images(31)
    evaluation_set = ImageEvaluationSet("test", images, images.labels, PREPROCESS)
    features = FeatureEvaluationSet("test", torch.from_numpy(PREPROCESS.normalize(images.pixels)), images.labels)
    whole = score(model, evaluation_set, 2, CPU).confusion
    for each in (evaluation_set, features):
        np.testing.assert_array_equal(sum(score(model, each, 2, Share(rank)).confusion for rank in (0, 1)), whole)


def test_images_without_a_label_do_not_count():
    images = make_images(10)
    labels = images.labels.copy()
    labels[:4] = -1
    assert score(make_model(), ImageEvaluationSet("test", images, labels, PREPROCESS), 2, CPU).confusion.sum() == 6
    with pytest.raises(DataError, match="none of the test images has a label"):
        ImageEvaluationSet(
            "test", ArrayDataset("x", images.pixels, images.labels, images.class_names), labels * 0 - 1, PREPROCESS
        )
