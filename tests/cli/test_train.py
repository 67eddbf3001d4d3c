import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from lessons import LABELS, PREPROCESS, SPEC, fill_folder, save_checkpoint

from edgevit.cli import app
from edgevit.cli.train import _defaults, _recipe
from edgevit.errors import InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.vit import VisionTransformer
from edgevit.training.recipe import FINE_TUNING, FROM_SCRATCH, LINEAR_PROBE


@pytest.fixture
def data(tmp_path):
    return fill_folder(tmp_path / "images")


@pytest.fixture
def source(tmp_path):
    return save_checkpoint(tmp_path / "old.safetensors")


def train(capsys, *arguments, code=0):
    assert app.run(["train", *map(str, arguments), "--workers", "0", "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_fine_tuning_learns_and_says_what_it_did(data, source, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--epochs", 12, "--batch-size", 8, "--learning-rate", 0.01, "--patience", 12, "--ema-decay", 0.5)
    result, said = train(capsys, "--data", data, "--from", source, "-o", run, *options)
    assert result["images"] == "test"
    assert result["test_accuracy"] == result["accuracy"] > 0.9
    kept = load_checkpoint(str(run))
    assert kept.labels == LABELS
    assert (run / "confusion.svg").is_file()
    work = ("epoch 12/12: 2/2", "the validation images: 1/1", "the test images: 1/1", "Timing steps in bfloat16")
    notes = ("2 labels instead of 2", "images for validation", "autocast: ", "the best on the validation", "limit")
    for line in (*work, *notes):
        assert line in said


@pytest.mark.parametrize("of", ["checkpoint", "random weights"])
def test_how_images_are_prepared_can_be_said(data, source, tmp_path, capsys, of):
    begin = ("--from", source) if of == "checkpoint" else ("--model", "vit-micro")
    said = ("--mean", 0.5, "--std", 0.25, "--center-crop", 0.8, "--interpolation", "nearest")
    train(capsys, "--data", data, *begin, "-o", tmp_path / "run", "--epochs", 1, "--warmup-epochs", 0, *said)
    preprocess = load_checkpoint(str(tmp_path / "run")).preprocess
    assert set(preprocess.mean + preprocess.std) == {0.5, 0.25}
    assert preprocess.resize == int(preprocess.size[0] / 0.8)
    assert preprocess.interpolation == "nearest"


def test_a_file_that_says_it_is_for_checkpoints(data, tmp_path, capsys):
    options = ("--data", data, "-o", tmp_path / "run", "--preprocess", "preprocessor_config.json")
    failure, _ = train(capsys, *options, code=2)
    assert "--preprocess is for a checkpoint" in failure["error"]["message"]


def test_a_probe_learns_on_a_backbone_that_stays(data, source, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--mode", "probe", "--epochs", 40, "--batch-size", 8, "--learning-rate", 0.1)
    result, said = train(capsys, "--data", data, "--from", source, "-o", run, *options)
    assert "features of the training images" in said.lower()
    before, after = load_checkpoint(source).weights, load_checkpoint(str(run)).weights
    assert result["accuracy"] > 0.9
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) is not name.startswith("head"), name


def test_a_probe_with_augmentation_or_a_teacher_sees_images(data, source, tmp_path, capsys):
    teacher = save_checkpoint(tmp_path / "teacher.safetensors", LABELS)
    options = ("--mode", "probe", "--epochs", 2, "--batch-size", 8, "--warmup-epochs", 0)
    for name, more in (("flip", ("--flip", 0.5)), ("teacher", ("--teacher", teacher))):
        _, said = train(capsys, "--data", data, "--from", source, "-o", tmp_path / name, *options, *more)
        assert "features of" not in said
        before, after = load_checkpoint(source).weights, load_checkpoint(str(tmp_path / name)).weights
        assert torch.equal(before["blocks.1.mlp.fc1.weight"], after["blocks.1.mlp.fc1.weight"])
        assert not torch.equal(before["head.weight"], after["head.weight"])


def test_a_teacher_leads_the_student(data, source, tmp_path, capsys):
    teacher = save_checkpoint(tmp_path / "teacher.safetensors", LABELS, seed=5)
    options = ("--epochs", 1, "--batch-size", 8, "--autocast", "float32")
    train(capsys, "--data", data, "--from", source, "-o", tmp_path / "alone", *options)
    train(capsys, "--data", data, "--from", source, "--teacher", teacher, "-o", tmp_path / "taught", *options)
    alone, taught = (load_checkpoint(str(tmp_path / name)).weights["head.weight"] for name in ("alone", "taught"))
    assert not np.allclose(alone, taught)
    result, _ = train(capsys, "--data", data, "--from", source, "--resume", "-o", tmp_path / "taught", *options, code=2)
    assert "other teacher_sha256" in result["error"]["message"]


def test_a_backbone_is_fine_tuned_at_another_size(data, tmp_path, capsys):
    spec = msgspec.structs.replace(SPEC, classes=0)
    torch.manual_seed(0)
    backbone = Checkpoint(spec, VisionTransformer(spec).state_dict(), PREPROCESS, (), "backbone")
    backbone.save(tmp_path / "backbone.safetensors")
    options = ("--epochs", 1, "--batch-size", 8, "--image-size", "12x8", "--autocast", "float32")
    _, said = train(
        capsys, "--data", data, "--from", tmp_path / "backbone.safetensors", "-o", tmp_path / "run", *options
    )
    assert "2 labels where it had none" in said
    tuned = load_checkpoint(str(tmp_path / "run"))
    assert (tuned.spec.image_size, tuned.preprocess.size, tuned.labels) == ((12, 8), (12, 8), LABELS)


def test_images_that_cannot_be_read_are_left_out_and_named(data, source, tmp_path, capsys):
    broken = Path(data) / "train" / "dark" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    options = ("--data", data, "--from", source, "--epochs", 1, "--batch-size", 8, "--autocast", "float32")
    result, _ = train(capsys, *options, "-o", tmp_path / "run")
    assert result["unreadable"] == [str(broken)]
    refused, _ = train(capsys, *options, "-o", tmp_path / "strict", "--strict", code=2)
    assert str(broken) in refused["error"]["message"]
    assert not (tmp_path / "strict").exists()


def test_a_teacher_that_cannot_teach_leaves_no_run(data, source, tmp_path, capsys):
    result, _ = train(capsys, "--data", data, "--teacher", source, "-o", tmp_path / "run", code=2)
    assert "does not know the class" in result["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_random_weights_learn_from_files(data, tmp_path, capsys):
    options = ("--epochs", 1, "--batch-size", 8, "--crop", 0.5, "--randaugment", 1, "--warmup-epochs", 0)
    result, _ = train(capsys, "--data", data, "-o", tmp_path / "run", *options)
    assert result["images"] == "test"
    assert load_checkpoint(result["run"]).spec.classes == 2


def test_images_that_no_epoch_sees_are_said(data, source, tmp_path, capsys):
    begin = ("--data", data, "--from", source, "--epochs", 1, "--warmup-epochs", 0)
    _, said = train(capsys, *begin, "--batch-size", 9, "-o", tmp_path / "run")
    assert "each epoch leaves out" in said
    assert "a smaller --batch-size leaves out fewer" in said
    _, said = train(capsys, *begin, "--batch-size", 4, "-o", tmp_path / "even")
    assert "each epoch leaves out" not in said


def test_a_finished_run_can_be_resumed_and_gives_the_same(data, source, tmp_path, capsys):
    options = ("--data", data, "--from", source, "--epochs", 1, "--batch-size", 8, "-o", tmp_path / "run")
    first, _ = train(capsys, *options)
    before = load_checkpoint(str(tmp_path / "run")).sha256()
    again, said = train(capsys, *options, "--resume")
    assert "finished after epoch 1: nothing is left to train" in said
    assert (again, load_checkpoint(str(tmp_path / "run")).sha256()) == (first, before)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mode", "probe"), "--from"),
        (("--from", "x.safetensors", "--model", "vit-tiny"), "--model"),
        (("--from", "x.safetensors", "--mode", "probe", "--stochastic-depth", "0.1"), "--mode full"),
        (("--from", "nothing.safetensors"), "checkpoint"),
        (("--device", "tpu"), "--device auto"),
        (("--image-size", "12"), "--from"),
        (("--crop", "1.5"), "crop"),
    ],
)
def test_what_cannot_be_done_is_said(data, tmp_path, capsys, arguments, said):
    result, _ = train(capsys, "--data", data, "-o", tmp_path / "run", *arguments, code=2)
    assert said in result["error"]["message"] + result["error"]["remedy"]
    assert not (tmp_path / "run").exists()


def test_defaults_are_those_of_the_task():
    assert _defaults(None, "full") == FROM_SCRATCH
    assert _defaults("x", "full") == FINE_TUNING
    assert _defaults("x", "probe") == LINEAR_PROBE
    with pytest.raises(InputError):
        _defaults(None, "probe")


def test_a_warm_up_that_is_not_given_is_no_longer_than_the_run():
    for defaults in (FROM_SCRATCH, FINE_TUNING, LINEAR_PROBE):
        assert _recipe(defaults, {"epochs": 1}).warmup_epochs == min(1, defaults.warmup_epochs)
        assert _recipe(defaults, {"epochs": None}).warmup_epochs == defaults.warmup_epochs
        assert _recipe(defaults, {"epochs": 1000}).warmup_epochs == defaults.warmup_epochs
    with pytest.raises(InputError, match="warmup_epochs is 3"):
        _recipe(FROM_SCRATCH, {"epochs": 2, "warmup_epochs": 3})
    with pytest.raises(InputError, match="epochs is 0"):
        _recipe(FROM_SCRATCH, {"epochs": 0})


def test_a_shorter_warm_up_is_said(data, tmp_path, capsys):
    _, said = train(capsys, "--data", data, "-o", tmp_path / "run", "--epochs", 1)
    assert "warm-up ends with the last epoch" in said
