import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.quantization.token_merging.schedule import MergingCosts, cheapest, find_schedule

BLOCKS, LEVELS, STEP = 3, 5, 4


def _costs(seed: int, merge_time: float) -> MergingCosts:
    random = np.random.default_rng(seed)
    loss = np.full((BLOCKS, LEVELS, LEVELS), np.inf)
    for block in range(BLOCKS):
        for before in range(LEVELS):
            steps = random.uniform(0, 1, LEVELS - before)
            steps[0] = 0
            loss[block, before, before:] = np.cumsum(steps)
    left = 1 - np.arange(LEVELS) / (2 * LEVELS)
    work = random.uniform(0.2, 0.3, (BLOCKS, 1)) * left
    return MergingCosts(STEP * np.arange(LEVELS), loss, work.copy(), work, merge_time)


def _all_schedules():
    for levels in itertools.combinations_with_replacement(range(LEVELS), BLOCKS):
        yield tuple(STEP * (after - before) for before, after in itertools.pairwise((0, *levels)))


def _priced(costs: MergingCosts, schedule: tuple[int, ...], price: float) -> float:
    return costs.loss_of(schedule) + price * costs.time_left(schedule)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), price=st.floats(0, 20), merge_time=st.sampled_from([0.0, 0.01, 0.05]))
def test_no_schedule_of_all_that_there_are_is_cheaper_at_a_price_of_time(seed, price, merge_time):
    costs = _costs(seed, merge_time)
    best = min(_priced(costs, each, price) for each in _all_schedules())
    assert np.isclose(_priced(costs, cheapest(costs, price), price), best)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), budget=st.floats(0.6, 0.98))
def test_a_schedule_keeps_its_budget_and_no_block_could_merge_less_for_it(seed, budget):
    costs = _costs(seed, 0.01)
    found = find_schedule(costs, budget)
    if found is None:
        assert all(costs.work_left(each) > budget for each in _all_schedules())
        return
    assert costs.work_left(found) <= budget
    for block in np.flatnonzero(found):
        fewer = tuple(count - STEP * (index == block) for index, count in enumerate(found))
        assert costs.work_left(fewer) > budget or costs.loss_of(fewer) >= costs.loss_of(found)


def test_a_budget_that_nothing_keeps_has_no_schedule():
    assert find_schedule(_costs(0, 0.0), 0.05) is None


def test_a_block_whose_tokens_cost_nothing_merges_them():
    costs = _costs(1, 0.0)
    costs.loss[1] = np.where(np.isinf(costs.loss[1]), np.inf, 0.0)
    assert find_schedule(costs, 0.9) == (0, STEP * (LEVELS - 1), 0)
