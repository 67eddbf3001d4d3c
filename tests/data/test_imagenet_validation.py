"""ImageNet-1k's validation images in each layout in which they are handed out; a few of them, with made-up pixels."""

import numpy as np
import pytest
from PIL import Image
from scipy import io

from edgevit.data.imagenet import imagenet_labels, imagenet_synsets
from edgevit.data.labels import map_labels
from edgevit.data.sources import load_dataset
from edgevit.errors import DataError, EdgeViTError

NUMBERS = (1, 2, 7, 40)
CLASSES = (65, 970, 334, 0)  # the first three are the real ones


def image(number, synset=""):
    return f"ILSVRC2012_val_{number:08}{synset and '_' + synset}.JPEG"


def fill(folder, names):
    folder.mkdir(parents=True)
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (place, 0, 0)).save(folder / name)
    return folder


def kaggle(root):
    fill(root / "ILSVRC/Data/CLS-LOC/val", map(image, NUMBERS))
    rows = [
        f"{image(number)[:-5]},{imagenet_synsets()[label]} 1 2 3 4 {imagenet_synsets()[label]} 5 6 7 8 "
        for number, label in zip(NUMBERS, CLASSES, strict=True)
    ]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    return root


def devkit(root):
    """Number classes otherwise than their ids are sorted, as the development kit does, and add synsets above them."""
    fill(root / "ILSVRC2012_img_val", map(image, NUMBERS))
    order = np.random.default_rng(0).permutation(1000)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array(
        [(number + 1, imagenet_synsets()[label], imagenet_labels()[label], 0) for number, label in enumerate(order)]
        + [(1001, "n00001740", "entity", 2)],
        dtype=kinds,
    )
    data = root / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    io.savemat(data / "meta.mat", {"synsets": synsets.reshape(-1, 1)}, do_compression=True)
    known = dict(zip(NUMBERS, CLASSES, strict=True))
    places = {label: number + 1 for number, label in enumerate(order)}
    truth = [places[known.get(number, 5)] for number in range(1, 51)]
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, truth)) + "\n")
    return root


def caffe(root):
    fill(root / "val", map(image, NUMBERS))
    lines = [f"{image(number)} {label}" for number, label in zip(NUMBERS, CLASSES, strict=True)]
    (root / "val.txt").write_text("\n".join(lines))
    return root


def hub(root):
    return fill(
        root / "val",
        [image(number, imagenet_synsets()[label]) for number, label in zip(NUMBERS, CLASSES, strict=True)],
    ).parent


def folders(root):
    names = [f"{imagenet_synsets()[label]}/{image(number)}" for number, label in zip(NUMBERS, CLASSES, strict=True)]
    return fill(root / "val", names).parent


@pytest.mark.parametrize("layout", [kaggle, devkit, caffe, hub, folders])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_each_layout_gives_the_same_images_and_classes(tmp_path, layout, split):
    found = load_dataset(str(layout(tmp_path / "imagenet")), split=split)
    labels = map_labels(found, imagenet_labels())
    numbers = [int(path.name[15:23]) for path in found.paths]
    assert dict(zip(numbers, labels.tolist(), strict=True)) == dict(zip(NUMBERS, CLASSES, strict=True))


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        (kaggle, "ILSVRC/Data/CLS-LOC/val"),
        (kaggle, "ILSVRC/Data/CLS-LOC"),
        (kaggle, "LOC_val_solution.csv"),
        (devkit, "ILSVRC2012_img_val"),
        (devkit, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"),
        (caffe, "val"),
        (caffe, "val.txt"),
        (hub, "val"),
    ],
)
def test_the_folder_of_images_and_the_file_of_classes_do_as_well(tmp_path, layout, place):
    found = load_dataset(str(layout(tmp_path / "imagenet") / place), split="test")
    assert len(found) == len(NUMBERS)
    assert map_labels(found, imagenet_labels()).tolist() == list(CLASSES)


def test_the_training_images_of_kaggles_folder_serve_training(tmp_path):
    root = kaggle(tmp_path / "imagenet")
    fill(root / "ILSVRC/Data/CLS-LOC/train", [f"n01440764/n01440764_{i}.JPEG" for i in range(3)])
    fill(root / "ILSVRC/Data/CLS-LOC/train/n01443537", ["n01443537_1.JPEG"])
    assert len(load_dataset(str(root), split="train")) == 4
    assert len(load_dataset(str(root), split="test")) == len(NUMBERS)


def test_images_without_classes_are_refused_where_they_are_needed(tmp_path):
    folder = fill(tmp_path / "val", map(image, NUMBERS))
    with pytest.raises(DataError, match="not their classes") as error:
        load_dataset(str(folder), split="test")
    assert "LOC_val_solution.csv" in error.value.remedy
    assert (load_dataset(str(folder), split="test", labelled=False).labels == -1).all()


@pytest.mark.parametrize(
    ("layout", "file", "content"),
    [
        (kaggle, "LOC_val_solution.csv", "ImageId,PredictionString\nhello"),
        (kaggle, "LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001,n00000000 1\n"),
        (kaggle, "LOC_val_solution.csv", "ImageId,PredictionString\n"),
        (caffe, "val.txt", "ILSVRC2012_val_00000001.JPEG tench"),
        (caffe, "val.txt", "ILSVRC2012_val_00000001.JPEG 999999"),
        (devkit, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n2\n\u00b2\n"),
        (devkit, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n"),
        (devkit, "ILSVRC2012_devkit_t12/data/meta.mat", "MATLAB"),
        (devkit, "ILSVRC2012_devkit_t12/data/meta.mat", None),
        (devkit, "ILSVRC2012_devkit_t12/data/meta.mat", b"\xff" * 200),
    ],
)
def test_damaged_files_of_classes_are_refused_by_name(tmp_path, layout, file, content):
    root = layout(tmp_path / "imagenet")
    place = root / file
    if content is None:
        place.unlink()
    else:
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EdgeViTError) as error:
        load_dataset(str(root), split="test")
    assert place.name in error.value.message
    assert error.value.remedy


def test_other_images_of_the_folder_are_left_out_and_named(tmp_path):
    root = caffe(tmp_path / "imagenet")
    for name in ("mine.jpg", "ilsvrc2012_val_00000001.jpg"):  # the second is a number that is there already
        Image.new("RGB", (4, 4)).save(root / "val" / name)
    found = load_dataset(str(root), split="test")
    assert map_labels(found, imagenet_labels()).tolist() == list(CLASSES)
    assert "left out 2 others in the same folder" in found.notes[1]


def test_names_in_lower_case_are_read(tmp_path):
    fill(tmp_path / "val", [image(number).lower() for number in NUMBERS])
    lines = [f"{image(number).lower()} {label}\r\n" for number, label in zip(NUMBERS, CLASSES, strict=True)]
    (tmp_path / "val.txt").write_text("".join(lines))
    assert map_labels(load_dataset(str(tmp_path), split="test"), imagenet_labels()).tolist() == list(CLASSES)


@pytest.mark.parametrize("place", ["", "val"])
def test_folders_of_classes_are_read_as_such_whatever_lies_beside_them(tmp_path, place):
    fill(tmp_path / place / "cat", ["1.jpg", "2.jpg"])
    fill(tmp_path / place / "dog", ["1.jpg"])
    Image.new("RGB", (4, 4)).save(tmp_path / place / image(1))
    (tmp_path / "val.txt").write_text(f"{image(1)} 65\n")
    found = load_dataset(str(tmp_path), split="test")
    assert (found.class_names, found.labels.tolist()) == (("cat", "dog"), [0, 0, 1])


def test_what_else_is_called_val_txt_is_passed_over(tmp_path):
    folder = fill(tmp_path / "mine/photos", map(image, NUMBERS))
    (tmp_path / "val.txt").write_text("cat/1.jpg\ndog/1.jpg\n")
    assert len(load_dataset(str(folder), split="test", labelled=False)) == len(NUMBERS)
    with pytest.raises(DataError, match="not their classes"):
        load_dataset(str(folder), split="test")


def test_an_image_with_two_classes_is_refused(tmp_path):
    root = caffe(tmp_path / "imagenet")
    with (root / "val.txt").open("a") as stream:
        stream.write(f"\n{image(1)} 66\n")
    with pytest.raises(DataError, match="00000001"):
        load_dataset(str(root), split="test")
