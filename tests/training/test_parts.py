import numpy as np
import pytest
from PIL import Image

from edgevit.errors import DataError
from edgevit.training.parts import load_parts
from edgevit.training.recipe import Recipe

WATCHED = Recipe(patience=3, validation_share=0.25)


def fill(root, *parts, count=8):
    for part in parts:
        for label in ("cat", "dog"):
            for number in range(count):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (4, 4), number).save(path)
    return str(root)


def paths(dataset):
    return {dataset.describe(index) for index in range(len(dataset))}


def test_own_validation_images_choose_and_test_images_do_not(tmp_path):
    parts = load_parts(fill(tmp_path, "train", "val", "test"), WATCHED)
    assert {len(part) for part in (parts.training, parts.validation, parts.test)} == {16}
    assert all("/val/" in path for path in paths(parts.validation))
    assert all("/test/" in path for path in paths(parts.test))
    assert "validation folder" in parts.notes[0]


def test_without_validation_images_a_share_of_each_class_is_held_out(tmp_path):
    data = fill(tmp_path, "train", "test")
    parts = load_parts(data, WATCHED)
    assert np.bincount(parts.validation.labels).tolist() == [2, 2]
    assert not paths(parts.validation) & paths(parts.training)
    assert len(parts.training) == 12
    assert paths(parts.validation) == paths(load_parts(data, WATCHED).validation), "the same with the same seed"
    assert "held out" in parts.notes[0]


def test_validation_images_are_no_test(tmp_path):
    parts = load_parts(fill(tmp_path, "train", "validation"), WATCHED)
    assert parts.test is None
    assert "no test images" in parts.notes[-1]


def test_a_folder_without_parts_has_no_test_images(tmp_path):
    parts = load_parts(fill(tmp_path, ""), WATCHED)
    assert (len(parts.training), len(parts.validation), parts.test) == (12, 4, None)


def test_without_patience_all_training_images_are_learnt_from(tmp_path):
    parts = load_parts(fill(tmp_path, "train", "val"), Recipe())
    assert (len(parts.training), parts.validation) == (16, None)
    assert len(parts.test) == 16
    assert parts.notes == ()


def test_images_in_memory_are_parted_too():
    parts = load_parts("shapes:size=16,count=80,seed=1", WATCHED)
    assert len(parts.training) + len(parts.validation) == len(
        load_parts("shapes:size=16,count=80,seed=1", Recipe()).training
    )
    assert parts.test is not None


def test_too_few_images_to_validate_on(tmp_path):
    with pytest.raises(DataError, match="too few to validate on") as caught:
        load_parts(fill(tmp_path, "train", count=2), Recipe(patience=1, validation_share=0.1))
    assert "--patience" in caught.value.remedy
