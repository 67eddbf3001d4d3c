"""``edgevit export --check-with``: the golden check against the source's own library, through the command."""

import json
import sys

import pytest
from oracles import import_timm

from edgevit.bundle.store import Bundle

ARGS = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.fixture
def source(tmp_path):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=3, **ARGS)
    folder = tmp_path / "source"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": ARGS}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_equal_model_is_exported_and_said(edgevit, source, tmp_path):
    done = edgevit("export", source, "-o", tmp_path / "m.edgevit", "--check-with", "timm")
    assert done.code == 0, done.err
    assert "equal to torch and timm" in done.out


def test_a_classifier_with_other_names_of_classes_is_compared(edgevit, source, tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\nhen\n")
    options = ("--check-with", "timm", "--labels", tmp_path / "labels.txt")
    done = edgevit("export", source, "-o", tmp_path / "m.edgevit", *options)
    assert done.code == 0, done.err
    assert "equal to torch and timm" in done.out
    assert Bundle.open(tmp_path / "m.edgevit").manifest.labels == ("cat", "dog", "hen")


def test_an_onnx_file_with_labels_is_refused_for_being_one(edgevit, source, tmp_path):
    made = edgevit("export", source, "-o", tmp_path / "m.edgevit")
    assert made.code == 0, made.err
    (tmp_path / "labels.txt").write_text("cat\ndog\nhen\n")
    file, options = tmp_path / "m.edgevit/float32/model.onnx", ("--check-with", "timm", "--labels")
    done = edgevit("export", file, "-o", tmp_path / "n.edgevit", *options, tmp_path / "labels.txt")
    assert done.code == 2
    assert "--check-with goes with checkpoints" in " ".join(done.err.split())


def test_a_mismatch_leaves_no_bundle(edgevit, source, tmp_path, monkeypatch):
    from edgevit.models import timm_args

    monkeypatch.setattr(timm_args, "ACTIVATIONS", dict.fromkeys(timm_args.ACTIVATIONS, "relu"))  # EdgeViT reads wrongly
    done = edgevit("export", source, "-o", tmp_path / "m.edgevit", "--check-with", "timm")
    assert done.code == 1
    assert "does not answer as timm's" in done.err
    assert not (tmp_path / "m.edgevit").exists()


def test_a_file_that_names_no_architecture_is_not_compared_with_a_guess(edgevit, source, tmp_path):
    from safetensors.torch import load_file, save_file

    plain = tmp_path / "vit.safetensors"
    save_file(load_file(source / "model.safetensors"), plain)
    done = edgevit("export", plain, "-o", tmp_path / "m.edgevit", "--heads", "2", "--check-with", "timm")
    assert done.code == 2
    assert "nothing says which of timm's" in done.err


def test_a_library_that_is_not_there_is_named(edgevit, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    done = edgevit("export", source, "-o", tmp_path / "m.edgevit", "--check-with", "timm")
    assert done.code == 3
    assert "timm" in done.err
    assert not (tmp_path / "m.edgevit").exists()


def test_a_library_that_edgevit_does_not_compare_with(edgevit, source, tmp_path):
    done = edgevit("export", source, "-o", tmp_path / "m.edgevit", "--check-with", "transformer")
    assert done.code == 2
    assert "transformers" in done.err
