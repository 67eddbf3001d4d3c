"""Images that go to another machine mean there what they mean here, whatever layout they come from."""

import json
import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.data.batches import Strict, Unreadable
from edgevit.data.dataset import Subset
from edgevit.data.in_memory import ImageList
from edgevit.data.labels import map_several
from edgevit.data.listing import ENDING, Listing, load_listing
from edgevit.data.shapes import load_shapes
from edgevit.data.sources import load_dataset
from edgevit.errors import DataError, ImageError
from edgevit.hosts.shipment import image_parcels
from edgevit.progress import SILENT

SHAPES = load_shapes("test", "size=12,count=12")


def sent(dataset, folder):
    """Return the data set as it is where its files were sent to."""
    folder.mkdir()
    for each in image_parcels(dataset, Unreadable(), SILENT):
        target = folder / each.path
        if isinstance(each.content, bytes):
            target.write_bytes(each.content)
        else:
            shutil.copy(each.content, target)
    return load_dataset(str(folder / f"data{ENDING}"), split="test")


@pytest.fixture
def files(tmp_path):
    names = []
    for index in range(12):
        path = tmp_path / "photos" / SHAPES.class_names[SHAPES.labels[index]] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        SHAPES.image(index).save(path)
        names.append(str(path.relative_to(tmp_path)))
    return names


def table(tmp_path, head, rows):
    (tmp_path / "list.csv").write_text("\n".join([head, *rows]) + "\n")
    return load_dataset(str(tmp_path / "list.csv"), split="test")


def test_every_layout_stays_what_it_is(files, tmp_path):
    twice = [*files, files[0]]
    sets = [
        load_dataset(str(tmp_path / "photos"), split="test"),
        table(tmp_path, "path,label", [f"{name},{index % 3}" for index, name in enumerate(twice)]),
        table(tmp_path, "path,label", [f"{name},class {'ab'[index % 2]}" for index, name in enumerate(files)]),
        table(tmp_path, "path", files),
        table(tmp_path, "path,cat,dog", [f"{name},{index % 2},{index % 3 == 0:d}" for index, name in enumerate(files)]),
        SHAPES,
        Subset(SHAPES, np.array([7, 2, 2])),
        ImageList([SHAPES.image(index) for index in range(3)], ["x", "y", "x"]),
        ImageList([np.asarray(SHAPES.image(index)) for index in range(3)], [4, 0, 4]),
    ]
    for number, dataset in enumerate(sets):
        found = sent(dataset, tmp_path / f"sent{number}")
        assert found.fingerprint() == dataset.fingerprint()
        assert (found.labels.tolist(), found.class_names) == (dataset.labels.tolist(), dataset.class_names)
        assert (found.indexed, found.sets) == (dataset.indexed, dataset.sets)
        for index in range(len(dataset)):
            assert np.array_equal(np.asarray(found.image(index)), np.asarray(dataset.image(index)))
        assert str(tmp_path) not in "".join(map(found.describe, range(len(found))))
    several = map_several(sets[4], ("dog", "cat"))
    assert np.array_equal(map_several(load_listing(tmp_path / f"sent4/data{ENDING}"), ("dog", "cat")), several)


def test_what_cannot_be_read_is_left_out_and_said(files, tmp_path):
    dataset = load_dataset(str(tmp_path / "photos"), split="test")
    dataset.paths[3].unlink()
    found = sent(dataset, tmp_path / "sent")
    assert len(found) == 11
    with pytest.raises(ImageError, match="cannot read"):
        image_parcels(dataset, Strict(), SILENT)
    for path in dataset.paths:
        path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="no image of"):
        image_parcels(dataset, Unreadable(), SILENT)


GOOD = {
    "schema_version": 1, "name": "n", "class_names": ["a"], "labels": [0, -1], "files": ["0" * 64, "1" * 64],
    "descriptions": ["x", "y"],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [0]}, {"labels": [0, 1]}, {"labels": [0, -2]}, {"files": ["../x", "1" * 64]}, {"files": ["0" * 64]},
        {"labels": [], "files": [], "descriptions": []}, {"schema_version": 2}, {"more": 1}, {"name": "x" * 5000},
    ],
)  # fmt: skip
def test_lists_that_contradict_themselves_are_refused(tmp_path, change):
    path = tmp_path / f"data{ENDING}"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(DataError):
        load_dataset(str(path), split="test")
    path.write_text(json.dumps(GOOD))
    assert len(load_dataset(str(path), split="test")) == 2


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("listing") / f"data{ENDING}"
    path.write_bytes(content)
    with pytest.raises(DataError):
        load_listing(path)
    path.write_bytes(msgspec.json.encode(Listing(**GOOD)) + content.strip())
