"""Distances between features, and the measure of an embedding model."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist

from edgevit import statistics
from edgevit.bundle.manifest import Accuracy
from edgevit.errors import DataError
from edgevit.evaluation.embedding import measure_embedding
from edgevit.statistics import cosines, mean_cosine_between, nearest_neighbors, wilson_interval

FEATURES = arrays.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=st.integers(-3, 3).map(float)
).filter(lambda rows: np.abs(rows).sum(axis=1).all())


def measure(reference, features, labels=None, **options):
    return measure_embedding(reference, features, labels, data="photos", data_sha256="0" * 64, **options)


def random(rows=40, width=16, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@given(FEATURES, st.floats(0.01, 100))
def test_cosines_are_scipys_and_do_not_see_lengths(features, factor):
    other = features[::-1]
    expected = 1 - np.diag(cdist(features.astype(float), other.astype(float), "cosine"))
    np.testing.assert_allclose(cosines(features, np.float32(factor) * other), expected, atol=1e-6)
    np.testing.assert_allclose(cosines(features, features), 1)


@given(FEATURES)
def test_the_nearest_neighbour_is_scipys(features):
    similarity = 1 - cdist(features.astype(float), features.astype(float), "cosine")
    np.fill_diagonal(similarity, -np.inf)
    nearest = nearest_neighbors(features)
    rows = np.arange(len(features))
    assert (nearest != rows).all()
    np.testing.assert_allclose(similarity[rows, nearest], similarity.max(axis=1), atol=1e-6)


@given(FEATURES)
def test_the_mean_between_images_is_that_of_all_pairs(features):
    similarity = 1 - cdist(features.astype(float), features.astype(float), "cosine")
    pairs = similarity[~np.eye(len(features), dtype=bool)]
    assert mean_cosine_between(features) == pytest.approx(pairs.mean(), abs=1e-9)


def test_neighbours_are_the_same_block_by_block(monkeypatch):
    features = random(50)
    whole = nearest_neighbors(features)
    monkeypatch.setattr(statistics, "_BLOCK", 7)
    assert np.array_equal(nearest_neighbors(features), whole)


@pytest.mark.parametrize("spoilt", [0.0, np.nan, np.inf])
def test_features_without_a_direction_have_no_neighbour_and_are_none(spoilt):
    features = random(6)
    features[2] = spoilt
    nearest = nearest_neighbors(features)
    assert nearest[2] == -1
    assert 2 not in nearest
    assert (np.delete(nearest, 2) >= 0).all()
    assert cosines(features, features).tolist() == pytest.approx([1, 1, 0, 1, 1, 1])
    assert mean_cosine_between(features) == pytest.approx(mean_cosine_between(np.delete(features, 2, axis=0)))
    assert nearest_neighbors(features[:1]).tolist() == [-1]
    assert mean_cosine_between(features[2:3]) is None


def test_float32_against_itself_is_perfect():
    features = random()
    result = measure(features, features, np.arange(40) % 4, min_cosine=1)
    similarity = result.similarity
    assert (similarity.cosine_mean, similarity.cosine_p1) == (pytest.approx(1), pytest.approx(1))
    assert (result.agreement, similarity.delta_recall_at_1, result.sqnr_db) == (1, 0, None)
    assert result.passed
    assert result.reason == "mean cosine 1.0000 with float32"


def test_recall_counts_neighbours_of_the_same_class():
    # Four directions; float32 pairs (0, 1) and (2, 3), the variant (0, 2) and (1, 3).
    reference = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], dtype=np.float32)
    variant = reference[[0, 2, 1, 3]]
    labels = np.array([0, 0, 5, 5])
    before = measure(reference, reference, labels).similarity
    assert (before.recall_at_1, before.recall_at_1_ci95) == (1, wilson_interval(4, 4))
    result = measure(reference, variant, labels)
    assert (result.similarity.recall_at_1, result.similarity.delta_recall_at_1) == (0, -1)
    assert result.agreement == 0
    assert not result.passed
    assert result.reason.endswith("at least 0.99 wanted")


@pytest.mark.parametrize("labels", [None, np.full(40, -1)])
def test_without_labels_there_is_no_recall(labels):
    similarity = measure(random(), random(seed=1), labels).similarity
    assert (similarity.recall_at_1, similarity.recall_at_1_ci95, similarity.delta_recall_at_1) == (None,) * 3


@given(st.floats(0, 0.1))
def test_the_gate_asks_for_the_mean_cosine(noise):
    reference = random()
    result = measure(reference, reference + np.float32(10 * noise) * random(seed=1), min_cosine=0.95)
    assert result.passed == (result.similarity.cosine_mean >= 0.95)
    assert result.similarity.min_cosine == 0.95


def test_features_that_are_not_numbers_fail_and_can_still_be_written_down():
    features = random()
    broken = features.copy()
    broken[7, 3] = np.nan
    result = measure(features, broken, np.zeros(40, dtype=np.int64))
    assert not result.passed
    assert "not finite" in result.reason
    assert (result.similarity.cosine_mean, result.sqnr_db) == (None, None)
    assert result.similarity.recall_at_1 == 39 / 40
    assert msgspec.json.decode(msgspec.json.encode(result), type=Accuracy) == result


@pytest.mark.parametrize(
    ("reference", "features", "labels", "words"),
    [
        (random(3), random(3, 8), None, "cannot be compared"),
        (random(1), random(1), None, "no nearest neighbour"),
        (random(3), random(3), np.zeros(2, dtype=np.int64), "2 labels for 3 images"),
        (random(3), random(3), np.array([0, -1, 1]), "1 of 3 images have no label"),
    ],
)
def test_what_does_not_fit_is_refused(reference, features, labels, words):
    with pytest.raises(DataError, match=words) as caught:
        measure(reference, features, labels)
    assert caught.value.remedy
