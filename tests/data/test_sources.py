"""From names to data sets, from labels to a model's indices, and samples."""

import importlib.util
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.data import sources
from edgevit.data.dataset import ArrayDataset
from edgevit.data.imagenet import imagenet_labels, imagenet_synsets
from edgevit.data.labels import map_labels, match_labels
from edgevit.data.sources import BUILT_IN, load_dataset, subset
from edgevit.errors import DataError


def dataset(labels, class_names):
    labels = np.asarray(labels, dtype=np.int64)
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    return ArrayDataset("set", pixels, labels, tuple(class_names))


def test_built_in_names():
    assert len(load_dataset("fashion-mnist-sample", split="train")) == 500
    assert len(load_dataset("shapes:size=16,count=10", split="test")) == 10
    assert set(BUILT_IN) == {"fashion-mnist", "fashion-mnist-sample", "shapes"}


def test_folders_and_tables(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
    (tmp_path / "set.CSV").write_text("path,label\na/1.png,0\n")
    assert len(load_dataset(str(tmp_path), split="test")) == 2
    assert len(load_dataset(str(tmp_path / "set.CSV"), split="test")) == 1


def test_unknown_names_get_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"")
    for source, message, remedy in (
        ("fashion_mnist", "no data set or folder 'fashion_mnist'", "did you mean fashion-mnist"),
        ("shape", "no data set", "did you mean shapes"),
        ("zzz", "no data set", "give an image folder"),
        ("photos/train", "no folder or file photos/train", "check the path"),
        ("labels.csv", "no folder or file labels.csv", "check the path"),
        ("photo.png", "neither a folder nor a .csv", "give an image folder"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_dataset(source, split="test")
        assert remedy in caught.value.remedy
        assert caught.value.exit_code == 2


MODEL = ("tench, Tinca tinca", "crane", "T-shirt/top", "crane", "great_white  shark, maillot", "maillot, tank suit")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tench", 0),
        ("Tinca_Tinca", 0),
        ("tench, tinca tinca", 0),
        ("t-shirt/TOP", 2),
        ("Great white shark", 4),
        ("tank suit", 5),
        ("unheard of, tank_suit", 5),
    ],
)
def test_labels_by_name(name, index):
    labels = map_labels(dataset([0, 1, 0, -1], [name, "crane  , tench", "not in use"]), MODEL)
    assert labels.tolist() == [index, 0, index, -1]
    assert labels.dtype == np.int64


@pytest.mark.parametrize("name", ["crane", "maillot", "unheard of", "suit"])
def test_names_without_one_match_are_named(name):
    with pytest.raises(DataError, match=f"'{name}'") as caught:
        map_labels(dataset([0, 1], [name, "tench"]), MODEL)
    assert "tench" not in caught.value.message
    assert caught.value.remedy


def test_many_unmatched_names_are_cut_short():
    with pytest.raises(DataError, match="and 15 more"):
        map_labels(dataset(range(20), [f"n{number}" for number in range(20)]), MODEL)


def test_labels_by_index():
    numbers = [str(number) for number in range(6)]
    assert map_labels(dataset([5, 0, -1, 2], numbers), MODEL).tolist() == [5, 0, -1, 2]
    folders = ["0", "1", "10", "2"]  # as folders sort
    assert map_labels(dataset([0, 1, 2, 3], folders), tuple("abcdefghijk")).tolist() == [0, 1, 10, 2]


def test_index_out_of_range_names_the_first_image(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "1.png")
    (tmp_path / "set.csv").write_text("path,label\n1.png,2\n2.png,3\n3.png,9\n")
    loaded = load_dataset(str(tmp_path / "set.csv"), split="test")
    with pytest.raises(DataError, match=r"line 3 of set.csv\) has label 3, but the model has 3 classes") as caught:
        map_labels(loaded, ("a", "b", "c"))
    assert "0 to 2" in caught.value.remedy


def test_names_that_are_numbers_go_by_name_first():
    assert map_labels(dataset([0, 1], ["7", "1"]), ("1", "7")).tolist() == [1, 0]


def test_no_labels_at_all():
    assert map_labels(dataset([-1, -1], []), MODEL).tolist() == [-1, -1]


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 99), st.booleans())
def test_subsets(labels, count, seed, balanced):
    whole = dataset(labels, "abcd")
    part = subset(whole, count, seed=seed, balanced=balanced)
    again = subset(whole, count, seed=seed, balanced=balanced)
    assert np.array_equal(part.indices, again.indices)
    assert len(part) == min(count, len(whole)) == len(set(part.indices.tolist()))
    for position, index in enumerate(part.indices.tolist()):
        assert part.labels[position] == whole.labels[index]
        assert part.describe(position) == whole.describe(index)
        assert np.asarray(part.image(position))[0, 0] == index
    if balanced:
        for label in set(labels):
            taken = int((part.labels == label).sum())
            most = max(int((part.labels == other).sum()) for other in set(labels))
            assert taken >= min(labels.count(label), most - 1)


def test_subset_fingerprint_is_of_its_own_images():
    whole = dataset([0, 1, 2, 3], "abcd")
    parts = [subset(whole, 2, seed=seed, balanced=False) for seed in range(6)]
    prints = {tuple(part.indices.tolist()): part.fingerprint() for part in parts}
    assert len(set(prints.values())) == len(prints) > 1


def test_empty_samples_are_refused():
    with pytest.raises(DataError, match="a sample cannot have 0 images"):
        subset(dataset([0], "a"), 0, seed=0, balanced=True)


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (np.zeros((2, 4, 4), np.uint8), [0, 1]),
        (np.zeros((2, 4, 4, 2), np.uint8), [0, 1]),
        (np.zeros((2, 4, 4, 1), np.float32), [0, 1]),
        (np.zeros((2, 4, 4, 1), np.uint8), [0]),
        (np.zeros((2, 4, 4, 1), np.uint8), [0, 2]),
        (np.zeros((2, 4, 4, 1), np.uint8), [-2, 1]),
    ],
)
def test_arrays_that_contradict_each_other(pixels, labels):
    with pytest.raises(DataError):
        ArrayDataset("x", pixels, np.asarray(labels), ("a", "b"))


def test_wordnet_ids_are_timms():
    folder = importlib.util.find_spec("timm")
    if folder is None or not folder.submodule_search_locations:
        pytest.skip("timm is not here")
    theirs = Path(folder.submodule_search_locations[0]) / "data/_info/imagenet_synsets.txt"
    assert list(imagenet_synsets()) == theirs.read_text().split()


SHORT = tuple(label.split(",")[0] for label in imagenet_labels())  # as torchvision and many configs name them


@pytest.mark.parametrize("labels", [imagenet_labels(), SHORT, imagenet_synsets()], ids=["lemmas", "short", "ids"])
def test_wordnet_ids_for_models_of_imagenet(labels):
    names = ["n01440764", "n02102040-English_springer", "n02012849", "n03126707", "golden retriever"]
    assert map_labels(dataset([0, 1, 2, 3, 4], names), labels).tolist() == [0, 217, 134, 517, 207]
    with pytest.raises(DataError, match="'n00000001'"):
        map_labels(dataset([0, 1], ["n00000001", "n01440764"]), labels)


def test_wordnet_ids_mean_nothing_to_other_models():
    for labels in (("tench", "dog"), tuple(map(str, range(1000))), tuple(reversed(imagenet_labels()))):
        with pytest.raises(DataError, match="'n01440764'"):
            map_labels(dataset([0], ["n01440764"]), labels)
    assert map_labels(dataset([0], ["n01440764"]), ("dog", "n01440764")).tolist() == [1]


@given(st.text(min_size=1, max_size=8).filter(lambda text: text.strip()), st.sampled_from(["NFC", "NFD"]))
def test_unicode_forms_are_equal(name, form):
    there = "NFD" if form == "NFC" else "NFC"
    model = (unicodedata.normalize(form, name), "some other class, of a longer name")
    assert match_labels([unicodedata.normalize(there, name)], model) == [0]


def test_labels_are_mapped_where_images_come_from():
    assert sources.map_labels is map_labels
