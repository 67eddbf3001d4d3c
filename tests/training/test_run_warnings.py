"""What is told before a run begins."""

import numpy as np
import pytest

from edgevit.data.dataset import ArrayDataset
from edgevit.training.recipe import TrainRecipe
from edgevit.training.run_warnings import run_warnings

MANY = TrainRecipe(batch_size=1, epochs=100)


def images(*levels, count=12):
    """Return images of one colour, whose channels have these levels."""
    pixels = np.broadcast_to(np.array(levels, dtype=np.uint8), (count, 40, 50, len(levels)))
    return ArrayDataset("photos", pixels, np.arange(count) % 2, ("a", "b"))


def test_a_model_of_grey_images_says_that_colour_is_lost():
    (said,) = run_warnings(MANY, images(9, 8, 7), "vit-micro")
    assert said.startswith("vit-micro takes 28x28 grey images, and these are in colour")
    assert "--from" in said
    assert "--model vit-tiny" in said


@pytest.mark.parametrize(("levels", "model"), [((9,), "vit-micro"), ((9, 9, 9), "vit-micro"), ((9, 8, 7), "vit-tiny")])
def test_where_no_colour_is_lost_nothing_is_said(levels, model):
    assert list(run_warnings(MANY, images(*levels), model)) == []
    assert list(run_warnings(MANY, images(9, 8, 7), None)) == []  # a checkpoint's own images


@pytest.mark.parametrize(("epochs", "said"), [(3, "3 steps in all, 1 an epoch of 12 images"), (1, "1 step in all")])
def test_few_steps_are_told(epochs, said):
    (line,) = run_warnings(TrainRecipe(batch_size=128, epochs=epochs, warmup_epochs=0), images(9), "vit-micro")
    assert said in line
    assert list(run_warnings(TrainRecipe(batch_size=128, epochs=3, minutes=5), images(9), "vit-micro")) == []


def test_images_that_fill_no_batch_are_counted():
    said = next(run_warnings(TrainRecipe(batch_size=8), images(9), None))
    assert said.startswith("each epoch leaves out 4 of 12 images")
