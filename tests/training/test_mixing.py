import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgevit.training.batch_plan import MicroBatch
from edgevit.training.mixing import Mixing
from edgevit.training.recipe import TrainRecipe


def mixed(count=8, seed=0, **recipe):
    random = np.random.default_rng(seed)
    pixels = torch.from_numpy(random.uniform(0, 255, (count, 1, 12, 10)))
    targets = torch.eye(count, dtype=torch.float64)
    micro_batch = MicroBatch(0, seed, np.arange(count), 0, count, last=True)
    return pixels, targets, *Mixing(TrainRecipe(**recipe))(pixels, targets, micro_batch)


@given(seed=st.integers(0, 100), count=st.integers(1, 9), kind=st.sampled_from(["mixup", "cutmix"]))
def test_targets_are_shares_of_two_neighbours(seed, count, kind):
    _, _, _, targets = mixed(count, seed, **{kind: 1.0})
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count, dtype=torch.float64))
    for image, row in enumerate(targets):
        assert set(row.nonzero().flatten().tolist()) <= {image, image ^ 1}


def test_mixup_mixes_pixels_as_targets():
    pixels, _, out, targets = mixed(mixup=1.0)
    expected = torch.einsum("bi,ichw->bchw", targets, pixels)
    torch.testing.assert_close(out, expected)
    assert (out != pixels).any()


@given(seed=st.integers(0, 100))
def test_cutmix_takes_whole_pixels_and_counts_them(seed):
    pixels, _, out, targets = mixed(seed=seed, cutmix=1.0)
    own, others = out == pixels, pixels[[image ^ 1 for image in range(8)]]
    torch.testing.assert_close(out, torch.where(own, pixels, others))
    torch.testing.assert_close(own.double().mean(dim=(1, 2, 3)), targets.diagonal())


def test_both_take_turns():
    kinds = {bool((mixed(2, seed, mixup=1.0, cutmix=1.0)[2] == mixed(2, seed)[2]).any()) for seed in range(40)}
    assert kinds == {True, False}


@pytest.mark.parametrize("recipe", [{"mixup": 0.5}, {"cutmix": 0.5}, {"mixup": 0.5, "cutmix": 0.5}])
def test_the_parts_of_a_batch_are_mixed_as_the_whole(recipe):
    pixels, targets, out, wanted = mixed(**recipe)
    for start, stop in ((0, 2), (2, 8)):
        micro_batch = MicroBatch(0, 0, np.arange(8), start, stop, last=True)
        part, shares = Mixing(TrainRecipe(**recipe))(pixels[start:stop], targets[start:stop], micro_batch)
        torch.testing.assert_close(part, out[start:stop])
        torch.testing.assert_close(shares, wanted[start:stop])


def test_off_is_off():
    pixels, targets, out, same = mixed()
    assert out is pixels
    assert same is targets
