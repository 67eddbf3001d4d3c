from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional
from train_tasks import CPU

from edgevit.data.batches import Strict, load_pixels
from edgevit.data.sources import load_dataset
from edgevit.errors import DataError, InputError, SpecError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.token_merging import MergingVisionTransformer
from edgevit.training.batch_plan import MicroBatch
from edgevit.training.objective import Normalise
from edgevit.training.pace import Pace
from edgevit.training.recipe import RECOVERY
from edgevit.training.recovery import RecoveryRequest, recover
from edgevit.training.recovery_loss import RecoveryLoss, WholeModel
from edgevit.training.run import RunFolder
from edgevit.training.training_data import TrainingData

SCHEDULE = (7, 0)
IMAGES = "shapes:size=16,count=400"
RECIPE = msgspec.structs.replace(
    RECOVERY, epochs=4, minutes=0.0, batch_size=32, learning_rate=1e-3, crop=1.0, validation_share=0.25,
    autocast="float32",
)  # fmt: skip


@pytest.fixture
def teacher(tiny_checkpoint) -> Checkpoint:
    """Return a model that looks at all of an image."""
    return load_checkpoint(str(tiny_checkpoint))


def request(teacher, folder, images=IMAGES, schedule=SCHEDULE, **recipe) -> RecoveryRequest:
    return RecoveryRequest(
        checkpoint=teacher,
        schedule=schedule,
        budget=0.7,
        data=TrainingData(str(images), Strict()),
        folder=folder,
        recipe=msgspec.structs.replace(RECIPE, **recipe),
        workers=0,
        device="cpu",
    )


@pytest.mark.parametrize(("mode", "rate"), [("norms", 4e-3), ("full", 3e-4)])
def test_a_student_comes_nearer_to_its_teacher_than_merging_alone(teacher, tmp_path, mode, rate):
    result = recover(request(teacher, tmp_path / "run", mode=mode, learning_rate=rate, batch_size=16, epochs=7))
    metrics = result.folder.metrics()
    assert metrics[-1].train_loss < 0.95 * metrics[0].train_loss
    assert result.images == 100
    assert result.after.loss < 0.95 * result.before.loss
    assert result.measure == "agreement"
    student = load_checkpoint(str(tmp_path / "run"))
    assert student.spec == teacher.spec
    assert student.labels == teacher.labels
    changed = {name for name in teacher.weights if not torch.equal(teacher.weights[name], student.weights[name])}
    matrices = {name for name, tensor in teacher.weights.items() if tensor.ndim > 1}
    assert {"blocks.0.norm1.weight", "blocks.1.mlp.fc1.bias"} <= changed
    assert changed & matrices == (matrices if mode == "full" else set())


def test_what_is_said_of_images_held_out_is_so(teacher, tmp_path):
    result = recover(request(teacher, tmp_path / "run", epochs=1))
    order = np.random.default_rng(RECIPE.seed).permutation(400)[:100]
    images = load_pixels(load_dataset(IMAGES, split="train"), teacher.preprocess, indices=order)
    given = torch.from_numpy(teacher.preprocess.normalize(images))
    with torch.no_grad():
        wanted = teacher.model()(given)
        for weights, nearness in ((teacher, result.before), (load_checkpoint(str(tmp_path / "run")), result.after)):
            found = MergingVisionTransformer(weights.model(), SCHEDULE)(given)
            kl = functional.kl_div(found.log_softmax(1), wanted.softmax(1), reduction="batchmean")
            assert nearness.loss == pytest.approx(float(kl), rel=1e-3)
            assert nearness.likeness == pytest.approx(float((found.argmax(1) == wanted.argmax(1)).float().mean()))


def test_an_embedding_model_learns_features_and_tokens(tiny_embedding_checkpoint, tmp_path):
    asked = request(load_checkpoint(str(tiny_embedding_checkpoint)), tmp_path / "run")
    result = recover(replace(asked, dense=True))
    assert result.measure == "cosine"
    assert result.before.likeness < result.after.likeness <= 1
    assert result.after.loss < 0.98 * result.before.loss


def test_logits_that_decide_by_themselves_are_compared_one_by_one(teacher, tmp_path):
    teacher = replace(teacher, activation="sigmoid")
    loss = RecoveryLoss(RECIPE, False, True, Normalise(teacher.preprocess), WholeModel(teacher.model(), dense=False))
    found, wanted = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).unbind()
    yes, given = wanted.sigmoid(), found.sigmoid()
    expected = yes * (yes / given).log() + (1 - yes) * ((1 - yes) / (1 - given)).log()
    assert float(loss.distance(found, wanted)) == pytest.approx(float(expected.sum()), rel=1e-5)
    assert loss.likeness(found, wanted) == pytest.approx(float(((found > 0) == (wanted > 0)).float().mean(1).sum()))
    recover(request(teacher, tmp_path / "run", epochs=1))
    assert load_checkpoint(str(tmp_path / "run")).activation == "sigmoid"


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_killed_run_ends_with_the_weights_of_a_whole_one(teacher, tmp_path, monkeypatch, epochs):
    recipe = {"images": "shapes:size=16,count=64", "crop": 0.6, "batch_size": 16}
    whole = recover(request(teacher, tmp_path / "whole", **recipe))
    save, calls = RunFolder.save_state, []

    def killed(self, state):
        save(self, state)
        calls.append(state)
        if len(calls) == 1 + epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", killed)
    broken = request(teacher, tmp_path / "broken", **recipe)
    with pytest.raises(KeyboardInterrupt):
        recover(broken)
    monkeypatch.undo()
    resumed = recover(broken, resume=True)
    assert resumed.checkpoint.sha256() == whole.checkpoint.sha256()
    assert resumed.after == whole.after


def test_a_run_is_resumed_with_its_own_schedule_alone(teacher, tmp_path):
    recover(request(teacher, tmp_path / "run", epochs=1))
    with pytest.raises(InputError, match="other token_schedule"):
        recover(request(teacher, tmp_path / "run", schedule=(5, 2), epochs=1), resume=True)


class Clock:
    """Stands in for time.monotonic: each reading is ``step`` seconds after the one before."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def test_a_run_ends_when_its_minutes_are_over(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("edgevit.training.pace.time.monotonic", Clock(5.0))
    result = recover(request(teacher, tmp_path / "run", minutes=2))
    metrics = result.folder.metrics()
    assert sum(row.seconds for row in metrics) >= 120
    assert sum(row.seconds for row in metrics[:-1]) < 120
    assert len(metrics) > 1
    assert metrics[-1].learning_rate < 0.1 * RECIPE.learning_rate
    again = recover(request(teacher, tmp_path / "run", minutes=2), resume=True)
    assert again.checkpoint.sha256() == result.checkpoint.sha256()


def test_a_timed_epoch_lasts_no_longer_than_a_minute_and_is_counted_after_a_kill(monkeypatch):
    clock = Clock(0.0)
    monkeypatch.setattr("edgevit.training.pace.time.monotonic", clock)
    pace = Pace(msgspec.structs.replace(RECIPE, minutes=10), CPU)
    pace.begin_epoch()
    assert not pace.epoch_is_over()
    clock.now = 61.0
    assert pace.epoch_is_over()
    assert pace.end_epoch() == 61
    pace.begin_epoch()
    clock.now += 539
    assert pace.epoch_is_over()
    pace.end_epoch()
    assert pace.is_over(1)
    resumed = Pace(msgspec.structs.replace(RECIPE, minutes=11), CPU)
    resumed.seconds = pace.seconds
    assert not resumed.is_over(1)
    assert resumed.left(1) == 60


def test_all_images_but_one_can_be_learnt_from(teacher, tmp_path):
    result = recover(request(teacher, tmp_path / "run", "shapes:size=16,count=1", epochs=1))
    assert (result.images, result.before, result.after) == (0, None, None)


def test_mixed_images_are_mixed_for_teacher_and_student_alike(teacher):
    recipe = msgspec.structs.replace(RECIPE, mixup=1.0)
    whole = WholeModel(teacher.model(), dense=False)
    loss = RecoveryLoss(recipe, False, False, Normalise(teacher.preprocess), whole)
    pixels = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen = []

    class Student(torch.nn.Module):
        def forward(self, images):
            seen.append(images)
            return whole(images)

    distance, agreed = loss(
        Student(), pixels, torch.zeros(8, dtype=torch.int64), MicroBatch(0, 0, np.arange(8), 0, 8, True)
    )
    assert (float(distance), agreed) == (pytest.approx(0, abs=1e-5), 8)
    assert (seen[0] - loss.normalise(pixels.float())).abs().max() > 0.5


@pytest.mark.parametrize(
    "asked",
    [
        {"label_smoothing": 0.1},
        {"patience": 2},
        {"sampling": "balanced"},
        {"stochastic_depth": 0.1},
        {"teacher_weight": 0.5},
    ],
)
def test_what_needs_labels_is_refused(teacher, tmp_path, asked):
    with pytest.raises(InputError, match=next(iter(asked))):
        recover(request(teacher, tmp_path / "run", **asked))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_done_leaves_no_run(teacher, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        recover(request(teacher, tmp_path / "run", tmp_path / "empty"))
    with pytest.raises(SpecError, match="cannot merge"):
        recover(request(teacher, tmp_path / "run", schedule=(9, 0)))
    turned = replace(teacher, spec=msgspec.structs.replace(teacher.spec, query_key_norm=True))
    with pytest.raises(SpecError, match="norm on queries"):
        recover(request(turned, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
