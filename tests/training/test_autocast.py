import numpy as np
import pytest
import torch
from train_tasks import CPU, PREPROCESS, make_images, make_model

from edgevit.training import autocast
from edgevit.training.batch_plan import micro_batches
from edgevit.training.objective import Normalise, Objective
from edgevit.training.recipe import TrainRecipe


class Clock:
    """Says that what runs in bfloat16 takes ``half`` seconds and everything else one."""

    def __init__(self, half):
        self.half, self.now, self.calls = half, 0.0, 0

    def perf_counter(self):
        step, ending = divmod(self.calls, 2)
        self.calls += 1
        if ending:
            self.now += self.half if step % 2 else 1.0
        return self.now


@pytest.mark.parametrize(("half", "chosen"), [(0.5, True), (0.99, False), (2.0, False)])
def test_bfloat16_is_taken_where_it_is_faster_and_the_model_is_as_it_was(monkeypatch, half, chosen):
    monkeypatch.setattr(autocast, "time", Clock(half))
    model, images, recipe = make_model(), make_images(16), TrainRecipe(batch_size=16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels = torch.from_numpy(np.moveaxis(images.pixels, -1, 1).copy())
    micro_batch = next(micro_batches(images.labels, recipe, 0, 0, 1))
    objective = Objective(recipe, 2, Normalise(PREPROCESS))
    labels = torch.from_numpy(images.labels)
    faster, said = autocast.faster_in_bfloat16(model, objective, pixels, labels, micro_batch, CPU)
    assert faster is chosen
    assert f"{half * 1000:.0f} ms a step in bfloat16, 1000 ms in float32" in said
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
