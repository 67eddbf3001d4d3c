"""A race between settings: the first one wins unless another is clearly faster."""

from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgevit.errors import BundleError
from edgevit.quantization.ptq import PtqModel
from edgevit.stages import precisions
from edgevit.stages.settings_race import fastest_settings, winner
from edgevit.targets import load_target

NAMES = [{"speed": "slow"}, {"speed": "fast"}]


class Recorded:
    """A backend whose sessions only note who ran."""

    def __init__(self):
        self.ran = []

    def open(self, model, *, threads, settings):
        return _Session(self.ran, settings["speed"])


class _Session:
    def __init__(self, ran, name):
        self.ran, self.name = ran, name

    def infer(self, images):
        self.ran.append(self.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ran.append(f"{self.name} closed")


@pytest.mark.parametrize(
    ("second", "third", "expected"), [(1.0, 1.2, 0), (0.97, 1.0, 0), (0.9, 0.92, 1), (0.9, 0.7, 2)]
)
def test_another_wins_only_where_it_is_clearly_faster(second, third, expected):
    disturbance = np.random.default_rng(0).uniform(1, 3, size=(15, 1))  # of whole rounds: ratios do not see it
    assert winner(disturbance * np.array([1.0, second, third])) == expected


def test_one_bad_round_decides_nothing():
    times = np.ones((15, 2))
    times[3] = [9, 0.1]
    assert winner(times) == 0


def test_all_take_turns_and_are_closed(monkeypatch):
    backend = Recorded()
    monkeypatch.setattr("edgevit.stages.settings_race.winner", lambda times: int(times.shape == (15, 2)))
    with fastest_settings(backend, None, NAMES, None) as (settings, session):
        assert (settings, session.name) == ({"speed": "fast"}, "fast")
        assert backend.ran == ["slow", "slow", "fast", "fast"] * 18  # the winner is open still
    assert backend.ran[72:] == ["fast closed", "slow closed"]


def test_what_was_opened_is_closed_where_another_cannot_be():
    backend = Recorded()
    with pytest.raises(KeyError), fastest_settings(backend, None, [{}, *NAMES], None):
        pass
    assert sorted(backend.ran) == ["fast closed", "slow closed"]


class Refusing(Recorded):
    """One that cannot open the file with ``refused`` speeds."""

    def __init__(self, *refused):
        super().__init__()
        self.refused = refused

    def open(self, model, *, threads, settings):
        if settings["speed"] in self.refused:
            raise BundleError(f"not {settings['speed']}", remedy="build it again")
        return super().open(model, threads=threads, settings=settings)


@pytest.mark.parametrize(("refused", "left"), [("fast", "slow"), ("slow", "fast")])
def test_a_setting_that_the_engine_refuses_is_out_of_the_race(refused, left):
    backend = Refusing(refused)
    with fastest_settings(backend, None, NAMES, None) as (settings, session):
        assert (settings, session.name) == ({"speed": left}, left)
    assert set(backend.ran) == {left, f"{left} closed"}


@pytest.mark.parametrize(("taken", "left"), [(False, "slow"), (True, "fast")])
def test_a_setting_that_is_not_accepted_is_out_of_the_race(taken, left, monkeypatch):
    monkeypatch.setattr("edgevit.stages.settings_race.winner", lambda times: times.shape[1] - 1)
    asked = []

    def accept(first, other):
        asked.append((first.name, other.name))
        return taken

    with fastest_settings(Recorded(), None, NAMES, None, accept) as (settings, _):
        assert settings == {"speed": left}
    assert asked == [("slow", "fast")]


@pytest.mark.parametrize(
    ("convolutions", "noise", "expected"), [((), 0.3, "bf16"), (("one",), 0.3, "f32"), (("one",), 0.01, "bf16")]
)
def test_a_network_of_convolutions_stays_near_float32_with_what_wins(monkeypatch, convolutions, noise, expected):
    """Where bfloat16 is fastest, but takes logits too far: 10 dB, or 40."""
    logits = np.ones((1, 4), dtype=np.float32)

    class Bundle:
        manifest = SimpleNamespace(preprocess=lambda image: image, independent=False, classes=0, typed_outputs=())

        @staticmethod
        def golden():
            return SimpleNamespace(images=[np.zeros((3, 8, 8), dtype=np.float32)], logits=logits)

    @contextmanager
    def race(_backend, _model, choices, _images, accept):
        sessions = [SimpleNamespace(infer=lambda _, away=away: logits + away) for away in (0.0, noise)]
        chosen = int(accept(*sessions))
        yield choices[-1] if chosen else choices[0], sessions[chosen]

    monkeypatch.setattr(precisions, "fastest_settings", race)
    plan = SimpleNamespace(limit_in=lambda _: None, convolutions=convolutions)
    decided, target = PtqModel(Path("model.onnx"), plan), load_target("x86-openvino")
    with precisions.choosing_settings(Bundle, "int8", target, decided, Path("model.xml")) as (found, _):
        assert found["INFERENCE_PRECISION_HINT"] == expected


def test_what_the_engine_refuses_with_every_setting_is_an_error():
    with pytest.raises(BundleError, match="not slow"), fastest_settings(Refusing("slow", "fast"), None, NAMES, None):
        pass


class _Engine:
    """What ``choosing_settings`` asks a bundle for."""

    manifest = SimpleNamespace(preprocess=lambda image: image)

    @staticmethod
    def golden():
        return SimpleNamespace(images=[np.zeros((3, 8, 8), dtype=np.float32)])


@pytest.mark.parametrize(("limit", "raced"), [(None, True), ("a verdict", False)])
def test_what_is_open_is_raced_for_unless_a_limit_was_verified(monkeypatch, limit, raced):
    def last(_backend, _model, choices, _images, _accept):
        return nullcontext((choices[-1], "open"))

    monkeypatch.setattr(precisions, "fastest_settings", last)
    target, decided = (
        load_target("x86-openvino"),
        PtqModel(Path("model.onnx"), SimpleNamespace(limit_in=lambda _: limit)),
    )
    with precisions.choosing_settings(_Engine, "int8", target, decided, Path("model.xml")) as (found, session):
        assert found["INFERENCE_PRECISION_HINT"] == ("bf16" if raced else "f32")
        assert session == ("open" if raced else None)
    with precisions.choosing_settings(_Engine, "float32", target, None, Path("model.xml")) as (found, session):
        assert (found["INFERENCE_PRECISION_HINT"], session) == ("f32", None)
