"""What was observed to round weights is not lost by a kill, and believed only where it is whole and of the same."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from notes import Notes
from tiny import content, finish

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, Unreadable
from edgevit.data.shapes import load_shapes
from edgevit.errors import ImageError
from edgevit.progress import Silent
from edgevit.quantization import ptq
from edgevit.quantization.calibration.image_pass import Seen
from edgevit.quantization.calibration.observers import RangeObserver
from edgevit.quantization.plan import LinearQuantization
from edgevit.quantization.rounding.gptq import HessianObserver
from edgevit.stages import draft
from edgevit.stages.draft import Draft, SecondPass
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.targets import load_target

TARGETS = {"x86": load_target("x86-onnxruntime")}
KEPT = ".calibrating/second-asymmetric"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of 16 pictures, of which the last cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    shapes = load_shapes("train", "size=16,count=16")
    for index, label in enumerate(shapes.labels):
        path = folder / shapes.class_names[label] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        shapes.image(index).save(path)
    path.write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(("moment", "observed"), [("rounding", 0), pytest.param("keeping", 2, marks=pytest.mark.slow)])
def test_a_kill_does_not_lose_what_was_observed(forked, exported, photos, tmp_path, moment, observed):
    script = Path(__file__).with_name("rounding_kills.py")
    done = finish(forked(exported, photos, moment, what=script, scratch=tmp_path / "scratch"))
    assert done.code == 0, done.err
    assert done.out == str(observed)


class Killed(BaseException):
    """What no code is to catch."""


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory, tiny_exported, photos):
    """Return a bundle that was being quantized when its weights were rounded, and what a whole run makes of it."""
    folder = tmp_path_factory.mktemp("killed")
    bundle, whole = (shutil.copytree(tiny_exported, folder / name / "tiny.edgevit") for name in ("killed", "whole"))

    def failing(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draft, "LEAST_S", 0)
        run(whole, photos)
        patch.setattr(ptq, "quantize_weight", failing)
        with pytest.raises(Killed):
            run(bundle, photos)
    return bundle, content(whole)


@pytest.fixture
def killed(killed_once, tmp_path, monkeypatch):
    """Return the same, to be changed at will."""
    monkeypatch.setattr(draft, "LEAST_S", 0)
    bundle, whole = killed_once
    return shutil.copytree(bundle, tmp_path / "tiny.edgevit"), whole


def run(bundle, photos, unreadable=None, **options):
    """Quantize, and say whether the images were observed for it."""
    notes = Notes()
    source = DataSource(str(photos), "train", Unreadable() if unreadable is None else unreadable, **options)
    quantize(Bundle.open(bundle), source, TARGETS, progress=notes)
    assert not (bundle / ".calibrating").exists()
    observed = "Collecting statistics for GPTQ" in notes.labels
    assert observed != any(line.startswith("Reusing the GPTQ statistics") for line in notes.said)
    return observed


def test_what_was_kept_is_gone_on_with(killed, photos):
    bundle, whole = killed
    layers = len(list((bundle / KEPT).glob("*.npz")))
    assert layers == 10 + 3 * 2 + 1  # Linear layers, operands of attention, and what it is of
    assert run(bundle, photos) is False
    assert content(bundle) == whole


def test_an_image_that_could_not_be_read_stops_a_strict_run(killed, photos):
    with pytest.raises(ImageError, match="is not an image"):
        run(killed[0], photos, Strict())


def test_what_is_of_other_images_is_not_believed(killed, photos):
    assert run(killed[0], photos, samples=12) is True


def test_a_damaged_pass_is_made_again(killed, photos):
    bundle, whole = killed
    cut(bundle / KEPT / "9.npz")  # those before it are restored then
    assert run(bundle, photos) is True
    assert content(bundle) == whole


def rewritten(path, **changes):
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **changes})


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    """Change one bit of the products."""
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 1
    path.write_bytes(damaged)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def linked(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def folder_linked(path):
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


def a_file(path):
    shutil.rmtree(path.parents[1])
    path.parents[1].write_bytes(b"")


WIDTH = 8


def parts(width=WIDTH):
    quantization = LinearQuantization(activation_scale=0.1, activation_zero_point=3, weight_scales=(1.0,))
    return {"layer": HessianObserver(quantization, width), "query": RangeObserver()}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Return the keeper of a pass over nine images of the ``parts``, and these."""
    monkeypatch.setattr(draft, "LEAST_S", 0)
    keeper = SecondPass(Draft(tmp_path), "images", Unreadable(), Silent())
    seen = parts()
    for image in np.random.default_rng(0).normal(size=(9, 1, 5, WIDTH)).astype(np.float32):
        for part in seen.values():
            part.update(image)
    keeper.keep("asymmetric", "key", seen, 1.0)
    return keeper, seen


def test_all_of_a_pass_is_kept(kept):
    keeper, seen = kept
    again = parts()
    assert keeper.restore("asymmetric", "key", again)
    np.testing.assert_array_equal(again["layer"].covariance(), seen["layer"].covariance())
    np.testing.assert_array_equal(again["layer"].means(), seen["layer"].means())
    assert again["query"].statistics() == seen["query"].statistics()
    keeper.keep("asymmetric", "other", seen, 1.0)
    assert not keeper.restore("asymmetric", "key", parts())
    assert keeper.restore("asymmetric", "other", parts())


@pytest.mark.parametrize(("name", "key", "images"), [("symmetric",) * 3, ("asymmetric", "other", "images")])
def test_a_pass_of_others_is_not_believed(kept, name, key, images):
    assert not replace(kept[0], selection_sha256=images).restore(name, key, parts())


def test_a_pass_of_another_width_is_not_believed(kept):
    assert not kept[0].restore("asymmetric", "key", parts(WIDTH + 1))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flipped,
        fifo,
        linked,
        folder_linked,
        a_file,
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: rewritten(path, products=np.zeros((3, 3), dtype=np.float32)),
        lambda path: rewritten(path, products=np.full((WIDTH, WIDTH), np.inf, dtype=np.float32)),
        lambda path: rewritten(path, origin=np.zeros(WIDTH)),
        lambda path: rewritten(path, seen=np.zeros(2)),
        lambda path: rewritten(path, seen=np.array(["a", "b"])),
        lambda path: rewritten(path, sums=np.full((3, WIDTH), np.nan)),
        lambda path: rewritten(path, more=np.zeros(1 << 20)),
    ],
)
def test_a_damaged_pass_is_not_believed_and_can_be_kept_anew(kept, damage):
    keeper, seen = kept
    damage(keeper.draft.folder / "second-asymmetric" / "0.npz")
    assert not keeper.restore("asymmetric", "key", parts())
    keeper.keep("asymmetric", "key", seen, 1.0)
    assert keeper.restore("asymmetric", "key", parts())


@pytest.mark.parametrize("damage", [cut, fifo, Path.unlink, lambda path: rewritten(path, unreadable=np.zeros(3))])
def test_nor_is_one_that_does_not_say_what_it_is_of(kept, damage):
    damage(kept[0].draft.folder / "second-asymmetric" / "about.npz")
    assert not kept[0].restore("asymmetric", "key", parts())


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_no_more_than_what_would_be_kept(exported, photos, monkeypatch):
    monkeypatch.setattr(draft, "LEAST_S", 0)
    monkeypatch.setattr(draft.np, "savez", full)
    notes, seen = Notes(), []
    quantize_weight = ptq.quantize_weight

    def look(*arguments):
        seen.append(list(exported.rglob(".calibrating/*")))
        return quantize_weight(*arguments)

    monkeypatch.setattr(ptq, "quantize_weight", look)
    source = DataSource(str(photos), "train", Unreadable())
    assert quantize(Bundle.open(exported), source, TARGETS, progress=notes).bundle.variant("int8-onnxruntime")
    assert seen[0] == []
    (said,) = [line for line in notes.said if line.startswith("GPTQ statistics are not saved")]
    assert "No space left" in said


def test_a_disk_that_would_be_full_is_left_alone(kept, monkeypatch):
    keeper, seen = kept
    keeper.draft.remove()
    notes = Notes()
    monkeypatch.setattr(draft.shutil, "disk_usage", lambda _: SimpleNamespace(free=600))
    replace(keeper, progress=notes).keep("asymmetric", "key", seen, 1.0)
    assert not keeper.draft.folder.exists()
    (said,) = notes.said
    assert said.endswith("would leave the disk full")


def test_what_is_soon_done_again_is_not_kept(kept, monkeypatch):
    keeper, seen = kept
    keeper.draft.remove()
    monkeypatch.setattr(draft, "LEAST_S", 10.0)
    keeper.keep("asymmetric", "key", seen, 9.9)
    assert not keeper.draft.folder.exists()


def test_the_first_pass_waits_for_no_one(tmp_path):
    """A FIFO in the place of what was kept would never be read to its end."""
    (tmp_path / ".calibrating").mkdir()
    os.mkfifo(tmp_path / ".calibrating" / "state.npz")
    assert Draft(tmp_path)._restored(lambda: None, 9) is None


class Pass:
    """A pass over images that keeps no more than how many it has seen."""

    def __init__(self, images=0):
        self.seen = Seen(images, "")

    def state(self):
        return {"images": np.array(self.seen.images)}

    def restore(self, state):
        self.seen = Seen(int(state["images"]), "")


@pytest.mark.parametrize(("position", "believed"), [(3, True), (5, True), (2, False), (-1, False), (6, False)])
def test_a_position_that_cannot_be_is_not_believed(tmp_path, position, believed):
    kept = Draft(tmp_path, "key")
    kept.keep(Pass(3), position)
    going_on, start = kept.restored(Pass, images=5)
    assert (going_on.seen.images, start) == ((3, position) if believed else (0, 0))


def test_a_folder_in_the_place_of_the_first_pass_is_replaced(tmp_path):
    kept = Draft(tmp_path, "key")
    (tmp_path / ".calibrating/state.npz/in it").mkdir(parents=True)
    assert kept.restored(Pass, images=5)[1] == 0
    kept.keep(Pass(3), 4)
    assert kept.restored(Pass, images=5)[1] == 4
