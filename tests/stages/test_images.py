import re

import numpy as np
import pytest

from edgevit.data.batches import Strict, Unreadable
from edgevit.data.dataset import ArrayDataset
from edgevit.data.in_memory import ImageList
from edgevit.data.preprocess import Preprocess
from edgevit.data.shapes import load_shapes
from edgevit.errors import DataError
from edgevit.files import sha256_of
from edgevit.quantization.calibration.pixels import PixelObserver
from edgevit.stages.images import DataSource, LabelledBatches, data_warnings, shared_images

NAMES = load_shapes("test").class_names


def source(**changes):
    return DataSource(**{"name": "shapes:size=16,count=80", "split": "test", "unreadable": Unreadable()} | changes)


def test_samples_are_balanced_and_drawn_by_the_seed():
    drawn = source(samples=16, seed=3).load()
    assert np.bincount(drawn.labels).tolist() == [2] * 8
    assert drawn.indices.tolist() == source(samples=16, seed=3).load().indices.tolist()
    assert drawn.indices.tolist() != source(samples=16, seed=4).load().indices.tolist()


@pytest.mark.parametrize("samples", [None, 80, 1000])
def test_there_are_no_more_samples_than_images(samples):
    assert len(source(samples=samples).load()) == 80


def test_unlabelled_images_are_drawn_too(tmp_path):
    for index in range(4):
        load_shapes("test").image(index).save(tmp_path / f"{index}.png")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{index}.png\n" for index in range(4)))
    dataset = source(name=str(tmp_path / "list.csv"), samples=3).load()
    assert len(dataset) == 3
    assert LabelledBatches.of(dataset, NAMES).labels is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1] * 8, []),
        ([-1] * 16, []),
        ([1] * 16, ["All calibration images are of one class: ranges may be too narrow for the others"]),
        ([0, 1], ["Only 2 images to calibrate on: ranges may be too narrow, give 128 or so"]),
    ],
)
def test_what_speaks_against_images_to_calibrate_on_is_said(labels, said):
    pixels = np.zeros((len(labels), 4, 4, 3), dtype=np.uint8)
    assert data_warnings(ArrayDataset("some", pixels, np.array(labels), ("a", "b"))) == said


def looks(pixels):
    """Return what is said of images (N, H, W, 3) once they are preprocessed as a model wants them."""
    observer = PixelObserver()
    preprocess = Preprocess(size=(8, 8), resize=None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    for image in preprocess.normalize(pixels):
        observer.update(image[None])
    labels = np.arange(len(pixels)) % 2
    return data_warnings(ArrayDataset("some", pixels, labels, ("a", "b")), observer.statistics())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("photos", None),
        ("flat", "20 of 20 calibration images are of one colour"),
        ("alike", "20 of 20 calibration images are the same image"),
        ("grey", "have no colour"),
        ("dark", r"mean -1\.\d+ and standard deviation 0\.\d+, far from"),
    ],
)
def test_images_that_look_unlike_a_models_are_warned_of(kind, said):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    changed = {
        "photos": pixels,
        "flat": np.broadcast_to(pixels[:, :1, :1], pixels.shape).copy(),
        "alike": np.broadcast_to(pixels[:1], pixels.shape).copy(),
        "grey": np.broadcast_to(pixels[..., :1], pixels.shape).copy(),
        "dark": pixels // 32,
    }
    found = looks(changed[kind])
    assert len(found) == (said is not None)
    assert said is None or re.search(said, found[0])


def test_labels_are_the_models_class_indices():
    dataset = source().load()
    turned = NAMES[::-1]
    wanted = LabelledBatches.of(dataset, turned)
    assert [turned[label] for label in wanted.labels] == [NAMES[label] for label in dataset.labels]
    assert len(wanted) == 80


def test_an_embedding_model_takes_the_labels_of_the_data():
    dataset = source().load()
    assert LabelledBatches.of(dataset, ()).labels.tolist() == dataset.labels.tolist()


def test_images_that_serve_two_ends_are_counted(tmp_path):
    for name in ("train/a/0", "train/b/1", "test/a/2", "test/b/3"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        load_shapes("test").image(0).save(path)
    (tmp_path / "list.csv").write_text("path\ntest/a/2.png\ntrain/a/0.png\n")
    parts = [source(name=str(tmp_path), split=split).load() for split in ("train", "test")]
    assert shared_images(*parts) is None
    listed = source(name=str(tmp_path / "list.csv"))
    assert shared_images(listed.load(), parts[1]).startswith("1 of the 2 calibration images are also measured on")
    drawn = source(name=str(tmp_path / "list.csv"), samples=1).load()
    assert shared_images(drawn, listed.load()).startswith("1 of the 1 ")
    flat = [source(name=str(tmp_path / "train"), split=split).load() for split in ("train", "test")]
    assert shared_images(*flat).startswith("2 of the 2 ")
    assert shared_images(source().load(), source().load()) is None


def test_classes_that_the_model_lacks_are_an_error():
    with pytest.raises(DataError, match="no class called 'bar'"):
        LabelledBatches.of(source().load(), NAMES[1:])


@pytest.mark.parametrize("collector", [Unreadable, Strict])
def test_reading_goes_on_without_what_cannot_be_read_unless_strict(tmp_path, collector):
    from tiny import PREPROCESS

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        load_shapes("test").image(0).save(tmp_path / name / "good.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    images = source(name=str(tmp_path), unreadable=collector())
    wanted = LabelledBatches.of(images.load(), ("a", "b"))
    reading = wanted.read(PREPROCESS, batch_size=2, unreadable=images.unreadable)
    if collector is Strict:
        with pytest.raises(DataError, match=r"bad\.png"):
            list(reading)
    else:
        (batch,) = reading
        assert wanted.labels[batch.indices].tolist() == [0, 1]
        assert list(images.unreadable.images) == [str(tmp_path / "a" / "bad.png")]


def contents(dataset):
    return [dataset.image_sha256(index) for index in range(len(dataset))]


@pytest.mark.parametrize(
    ("samples", "chosen", "held_out"),
    [(16, 16, 64), (60, 60, 20), (70, 60, 20), (None, 60, 20), (1000, 60, 20)],
)
def test_images_to_judge_by_are_none_of_those_to_calibrate_with(samples, chosen, held_out):
    """The others, or a quarter of all where too few would be left."""
    calibration, apart = source(samples=samples).load_apart(256)
    assert (len(calibration), len(apart)) == (chosen, held_out)
    assert not set(contents(calibration)) & set(contents(apart))
    assert np.bincount(apart.labels, minlength=8).min() > 0
    if samples and chosen == samples:
        assert calibration.indices.tolist() == source(samples=samples).load().indices.tolist()


def test_no_more_images_are_judged_by_than_asked_for():
    assert len(source(samples=16).load_apart(24)[1]) == 24


@pytest.mark.parametrize("samples", [None, 1, 16, 79, 80, 200])
def test_a_recipes_limit_takes_nothing_from_the_calibration_images(samples):
    """It is judged by others; where there are too few of them, by those as well."""
    calibration, beside = source(samples=samples).load_beside(16)
    fitted = contents(calibration)
    assert fitted == contents(source(samples=samples).load())
    assert len(beside) == max(16, 80 - len(calibration))
    others, filled = contents(beside)[: 80 - len(calibration)], contents(beside)[80 - len(calibration) :]
    assert not set(fitted) & set(others)
    assert set(filled) <= set(fitted)


def test_a_copy_of_an_image_is_not_judged_by(tmp_path):
    for index in range(8):
        load_shapes("test").image(index % 2).save(tmp_path / f"{index}.png")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{index}.png\n" for index in range(8)))
    with pytest.raises(DataError, match="no image to judge by"):
        source(name=str(tmp_path / "list.csv"), samples=6).load_apart(256)
    load_shapes("test").image(2).save(tmp_path / "7.png")
    held_out = [source(name=str(tmp_path / "list.csv"), samples=6, seed=seed) for seed in range(4)]
    for each in held_out:
        try:
            calibration, apart = each.load_apart(256)
        except DataError:  # the one that differs is calibrated with
            continue
        assert contents(apart) == [sha256_of(tmp_path / "7.png")]
        assert len(calibration) == 6


def test_one_image_cannot_be_judged_by_and_calibrated_with(tmp_path):
    load_shapes("test").image(0).save(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text("path\n0.png\n")
    with pytest.raises(DataError, match="no image to judge by") as caught:
        source(name=str(tmp_path / "list.csv")).load_apart(256)
    assert "at least two" in caught.value.remedy


@pytest.mark.parametrize("cell", ["['a', 'b']", '["a", "b"]', "a/b", "a+b", "01001"])
def test_several_labels_in_a_form_that_is_not_read_are_refused(cell):
    """Else they would be taken for the name of one class, and nothing would be compared with them."""
    listed = ImageList([np.zeros((4, 4, 3), np.uint8)] * 2, [cell, "a"])
    with pytest.raises(DataError):
        LabelledBatches.of(listed, tuple("abcde"), several=True)
