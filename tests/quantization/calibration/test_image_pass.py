"""A pass over images: layers side by side, images one after the other."""

import threading
import time

import numpy as np
import pytest

from edgevit.errors import DataError, GraphError
from edgevit.quantization.calibration.image_pass import observe, observe_all, single_images

pytestmark = pytest.mark.usefixtures("all_cores")

IMAGES = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)


class Engine:
    """Gives the image itself to each of its layers, or what ``odd`` says for one of them."""

    layers, others = ("first", "second"), ("third",)

    def __init__(self, odd=None):
        self.odd = odd or {}

    def run(self, image):
        number = int(image[0, 0, 0, 0])
        return [np.full((1, 2), self.odd.get((name, number), number), np.float32) for name in (*self.layers, "third")]


class Slow:
    """An observer that takes its time, and notices a second caller."""

    def __init__(self, rng):
        self.seen, self._rng, self._busy = [], rng, threading.Lock()

    def update(self, values):
        assert self._busy.acquire(blocking=False), "two images at once"
        time.sleep(self._rng.uniform(0, 0.002))
        self.seen.append(int(values[0, 0]))
        self._busy.release()


def slow_observers():
    return {name: Slow(np.random.default_rng(seed)) for seed, name in enumerate(("first", "second", "third"))}


def test_after_each_image_all_layers_have_seen_it_and_none_the_next():
    observers = slow_observers()
    for number, (image, seen) in enumerate(observe(Engine(), observers, single_images([IMAGES[:2], IMAGES[2:]]))):
        assert (int(image[0, 0, 0, 0]), seen.images) == (number, number + 1)
        assert all(each.seen == list(range(number + 1)) for each in observers.values())
    assert seen.images == 5


def test_layers_without_an_observer_are_passed_over():
    observers = slow_observers()
    del observers["second"]
    observe_all(Engine(), observers, single_images([IMAGES]))
    assert all(each.seen == list(range(5)) for each in observers.values())


def test_a_pass_that_is_gone_on_with_hashes_as_one_in_one_go():
    whole = [seen for _, seen in observe(Engine(), {}, single_images([IMAGES]))]
    *_, (_, half) = observe(Engine(), {}, single_images([IMAGES[:3]]))
    *_, (_, rest) = observe(Engine(), {}, single_images([IMAGES[3:]]), half)
    assert (half, rest) == (whole[2], whole[4])
    assert len({seen.sha256 for seen in whole}) == 5


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_its_layer_and_image(odd):
    observers, seen = slow_observers(), []
    with pytest.raises(GraphError, match="the input of 'second' has values that are not finite on calibration image 3"):
        seen.extend(seen for _, seen in observe(Engine({("second", 3): odd}), observers, single_images([IMAGES])))
    assert [each.images for each in seen] == [1, 2, 3]
    assert observers["second"].seen == [0, 1, 2]


def test_of_several_layers_that_are_wrong_the_first_is_named_however_long_it_takes():
    class Refusing:
        def __init__(self, name, seconds):
            self.name, self.seconds = name, seconds

        def update(self, values):
            time.sleep(self.seconds)
            raise GraphError(f"not {self.name}", remedy="none")

    observers = {"first": Refusing("first", 0.05), "second": Refusing("second", 0), "third": Refusing("third", 0)}
    with pytest.raises(GraphError, match="not first"):
        observe_all(Engine(), observers, single_images([IMAGES]))


def test_no_images():
    with pytest.raises(DataError, match="no calibration images"):
        observe_all(Engine(), {}, single_images([]))


def test_nothing_runs_on_once_a_pass_is_given_up():
    before = threading.active_count()
    for _ in observe(Engine(), slow_observers(), single_images([IMAGES])):
        break
    assert threading.active_count() == before
