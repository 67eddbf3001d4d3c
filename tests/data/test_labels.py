"""Images with several labels: read where the data says them, refused where one is wanted, and never misread."""

import csv
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.csv_table import load_csv
from edgevit.data.dataset import Subset
from edgevit.data.folder import load_folder
from edgevit.data.imagenet import imagenet_labels
from edgevit.data.labels import check_one_label, map_labels, map_several
from edgevit.errors import DataError

MODEL = ("cat", "dog", "hot air balloon", "tench, Tinca tinca")


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number}.png")
    return tmp_path


def table(folder, *cells, header="path,label"):
    """Write a CSV that gives the images these cells."""
    lines = [header, *(f"{number}.png,{cell}" for number, cell in enumerate(cells))]
    (folder / "set.csv").write_text("\n".join(lines), encoding="utf-8")
    return load_csv(folder / "set.csv")


@pytest.mark.parametrize("separator", [";", "|", "; ", " | "])
def test_labels_in_one_cell(folder, separator):
    cells = [separator.join(names) for names in (["Cat", "hot_air_balloon"], ["tench", "dog", "cat"], ["dog"], ["dog"])]
    found = map_several(table(folder, *cells), MODEL)
    assert found.tolist() == [[1, 0, 1, 0], [1, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0]]


def test_labels_in_one_cell_with_commas_or_spaces(folder):
    found = map_several(table(folder, '"cat, dog"', "hot air balloon", '"tench, Tinca tinca"'), MODEL)
    assert found.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert map_several(table(folder, "cat dog", "dog"), MODEL).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0]]
    assert map_several(table(folder, "cat;;dog;", "dog"), MODEL).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0]]


def test_labels_in_one_cell_by_index(folder):
    assert map_several(table(folder, "0;3", "1"), MODEL).tolist() == [[1, 0, 0, 1], [0, 1, 0, 0]]
    assert map_several(table(folder, "0 3", "1"), MODEL).tolist() == [[1, 0, 0, 1], [0, 1, 0, 0]]
    with pytest.raises(DataError, match="no class called '0;4'"):
        map_several(table(folder, "0;4", "1"), MODEL)


@pytest.mark.parametrize(
    ("cells", "unknown"),
    [
        (["cat;dog", "cat;cow"], "cat;cow"),
        (["cat;cow", "dog"], "cat;cow"),
        (["cow|horse", "dog"], "cow|horse"),
        (['"cat, cow"', "dog"], "cat, cow"),
        (["0;9", "1"], "0;9"),
    ],
)
def test_a_label_that_is_not_known_among_several_is_named(folder, cells, unknown):
    with pytest.raises(DataError, match=f"no class called '{re.escape(unknown)}'"):
        map_several(table(folder, *cells), MODEL)


def test_one_label_for_each_image_does_not_say_what_else_is_there(folder):
    assert map_several(table(folder, "cat", "dog"), MODEL) is None
    assert map_several(table(folder, "0", "3"), MODEL) is None
    assert map_several(table(folder, "cow", "horse"), MODEL) is None


CLASSES = "path,dog,cat,tench,hot_air_balloon"


def test_a_column_of_0_and_1_for_each_label(folder):
    dataset = table(folder, "1,1,0,0", "0.0,1.0,0.0,0.0", "false,no,f,False", "0,0,1,1", header=CLASSES)
    assert map_several(dataset, MODEL).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0] * 4, [0, 0, 1, 1]]
    assert dataset.notes == (
        "labels are taken from 4 columns of set.csv, 1 where an image has it: dog, cat, tench, hot_air_balloon",
    )
    assert map_several(Subset(dataset, np.array([3, 1])), MODEL).tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]
    by_index = table(folder, "1,1,0,0", "0,0,0,1", header="path,3,2,1,0")
    assert map_several(by_index, MODEL).tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]


def test_columns_with_one_1_are_one_label(folder):
    dataset = table(folder, "0,1,0,0", "1,0,0,0", "0,1,0,0", header=CLASSES)  # as ISIC 2018 has it
    assert dataset.class_names == ("dog", "cat", "tench", "hot_air_balloon")
    assert map_labels(dataset, MODEL).tolist() == [0, 1, 0]
    assert map_several(dataset, MODEL).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    check_one_label(dataset)


def test_columns_that_do_not_fit_the_model_are_named(folder):
    row = "1,1,0,0"
    with pytest.raises(DataError, match="no column says which images have the label 'tench, Tinca tinca'"):
        map_several(table(folder, "1,1,0", header="path,dog,cat,hot air balloon"), MODEL)
    with pytest.raises(DataError, match="no class called 'cow'"):
        map_several(table(folder, row, header="path,dog,cat,cow,tench"), MODEL)
    with pytest.raises(DataError, match="columns 'tench' and 'Tinca tinca' are the same label"):
        map_several(table(folder, row, header="path,dog,cat,tench,Tinca tinca"), MODEL)


@pytest.mark.parametrize(
    ("cells", "header"),
    [
        (["cat;dog", "dog"], "path,label"),
        (["cat|dog", "dog"], "path,label"),
        (['"cat,dog"', "dog"], "path,label"),
        (["cat dog", "dog"], "path,label"),
        (["0;3", "1"], "path,label"),
        (["1,1,0,0", "1,0,0,0"], CLASSES),
    ],
)
def test_several_labels_are_refused_where_one_is_wanted(folder, cells, header):
    dataset = table(folder, *cells, header=header)
    with pytest.raises(DataError, match=r"0\.png \(line 2 of set\.csv\) has .*several labels for one image") as caught:
        map_labels(dataset, MODEL)
    assert "--activation sigmoid" in caught.value.remedy


def test_an_image_without_any_of_the_labels_is_refused_where_one_is_wanted(folder):
    with pytest.raises(DataError, match=r"1\.png \(line 3 of set\.csv\) has none of the labels"):
        map_labels(table(folder, "1,0,0,0", "0,0,0,0", header=CLASSES), MODEL)


@pytest.mark.parametrize(
    "cells",
    [
        ["a;b", "b;a", "b;c", "c;a"],
        ["a|b", "a", "b", "a"],
        ['"a, b"', "a", "b", "a"],
        ["a b", "a", "b", "a"],
        ["0;1", "1;0", "0", "1"],
    ],
)
def test_labels_that_are_lists_of_others_make_no_classes(folder, cells):
    with pytest.raises(DataError, match="several labels for one image"):
        check_one_label(table(folder, *cells))


@pytest.mark.parametrize(
    "cells",
    [
        ["golden retriever", "irish setter", "golden eagle", "retriever"],
        ['"tench, Tinca tinca"', '"crane, bird"', '"crane, machine"', "cat"],
        ["and/or", "and", "or", "x;y"],
    ],
)
def test_names_of_several_words_are_classes(folder, cells):
    check_one_label(table(folder, *cells))


def test_folders_are_classes_whatever_their_names(folder):
    for name in ("cat", "dog", "cat dog"):
        (folder / "set" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(folder / "set" / name / "0.png")
    assert load_folder(folder / "set", "train").labels.tolist() == [0, 1, 2]


def test_ids_of_wordnet_are_lists_too(folder):
    labels = imagenet_labels()
    found = map_several(table(folder, "n01440764 n01443537", "n01443537"), labels)
    assert [np.flatnonzero(row).tolist() for row in found] == [[0, 1], [1]]
    with pytest.raises(DataError, match="several labels"):
        map_labels(table(folder, "n01440764 n01443537", "n01443537"), labels)


names = st.lists(
    st.from_regex(re.compile(r"[a-z]{1,4}", re.ASCII), fullmatch=True), min_size=3, max_size=5, unique=True
)


@given(names, st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=4), st.sampled_from([";", "|", ",", " ", None]))
def test_any_sets_of_labels_come_back_as_they_were_written(tmp_path_factory, model, sets, separator):
    folder = tmp_path_factory.mktemp("sets")
    sets = [sorted(place for place in one if place < len(model)) for one in sets]
    if separator is None:
        header = ["path", *(f"the {name}" for name in model)]
        rows = [[int(place in one) for place in range(len(model))] for one in sets]
    else:
        header, sets = ["path", "label"], [one or [0] for one in sets]
        rows = [[separator.join(model[place] for place in one)] for one in sets]
    with (folder / "set.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *([f"{number}.png", *row] for number, row in enumerate(rows))])
    for number in range(len(sets)):
        (folder / f"{number}.png").touch()
    found = map_several(
        load_csv(folder / "set.csv"), tuple(f"the {name}" for name in model) if separator is None else tuple(model)
    )
    if separator is not None and all(len(one) == 1 for one in sets):
        assert found is None
    else:
        assert [np.flatnonzero(row).tolist() for row in found] == sets
