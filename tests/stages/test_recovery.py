"""From a bundle or a checkpoint to a run for fewer tokens, and back to the bundle."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import torch
from tiny import SHAPES, must_run

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict
from edgevit.data.sources import load_dataset
from edgevit.errors import CheckpointError, InputError, SpecError
from edgevit.graph.running import run_all_outputs
from edgevit.models.loading import load_checkpoint
from edgevit.stages import recovery
from edgevit.stages.student import student_model
from edgevit.stages.student_schedule import float32_of, own_schedule, schedule_budget, schedule_for
from edgevit.training.recipe import RECOVERY
from edgevit.training.start import Request
from edgevit.training.training_data import TrainingData


def request(source, folder=None, **options) -> Request:
    return Request(TrainingData(SHAPES, Strict()), folder, RECOVERY, source=str(source), **options)


def test_a_bundle_holds_the_very_weights_that_it_was_made_of(tiny_exported, tiny_checkpoint):
    model, expected = recovery.model_of(request(tiny_exported)), load_checkpoint(str(tiny_checkpoint))
    found = model.checkpoint
    assert not model.dense
    assert found.sha256() == expected.sha256()
    assert (found.spec, found.labels, found.preprocess) == (expected.spec, expected.labels, expected.preprocess)


@pytest.fixture(scope="module")
def tokens_bundle(tmp_path_factory, tiny_checkpoint):
    """Return a bundle that gives tokens: its file has no head."""
    folder = tmp_path_factory.mktemp("tokens")
    source = shutil.copy(tiny_checkpoint, folder / "source.safetensors")
    must_run("export", source, "-o", folder / "tokens.edgevit", "--output", "tokens", "--data", SHAPES)
    return folder / "tokens.edgevit"


def test_what_a_bundles_file_leaves_out_is_taken_from_the_checkpoint_that_it_names(
    tokens_bundle, tiny_checkpoint, monkeypatch
):
    monkeypatch.chdir(tokens_bundle.parent)  # a bundle names it without the folders of the machine
    model = recovery.model_of(request(tokens_bundle))
    found = model.checkpoint
    assert model.dense
    assert found.sha256() == load_checkpoint(str(tiny_checkpoint)).sha256()


@pytest.mark.parametrize("named", ["gone", "another"])
def test_without_that_checkpoint_it_is_asked_for(tokens_bundle, tiny_embedding_checkpoint, tmp_path, named):
    path = shutil.copytree(tokens_bundle, tmp_path / "tokens.edgevit")
    source = tmp_path / "nothing.safetensors" if named == "gone" else tiny_embedding_checkpoint
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["provenance"]["source"] = str(source)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is not here" if named == "gone" else "has other weights") as caught:
        recovery.model_of(request(path))
    assert "--from" in caught.value.remedy


def test_a_bundle_of_an_onnx_file_has_no_weights_to_train(tiny_exported, tmp_path, edgevit):
    onnx = shutil.copy(next((tiny_exported / "float32").glob("*.onnx")), tmp_path / "given.onnx")
    assert edgevit("export", onnx, "-o", tmp_path / "given.edgevit", "--data", SHAPES).code == 0
    with pytest.raises(InputError, match="no weights of a ViT that can be trained") as caught:
        recovery.model_of(request(tmp_path / "given.edgevit"))
    assert "--from" in caught.value.remedy


def test_what_is_said_of_a_checkpoint_is_no_business_of_a_bundle(tiny_exported):
    with pytest.raises(InputError, match="heads goes with a checkpoint"):
        recovery.model_of(request(tiny_exported, heads=4))


def test_a_variant_that_has_the_budget_says_the_schedule(tiny_exported, tmp_path):
    path = shutil.copytree(tiny_exported, tmp_path / "tiny.edgevit")
    manifest = json.loads((path / "manifest.json").read_text())
    merging = {"budget": 0.8, "share": 0.79, "schedule": [3, 2]}
    manifest["variants"][0]["token_merging"] = merging
    (path / "manifest.json").write_text(json.dumps(manifest))
    bundle = Bundle.open(path)
    assert own_schedule(bundle, 0.8) == (3, 2)
    assert own_schedule(bundle, 0.7) is own_schedule(None, 0.8) is None


def test_a_checkpoint_has_the_schedule_of_its_bundle(tiny_exported, tiny_checkpoint):
    found = []
    for source in (tiny_exported, tiny_checkpoint):
        model = recovery.model_of(request(source))
        images = load_dataset(SHAPES, split="train")
        with float32_of(model.checkpoint, model.bundle) as path:
            found.append(schedule_for(0.9, path, model.checkpoint, model.bundle, images, Strict()))
            assert schedule_budget(found[-1], path) <= 0.9
    assert found[0] == found[1]


def test_a_schedule_must_merge_and_fit(tiny_exported, tmp_path):
    for schedule, kind in (((0, 0), InputError), ((9, 0), SpecError), ((1,), SpecError)):
        with pytest.raises(kind):
            recovery.recover(request(tiny_exported, tmp_path / "run"), None, schedule)
    with pytest.raises(InputError, match="cannot be had"):
        recovery.recover(request(tiny_exported, tmp_path / "run"), 0.01, None)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_exported):
    """Return the folder of a run that learnt for a moment from the model of a bundle."""
    folder = tmp_path_factory.mktemp("student") / "run"
    recipe = msgspec.structs.replace(RECOVERY, minutes=0.0, epochs=1, warmup_epochs=0.0, crop=1.0, autocast="float32")
    of_run = Request(TrainingData(SHAPES, Strict()), folder, recipe, source=str(tiny_exported), workers=0)
    recovery.recover(of_run, 0.9, None)
    return folder


def test_a_student_takes_the_place_of_its_teacher_in_the_graph(trained, tiny_exported, tmp_path):
    bundle = Bundle.open(tiny_exported)
    student = student_model(trained, bundle, tmp_path)
    assert student.budget == 0.9
    assert sum(student.schedule) > 0
    images = np.random.default_rng(0).normal(size=(4, 1, 3, 16, 16)).astype(np.float32)
    (given,), (teacher,) = (run_all_outputs(path, images) for path in (student.path, bundle.verify_float32().path))
    with torch.no_grad():
        expected = load_checkpoint(str(trained)).model()(torch.from_numpy(images[:, 0]))
    assert np.abs(given - expected.numpy()).max() < 1e-4
    assert np.abs(given - teacher).max() > 1e-4


def test_a_student_of_a_model_of_tokens_gives_tokens(trained, tokens_bundle, tmp_path):
    student = student_model(trained, Bundle.open(tokens_bundle), tmp_path)
    (given,) = run_all_outputs(student.path, [np.zeros((1, 3, 16, 16), np.float32)])
    assert given.shape == (1, 16, 32)


def test_a_run_that_is_no_student_of_the_bundle_is_refused(trained, tiny_exported, tiny_embedding, tmp_path):
    bundle = Bundle.open(tiny_exported)
    with pytest.raises(InputError, match="another architecture"):
        student_model(trained, Bundle.open(tiny_embedding), tmp_path)
    with pytest.raises(InputError, match="there is no run"):
        student_model(tmp_path, bundle, tmp_path)
    for changes, said in (
        ({"teacher_sha256": "0" * 64}, "from other weights"),
        ({"token_schedule": []}, "was not trained for fewer tokens"),
    ):
        run = shutil.copytree(trained, tmp_path / said)
        job = json.loads((run / "job.json").read_text())
        (run / "job.json").write_text(json.dumps({**job, **changes}))
        with pytest.raises(InputError, match=said) as caught:
            student_model(run, bundle, tmp_path)
        assert "edgevit train --from" in caught.value.remedy
        (run / "job.json").write_text("{")
        with pytest.raises(InputError, match="damaged"):
            student_model(run, bundle, tmp_path)


def test_a_student_that_has_not_learnt_to_the_end_is_refused(trained, tiny_exported, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        student_model(run, Bundle.open(tiny_exported), tmp_path)
