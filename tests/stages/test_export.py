"""Names of classes that no terminal, file or XML could have are refused, wherever they come from."""

import json
import shutil
from dataclasses import replace

import onnx
import pytest
from tiny import SHAPES

import edgevit
from edgevit.data.batches import Unreadable
from edgevit.errors import DataError
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.stages.images import DataSource

ODD = "l0\x1b[2J"


@pytest.fixture
def onnx_file(tiny_exported, tmp_path):
    """Return EdgeViT's own file in a folder of its own, and the labels in its metadata."""
    path = shutil.copy(tiny_exported / "float32" / "model.onnx", tmp_path / "tiny.onnx")
    notes = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    return path, json.loads(notes["edgevit.labels"])


def with_labels(path, labels):
    """Write ``labels`` into the metadata of a file; None takes its own out."""
    model = onnx.load(path)
    notes = {entry.key: entry.value for entry in model.metadata_props if entry.key != "edgevit.labels"}
    onnx.helper.set_model_props(model, notes | ({} if labels is None else {"edgevit.labels": json.dumps(labels)}))
    onnx.save(model, path)


def refused(tmp_path, model):
    from edgevit.stages.export import export

    output = tmp_path / "new.edgevit"
    with pytest.raises(DataError, match=r"the class 'l0\\x1b\[2J' of .* cannot be shown") as caught:
        export(model, output, DataSource(SHAPES, "test", Unreadable()))
    assert caught.value.remedy
    assert not output.exists()


def test_of_a_files_metadata(onnx_file, tmp_path):
    path, labels = onnx_file
    with_labels(path, [ODD, *labels[1:]])
    refused(tmp_path, open_onnx(path, "tiny.onnx", MetadataOverrides()))
    made = edgevit.export(path, tmp_path / "new.edgevit", data=SHAPES, labels=labels)
    assert list(made.bundle.manifest.labels) == labels


def test_of_a_config_beside_it(onnx_file, tmp_path):
    path, labels = onnx_file
    with_labels(path, None)
    named = {str(index): label for index, label in enumerate([ODD, *labels[1:]])}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": named}))
    refused(tmp_path, open_onnx(path, "tiny.onnx", MetadataOverrides()))


def test_of_a_checkpoint(tiny_checkpoint, tmp_path):
    from edgevit.models.loading import load_checkpoint

    checkpoint = load_checkpoint(str(tiny_checkpoint))
    refused(tmp_path, replace(checkpoint, labels=(ODD, *checkpoint.labels[1:])))
