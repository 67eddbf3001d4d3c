"""``edgevit train --token-budget``: a student of a bundle, and what is refused."""

import json
import shutil

import pytest
from tiny import SHAPES

from edgevit.models.loading import load_checkpoint
from edgevit.training.recipe_file import read_recipe


def test_a_bundles_model_learns_to_do_with_fewer_tokens(edgevit, tiny_exported, tmp_path):
    run, recipe = tmp_path / "run", tmp_path / "recipe.toml"
    recipe.write_text("workers = 0\n")
    options = ("--from", tiny_exported, "--teacher", "self", "--token-budget", 0.8, "--data", SHAPES, "--epochs", 2)
    result = edgevit("train", *options, "-o", run, "--recipe", recipe, "--json")
    assert result.code == 0, result.err
    assert "of the multiply-adds" in result.err
    assert "epoch 2/2: loss" in result.err
    assert ", training agreement " in result.err
    data = result.data()
    assert sum(data["token_schedule"]) > 0
    assert data["images"] == 10
    assert data["measure"] == "agreement"
    assert set(data["before"]) == set(data["after"]) == {"loss", "agreement"}
    kept, said = read_recipe(run / "train.toml")
    assert (kept.teacher, kept.token_budget, said["mode"], said["epochs"]) == ("self", 0.8, "norms", 2)
    job = json.loads((run / "job.json").read_text())
    assert (job["token_budget"], job["token_schedule"]) == (0.8, data["token_schedule"])
    assert (
        job["teacher_sha256"]
        == json.loads((tiny_exported / "manifest.json").read_text())["provenance"]["weights_sha256"]
    )
    before = load_checkpoint(str(run)).sha256()
    again = edgevit("train", "--recipe", run / "train.toml", "-o", run, "--resume")
    assert again.code == 0, again.err
    assert "nothing is left to train" in again.err
    assert "On 10 images held out" in again.out
    assert f"edgevit quantize {tiny_exported} --student {run} --data {SHAPES}" in again.out.replace("\n", " ")
    assert load_checkpoint(str(run)).sha256() == before
    assert edgevit("export", run, "-o", tmp_path / "run.edgevit", "--data", SHAPES).code == 0


def test_minutes_say_when_to_stop(edgevit, tiny_checkpoint, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("workers = 0\ntoken_schedule = [5, 0]\n")
    options = ("--from", tiny_checkpoint, "--data", SHAPES, "--minutes", 0.01, "--recipe", recipe)
    result = edgevit("train", *options, "-o", tmp_path / "run", "--json")
    assert result.code == 0, result.err
    assert result.data()["token_schedule"] == [5, 0]
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(seconds) >= 0.6
    assert sum(seconds[:-1]) < 0.6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--token-budget", 1.5), "between 0 and 1"),
        (("--token-budget", 0), "between 0 and 1"),
        (("--token-budget", 0.123), "in whole per cent"),
        (("--token-budget", 0.8, "--teacher", "other.safetensors"), "--teacher self"),
        (("--teacher", "self"), "--token-budget 0.7"),
        (("--token-budget", 0.8, "--mode", "probe"), "--mode norms or full"),
        (("--token-budget", 0.8, "--epochs", 1, "--minutes", 1), "leave out one of them"),
        (("--token-budget", 0.8, "--data", "no/such/folder"), "no/such/folder"),
        (("--token-budget", 0.8, "--from", "no.edgevit"), "no.edgevit"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(edgevit, tiny_checkpoint, tmp_path, options, said):
    given = [
        *(("--data", SHAPES) * ("--data" not in options)),
        *(("--from", tiny_checkpoint) * ("--from" not in options)),
    ]
    result = edgevit("train", *given, *options, "-o", tmp_path / "run")
    assert result.code == 2
    assert said in " ".join(result.failure())
    assert "auto" not in " ".join(result.failure())  # which quantize takes
    assert not (tmp_path / "run").exists()


def test_random_weights_have_no_tokens_to_spare(edgevit, tmp_path):
    result = edgevit("train", "--data", SHAPES, "--model", "vit-tiny", "--token-budget", 0.8, "-o", tmp_path / "run")
    assert "--from" in result.failure()[1]


def test_an_empty_folder_is_said(edgevit, tiny_exported, tmp_path):
    (tmp_path / "empty").mkdir()
    run = tmp_path / "run"
    result = edgevit("train", "--from", tiny_exported, "--token-budget", 0.8, "--data", tmp_path / "empty", "-o", run)
    assert "empty" in result.failure()[0]
    assert not run.exists()


def test_a_damaged_bundle_is_said(edgevit, tiny_exported, tmp_path):
    path = shutil.copytree(tiny_exported, tmp_path / "broken.edgevit")
    next((path / "float32").glob("*.onnx")).write_bytes(b"")
    result = edgevit("train", "--from", path, "--token-budget", 0.8, "--data", SHAPES, "-o", tmp_path / "run")
    assert "broken.edgevit" in result.failure()[0]
