import inspect
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from train_tasks import LABELS, PREPROCESS, SPEC, fill_folder, save_checkpoint

from edgevit.cli import app
from edgevit.cli.train import _shown
from edgevit.cli.train import train as cli_train
from edgevit.cli.train_recipe import _recipe
from edgevit.data.batches import Unreadable
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.vit import VisionTransformer
from edgevit.training.recipe import FINE_TUNING, FROM_SCRATCH, LINEAR_PROBE, TrainRecipe
from edgevit.training.recipe_file import RunSettings, places, read_recipe


@pytest.fixture
def data(tmp_path):
    return fill_folder(tmp_path / "images")


@pytest.fixture
def source(tmp_path):
    return save_checkpoint(tmp_path / "old.safetensors")


@pytest.fixture
def train(tmp_path, capsys):
    """Train with options, and with keys of a recipe; return the result and what is said."""

    def run(*arguments, code=0, images="", **keys):
        recipe = tmp_path / "recipe.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in {"workers": 0, **keys}.items()]
        recipe.write_text("\n".join([*lines, "[images]", images]))
        assert app.run(["train", *map(str, arguments), "--recipe", str(recipe), "--json"]) == code
        out, err = capsys.readouterr()
        return json.loads(out), err

    return run


def test_fine_tuning_learns_and_says_what_it_did(data, source, tmp_path, train):
    run = tmp_path / "run"
    options = ("--epochs", 12, "--batch-size", 8, "--learning-rate", 0.01)
    result, said = train("--data", data, "--from", source, "-o", run, *options, patience=12, ema_decay=0.5)
    assert result["images"] == "test"
    assert result["test_accuracy"] == result["accuracy"] > 0.9
    kept = load_checkpoint(str(run))
    assert kept.labels == LABELS
    assert (run / "confusion.svg").is_file()
    work = ("epoch 12/12: 2/2", "the validation images: 1/1", "the test images: 1/1", "Timing steps in bfloat16")
    notes = ("2 labels instead of 2", "images for validation", "autocast: ", "the best on the validation", "limit")
    for line in (*work, *notes):
        assert line in said


def following(run, **settings):
    """Return what a run says comes next, as a shell takes it."""
    folder = SimpleNamespace(model="m", curves="c", confusion="d", confusion_chart="e")
    result = SimpleNamespace(accuracy=None, images=None, folder=folder)
    text = str(_shown(result, run, RunSettings(**settings), Unreadable()).text)
    return shlex.split(text.partition("next: ")[2])


@pytest.mark.parametrize(("missing", "images"), [((), True), (("test",), True), (("test", "validation"), False)])
def test_what_comes_next_names_images_where_some_are_for_testing(data, missing, images):
    for split in missing:
        shutil.rmtree(Path(data, split))
    export = ["edgevit", "export", "runs/my run"]
    assert following(Path("runs/my run"), data=data) == [*export, *["--data", data] * images, "-o", "my run.edgevit"]


def test_what_comes_next_has_the_root_and_a_name(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "all.csv"
    table.write_text("path,label\ntest/dark/0.png,dark\n")
    said = following(Path(), data=str(table), root=data)
    assert said == ["edgevit", "export", ".", "--data", str(table), "--root", data, "-o", f"{tmp_path.name}.edgevit"]
    table.write_text("path,label,split\ntest/dark/0.png,dark,train\n")
    assert "--data" not in following(Path(), data=str(table), root=data)


@pytest.mark.parametrize("of", ["checkpoint", "random weights"])
def test_how_images_are_prepared_can_be_said(data, source, tmp_path, train, of):
    begin = ("--from", source) if of == "checkpoint" else ("--model", "vit-micro")
    images = 'mean = 0.5\nstd = [0.25]\ncrop = 0.8\ninterpolation = "nearest"'
    train("--data", data, *begin, "-o", tmp_path / "run", "--epochs", 1, images=images, warmup_epochs=0)
    preprocess = load_checkpoint(str(tmp_path / "run")).preprocess
    assert set(preprocess.mean + preprocess.std) == {0.5, 0.25}
    assert preprocess.resize == int(preprocess.size[0] / 0.8)
    assert preprocess.interpolation == "nearest"


def test_a_file_that_says_it_is_for_checkpoints(data, tmp_path, train):
    options = ("--data", data, "-o", tmp_path / "run")
    failure, _ = train(*options, images='preprocess = "preprocessor_config.json"', code=2)
    assert "preprocess needs a checkpoint to fine-tune" in failure["error"]["message"]


def test_a_probe_learns_on_a_backbone_that_stays(data, source, tmp_path, train):
    run = tmp_path / "run"
    options = ("--mode", "probe", "--epochs", 40, "--batch-size", 8, "--learning-rate", 0.1)
    result, said = train("--data", data, "--from", source, "-o", run, *options)
    assert "features of the training images" in said.lower()
    before, after = load_checkpoint(source).weights, load_checkpoint(str(run)).weights
    assert result["accuracy"] > 0.9
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) is not name.startswith("head"), name


def test_a_probe_with_augmentation_or_a_teacher_sees_images(data, source, tmp_path, train):
    teacher = save_checkpoint(tmp_path / "teacher.safetensors", LABELS)
    options = ("--mode", "probe", "--epochs", 2, "--batch-size", 8)
    for name, value in (("flip", 0.5), ("teacher", teacher)):
        _, said = train(*options, "--data", data, "--from", source, "-o", tmp_path / name, **{name: value})
        assert "features of" not in said
        before, after = load_checkpoint(source).weights, load_checkpoint(str(tmp_path / name)).weights
        assert torch.equal(before["blocks.1.mlp.fc1.weight"], after["blocks.1.mlp.fc1.weight"])
        assert not torch.equal(before["head.weight"], after["head.weight"])


def test_a_teacher_leads_the_student(data, source, tmp_path, train):
    teacher = save_checkpoint(tmp_path / "teacher.safetensors", LABELS, seed=5)
    options = ("--data", data, "--from", source, "--epochs", 1, "--batch-size", 8)
    train(*options, "-o", tmp_path / "alone", autocast="float32")
    train(*options, "-o", tmp_path / "taught", autocast="float32", teacher=teacher)
    alone, taught = (load_checkpoint(str(tmp_path / name)).weights["head.weight"] for name in ("alone", "taught"))
    assert not np.allclose(alone, taught)
    result, _ = train(*options, "--resume", "-o", tmp_path / "taught", autocast="float32", code=2)
    assert "other teacher_sha256" in result["error"]["message"]


def test_a_backbone_is_fine_tuned_at_another_size(data, tmp_path, train):
    spec = msgspec.structs.replace(SPEC, classes=0)
    torch.manual_seed(0)
    backbone = Checkpoint(spec, VisionTransformer(spec).state_dict(), PREPROCESS, (), "backbone")
    backbone.save(tmp_path / "backbone.safetensors")
    options = ("--epochs", 1, "--batch-size", 8)
    keys = {"image_size": [12, 8], "autocast": "float32"}
    _, said = train(
        "--data", data, "--from", tmp_path / "backbone.safetensors", "-o", tmp_path / "run", *options, **keys
    )
    assert "2 labels where it had none" in said
    tuned = load_checkpoint(str(tmp_path / "run"))
    assert (tuned.spec.image_size, tuned.preprocess.size, tuned.labels) == ((12, 8), (12, 8), LABELS)


def test_images_that_cannot_be_read_are_left_out_and_named(data, source, tmp_path, train):
    broken = Path(data) / "train" / "dark" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    options = ("--data", data, "--from", source, "--epochs", 1, "--batch-size", 8)
    result, _ = train(*options, "-o", tmp_path / "run", autocast="float32")
    assert result["unreadable"] == [str(broken)]
    refused, _ = train(*options, "-o", tmp_path / "strict", strict=True, code=2)
    assert str(broken) in refused["error"]["message"]
    assert not (tmp_path / "strict").exists()


def test_a_teacher_that_cannot_teach_leaves_no_run(data, source, tmp_path, train):
    result, _ = train("--data", data, "-o", tmp_path / "run", teacher=source, code=2)
    assert "does not know the class" in result["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_random_weights_learn_from_files(data, tmp_path, train):
    options = ("--epochs", 1, "--batch-size", 8)
    result, _ = train("--data", data, "-o", tmp_path / "run", *options, crop=0.5, randaugment=1)
    assert result["images"] == "test"
    assert load_checkpoint(result["run"]).spec.classes == 2


def test_images_that_no_epoch_sees_are_said(data, source, tmp_path, train):
    begin = ("--data", data, "--from", source, "--epochs", 1)
    _, said = train(*begin, "--batch-size", 9, "-o", tmp_path / "run")
    assert "each epoch leaves out" in said
    assert "a smaller --batch-size leaves out fewer" in said
    _, said = train(*begin, "--batch-size", 4, "-o", tmp_path / "even")
    assert "each epoch leaves out" not in said


def test_a_finished_run_can_be_resumed_and_gives_the_same(data, source, tmp_path, train):
    options = ("--data", data, "--from", source, "--epochs", 1, "--batch-size", 8, "-o", tmp_path / "run")
    first, _ = train(*options)
    before = load_checkpoint(str(tmp_path / "run")).sha256()
    again, said = train(*options, "--resume")
    assert "finished after epoch 1: nothing is left to train" in said
    assert (again, load_checkpoint(str(tmp_path / "run")).sha256()) == (first, before)


@pytest.mark.parametrize(
    ("arguments", "keys", "said"),
    [
        (("--mode", "probe"), {}, "--from"),
        ((), {"mode": "probe"}, "--from"),
        (("--from", "x.safetensors", "--model", "vit-tiny"), {}, "--model"),
        ((), {"from": "x.safetensors", "model": "vit-tiny"}, "--model"),
        (("--from", "x.safetensors", "--mode", "probe"), {"stochastic_depth": 0.1}, "--mode full"),
        (("--from", "nothing.safetensors"), {}, "checkpoint"),
        (("--device", "tpu"), {}, "--device"),
        ((), {"device": "tpu"}, "there is no 'tpu' for device"),
        ((), {"image_size": 12}, "image_size needs a checkpoint to fine-tune"),
        ((), {"heads": 12}, "heads needs a checkpoint to fine-tune"),
        ((), {"raw_weights": True}, "raw_weights needs a checkpoint to fine-tune"),
        ((), {"crop": 1.5}, "recipe.toml: crop is 1.5"),
        ((), {"epochs": 0}, "recipe.toml: epochs is 0"),
        (("--epochs", "0"), {}, "epochs is 0"),
        ((), {"epochs": 2, "warmup_epochs": 3}, "recipe.toml: warmup_epochs is 3"),
        ((), {"epochs": "many"}, "recipe.toml, line 2: epochs: expected `int`, got `str`"),
        ((), {"weight_deacy": 0.1}, "use weight_decay"),
        ((), {"workers": -1}, "recipe.toml, line 1: workers"),
        ((), {"images": "mean"}, "recipe.toml"),
    ],
)
def test_what_cannot_be_done_is_said(train, data, tmp_path, arguments, keys, said):
    result, _ = train("--data", data, "-o", tmp_path / "run", *arguments, code=2, **keys)
    assert said in result["error"]["message"] + result["error"]["remedy"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("options", "missing"), [(("-o", "run"), "--data"), (("--data", "shapes"), "--output")])
def test_what_is_missing_is_said(train, tmp_path, monkeypatch, options, missing):
    monkeypatch.chdir(tmp_path)
    failure, _ = train(*options, code=2)
    assert missing in failure["error"]["remedy"]
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_a_recipe_that_gives_it_again(train, data, source, tmp_path, capsys):
    keys = {"autocast": "float32", "seed": 5, "patience": 1, "flip": 0.0}
    train("--data", data, "--from", source, "--epochs", 1, "--batch-size", 8, "-o", tmp_path / "run", **keys)
    kept = tmp_path / "run" / "train.toml"
    assert app.run(["train", "--recipe", str(kept), "-o", str(tmp_path / "again"), "--json"]) == 0
    capsys.readouterr()
    first, second = (load_checkpoint(str(tmp_path / name)) for name in ("run", "again"))
    assert first.sha256() == second.sha256()
    assert (tmp_path / "again" / "train.toml").read_text() == kept.read_text()
    assert app.run(["train", "--recipe", str(kept), "-o", str(tmp_path / "run"), "--resume", "--json"]) == 0
    assert "nothing is left to train" in capsys.readouterr().err


def test_a_recipe_is_printed_and_options_go_before_it(train, tmp_path, capsys):
    recipe = tmp_path / "train.toml"
    recipe.write_text('from = "old.safetensors"\nepochs = 7\nmixup = 0.5\n')
    assert app.run(["train", "--recipe", str(recipe), "--epochs", "3", "--print-recipe"]) == 0
    printed = capsys.readouterr().out
    recipe.write_text(printed)
    settings, said = read_recipe(recipe)
    assert settings.source == "old.safetensors"
    assert msgspec.structs.replace(FINE_TUNING, epochs=3, mixup=0.5) == TrainRecipe(**said)
    assert app.run(["train", "--recipe", str(recipe), "--print-recipe"]) == 0
    assert capsys.readouterr().out == printed
    assert app.run(["train", "--recipe", str(recipe), "--model", "vit-tiny", "--print-recipe", "--json"]) == 0
    assert 'model = "vit-tiny"' in json.loads(capsys.readouterr().out)["recipe"]


@pytest.mark.parametrize(
    ("file", "options", "lines"),
    [
        ('from = "a"\nmode = "probe"\nstochastic_depth = 0.1\n', ("--mode", "full"), ['mode = "full"']),
        ("learning_rate = 0.0\n", ("--learning-rate", "0.1"), ["learning_rate = 0.1"]),
        ("epochs = 2\nwarmup_epochs = 9.0\n", ("--epochs", "20"), ["epochs = 20", "warmup_epochs = 9.0"]),
        ("epochs = 0\n", ("--epochs", "1"), ["epochs = 1", "warmup_epochs = 1.0"]),
        ("batch_size = 8\naccumulate = 16\n", ("--batch-size", "32"), ["batch_size = 32", "accumulate = 16"]),
        ("minutes = -1.0\n", ("--epochs", "3"), ["epochs = 3", "minutes = 0.0"]),
        ("minutes = 5.0\n", ("--epochs", "3"), ["epochs = 3", "minutes = 0.0"]),
        ("epochs = 7\nminutes = 5.0\n", ("--minutes", "0"), ["epochs = 7", "minutes = 0.0"]),
        ("minutes = 5.0\n", ("--minutes", "0"), ["epochs = 30", "minutes = 0.0"]),
        ("epochs = 99\n", ("--minutes", "5"), ["epochs = 30", "minutes = 5.0"]),
        ("epochs = 99\nminutes = 9\n", ("--minutes", "5"), ["epochs = 30", "minutes = 5.0"]),
        ("epochs = 4\nminutes = 5\n", (), ["epochs = 4", "minutes = 5.0"]),  # as train.toml has it
        ('epochs = 20\nminutes = 15.0\nfrom = "a"\ntoken_budget = 0.7\n', (), ["epochs = 20", "minutes = 15.0"]),
        ("epochs = 99\nwarmup_epochs = 90.0\n", ("--minutes", "5"), ["warmup_epochs = 30.0", "minutes = 5.0"]),
        ('from = "a"\ntoken_schedule = [0, 4]\n', ("--token-budget", "0.7"), ["token_budget = 0.7", "# token_sched"]),
        ('from = "a"\ntoken_budget = 7.0\n', ("--token-budget", "0.7"), ["token_budget = 0.7", "# token_schedule ="]),
        ('device = "cuda"\n', ("--device", "cpu"), ['device = "cpu"']),
        ('data = "a"\n', ("--data", "b"), ['data = "b"']),
        ('from = "a"\nteacher = "b"\n', ("--teacher", "c"), ['teacher = "c"']),
        ('from = "a"\n', ("--model", "vit-micro"), ["# from =", 'model = "vit-micro"']),
        ('model = "vit-micro"\n', ("--from", "a"), ['from = "a"', "# model ="]),
    ],
)  # fmt: skip
def test_an_option_replaces_what_the_file_says_before_that_is_judged(tmp_path, capsys, file, options, lines):
    (tmp_path / "recipe.toml").write_text(file)
    given = ["train", "--recipe", str(tmp_path / "recipe.toml"), "--print-recipe"]
    assert app.run([*given, *options]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    for line in lines:
        assert f"\n{line}" in printed
    (tmp_path / "recipe.toml").write_text(printed)
    assert app.run(given) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("epochs = 4\n", ("--epochs", "4", "--minutes", "5"), "--epochs and --minutes both say when to stop"),
        ('from = "a"\ntoken_budget = 0.7\ntoken_schedule = [0, 4]\n', (), "token_budget and token_schedule both say"),
        ("learning_rate = 0.1\n", ("--learning-rate", "0"), "learning_rate is 0.0"),
        ("batch_size = 8\naccumulate = 16\n", (), "recipe.toml: accumulate is 16"),
        ("batch_size = 8\naccumulate = 16\n", ("--batch-size", "4"), "recipe.toml: accumulate is 16"),
        (
            "batch_size = 8\naccumulate = 8\n",
            ("--device", "cpu", "--batch-size", "4"),
            "recipe.toml does not go with --batch-size: accumulate is 8",
        ),
        (
            'from = "a"\nstochastic_depth = 0.1\n',
            ("--epochs", "3", "--mode", "probe"),
            "recipe.toml does not go with --mode: stochastic depth",
        ),
        (
            "accumulate = 64\n",
            ("--from", "a", "--token-budget", "0.7"),
            "recipe.toml does not go with --token-budget: accumulate is 64",
        ),
    ],
)
def test_what_options_and_a_file_contradict_each_other_in_is_said(tmp_path, capsys, file, options, said):
    (tmp_path / "recipe.toml").write_text(file)
    assert app.run(["train", "--recipe", str(tmp_path / "recipe.toml"), "--print-recipe", *options]) == 2
    message, remedy = capsys.readouterr().err.splitlines()
    assert said in message
    assert "recipe.toml" in message or "recipe.toml" not in said
    assert remedy.startswith("  try: ")


def test_printing_a_recipe_loads_no_torch():
    code = """
import sys
from edgevit.cli.app import run
run(["train", "--print-recipe", "--mode", "full"])
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_options_that_are_keys_now_are_told(capsys):
    parameters = set(inspect.signature(cli_train).parameters) - {"recipe", "print_recipe"}
    assert len(parameters) == 13
    for option, key in places().items():
        if option.replace("-", "_") in parameters | {"from"}:
            continue
        assert app.run(["train", f"--{option}", "1"]) == 2
        message, remedy = capsys.readouterr().err.splitlines()
        assert message == f"error: there is no option --{option}: it is a key of the training recipe"
        assert f"write {key.key} = " in remedy
        assert (" under [images]" in remedy) is (key.table is not None)


def test_a_warm_up_that_is_not_given_is_no_longer_than_the_run():
    for defaults in (FROM_SCRATCH, FINE_TUNING, LINEAR_PROBE):
        usual = defaults.warmup_epochs
        for said, options, expected in (
            ({}, {"epochs": 1}, min(1, usual)),
            ({"epochs": 1}, {}, min(1, usual)),
            ({}, {}, usual),
            ({}, {"epochs": 1000}, usual),
            ({"warmup_epochs": 0.5}, {"epochs": 1}, 0.5),
            ({"warmup_epochs": 4, "epochs": 9}, {"epochs": 3}, 3),
        ):
            assert _recipe(defaults, said, options).warmup_epochs == expected


def test_a_shorter_warm_up_is_said(train, data, tmp_path):
    _, said = train("--data", data, "-o", tmp_path / "run", "--epochs", 1)
    assert "warm-up ends with the last epoch" in said
