"""Image folders: layouts, splits, and what is no data set."""

import os

import pytest
from PIL import Image

from edgevit.data.folder import load_folder
from edgevit.errors import DataError, ImageError


def fill(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")
    return root


def relative(dataset, root):
    return [str(path.relative_to(root)) for path in dataset.paths]


def test_classes_without_splits_serve_any(tmp_path):
    fill(tmp_path, "dog/b.jpg", "dog/a.PNG", "cat/x.webp")
    for split in ("train", "test"):
        dataset = load_folder(tmp_path, split)
        assert relative(dataset, tmp_path) == ["cat/x.webp", "dog/a.PNG", "dog/b.jpg"]
        assert dataset.class_names == ("cat", "dog")
        assert dataset.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("present", "split", "served"),
    [
        (("train", "test", "validation"), "train", "train"),
        (("train", "test", "validation"), "test", "test"),
        (("train", "val"), "test", "val"),
        (("train", "validation"), "test", "validation"),
        (("Train", "Valid"), "test", "Valid"),
        (("Train", "Valid"), "train", "Train"),
    ],
)
def test_splits(tmp_path, present, split, served):
    for name in present:
        fill(tmp_path, f"{name}/a/1.png", f"{name}/b/1.png")
    assert relative(load_folder(tmp_path, split), tmp_path) == [f"{served}/a/1.png", f"{served}/b/1.png"]


def test_classes_are_the_same_in_all_splits(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png")
    test = load_folder(tmp_path, "test")
    assert test.class_names == load_folder(tmp_path, "train").class_names == ("a", "b", "c")
    assert test.labels.tolist() == [2]


def test_a_class_may_be_called_test(tmp_path):
    fill(tmp_path, "test/1.png", "train/1.png")
    assert load_folder(tmp_path, "train").class_names == ("test", "train")


def test_hidden_and_other_files_are_left_out(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png", "b/.hidden.png", ".git/1.png")
    (tmp_path / "a/notes.txt").write_text("x")
    (tmp_path / "a/folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("x")
    assert relative(load_folder(tmp_path, "train"), tmp_path) == ["a/1.png", "b/1.png"]


def test_links_are_followed(tmp_path):
    fill(tmp_path / "real", "a/1.png", "b/1.png")
    (tmp_path / "set").mkdir()
    for name in "ab":
        (tmp_path / "set" / name).symlink_to(tmp_path / "real" / name)
    assert load_folder(tmp_path / "set", "train").class_names == ("a", "b")


def test_broken_link_is_an_unreadable_image(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a/0.png").symlink_to(tmp_path / "gone.png")
    dataset = load_folder(tmp_path, "train")
    with pytest.raises(ImageError, match="does not exist"):
        dataset.image(0)
    with pytest.raises(ImageError, match="cannot read"):
        dataset.fingerprint()


@pytest.mark.parametrize(
    ("names", "split", "what"),
    [
        ((), "train", "no images"),
        (("1.png", "2.png"), "train", "lie in no class's folder: .*1.png"),
        (("a/1.png", "b/1"), "train", "only one class, 'a'; left out 1 image whose names .*/b/1; .* classes .*/b"),
        (("Training/a/1.png", "Training/b/1.png"), "test", "no images for test"),
        (("a/training/1.png", "a/testing/1.png", "b/1.png"), "test", "called testing and training"),
        (("a/b/c/1.png",), "train", "only one class, 'a'"),
        (("a/1.png", "b/train/1.png", "b/test/1.png"), "train", "b has folders called test and train"),
        (("train/a/1.png", "Train/b/1.png"), "train", "two folders for train: Train and train"),
        (("val/a/1.png", "valid/b/1.png"), "test", "two folders for validation: val and valid"),
        (("only/1.png", "only/2.png"), "train", "only one class, 'only'"),
        (("train/only/1.png", "test/only/1.png"), "test", "only one class, 'only'"),
        (("test/a/1.png", "test/b/1.png"), "train", "no images for train"),
        (("train/a/1.png", "train/b/1.png"), "test", "no images for test"),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), "test", "no images for test"),
    ],
)
def test_what_is_no_data_set(tmp_path, names, split, what):
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=what) as caught:
        load_folder(tmp_path, split)
    assert caught.value.exit_code == 2
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("names", "split", "taken", "note"),
    [
        (("2.png", "1.png"), "train", ["1.png", "2.png"], "has no folders of classes"),
        (("2.png", ".1.png", "notes/a.png"), "test", ["2.png", "notes/a.png"], "one class alone, 'notes'"),
        (("only/1.png", "only/deep/2.png"), "test", ["only/1.png", "only/deep/2.png"], "one class alone, 'only'"),
        (("train/1.png", "test/2.png"), "train", ["train/1.png"], "train has no folders of classes"),
        (("train/1.png", "test/2.png"), "test", ["test/2.png"], "test has no folders of classes"),
        (("train/a/1.png", "train/b/1.png", "test/2.png"), "test", ["test/2.png"], "test has no folders"),
        (("train/only/1.png", "val/only/2.png"), "test", ["val/only/2.png"], "one class alone, 'only'"),
    ],
)
def test_images_that_need_no_labels(tmp_path, names, split, taken, note):
    dataset = load_folder(fill(tmp_path, *names), split, labelled=False)
    assert relative(dataset, tmp_path) == taken
    assert dataset.labels.tolist() == [-1] * len(taken)
    assert dataset.class_names == ()
    assert note in dataset.notes[0]


@pytest.mark.parametrize("names", [("a/1.png", "b/1.png", "2.png"), ("train/1.png", "b/1.png")])
def test_labels_that_are_there_are_taken_all_the_same(tmp_path, names):
    fill(tmp_path, *names)
    both = [load_folder(tmp_path, "train", labelled=labelled) for labelled in (True, False)]
    assert both[0].paths == both[1].paths
    assert both[0].labels.tolist() == both[1].labels.tolist() == [0, 1]
    assert both[0].notes == both[1].notes


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ((), "has no images"),
        (("a/notes.heic",), "HEIC"),
        (("train/1.png", "train/2.png"), "has train, but no images for test"),
        (("a/1.png", "b/train/1.png", "b/test/1.png"), "b has folders called test and train"),
    ],
)
def test_what_is_no_data_set_without_labels_either(tmp_path, names, what):
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=what) as caught:
        load_folder(tmp_path, "test", labelled=False)
    assert caught.value.remedy


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load_folder(tmp_path / "none", "train")


def test_fingerprint_tells_images_and_labels(tmp_path):
    first = load_folder(fill(tmp_path / "1", "a/1.png", "b/2.png"), "train").fingerprint()
    assert load_folder(fill(tmp_path / "2", "a/1.png", "b/2.png"), "train").fingerprint() == first
    assert load_folder(fill(tmp_path / "3", "a/1.png", "c/2.png"), "train").fingerprint() != first
    other = fill(tmp_path / "4", "a/1.png", "b/2.png")
    Image.new("RGB", (4, 4), "green").save(other / "a/1.png")
    assert load_folder(other, "train").fingerprint() != first


@pytest.mark.shared
def test_clothing(shared):
    root = shared / "images/clothing"
    train, test = load_folder(root, "train"), load_folder(root, "test")
    assert train.class_names == test.class_names
    assert len(train.class_names) == 10
    assert len(test) == 372


# The orders are those that torchvision documents for ImageFolder: classes by name, then folders by path, then names.
def test_images_lie_at_any_depth(tmp_path):
    fill(tmp_path, "cat/z.png", "cat/in/b.png", "cat/in/a.png", "cat/in/deep/1.png", "cat/in-2/1.png", "dog/x/1.png")
    dataset = load_folder(tmp_path, "test")
    wanted = ["cat/z.png", "cat/in/a.png", "cat/in/b.png", "cat/in-2/1.png", "cat/in/deep/1.png", "dog/x/1.png"]
    assert relative(dataset, tmp_path) == wanted
    assert dataset.labels.tolist() == [0, 0, 0, 0, 0, 1]
    assert any("cat/in" in note and "of that class" in note for note in dataset.notes)


def test_parts_hold_nested_folders(tmp_path):
    fill(tmp_path, "train/a/x/1.png", "train/b/1.png", "test/a/1.png", "test/b/x/y/1.png")
    assert relative(load_folder(tmp_path, "test"), tmp_path) == ["test/a/1.png", "test/b/x/y/1.png"]


def test_links_in_a_circle_end(tmp_path):
    fill(tmp_path, "a/1.png", "b/deep/1.png")
    (tmp_path / "b/deep/up").symlink_to(tmp_path / "b")
    (tmp_path / "a/self").symlink_to(".")
    dataset = load_folder(tmp_path, "train")
    assert relative(dataset, tmp_path) == ["a/1.png", "b/deep/1.png"]
    assert any("2 links" in note for note in dataset.notes)


def test_what_is_left_out_is_named(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png", "b/._1.png", ".ipynb_checkpoints/1.png", "loose.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone/1.HEIC").write_bytes(b"x")
    notes = "\n".join(load_folder(tmp_path, "train").notes)
    for said in ("1 image in HEIC", "convert it to JPEG", "2 hidden images", "empty", "phone", "loose.png"):
        assert said in notes


def test_images_that_are_not_named_as_such_are_named(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png", "b/e3b0c442", "b/2.png.bak")
    (tmp_path / "b" / "labels.txt").write_text("1.png b")
    os.mkfifo(tmp_path / "b" / "pipe")
    notes = load_folder(tmp_path, "train").notes
    assert [note for note in notes if "left out 2 images" in note and "2.png.bak" in note] == list(notes)


@pytest.mark.parametrize("parts", [("training", "testing"), ("Train", "DEV")])
def test_parts_by_other_names(tmp_path, parts):
    fill(tmp_path, *(f"{part}/{name}/1.png" for part in parts for name in "ab"))
    assert relative(load_folder(tmp_path, "train"), tmp_path) == [f"{parts[0]}/a/1.png", f"{parts[0]}/b/1.png"]
    assert relative(load_folder(tmp_path, "test"), tmp_path) == [f"{parts[1]}/a/1.png", f"{parts[1]}/b/1.png"]


def test_classes_whose_names_are_alike_are_named(tmp_path):
    notes = load_folder(fill(tmp_path, "Cat/1.png", "cat/1.png", "dog/1.png"), "train").notes
    assert any("'Cat' and 'cat' are alike" in note for note in notes)


def test_a_plain_folder_has_no_notes(tmp_path):
    assert load_folder(fill(tmp_path, "a/1.png", "b/1.png"), "train").notes == ()


def test_folders_beside_the_parts_and_classes_without_images_are_named(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "more/1.png")
    notes = "\n".join(load_folder(tmp_path, "test").notes)
    assert "no images of 1 of 2 classes: 'b'" in notes
    assert "more" in notes


def test_only_formats_that_are_not_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.avif").write_bytes(b"x")
    with pytest.raises(DataError, match="2 images in AVIF"):
        load_folder(tmp_path, "train")


def test_unicode_forms_are_one_class(tmp_path):
    fill(tmp_path, "train/Scho\u0308nes/1.png", "train/b/1.png", "test/Sch\u00f6nes/1.png")
    train, test = load_folder(tmp_path, "train"), load_folder(tmp_path, "test")
    assert train.class_names == test.class_names == ("Sch\u00f6nes", "b")
