import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.training.batch_plan import Purpose, micro_batches, order
from edgevit.training.recipe import TrainRecipe

LABELS = np.asarray([0] * 90 + [1] * 10)


@given(
    batch=st.integers(12, 40),
    processes=st.integers(1, 3),
    accumulate=st.integers(1, 2),
    mixup=st.sampled_from([0.0, 1.0]),
    epoch=st.integers(0, 5),
)
def test_all_processes_together_see_each_batch_once(batch, processes, accumulate, mixup, epoch):
    recipe = TrainRecipe(batch_size=batch, mixup=mixup)
    cut = TrainRecipe(batch_size=batch, mixup=mixup, accumulate=accumulate)
    whole = [micro_batch.indices for micro_batch in micro_batches(LABELS, recipe, epoch, 0, 1)]
    shares = [list(micro_batches(LABELS, cut, epoch, rank, processes)) for rank in range(processes)]
    assert all(len(share) == len(whole) * accumulate for share in shares)
    for step, images in enumerate(whole):
        parts = [micro_batch for share in shares for micro_batch in share if micro_batch.step == step]
        np.testing.assert_array_equal(np.concatenate([micro_batch.indices for micro_batch in parts]), images)
        assert all(len(micro_batch.indices) for micro_batch in parts)
        assert sum(micro_batch.last for micro_batch in parts) == processes
        assert all(micro_batch.start % 2 == 0 for micro_batch in parts) or not mixup, "pairs to mix are not parted"


def test_an_epoch_sees_no_image_twice_and_another_epoch_another_order():
    first, second = (order(LABELS, TrainRecipe(), epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()


def test_balanced_classes_come_up_equally_often():
    drawn = np.concatenate([LABELS[order(LABELS, TrainRecipe(sampling="balanced"), epoch)] for epoch in range(50)])
    assert abs(drawn.mean() - 0.5) < 0.03


def test_random_numbers_are_of_the_step_and_not_of_the_micro_batch():
    recipe = TrainRecipe(batch_size=50, accumulate=2)
    first, second, third, *_ = micro_batches(LABELS, recipe, 0, 0, 1)
    draws = [micro_batch.random(recipe, Purpose.MIX).random() for micro_batch in (first, second, third)]
    assert draws[0] == draws[1] != draws[2]
    assert first.random(recipe, Purpose.DEPTH).random() != draws[0]


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(InputError, match="a batch of 8 images cannot be cut into 5 parts of at least a pair") as caught:
        next(micro_batches(LABELS, TrainRecipe(batch_size=8, mixup=1.0), 0, 0, 5))
    assert "batch size of 10" in caught.value.remedy
