"""A run of ``edgevit train`` that is not finished: refused, or its averaged weights, if they are asked for."""

import json
import shutil

import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from train_tasks import LABELS, PREPROCESS, SPEC, make_images, make_job, make_model, run

from edgevit.errors import CheckpointError
from edgevit.models.loading import load_checkpoint
from edgevit.runtime import load
from edgevit.training.run import RunFolder

EPOCHS = 2


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run")
    folder.begin(make_job())
    original = RunFolder.save_state

    def save_state(self, state):
        original(self, state)
        if state["epoch"] == EPOCHS:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_state", save_state)
        with pytest.raises(KeyboardInterrupt):
            run(folder, make_job(), make_images())
    return folder.path


def averaged(path):
    """What torch's own AveragedModel has in that state."""
    average = AveragedModel(make_model())
    average.load_state_dict(torch.load(path / "state.pt", weights_only=True)["average"])
    return average.module.state_dict()


def test_an_unfinished_run_is_refused_and_says_how_to_go_on(interrupted):
    for source in (interrupted, interrupted / "state.pt"):
        with pytest.raises(CheckpointError, match="is not finished") as caught:
            load_checkpoint(str(source))
        assert "--resume" in caught.value.remedy
        assert "--unfinished" in caught.value.remedy


def test_its_averaged_weights_come_with_spec_preprocessing_and_labels(interrupted):
    found = load_checkpoint(str(interrupted), unfinished=True)
    assert (found.spec, found.preprocess, found.labels) == (SPEC, PREPROCESS, LABELS)
    expected = averaged(interrupted)
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.items())
    raw = torch.load(interrupted / "state.pt", weights_only=True)["model"]
    assert any(not torch.equal(found.weights[name], raw[name]) for name in expected)
    assert any(f"after epoch {EPOCHS}" in note for note in found.notes)


def test_export_of_it_goes_through_the_command(edgevit, interrupted, tmp_path):
    command = ("export", interrupted, "-o", tmp_path / "m.edgevit", "--image-size", "8")
    refused = edgevit(*command)
    assert refused.code == 2
    assert "--resume" in refused.err
    made = edgevit(*command, "--unfinished")
    assert made.code == 0, made.err
    assert "not finished" in made.err
    with load(tmp_path / "m.edgevit") as model:
        assert model.labels == LABELS
        assert model.preprocess == PREPROCESS


def test_a_state_without_its_run_is_refused(interrupted, tmp_path):
    shutil.copy(interrupted / "state.pt", tmp_path / "vit.pt")
    with pytest.raises(CheckpointError, match=r"without the job\.json"):
        load_checkpoint(str(tmp_path / "vit.pt"))
    with pytest.raises(CheckpointError, match="is no unfinished run"):
        load_checkpoint(str(tmp_path / "vit.pt"), unfinished=True)


def test_damage_and_a_run_without_an_epoch_are_told(interrupted, tmp_path):
    shutil.copy(interrupted / "job.json", tmp_path / "job.json")
    with pytest.raises(CheckpointError, match="has not finished an epoch"):
        load_checkpoint(str(tmp_path), unfinished=True)
    shutil.copy(interrupted / "state.pt", tmp_path / "state.pt")
    job = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps({**job, "spec": {**job["spec"], "width": -1}}))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(str(tmp_path), unfinished=True)
