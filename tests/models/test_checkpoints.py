import json
import struct
import zipfile
from argparse import Namespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError
from edgevit.models.checkpoints import Checkpoint, read_safetensors
from edgevit.models.loading import BUILTIN, load_checkpoint
from edgevit.models.spec import PRESETS, ModelSpec
from edgevit.models.vit import VisionTransformer

SPEC = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=3, channels=1)
PREPROCESS = Preprocess(size=(8, 8), resize=8, mean=(0.5,), std=(0.25,), channel_order="L")


def make(**changes) -> Checkpoint:
    torch.manual_seed(0)
    fields = {
        "spec": SPEC,
        "weights": VisionTransformer(SPEC).state_dict(),
        "preprocess": PREPROCESS,
        "labels": ("a", "b", "c"),
        "source": "test",
    }
    return Checkpoint(**{**fields, **changes})


def test_a_saved_checkpoint_comes_back_whole(tmp_path):
    checkpoint = make()
    checkpoint.save(tmp_path / "model.safetensors")
    loaded = load_checkpoint(str(tmp_path / "model.safetensors"))
    assert (loaded.spec, loaded.preprocess, loaded.labels) == (SPEC, PREPROCESS, ("a", "b", "c"))
    assert loaded.sha256() == checkpoint.sha256()
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded.model()(images), checkpoint.model()(images))


def test_a_run_folder_is_a_source(tmp_path):
    make().save(tmp_path / "model.safetensors")
    assert load_checkpoint(str(tmp_path)).labels == ("a", "b", "c")


def test_weights_can_be_stored_in_half_the_space(tmp_path):
    make().save(tmp_path / "half.safetensors", dtype=torch.float16)
    make().save(tmp_path / "whole.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * (tmp_path / "whole.safetensors").stat().st_size
    weights, _ = read_safetensors(tmp_path / "half.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda weights: weights.pop("norm.weight"), "missing: norm.weight"),
        (lambda weights: weights.update({"neck.weight": torch.zeros(2)}), "left over: neck.weight"),
        (lambda weights: weights.update({"head.weight": torch.zeros(3, 9)}), r"head.weight is \(3, 9\), not \(3, 8\)"),
        (lambda weights: weights.update({"head.bias": torch.tensor([0, float("nan"), 1])}), "not finite: head.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, fault):
    weights = dict(make().weights)
    change(weights)
    with pytest.raises(CheckpointError, match=fault):
        make(weights=weights).model()


def test_labels_and_preprocessing_must_fit_the_model():
    with pytest.raises(CheckpointError, match="2 labels for 3 classes"):
        make(labels=("a", "b"))
    colour = Preprocess(size=(8, 8), resize=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(CheckpointError, match="takes 1-channel 8x8 images, its preprocessing makes 3-channel"):
        make(preprocess=colour)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_files_end_in_a_checkpoint_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    make().save(path)
    content = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:cut])
    with pytest.raises(CheckpointError):
        load_checkpoint(str(path))


def test_a_header_that_lies_about_sizes_is_refused(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(CheckpointError, match="not a readable"):
        load_checkpoint(str(path))


def test_a_description_that_does_not_hold_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for description in ("{", '{"spec": 3}', "null"):
        save_file({"x": torch.zeros(1)}, path, metadata={"edgevit": description})
        with pytest.raises(CheckpointError, match=r"what .* says of itself"):
            load_checkpoint(str(path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code from a checkpoint was run",))

    torch.save({"state_dict": Trap()}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"could run code: pytest\.fail$|could run code: _pytest\.") as caught:
        load_checkpoint(str(tmp_path / "model.pth"))
    assert "weights_only" not in str(caught.value), "torch's own message tells how to run it"
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as program:  # torch itself tells a program by this file
        program.writestr("model/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="a TorchScript archive, a program"):
        load_checkpoint(str(tmp_path / "model.pth"))
    (tmp_path / "model.pth").write_bytes(b"words")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("name", ["best.pth", "best.pth.tar", "last.ckpt"])
def test_what_training_saves_beside_the_weights_does_no_harm(tmp_path, name):
    spec = ModelSpec(image_size=(32, 32), patch_size=(8, 8), width=64, depth=1, heads=1, classes=7)
    weights = VisionTransformer(spec).state_dict()
    torch.save({"epoch": 3, "args": Namespace(lr=0.1), "state_dict": weights}, tmp_path / name)
    assert load_checkpoint(str(tmp_path / name)).spec == spec


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(1).expand(1 << 33, 64),  # 2 TiB, of which the file holds four bytes
        torch.zeros(3, 64, dtype=torch.complex64),
        torch.empty(3, 64, device="meta"),
        torch.zeros(3, 64).to_sparse(),
    ],
    ids=["expanded", "complex", "meta", "sparse"],
)
def test_tensors_that_are_no_plain_arrays_are_refused(tmp_path, odd):
    torch.save({**make().weights, "head.weight": odd}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"no plain arrays of numbers: head\.weight"):
        load_checkpoint(str(tmp_path / "model.pth"))


def test_an_archive_that_is_larger_inside_is_refused(tmp_path):
    torch.save({"x": torch.zeros(1_000_000)}, tmp_path / "whole.pth")
    packed = zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    with pytest.raises(CheckpointError, match="would fill the memory"):
        load_checkpoint(str(tmp_path / "model.pth"))


def test_what_is_no_file_of_weights_is_told_from_a_damaged_one(tmp_path):
    for name in ("model.onnx", "model.json"):
        (tmp_path / name).write_bytes(b"1")
    with pytest.raises(CheckpointError, match="is not a weights file") as caught:
        load_checkpoint(str(tmp_path / "model.json"))
    assert ".safetensors, .pth" in caught.value.remedy
    with pytest.raises(CheckpointError, match="is a graph, which has no weights") as caught:
        load_checkpoint(str(tmp_path / "model.onnx"))
    assert "edgevit export takes the ONNX file as it is" in caught.value.remedy


def test_a_missing_file_names_the_built_in_models():
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint("fashion-mikro")
    assert "did you mean the built-in model 'fashion-micro'" in caught.value.remedy


def test_an_unknown_family_shows_its_first_tensors(tmp_path):
    save_file({"layer1.conv.weight": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    with pytest.raises(CheckpointError, match=r"no known family; its first tensors are layer1\.conv\.weight"):
        load_checkpoint(str(tmp_path / "resnet.safetensors"))


def test_timms_names_are_recognised_and_the_shapes_say_the_rest(tmp_path):
    spec = ModelSpec(image_size=(32, 32), patch_size=(8, 8), width=128, depth=3, heads=2, classes=7, mlp_ratio=2)
    model = VisionTransformer(spec).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    loaded = load_checkpoint(str(tmp_path / "model.pth"))
    assert loaded.spec == spec
    assert loaded.labels == tuple("0123456")
    assert any(
        "assumed timm ViT or DeiT's usual way, short edge 37, crop 32x32 bicubic" in note for note in loaded.notes
    )
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded.model()(images), model(images))


@pytest.mark.shared
def test_deit_tiny_loads(shared):
    loaded = load_checkpoint(str(shared / "weights" / "deit_tiny_patch16_224.safetensors"))
    assert loaded.spec == PRESETS["vit-tiny"]
    assert loaded.preprocess.resize == 256
    loaded.model()


@pytest.mark.parametrize("name", BUILTIN)
def test_built_in_models_load(name):
    loaded = load_checkpoint(name)
    assert loaded.model()(torch.zeros(1, loaded.spec.channels, *loaded.spec.image_size)).shape == (
        1,
        len(loaded.labels),
    )
