"""Batches: in order, complete, bounded, and without the images that cannot be read."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.batches import PixelCache, Strict, Unreadable, batches, load_pixels, load_readable
from edgevit.data.dataset import ArrayDataset, Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, ImageError

GREY = Preprocess(size=(4, 4), resize=None, mean=(0.5,), std=(0.5,), channel_order="L")


class Numbered(Dataset):
    """Image i is full of the value i; those in ``bad`` cannot be read."""

    def __init__(self, count, bad=()):
        super().__init__("numbered", np.zeros(count, np.int64), ("a",))
        self.bad = set(bad)
        self.read = 0
        self.lock = threading.Lock()

    def image(self, index):
        with self.lock:
            self.read += 1
        if index in self.bad:
            raise ImageError(f"{index} is bad", remedy="remove it")
        return Image.new("L", (4, 4), index)

    def describe(self, index):
        return f"image {index}"


def values(batch):
    return np.rint((batch.images[:, 0, 0, 0] * 0.5 + 0.5) * 255).astype(int).tolist()


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 50), st.sets(st.integers(0, 39), max_size=10))
def test_order_and_what_is_left_out(count, batch_size, bad):
    good = [index for index in range(count) if index not in bad]
    unreadable = Unreadable()
    seen = []
    try:
        for batch in batches(Numbered(count, bad), GREY, batch_size=batch_size, unreadable=unreadable):
            assert batch.images.shape == (len(batch.indices), 1, 4, 4)
            assert batch.images.dtype == np.float32
            assert values(batch) == batch.indices.tolist()
            assert len(batch.indices) == min(batch_size, len(good) - len(seen))
            seen += batch.indices.tolist()
    except DataError:
        assert not good
    assert seen == good
    assert list(unreadable.images) == [f"image {index}" for index in range(count) if index in bad]


def test_chosen_indices_in_their_order():
    chosen = np.asarray([7, 3, 3, 9])
    (batch,) = batches(Numbered(20), GREY, batch_size=8, indices=chosen, unreadable=Strict())
    assert batch.indices.tolist() == values(batch) == [7, 3, 3, 9]


def test_no_images_no_batches():
    assert list(batches(Numbered(5), GREY, batch_size=2, indices=np.zeros(0, np.int64), unreadable=Strict())) == []


def test_strict_raises_at_once():
    dataset = Numbered(200, bad=[3])
    with pytest.raises(ImageError, match="3 is bad"):
        list(batches(dataset, GREY, batch_size=4, unreadable=Strict()))
    assert dataset.read < 40


def test_reads_only_a_batch_ahead_and_stops_with_its_reader():
    dataset = Numbered(250)
    reader = batches(dataset, GREY, batch_size=4, unreadable=Strict())
    next(reader)
    assert dataset.read <= 4 + 4 + 1
    before = threading.active_count()
    reader.close()
    assert threading.active_count() < before
    assert dataset.read <= 9


def test_each_image_that_cannot_be_read_is_named_once():
    unreadable = Unreadable()
    assert unreadable.names == ()
    for index in (1, 2, 2, 3, 4):
        unreadable.add(f"image {index}", ImageError("bad", remedy="x"))
    assert len(unreadable) == 4
    assert unreadable.names == ("image 1", "image 2", "image 3", "image 4")


def test_batch_size_of_none():
    with pytest.raises(DataError, match="batch cannot have 0 images"):
        next(batches(Numbered(1), GREY, batch_size=0, unreadable=Strict()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["L", "RGB", "BGR"])
@pytest.mark.parametrize("resize", [None, 4, 6])
def test_pixels_in_memory_equal_geometry(channels, order, resize):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (70, 4, 4, channels), dtype=np.uint8)
    dataset = ArrayDataset("x", pixels, np.zeros(70, np.int64), ("a",))
    depth = 1 if order == "L" else 3
    preprocess = Preprocess(size=(4, 4), resize=resize, mean=(0,) * depth, std=(1,) * depth, channel_order=order)
    loaded = load_pixels(dataset, preprocess)
    assert loaded.dtype == np.uint8
    assert loaded.flags.writeable
    assert loaded.flags.c_contiguous
    assert np.array_equal(loaded, [preprocess.geometry(dataset.image(index)) for index in range(70)])
    read = list(batches(dataset, preprocess, batch_size=32, unreadable=Strict()))
    assert [len(batch.indices) for batch in read] == [32, 32, 6]
    assert np.array_equal(np.concatenate([batch.images for batch in read]), preprocess.normalize(loaded))
    assert np.concatenate([batch.indices for batch in read]).tolist() == list(range(70))
    some = load_pixels(dataset, preprocess, indices=np.asarray([5, 2]))
    assert np.array_equal(some, loaded[[5, 2]])


def test_pixels_in_memory_are_padded_too():
    pixels = np.random.default_rng(0).integers(1, 256, (3, 4, 6, 1), dtype=np.uint8)
    dataset = ArrayDataset("x", pixels, np.zeros(3, np.int64), ("a",))
    preprocess = Preprocess(
        size=(4, 6), resize=None, fit="none", pad="after", crop=(3, 4), mean=(0,), std=(1,), channel_order="L"
    )
    loaded = load_pixels(dataset, preprocess)
    assert np.array_equal(loaded[:, :3, :4], pixels[:, :3, 1:5])
    assert not loaded[:, 3:].any()
    assert not loaded[:, :, 4:].any()


def test_pixels_of_what_can_be_read():
    unreadable = Unreadable()
    loaded = load_readable(Numbered(100, bad=[0, 50, 99]), GREY, unreadable=unreadable)
    assert loaded.pixels[:, 0, 0, 0].tolist() == loaded.indices.tolist()
    assert len(loaded.indices) == 97
    assert len(unreadable) == 3
    with pytest.raises(ImageError, match="0 is bad"):
        load_pixels(Numbered(100, bad=[0, 50]), GREY)
    with pytest.raises(DataError, match="none of the 2 images"):
        load_readable(Numbered(2, bad=[0, 1]), GREY, unreadable=Unreadable())


@given(most=st.integers(0, 16 * 9), size=st.integers(1, 5))
@settings(deadline=None)
def test_a_cache_keeps_what_fits_and_changes_nothing(most, size):
    dataset, cache = Numbered(8, bad=[2]), PixelCache(most)

    def seen():
        return [
            (batch.indices.tolist(), values(batch))
            for batch in batches(dataset, GREY, batch_size=size, unreadable=Unreadable(), cache=cache)
        ]

    first, read = seen(), dataset.read
    assert read == 8
    assert seen() == first
    assert dataset.read - read == 8 - min(most // 16, 7)  # an image has 16 bytes; the bad one is tried again
