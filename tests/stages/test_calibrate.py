"""Calibration is not done twice, and goes on from where it was killed."""

import shutil
import weakref

import numpy as np
import pytest
from notes import Notes
from PIL import Image
from tiny import content

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.data.shapes import load_shapes
from edgevit.quantization.calibration.calibrate import Observation
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.plan import QuantizationPlan
from edgevit.quantization.ptq import FloatModel
from edgevit.stages import calibrate as module
from edgevit.stages.calibrate import TABLE, Selection, calibrated
from edgevit.stages.draft import Draft
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.stages.rules import Rules
from edgevit.stages.validate import validate
from edgevit.targets import load_target

TARGETS = {"x86": load_target("x86-onnxruntime")}


@pytest.fixture
def photos(tmp_path):
    """Return a folder of 40 pictures, of which the last cannot be read."""
    shapes = load_shapes("train", "size=16,count=40")
    for index, label in enumerate(shapes.labels):
        path = tmp_path / "photos" / shapes.class_names[label] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shapes.image(index).save(path)
    path.write_bytes(b"no image")
    return tmp_path / "photos"


def source(photos, **changes):
    return DataSource(**{"name": str(photos), "split": "train", "unreadable": Unreadable()} | changes)


def observed(bundle, images):
    """Quantize, and return whether the images were looked at for it."""
    notes = Notes()
    bundle = quantize(bundle, images, TARGETS, progress=notes).bundle
    looked = any(line.startswith("Calibrating on") for line in notes.said)
    assert looked != any(line.startswith("Reusing the calibration") for line in notes.said)
    return bundle, looked


def test_the_same_images_are_observed_once(exported, photos):
    bundle, looked = observed(Bundle.open(exported), source(photos))
    assert looked
    before = content(exported)
    images = source(photos)
    bundle, looked = observed(bundle, images)
    assert not looked
    assert len(images.unreadable) == 1  # is still said
    after = content(exported)
    assert {name: after[name] for name in after if name.startswith("calibration")} == {
        name: before[name] for name in before if name.startswith("calibration")
    }
    bundle, looked = observed(bundle, source(photos, samples=20))
    assert looked
    bundle, looked = observed(bundle, source(photos, samples=20, seed=1))
    assert looked
    first = sorted(photos.rglob("*.png"))[0]
    Image.fromarray(np.full((16, 16, 3), 9, dtype=np.uint8)).save(first)
    bundle, looked = observed(bundle, source(photos))
    assert looked
    assert not observed(bundle, source(photos))[1]


def test_validation_on_images_that_were_calibrated_on_says_so(exported, photos, tmp_path):
    """By their content, wherever they lie, and not where they are others or the table is damaged."""
    bundle = quantize(Bundle.open(exported), source(photos, samples=30), TARGETS).bundle
    copies = shutil.copytree(photos, tmp_path / "copies")

    def said(bundle, images, variant="int8-onnxruntime"):
        notes = Notes()
        validate(bundle, images, variants=[variant], progress=notes)
        return [line for line in notes.said if line.startswith("Calibrated on")]

    chosen = source(photos, samples=30).load()
    read = sum(chosen.describe(index) != str(max(photos.rglob("*.png"))) for index in range(30))
    whom = "which may flatter int8-onnxruntime: validate on others with --data"
    for folder in (photos, copies):
        images = source(folder, split="test")
        assert said(bundle, images) == [f"Calibrated on {read} of these 39 images, {whom}"]
        assert said(bundle, images, "float32") == []
    shapes = DataSource("shapes:size=16,count=40,seed=9", "test", Unreadable())
    assert said(bundle, shapes) == []
    (exported / TABLE).write_bytes(bytes((exported / TABLE).stat().st_size))
    assert said(Bundle.open(exported), source(photos, split="test")) == []


def test_a_table_of_another_version_is_made_anew(quantized):
    bundle = Bundle.open(quantized)
    path = bundle.verify_extra(TABLE).path
    with np.load(path) as arrays:
        old = {**arrays, "schema_version": np.int64(1)}

    def fill(folder):
        shutil.copytree(path.parent, folder, dirs_exist_ok=True)
        np.savez(folder / "table.npz", **old)
        return [folder / "table.npz"]

    bundle = bundle.add_extra("calibration", fill)
    assert observed(bundle, DataSource("shapes:size=16,count=96", "train", Unreadable(), samples=128))[1]


class Killed(BaseException):
    """What no code is to catch."""


@pytest.fixture
def killed(exported, photos, monkeypatch):
    """Return a bundle whose calibration was stopped after 26 of its images, with these."""
    monkeypatch.setattr(module, "EVERY_S", 0)
    monkeypatch.setattr(module, "BATCH", 13)
    bundle = Bundle.open(exported)
    before = content(exported)
    update = Observation.update

    def failing(observation, batches):
        for count in update(observation, batches):
            yield count
            if count == 26:
                raise Killed

    monkeypatch.setattr(Observation, "update", failing)
    with pytest.raises(Killed):
        quantize(bundle, source(photos), TARGETS)
    monkeypatch.setattr(Observation, "update", update)
    after = content(exported)
    assert set(after) - set(before) == {".calibrating/state.npz"}
    assert {name: after[name] for name in before} == before
    assert Bundle.open(exported) == bundle
    return bundle, photos


def run(bundle, photos):
    notes = Notes()
    selection = Selection.of(source(photos), bundle.manifest.preprocess)
    table = calibrated(bundle, FloatModel.read(*bundle.verify_float32()), selection, notes)
    return table, [line for line in notes.said if line.startswith("Going on")]


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Refuse to open a model to look into while another is open: each holds all weights."""
    start, opened = Observation.__init__, weakref.WeakSet()

    def starting(observation, *arguments, **options):
        assert not opened
        opened.add(observation)
        start(observation, *arguments, **options)

    monkeypatch.setattr(Observation, "__init__", starting)


@pytest.mark.usefixtures("one_at_a_time")
def test_a_calibration_that_was_killed_goes_on_to_the_same_table(killed, tmp_path):
    bundle, photos = killed
    whole = Bundle.open(shutil.copytree(bundle.path, tmp_path / "other.edgevit"))
    Draft(whole.path).remove()
    exact, said = run(whole, photos)
    assert not said
    table, said = run(bundle, photos)
    assert said == ["Going on after 26 images, where an earlier calibration stopped"]
    assert table == exact
    assert table.images == 39
    # What was seen is kept until it is in the bundle; then it goes.
    assert run(bundle, photos)[1] == ["Going on after 39 images, where an earlier calibration stopped"]
    bundle = quantize(bundle, source(photos), TARGETS).bundle
    assert not (bundle.path / ".calibrating").exists()
    assert CalibrationTable.load(bundle.verify_extra(TABLE).path) == exact


def test_what_was_kept_of_other_images_is_not_believed(killed):
    bundle, photos = killed
    next(iter(sorted(photos.rglob("*.png")))).unlink()
    assert run(bundle, photos)[1] == []


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("damage", ["cut", "shape", "type", "missing", "link"])
def test_a_damaged_state_is_not_believed(killed, damage, tmp_path):
    bundle, photos = killed
    exact = run(Bundle.open(shutil.copytree(bundle.path, tmp_path / "other.edgevit")), photos)[0]
    path = bundle.path / ".calibrating" / "state.npz"
    with np.load(path) as arrays:
        state = dict(arrays)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "link":
        path.parent.rename(tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "nowhere")
    else:
        state["8.channels.moments"] = {"shape": np.zeros(3), "type": np.full((2, 32), "x")}.get(damage, np.zeros(1))
        if damage == "missing":
            del state["8.channels.moments"]
        np.savez(path, **state)
    table, said = run(bundle, photos)
    assert said == []
    assert table == exact


def test_an_observer_is_found_and_noted(exported, photos):
    notes = Notes()
    bundle = quantize(
        Bundle.open(exported), source(photos), TARGETS, rules=Rules(observer="auto"), progress=notes
    ).bundle
    (line,) = [line for line in notes.said if line.startswith("Tried for asymmetric")]
    plan = QuantizationPlan.load(bundle.verify_extra("calibration/plan.json").path)
    assert plan.observer == plan.trials[0].observer
    assert line.endswith("; ".join(trial.say() for trial in plan.trials))
