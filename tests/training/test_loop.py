import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from train_tasks import CPU, LABELS, assert_same_but_for_rounding, make_images, make_job, make_recipe, make_task, run

from edgevit.errors import InputError, StorageError, TrainingError
from edgevit.models.loading import load_checkpoint
from edgevit.progress import SILENT
from edgevit.training import loop, objective
from edgevit.training.run import EpochMetrics, RunFolder


def begun(path, job) -> RunFolder:
    folder = RunFolder(path)
    folder.begin(job)
    return folder


def test_a_run_learns_and_leaves_everything_behind(tmp_path):
    folder = begun(tmp_path / "run", make_job())
    outcome = run(folder, make_job(), make_images(), test=make_images(seed=1))
    metrics = folder.metrics()
    assert [row.epoch for row in metrics] == [1, 2, 3, 4]
    assert metrics[-1].train_loss < metrics[0].train_loss
    assert metrics[-1].test_accuracy > 0.95
    assert (outcome.images, outcome.score.accuracy) == ("test", metrics[-1].test_accuracy)
    assert load_checkpoint(str(folder.path)).sha256() == outcome.checkpoint.sha256()
    assert folder.curves.read_bytes().startswith(b"<svg ")
    assert folder.confusion_chart.read_bytes().startswith(b"<svg ")
    confusion = json.loads(folder.confusion.read_bytes())
    assert [each["label"] for each in confusion["classes"]] == list(LABELS)
    assert np.sum(confusion["confusion"]) == 64
    assert np.trace(confusion["confusion"]) / 64 == outcome.score.accuracy


def interrupted_after(count, original):
    calls = []

    def save_state(self, state):
        original(self, state)
        calls.append(state)
        if len(calls) == count:
            raise KeyboardInterrupt

    return save_state


@pytest.mark.parametrize("epochs", [0, 2, 4])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch, epochs):
    job = make_job(mixup=0.5, cutmix=0.5, stochastic_depth=0.3, accumulate=2, layer_decay=0.8, patience=4)
    parts = {"training": make_images(), "validation": make_images(seed=1)}
    expected = run(begun(tmp_path / "whole", job), job, **parts)

    broken = begun(tmp_path / "broken", job)
    monkeypatch.setattr(RunFolder, "save_state", interrupted_after(1 + epochs, RunFolder.save_state))
    with pytest.raises(KeyboardInterrupt):
        run(broken, job, **parts)
    monkeypatch.undo()
    state = broken.resume(job)
    assert state["epoch"] == epochs
    resumed = run(broken, job, state=state, **parts)
    assert resumed.checkpoint.sha256() == expected.checkpoint.sha256()
    assert [row.epoch for row in broken.metrics()] == [1, 2, 3, 4]


def test_the_same_job_gives_the_same_weights_and_another_seed_others(tmp_path):
    def weights(name, **recipe):
        job = make_job(epochs=1, **recipe)
        return run(begun(tmp_path / name, job), job, make_images()).checkpoint.sha256()

    assert weights("a") == weights("b")
    assert weights("a2", seed=1) != weights("b2")


def test_the_parts_of_a_step_add_up_to_the_whole(tmp_path):
    def weights(name, **recipe):
        job = make_job(epochs=2, mixup=0.5, stochastic_depth=0.5, **recipe)
        return run(begun(tmp_path / name, job), job, make_images()).checkpoint.weights

    assert_same_but_for_rounding(weights("parts", accumulate=3), weights("whole"))


def test_the_best_epoch_by_validation_is_kept_and_patience_ends_the_run(tmp_path, monkeypatch):
    job = make_job(epochs=10, patience=3)
    accuracies = iter([0.5, 0.7, 0.9, 0.9, 0.8, 0.7, 0.99])

    def scored(model, evaluation_set, classes, processes, progress):
        right = round(100 * next(accuracies)) if evaluation_set.name == "validation" else 60
        averages.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return loop.EvaluationScore(1.0, np.asarray([[right, 100 - right], [0, 0]]))

    averages = []
    monkeypatch.setattr(loop, "score", scored)
    folder = begun(tmp_path / "run", job)
    outcome = run(folder, job, make_images(), validation=make_images(seed=1), test=make_images(seed=2))
    assert [row.validation_accuracy for row in folder.metrics()] == [0.5, 0.7, 0.9, 0.9, 0.8, 0.7]
    assert all(row.test_accuracy is None for row in folder.metrics()), "test images are not looked at before the end"
    assert (outcome.images, outcome.score.accuracy) == ("test", 0.6)
    for name, tensor in averages[2].items():
        torch.testing.assert_close(outcome.checkpoint.weights[name], tensor, rtol=0, atol=0)


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    folder = begun(tmp_path, make_job())
    with pytest.raises(InputError) as caught:
        folder.begin(make_job())
    assert "--resume" in caught.value.remedy


def test_what_a_kill_left_in_a_new_folder_is_no_run(tmp_path):
    (tmp_path / ".job.json.x1").mkdir()
    folder = begun(tmp_path, make_job())
    assert folder.resume(make_job()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_a_run_is_resumed_only_with_what_it_was_started_with(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="there is no run"):
        folder.resume(make_job())
    folder.begin(make_job())
    assert folder.resume(make_job()) is None
    with pytest.raises(InputError, match="other labels, seed"):
        folder.resume(msgspec.structs.replace(make_job(), recipe=make_recipe(seed=5), labels=("a", "b")))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_epoch(tmp_path, monkeypatch):
    job = make_job()
    folder = begun(tmp_path / "run", job)
    good = objective.functional.cross_entropy
    calls = []

    def poisoned(*arguments, **options):
        calls.append(1)
        return good(*arguments, **options) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(objective.functional, "cross_entropy", poisoned)
    with pytest.raises(TrainingError, match="nan in epoch 2") as caught:
        run(folder, job, make_images())
    assert "--learning-rate" in caught.value.remedy
    assert "the last whole epoch are kept" in caught.value.remedy
    monkeypatch.undo()
    assert folder.resume(job)["epoch"] == 1
    kept = load_checkpoint(str(folder.path))
    for name, tensor in kept.weights.items():
        torch.testing.assert_close(folder.state()["average"][f"module.{name}"], tensor, rtol=0, atol=0)


def test_a_gradient_that_is_no_number_does_not_reach_the_weights(tmp_path):
    job = make_job(epochs=1)
    folder = begun(tmp_path / "run", job)
    task = make_task(job, make_images())
    task.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="the gradient became") as caught:
        loop.train(folder, job, task, CPU, state=None, progress=SILENT)
    assert "there are no weights to keep" in caught.value.remedy
    assert not folder.model.exists(), "no weights are to be kept"
    assert all(torch.isfinite(tensor).all() for tensor in task.model.state_dict().values())


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    job = make_job()
    folder = begun(tmp_path / "run", job)
    run(folder, job, make_images())
    before = folder.resume(job)["epoch"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        folder.save_state({"epoch": 99})
    assert "free some space" in caught.value.remedy
    assert folder.resume(job)["epoch"] == before
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "curves.svg", "job.json", "metrics.jsonl", "model.safetensors", "state.pt",
    ]  # fmt: skip


def test_fewer_images_than_a_batch_still_train(tmp_path):
    job = make_job(batch_size=1000, epochs=1)
    folder = begun(tmp_path / "run", job)
    run(folder, job, make_images(10))
    assert 0 <= folder.metrics()[0].train_accuracy <= 1


@pytest.mark.parametrize(("waited", "said"), [(0.05, "the model limits"), (0.6, "the data limit")])
def test_the_log_says_what_limits_the_speed(waited, said):
    row = EpochMetrics(epoch=1, learning_rate=0.1, train_loss=1, train_accuracy=0, seconds=10, waited=10 * waited)
    assert loop.speed_limit([row], "raise --workers").startswith(said)
