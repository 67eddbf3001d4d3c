import numpy as np
import pytest
from PIL import Image

from edgevit.data.batches import Strict, Unreadable
from edgevit.errors import DataError, ImageError
from edgevit.progress import SILENT
from edgevit.training.recipe import TrainRecipe
from edgevit.training.training_data import TrainingData, load_splits

STRICT = Strict()
WATCHED = TrainRecipe(patience=3, validation_share=0.25)


def fill(root, *splits, count=8):
    for part in splits:
        for label in ("cat", "dog"):
            for number in range(count):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (4, 4), number).save(path)
    return str(root)


def load(data, recipe, unreadable=STRICT):
    return load_splits(TrainingData(data, unreadable), recipe, SILENT)


def paths(dataset):
    return {dataset.describe(index) for index in range(len(dataset))}


def test_own_validation_images_choose_and_test_images_do_not(tmp_path):
    splits = load(fill(tmp_path, "train", "val", "test"), WATCHED)
    assert {len(part) for part in (splits.training, splits.validation, splits.test)} == {16}
    assert all("/val/" in path for path in paths(splits.validation))
    assert all("/test/" in path for path in paths(splits.test))
    assert "images for validation" in splits.notes[0]


def test_without_validation_images_a_share_of_each_class_is_held_out(tmp_path):
    data = fill(tmp_path, "train", "test")
    splits = load(data, WATCHED)
    assert np.bincount(splits.validation.labels).tolist() == [2, 2]
    assert not paths(splits.validation) & paths(splits.training)
    assert len(splits.training) == 12
    assert paths(splits.validation) == paths(load(data, WATCHED).validation), "the same with the same seed"
    assert "held out" in splits.notes[0]


def test_validation_images_are_no_test(tmp_path):
    splits = load(fill(tmp_path, "train", "validation"), WATCHED)
    assert splits.test is None
    assert "no test images" in splits.notes[-1]


def test_a_folder_without_parts_has_no_test_images(tmp_path):
    splits = load(fill(tmp_path, ""), WATCHED)
    assert (len(splits.training), len(splits.validation), splits.test) == (12, 4, None)


def test_without_patience_all_training_images_are_learnt_from(tmp_path):
    splits = load(fill(tmp_path, "train", "val"), TrainRecipe())
    assert (len(splits.training), splits.validation) == (16, None)
    assert len(splits.test) == 16
    assert splits.notes == ()


@pytest.mark.parametrize("recipe", [TrainRecipe(), WATCHED])
def test_images_that_cannot_be_read_are_in_no_part(tmp_path, recipe):
    data = fill(tmp_path, "train", "val", "test")
    broken = [tmp_path / part / "cat" / "3.png" for part in ("train", "val", "test")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    unreadable = Unreadable()
    splits = load(data, recipe, unreadable)
    every = [part for part in (splits.training, splits.validation, splits.test) if part is not None]
    assert {len(part) for part in every} == {15}
    assert not {str(path) for path in broken} & set().union(*map(paths, every))
    assert set(unreadable.images) == {str(path) for path in broken if recipe.patience or "val" not in str(path.parent)}
    with pytest.raises(ImageError):
        load(data, recipe)


def test_a_set_without_test_images_says_so(tmp_path):
    splits = load(fill(tmp_path, ""), TrainRecipe())
    assert splits.test is None
    assert "has no test images: " in splits.notes[0]


def test_paths_in_a_list_start_from_the_root(tmp_path):
    fill(tmp_path / "images", "")
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "train.csv"
    table.write_text("path,label\n" + "".join(f"{kind}/{n}.png,{kind}\n" for kind in ("cat", "dog") for n in range(4)))
    splits = load_splits(TrainingData(str(table), Strict(), tmp_path / "images"), TrainRecipe(), SILENT)
    assert (len(splits.training), splits.test) == (8, None)


def test_images_in_memory_are_parted_too():
    splits = load("shapes:size=16,count=80,seed=1", WATCHED)
    assert len(splits.training) + len(splits.validation) == len(
        load("shapes:size=16,count=80,seed=1", TrainRecipe()).training
    )
    assert splits.test is not None


def test_too_few_images_to_validate_on(tmp_path):
    with pytest.raises(DataError, match="too few to validate on") as caught:
        load(fill(tmp_path, "train", count=2), TrainRecipe(patience=1, validation_share=0.1))
    assert "patience" in caught.value.remedy


def test_a_class_that_cannot_be_shown_is_refused_before_hours_of_training(tmp_path):
    fill(tmp_path, ".")
    (tmp_path / "cat").rename(tmp_path / "c\x1b[2Jat")
    with pytest.raises(DataError, match=r"the class 'c\\x1b\[2Jat' of .* cannot be shown") as caught:
        load(str(tmp_path), WATCHED)
    assert "take them out" in caught.value.remedy
