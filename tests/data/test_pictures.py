import numpy as np
import pytest
from PIL import Image

from edgevit.data import pictures
from edgevit.data.pictures import images_in
from edgevit.errors import DataError
from edgevit.progress import Silent


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


def test_a_folder_stands_for_the_images_at_any_depth(tmp_path):
    first, deep = picture(tmp_path / "folder" / "a.png"), picture(tmp_path / "folder" / "b" / "c" / "d.JPG")
    alone = picture(tmp_path / "alone.png")
    (tmp_path / "folder" / "notes.txt").write_text("x")
    (tmp_path / "folder" / "b" / "again").symlink_to(tmp_path / "folder")
    notes = Notes()
    assert images_in([alone, tmp_path / "folder", tmp_path / "gone.png"], notes) == [
        *(alone, first, deep),
        tmp_path / "gone.png",
    ]
    assert "1 link to folders" in notes.said[0]


def test_formats_that_are_not_read_are_named(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(b"x")
    notes = Notes()
    assert images_in([tmp_path], notes) == [tmp_path / "a.png"]
    assert "1 image in HEIC, which EdgeViT does not read" in notes.said[0]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="has no images that EdgeViT reads: left out 1 image in HEIC"):
        images_in([tmp_path])


def test_a_folder_without_images_says_what_to_give(tmp_path):
    with pytest.raises(DataError, match="has no images") as error:
        images_in([tmp_path])
    assert "JPEG" in error.value.remedy


def test_more_than_one_call_takes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST", 2)
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match="3 images, more than 2"):
        images_in([tmp_path])
