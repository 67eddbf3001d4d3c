import msgspec
import numpy as np
import pytest
import torch

from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError, StorageError, TrainingError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer
from edgevit.training import loop
from edgevit.training.loop import Images, train
from edgevit.training.recipe import Recipe
from edgevit.training.run import Job, RunFolder

SPEC = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=16, depth=1, heads=2, classes=2, channels=1)


def make_job(**recipe) -> Job:
    settings = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "warmup_epochs": 1, "ema_decay": 0.9}
    return Job(
        data="test",
        data_sha256="0",
        spec=SPEC,
        preprocess=Preprocess(size=(8, 8), resize=8, mean=(0.5,), std=(0.25,), channel_order="L"),
        labels=("dark", "light"),
        recipe=Recipe(**{**settings, **recipe}),
        initial_sha256="0",
    )


def initial(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    job = make_job()
    return Checkpoint(SPEC, VisionTransformer(SPEC).state_dict(), job.preprocess, job.labels, "test")


def make_images(count=64, seed=0) -> Images:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    pixels = random.integers(0, 128, (count, 8, 8, 1)) + 127 * labels[:, None, None, None]
    return Images(pixels.astype(np.uint8), labels)


def test_a_run_learns_and_leaves_everything_behind(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(make_job())
    checkpoint = train(folder, make_job(), initial(), make_images(), make_images(seed=1))
    metrics = folder.metrics()
    assert [row.epoch for row in metrics] == [1, 2, 3, 4]
    assert metrics[-1].train_loss < metrics[0].train_loss
    assert metrics[-1].test_accuracy > 0.95
    assert load_checkpoint(str(folder.path)).sha256() == checkpoint.sha256()
    assert folder.curves.read_bytes().startswith(b"\x89PNG")


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    job = make_job()
    whole = RunFolder(tmp_path / "whole")
    whole.begin(job)
    expected = train(whole, job, initial(), make_images(), None)

    broken = RunFolder(tmp_path / "broken")
    broken.begin(job)
    monkeypatch.setattr(RunFolder, "save_state", _interrupt_after(2, RunFolder.save_state))
    with pytest.raises(KeyboardInterrupt):
        train(broken, job, initial(), make_images(), None)
    monkeypatch.undo()
    resumed = train(broken, job, initial(), make_images(), None, state=broken.resume(job))
    assert resumed.sha256() == expected.sha256()
    assert [row.epoch for row in broken.metrics()] == [1, 2, 3, 4]


def _interrupt_after(count, original):
    calls = []

    def save_state(self, state):
        original(self, state)
        calls.append(state)
        if len(calls) == count:
            raise KeyboardInterrupt

    return save_state


def test_the_same_job_gives_the_same_weights_and_another_seed_others(tmp_path):
    def weights(name, **recipe):
        folder = RunFolder(tmp_path / name)
        folder.begin(make_job(epochs=1, **recipe))
        return train(folder, make_job(epochs=1, **recipe), initial(), make_images(), None).sha256()

    assert weights("a") == weights("b")
    assert weights("a2", seed=1) != weights("b2")


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin(make_job())
    with pytest.raises(InputError) as caught:
        folder.begin(make_job())
    assert "--resume" in caught.value.remedy


def test_a_run_is_resumed_only_with_what_it_was_started_with(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="there is no run"):
        folder.resume(make_job())
    folder.begin(make_job())
    assert folder.resume(make_job()) is None
    with pytest.raises(InputError, match="other labels, seed"):
        folder.resume(msgspec.structs.replace(make_job(seed=5), labels=("a", "b")))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_epoch(tmp_path, monkeypatch):
    folder, job = RunFolder(tmp_path / "run"), make_job()
    folder.begin(job)
    good = loop.functional.cross_entropy
    calls = []

    def poisoned(*arguments, **options):
        calls.append(1)
        return good(*arguments, **options) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(loop.functional, "cross_entropy", poisoned)
    with pytest.raises(TrainingError, match="nan in epoch 2") as caught:
        train(folder, job, initial(), make_images(), None)
    assert "--learning-rate" in caught.value.remedy
    monkeypatch.undo()
    assert folder.resume(job)["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in folder.resume(job)["model"].values())


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    folder, job = RunFolder(tmp_path / "run"), make_job()
    folder.begin(job)
    train(folder, job, initial(), make_images(), None)
    before = folder.resume(job)["epoch"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        folder.save_state({"epoch": 99})
    assert "free some space" in caught.value.remedy
    assert folder.resume(job)["epoch"] == before
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "curves.png", "job.json", "metrics.jsonl", "model.safetensors", "state.pt",
    ]  # fmt: skip


def test_fewer_images_than_a_batch_still_train(tmp_path):
    folder, job = RunFolder(tmp_path / "run"), make_job(batch_size=1000, epochs=1)
    folder.begin(job)
    train(folder, job, initial(), make_images(10), None)
    assert 0 <= folder.metrics()[0].train_accuracy <= 1
