"""Procedural shapes: the same images for the same seed, told apart by class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.data.shapes import Shapes, load_shapes
from edgevit.errors import DataError

CLASSES = 8


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch):
    """Draw each time: that is what is tested here."""
    monkeypatch.setattr(Shapes, "image", Shapes.image.drawn)


def pixels(dataset, index):
    return np.asarray(dataset.image(index))


@given(st.integers(8, 80), st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(10, 3000))
def test_image_depends_on_seed_and_index_not_on_count(size, seed, index, count):
    image = pixels(Shapes("train", size=size, count=10, seed=seed), index)
    assert image.shape == (size, size, 3)
    assert np.array_equal(image, pixels(Shapes("train", size=size, count=count, seed=seed), index))


def test_seeds_splits_and_indices_differ():
    first = Shapes("train", size=32, count=20, seed=0)
    for other, index in (
        (Shapes("train", size=32, count=20, seed=1), 0),
        (Shapes("test", size=32, count=20, seed=0), 0),
        (first, CLASSES),
    ):
        assert not np.array_equal(pixels(first, 0), pixels(other, index))


def test_classes_take_turns():
    labels = load_shapes("test", "count=83").labels
    assert np.bincount(labels).max() - np.bincount(labels).min() == 1
    assert len(np.unique(labels)) == CLASSES


def test_fingerprint():
    assert load_shapes("test", "count=9").fingerprint() == load_shapes("test", "count=9").fingerprint()
    assert load_shapes("test", "count=9").fingerprint() != load_shapes("test", "count=9,seed=1").fingerprint()


def test_images_stand_out_from_their_background():
    dataset = load_shapes("train", "count=80,size=48")
    spread = [pixels(dataset, index).astype(float).std(axis=(0, 1)).max() for index in range(80)]
    assert min(spread) > 10


def test_options():
    dataset = load_shapes("train", " size = 32,count=5,seed=7,")
    assert (dataset.size, len(dataset), dataset.name) == (32, 5, "shapes:size=32,count=5,seed=7")
    assert len(load_shapes("train")) == 2000
    for bad in ("size=", "size=7", "size=1e3", "count=0", "count=-1", "seed=4294967296", "colour=3", "64", "size=٣٢"):
        with pytest.raises(DataError) as caught:
            load_shapes("train", bad)
        assert caught.value.remedy
