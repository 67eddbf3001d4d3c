"""CSV files: what is read, and how what is wrong is named."""

import csv
import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.csv_table import csv_splits, load_csv
from edgevit.data.sources import load_dataset
from edgevit.data.split_columns import split_columns
from edgevit.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/0.png", "a/1.png", "2.png"):
        Image.new("L", (4, 4), 7).save(tmp_path / name)
    return tmp_path


def write(folder, text, name="set.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_indices(folder):
    dataset = load_csv(write(folder, "path,label\na/0.png,2\na/1.png,0\n\n2.png,2\n"))
    assert dataset.labels.tolist() == [2, 0, 2]
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.image(2).size == (4, 4)
    assert dataset.describe(2) == f"{folder / '2.png'} (line 5 of set.csv)"


def test_names_in_any_column_order_with_quotes_and_byte_order_mark(folder):
    dataset = load_csv(write(folder, '\ufefflabel,path\r\n"tench, Tinca",a/0.png\r\ncat,2.png\r\n'))
    assert dataset.class_names == ("cat", "tench, Tinca")
    assert dataset.labels.tolist() == [1, 0]


def test_the_only_other_column_has_the_labels(folder):
    assert load_csv(write(folder, "path,imagenet_index\n2.png,7\n")).labels.tolist() == [7]


def test_label_column_goes_before_others(folder):
    assert load_csv(write(folder, "id,path,label\n1,2.png,7\n")).labels.tolist() == [7]


def test_paths_alone_have_no_labels(folder):
    dataset = load_csv(write(folder, "path\n2.png\na/0.png\n"))
    assert dataset.labels.tolist() == [-1, -1]
    assert dataset.class_names == ()


def test_roots(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    text = "path,label\n0.png,0\n1.png,1\n"
    with pytest.raises(DataError, match="none of the 2 images") as caught:
        load_csv(write(elsewhere, text))
    assert "--root" in caught.value.remedy
    assert load_csv(elsewhere / "set.csv", folder / "a").image(0).size == (4, 4)
    assert load_csv(write(folder, text, "a.csv")).image(0).size == (4, 4)  # images in the folder a/ beside a.csv
    absolute = write(elsewhere, f"path,label\n{folder}/a/0.png,1\n")
    assert len(load_csv(absolute, folder)) == 1


def test_paths_relative_to_where_one_is(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder, "path,label\na/0.png,1\n")
    assert load_csv(Path("set.csv")).image(0).size == (4, 4)
    write(folder, "path,label\na/0.png,1\n/etc/passwd,1\n")
    with pytest.raises(DataError, match="leads out"):
        load_csv(Path("set.csv"))


@pytest.mark.parametrize("path", ["../2.png", "a/../../2.png", "/etc/passwd", "a/..", "{folder}x/2.png"])
def test_paths_that_lead_out_are_refused(folder, path):
    file = write(folder, f"path,label\n2.png,0\n{path.format(folder=folder)},1\n")
    with pytest.raises(DataError, match=r"line 3: .* leads out"):
        load_csv(file)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "columns"),
        ("\n", "columns"),
        ("photo,label\n2.png,0\n", "columns photo, label"),
        ("path,a,b\n2.png,0,2\n", "columns path, a, b: none of them is called 'label', and '2' in column 'b', line 2"),
        ("path,a,b\n2.png,0,\n", "'' in column 'b', line 2, is neither 0 nor 1"),
        ("path,a,a\n2.png,0,1\n", "two of them have the same name"),
        ("path,path,label\n2.png,2.png,0\n", "columns"),
        ("path,label\n", "lists no images"),
        ("path,label\n2.png,0\n2.png\n", "line 3: 1 values"),
        ("path,label\n2.png,0,1\n", "line 2: 3 values"),
        ("path,label\n2.png,\n", "line 2: a value is empty"),
        ("path,label\n,0\n", "line 2: a value is empty"),
        ("path,label\n2.png,0\n2.png,-1\n", "line 3: label -1"),
        ("path,label\n2.png,999999999999999999999\n", "line 2: label 9999"),
        ('path,label\n2.png,"0\n', "line 2"),
        ("path,label\n2.png,a\na/0.png,b\n./2.png,b\n", "lines 2 and 4: ./2.png has the labels 'a' and 'b'"),
        ("path,label\n2.png,a\n..\\2.png,b\n", "leads out"),
        ("path,label\n" + "x" * 5_000 + ",0\n", "none of the 1 images"),
        ("path,label\n" + "x" * 200_000 + ",0\n", "line 2: field larger"),
    ],
)
def test_what_is_wrong_is_said(folder, text, what):
    with pytest.raises(DataError, match=what) as caught:
        load_csv(write(folder, text))
    assert caught.value.remedy


def test_bytes_that_are_no_text(folder):
    (folder / "set.csv").write_bytes(b"path,label\n2.png,caf\xe9\n")
    with pytest.raises(DataError, match="UTF-8"):
        load_csv(folder / "set.csv")


@pytest.mark.parametrize("content", ["path,label\n2.png,0\n".encode("utf-16-le"), b"\0path,label\n2.png,0\n"])
def test_utf16_without_its_mark_is_named(folder, content):
    (folder / "set.csv").write_bytes(content)
    with pytest.raises(DataError, match="zero bytes") as caught:
        load_csv(folder / "set.csv")
    assert "UTF-8" in caught.value.remedy


def test_half_a_character_of_utf16_is_named(folder):
    (folder / "set.csv").write_bytes("path,label\n2.png,0\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="is not UTF-16 text: truncated data"):
        load_csv(folder / "set.csv")


@pytest.mark.parametrize("name", ["set.csv", "set.tsv", "set.txt"])
def test_what_excel_calls_unicode_text(folder, name):
    (folder / name).write_bytes('path\tlabel\r\n2.png\tsch\u00f6n\r\na/0.png\t"a\tb"\r\n'.encode("utf-16"))
    dataset = load_dataset(str(folder / name), split="test")
    assert [dataset.class_names[label] for label in dataset.labels] == ["sch\u00f6n", "a\tb"]
    assert dataset.image(0).size == (4, 4)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        load_csv(tmp_path / "none.csv")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


#: How a text is stored, and the mark that Python does not write by itself.
ENCODINGS = {"utf-8": b"", "utf-8-sig": b"", "utf-16": b"", "utf-16-be": b"\xfe\xff", "utf-32": b""}


@given(st.lists(st.tuples(cells, cells), max_size=6), st.sampled_from(list(ENCODINGS)))
def test_any_table_is_read_as_csv_reads_it_or_refused(tmp_path_factory, table, encoding):
    folder = tmp_path_factory.mktemp("any")
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("path", "label"), ("x.png", "first"), *table])
    (folder / "x.png").write_bytes(b"")
    (folder / "set.csv").write_bytes(ENCODINGS[encoding] + stream.getvalue().encode(encoding))
    try:
        dataset = load_csv(folder / "set.csv")
    except DataError:
        return
    names = [dataset.class_names[label] for label in dataset.labels]
    assert names == [
        "first",
        *(unicodedata.normalize("NFC", label.strip()) for path, label in table if path.strip() or label.strip()),
    ]
    assert all(path.is_relative_to(folder) for path in dataset.paths)


@pytest.mark.shared
def test_imagenette(shared):
    for source, count in (("calibration", 260), ("evaluation", 1000)):
        dataset = load_dataset(str(shared / f"images/imagenette/{source}.csv"), split="test")
        assert len(dataset) == count
        assert np.array_equal(np.unique(dataset.labels), [0, 217, 482, 491, 497, 566, 569, 571, 574, 701])
        assert dataset.image(0).size == (224, 224)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "header",
    ["Path,Label", "filename,class", "image,label", "file_name,label", "IMAGE_PATH,Class_Name", "image_id,Category"],
)
def test_headers_and_separators_of_others(folder, separator, header):
    text = "\n".join([header, "2.png,dog", "a/0.png,cat", "", ",", ""]).replace(",", separator)
    dataset = load_csv(write(folder, text))
    assert [path.name for path in dataset.paths] == ["2.png", "0.png"]
    assert [dataset.class_names[label] for label in dataset.labels] == ["dog", "cat"]
    assert dataset.notes == ()


def test_no_header_is_said(folder):
    dataset = load_csv(write(folder, "2.png;1\na/0.png;0\n"))
    assert dataset.labels.tolist() == [1, 0]
    assert "does not name its columns" in dataset.notes[0]


def test_excels_word_on_separators_and_floats(folder):
    assert load_csv(write(folder, "sep=;\r\npath;label\r\n2.png;1.0\r\na/0.png;0.0\r\n")).labels.tolist() == [1, 0]


def test_columns_that_are_not_used_are_named(folder):
    assert "width, who" in load_csv(write(folder, "path,width,label,who\n2.png,4,a,me\n")).notes[0]


SPLIT = "path,label,{}\n2.png,dog,Train\na/0.png,cat,val\na/1.png,dog,{}\n"


@pytest.mark.parametrize("column", ["split", "Set", "subset", "partition", "fold"])
def test_the_part_that_serves(folder, column):
    file = write(folder, SPLIT.format(column, "test"))
    for split, name in (("train", "2.png"), ("validation", "0.png"), ("test", "1.png")):
        dataset = load_csv(file, split=split)
        assert [path.name for path in dataset.paths] == [name]
        assert dataset.class_names == ("cat", "dog")
        assert f"1 of 3 images of set.csv are {split} by its column '{column}'" in dataset.notes[0]
    assert csv_splits(file) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("columns", "cells", "parts"),
    [
        ("is_train", ["1", "0", "1"], ["train", "test", "train"]),
        ("is_training_image", ["1", "0", "0"], ["train", "test", "test"]),  # as CUB-200 has it
        ("is_valid", ["True", "False", "False"], ["validation", "train", "train"]),  # as fastai has it
        ("Is_Test", ["yes", "no", "NO"], ["test", "train", "train"]),
        ("isVal", ["1.0", "0.0", "0.0"], ["validation", "train", "train"]),
        ("train", ["t", "f", "t"], ["train", "test", "train"]),
        ("is_train,is_valid", ["1,0", "0,1", "0,0"], ["train", "validation", "test"]),
        ("is_valid,is_test", ["1,0", "0,1", "0,0"], ["validation", "test", "train"]),
        ("train,val,test", ["1,0,0", "0,1,0", "0,0,1"], ["train", "validation", "test"]),
    ],
)
def test_columns_of_yes_and_no_say_the_part(folder, columns, cells, parts):
    names = ["a/0.png", "a/1.png", "2.png"]
    rows = [f"{name},{cell},dog" for name, cell in zip(names, cells, strict=True)]
    file = write(folder, "\n".join([f"path,{columns},label", *rows]))
    assert csv_splits(file) == set(parts)
    for split in set(parts):
        dataset = load_csv(file, split=split)
        wanted = [folder / name for name, part in zip(names, parts, strict=True) if part == split]
        assert list(dataset.paths) == wanted
        called = "columns" if "," in columns else "column"
        assert f"of 3 images of set.csv are {split} by its {called} '{columns.split(',')[0]}'" in dataset.notes[0]
    assert "is not used" in load_csv(file).notes[0]


@given(st.lists(st.tuples(*[st.sampled_from(["0", "1", "true", "no", "", "2"])] * 2), min_size=1, max_size=5))
def test_yes_and_no_say_one_part_or_are_refused(table):
    (columns,) = split_columns(["path", "is_train", "is_valid", "label"], labelled=True)
    answers = {"0": False, "no": False, "1": True, "true": True}
    wanted = {(True, False): "train", (False, True): "validation", (False, False): "test"}
    parts = [wanted.get(tuple(answers.get(cell) for cell in row)) for row in table]
    if None in parts:
        with pytest.raises(DataError, match=f"row {parts.index(None)}: .* does not say one part"):
            columns.read(table, "row {}".format)
    else:
        assert columns.read(table, "row {}".format) == parts


def test_columns_that_may_be_classes_or_say_something_else_are_not_taken_for_parts(folder):
    dataset = load_csv(write(folder, "path,label,train\n2.png,dog,freight\n"), split="train")
    assert dataset.notes == ("column 'train' of set.csv is not used",)
    assert load_csv(write(folder, "path,train\n2.png,1\n")).labels.tolist() == [1]
    with pytest.raises(DataError, match="line 2: 'maybe' in column 'is_valid' does not say one part"):
        load_csv(write(folder, "path,label,is_valid\n2.png,dog,maybe\n"), split="train")
    with pytest.raises(DataError, match="no images for train"):
        load_csv(write(folder, "path,label,is_train\n2.png,dog,0\n"), split="train")
    both = load_csv(write(folder, "path,label,split,is_valid\n2.png,dog,train,1\n"), split="train")
    assert both.notes[0] == "columns of set.csv that are not used: is_valid"


def test_parts_that_are_not_there_or_not_understood(folder):
    file = write(folder, SPLIT.format("split", "train"))
    assert [path.name for path in load_csv(file, split="test").paths] == ["0.png"]
    with pytest.raises(DataError, match=r"line 4: 'holdout' in column 'split' is no part"):
        load_csv(write(folder, SPLIT.format("split", "holdout")), split="test")
    with pytest.raises(DataError, match="no images for train"):
        load_csv(write(folder, "path,label,split\n2.png,dog,test\n"), split="train")
    dataset = load_csv(write(folder, "path,label,set\n2.png,dog,A\n"), split="train")
    assert "'set'" in dataset.notes[0]


def test_paths_of_windows(folder):
    dataset = load_csv(write(folder, "path,label\na\\0.png,x\n2.png,y\n"))
    assert [dataset.image(index).size for index in range(2)] == [(4, 4)] * 2


def test_what_is_listed_twice_is_said(folder):
    notes = load_csv(write(folder, "path,label\n2.png,x\na/0.png,X\n./2.png,x\n")).notes
    assert any("1 lines of set.csv list an image that is listed before, such as line 4" in note for note in notes)
    assert any("'X' and 'x' are alike" in note for note in notes)


def test_unicode_forms_of_labels_and_paths(folder):
    (folder / "2.png").rename(folder / "scho\u0308n.png")
    dataset = load_csv(write(folder, "path,label\nsch\u00f6n.png,scho\u0308n\na/0.png,sch\u00f6n\n"))
    assert dataset.class_names == ("sch\u00f6n",)
    assert dataset.image(0).size == (4, 4)
