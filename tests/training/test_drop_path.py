import numpy as np
import torch
from train_tasks import CPU, make_model

from edgevit.training.batch_plan import MicroBatch
from edgevit.training.drop_path import StochasticDepth
from edgevit.training.recipe import TrainRecipe


def micro_batch(count, start=0, stop=None):
    return MicroBatch(0, 0, np.arange(count), start, count if stop is None else stop, last=True)


def test_the_expected_output_of_a_branch_stays():
    model = make_model().train()
    depth = StochasticDepth(model, TrainRecipe(stochastic_depth=0.5))
    seen = []
    model.blocks[1].mlp.register_forward_hook(lambda *call: seen.append(call[2]))
    images = torch.randn(1, 1, 8, 8).expand(2000, -1, -1, -1)
    with torch.no_grad(), depth.drawn(micro_batch(2000), CPU.device):
        model(images)
    dropped = (seen[0] == 0).all(dim=(1, 2))
    assert abs(float(dropped.float().mean()) - 0.5) < 0.05, "the last block drops as often as the recipe says"


def test_the_first_block_drops_nothing_and_scales_nothing():
    model = make_model().train()
    images = torch.randn(50, 1, 8, 8)
    seen = []
    model.blocks[0].register_forward_hook(lambda *call: seen.append(call[2]))
    depth = StochasticDepth(model, TrainRecipe(stochastic_depth=0.5))
    with torch.no_grad():
        model(images)
        with depth.drawn(micro_batch(50), CPU.device):
            model(images)
    torch.testing.assert_close(seen[0], seen[1])


def test_what_is_kept_is_scaled_up():
    model = make_model().train()
    seen = []
    depth = StochasticDepth(model, TrainRecipe(stochastic_depth=0.5))
    model.blocks[1].attn.register_forward_hook(lambda *call: seen.append(call[2]))
    images = torch.randn(50, 1, 8, 8)
    with torch.no_grad():
        model(images)
        with depth.drawn(micro_batch(50), CPU.device):
            model(images)
    kept = (seen[1] != 0).any(dim=(1, 2))
    assert 5 < kept.sum() < 45
    torch.testing.assert_close(seen[1][kept], 2 * seen[0][kept])


def test_nothing_is_dropped_in_evaluation_or_outside_of_a_step():
    model = make_model()
    images = torch.randn(20, 1, 8, 8)
    expected = model.eval()(images)
    depth = StochasticDepth(model, TrainRecipe(stochastic_depth=0.9))
    with depth.drawn(micro_batch(20), CPU.device):
        torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model.train()(images), expected)


def test_the_parts_of_a_batch_drop_as_the_whole():
    model = make_model().train()
    depth = StochasticDepth(model, TrainRecipe(stochastic_depth=0.7))
    images = torch.randn(20, 1, 8, 8)
    with depth.drawn(micro_batch(20), CPU.device):
        whole = model(images)
    with depth.drawn(micro_batch(20, 6, 13), CPU.device):
        torch.testing.assert_close(model(images[6:13]), whole[6:13])
