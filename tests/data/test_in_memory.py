import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.in_memory import ImageList
from edgevit.errors import DataError, ImageError

IMAGES = [np.full((4, 6, 3), 40, np.uint8), Image.new("L", (3, 2), 7), "nothing.png", b"no image"]


def test_images_are_decoded_when_they_are_looked_at():
    listed = ImageList(IMAGES)
    assert len(listed) == 4
    assert listed.image(0).size == (6, 4)
    assert listed.image(1).mode == "L"
    for index in (2, 3):
        with pytest.raises(ImageError):
            listed.image(index)
    assert [listed.describe(index) for index in (0, 2)] == ["image 0", "nothing.png"]
    assert (listed.labels == -1).all()
    assert listed.class_names == ()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_indices_keep_their_meaning(labels):
    listed = ImageList([IMAGES[0]] * len(labels), labels)
    assert [int(listed.class_names[label]) for label in listed.labels] == labels


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=20))
def test_names_keep_their_meaning(labels):
    listed = ImageList([IMAGES[0]] * len(labels), labels)
    assert [listed.class_names[label] for label in listed.labels] == labels


@pytest.mark.parametrize("labels", [[True, False], ["a", 1], [1.0, 2.0], [None, None], [-1, 0], [0], [0, 1, 2]])
def test_labels_of_no_meaning_are_refused(labels):
    with pytest.raises(DataError) as caught:
        ImageList(IMAGES[:2], labels)
    assert caught.value.remedy


def test_no_images():
    with pytest.raises(DataError, match="no images"):
        ImageList([])
