"""Folders for DeepStream and DL Streamer, held against their documentation, and the models in them run."""

import configparser
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from edgevit import pack as write_pack
from edgevit.backends import get_backend
from edgevit.bundle.reading import encode_manifest
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, EdgeViTError, InputError

#: Keys of the group [property] that Gst-nvinfer's documentation has, of those that a classifier may use:
#: https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html
NVINFER_KEYS = {
    *("gpu-id", "gie-unique-id", "process-mode", "network-type", "network-mode", "batch-size", "interval"),
    *("model-engine-file", "onnx-file", "labelfile-path", "infer-dims", "network-input-order", "output-blob-names"),
    *("classifier-threshold", "classifier-async-mode", "classifier-type", "output-tensor-meta"),
    *("model-color-format", "net-scale-factor", "offsets", "maintain-aspect-ratio", "symmetric-padding"),
    *("scaling-filter", "scaling-compute-hw", "input-tensor-from-meta", "workspace-size"),
}
#: Keys of model-proc files, and values: https://dlstreamer.github.io/dev_guide/model_proc_file.html
MODEL_PROC = {
    "resize": {"no", "no-aspect-ratio", "aspect-ratio"},
    "crop": {"central", "top_left", "top_right", "bottom_left", "bottom_right"},
    "color_space": {"RGB", "BGR", "GRAYSCALE"},
}
METHODS = {"max", "softmax", "index", "compound", "multi"}


def relabelled(path: Path, **changes) -> Path:
    """Change the manifest of a bundle."""
    manifest = msgspec.structs.replace(Bundle.open(path).manifest, **changes)
    (path / "manifest.json").write_bytes(encode_manifest(manifest))
    return path


def softmax(logits):
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def test_deepstream_gets_pixels_in_and_probabilities_out(exported):
    made = write_pack(exported, exported.parent / "ds", format="deepstream")
    assert (made.format, made.variants) == ("deepstream", ("float32",))
    session = onnxruntime.InferenceSession(made.path / "model.onnx")
    bundle = Bundle.open(exported)
    golden, preprocess = bundle.golden(), bundle.manifest.preprocess
    pixels = np.stack([np.moveaxis(preprocess.geometry(image), -1, 0) for image in golden.images])
    (entry,), (output,) = session.get_inputs(), session.get_outputs()
    assert (entry.type, entry.shape[1:]) == ("tensor(float)", list(pixels.shape[1:]))
    assert output.name == "probabilities"
    (found,) = session.run(None, {entry.name: pixels.astype(np.float32)})
    np.testing.assert_allclose(found, softmax(golden.logits), atol=1e-5)


def test_nvinfer_is_told_what_its_documentation_has(exported):
    made = write_pack(exported, exported.parent / "ds", format="deepstream")
    config = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    config.read(made.path / "nvinfer.txt")
    assert config.sections() == ["property"]
    told = dict(config["property"])
    assert set(told) <= NVINFER_KEYS
    preprocess = Bundle.open(exported).manifest.preprocess
    sizes = (preprocess.channels, *preprocess.size)
    assert told["infer-dims"] == ";".join(map(str, sizes))
    assert (told["network-type"], told["process-mode"]) == ("1", "1")
    assert float(told["net-scale-factor"]) == 1
    assert [float(offset) for offset in told["offsets"].split(";")] == [0] * preprocess.channels
    assert told["model-color-format"] == {"RGB": "0", "BGR": "1", "L": "2"}[preprocess.channel_order]
    assert told["labelfile-path"] in {path.name for path in made.path.iterdir()}
    readme = (made.path / "README.md").read_text()
    assert f"--saveEngine={told['model-engine-file']}" in readme


def test_labels_that_nvinfer_would_split_stay_whole(exported):
    labels = Bundle.open(exported).manifest.labels
    odd = ("cat; tabby", "dog\nhound", "[property]", "nul\x00\x1b\x85", *labels[4:])
    relabelled(exported, labels=odd)
    made = write_pack(exported, exported.parent / "ds", format="deepstream")
    # As Gst-nvinfer's parseLabelsFile does: each line is one classifier, and ';' is between the names of its classes.
    (line,) = (made.path / "labels.txt").read_text().split("\n")
    assert line.split(";") == ["cat, tabby", "dog hound", "[property]", "nul   ", *labels[4:]]
    assert "3 of the labels" in " ".join(made.notes)


def test_dl_streamer_gets_the_ir_as_it_was_validated(quantized):
    made = write_pack(quantized, quantized.parent / "dl", format="dlstreamer", variants=["float32-openvino"])
    bundle = Bundle.open(quantized)
    of_bundle = bundle.verify_files("float32-openvino")
    for suffix in (".xml", ".bin"):
        assert (made.path / f"model{suffix}").read_bytes() == of_bundle.with_suffix(suffix).read_bytes()
    golden, preprocess = bundle.golden(), bundle.manifest.preprocess
    told = json.loads((made.path / "model-proc.json").read_text())
    assert told["json_schema_version"] == "2.2.0"
    (entry,), (output,) = told["input_preproc"], told["output_postproc"]
    assert entry["format"] == "image"
    for key, known in MODEL_PROC.items():
        assert entry["params"].get(key) in known | {None}
    assert set(entry["params"]) <= {*MODEL_PROC, "range", "mean", "std", "padding"}
    assert (output["converter"], output["method"] in METHODS) == ("label", True)
    assert tuple(output["labels"]) == bundle.manifest.labels
    # What it is told to do to a frame that is cropped already, in the order of the documentation.
    low, high = entry["params"]["range"]
    mean, std = (np.array(entry["params"][key])[:, None, None] for key in ("mean", "std"))
    pixels = np.stack([np.moveaxis(preprocess.geometry(image), -1, 0) for image in golden.images])
    images = ((low + pixels / 255 * (high - low) - mean) / std).astype(np.float32)
    session = get_backend("openvino").open(made.path / "model.xml", threads=1, settings={})
    np.testing.assert_allclose(session.infer(images), golden.logits, atol=1e-3)


def test_a_folder_says_what_it_is_of(exported):
    made = write_pack(exported, exported.parent / "ds", format="deepstream")
    told = json.loads((made.path / "edgevit.json").read_text())
    assert told["variant"] == "float32"
    assert set(told["files"]) == {"model.onnx", "nvinfer.txt", "labels.txt", "README.md"}


def test_a_folder_of_ours_is_replaced_only_if_asked_for_and_another_never(exported):
    folder = exported.parent / "ds"
    write_pack(exported, folder, format="deepstream")
    with pytest.raises(BundleError, match="exists already") as error:
        write_pack(exported, folder, format="deepstream")
    assert "--overwrite" in error.value.remedy
    (folder / "model.engine").write_bytes(b"built on the device")
    write_pack(exported, folder, format="deepstream", overwrite=True)
    assert not (folder / "model.engine").exists()
    for other in (exported, exported.parent / "photos"):
        other.mkdir(exist_ok=True)
        (other / "mine.txt").write_text("mine")
        with pytest.raises(BundleError, match="did not write it"):
            write_pack(exported, other, format="deepstream", overwrite=True)
        assert (other / "mine.txt").exists()


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"format": "deepstreem"}, "deepstreem"),
        ({"format": "deepstream", "variants": ["int8-onnxruntime"]}, "not for DeepStream"),
        ({"format": "deepstream", "variants": ["float32", "int8-onnxruntime"]}, "one variant"),
        ({"format": "deepstream", "sign": "key.pem"}, "sign is only"),
        ({"format": "deepstream", "name": "cat"}, "name is only"),
        ({"frame": (640, 480)}, "frame is only"),
        ({"format": "deepstream", "frame": (0, 480)}, "frame"),
        ({"format": "deepstream", "frame": "640x480"}, "frame"),
        ({"format": "dlstreamer", "variants": ["float32"]}, "not for DL Streamer"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(quantized, wanted, reason):
    before = sorted(quantized.parent.iterdir())
    with pytest.raises(InputError, match=reason) as error:
        write_pack(quantized, quantized.parent / "out", **wanted)
    assert error.value.remedy
    assert sorted(quantized.parent.iterdir()) == before


@pytest.mark.parametrize("activation", ["sigmoid"])
def test_several_labels_at_once_are_refused(exported, activation):
    relabelled(exported, activation=activation)
    for kind in ("deepstream", "dlstreamer"):
        with pytest.raises(EdgeViTError, match="one of several classes"):
            write_pack(exported, exported.parent / "out", format=kind)


def test_the_int8_variant_goes_there_if_there_is_but_one(quantized):
    assert write_pack(quantized, quantized.parent / "out", format="dlstreamer").variants == ("int8-openvino",)


def test_a_bundle_without_an_ir_says_how_to_get_one(exported):
    with pytest.raises(InputError, match="no variant for DL Streamer") as error:
        write_pack(exported, exported.parent / "out", format="dlstreamer")
    assert "x86-openvino" in error.value.remedy


def test_embeddings_are_refused(embedding):
    with pytest.raises(InputError, match="one of several classes"):
        write_pack(embedding, embedding.parent / "out", format="deepstream")


def test_a_damaged_file_is_found(exported):
    model = exported / "float32" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="damaged"):
        write_pack(exported, exported.parent / "out", format="deepstream")
    assert not (exported.parent / "out").exists()


def test_a_pack_does_as_well(exported):
    pack = write_pack(exported).path
    from_folder = write_pack(exported, exported.parent / "a", format="deepstream")
    shutil.rmtree(exported)
    from_pack = write_pack(pack, exported.parent / "b", format="deepstream")
    assert (from_folder.path / "model.onnx").read_bytes() == (from_pack.path / "model.onnx").read_bytes()


def test_a_user_types_it(edgevit, exported):
    made = edgevit("pack", exported, "--format", "deepstream", "--frame", "1280x720", "-o", exported.parent / "ds")
    assert made.code == 0
    assert "ds/README.md" in made.out
    assert "1280x720" in (exported.parent / "ds" / "README.md").read_text()
    for wrong in (["--frame", "720p"], ["--format", "deepstreamer"]):
        refused = edgevit("pack", exported, "--format", "deepstream", "-o", exported.parent / "x", *wrong)
        assert refused.code == 2
