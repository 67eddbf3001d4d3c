import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.quantization.token_merging.distances import merging_distances
from edgevit.quantization.token_merging.losses import merged_counts


def steps_of(tokens, step):
    """Return numbers of merged tokens, ``step`` apart."""
    return step * np.arange(max(1, (tokens - 1) // step))


def test_tokens_that_are_the_same_merge_for_nothing():
    metric = np.repeat(np.random.default_rng(0).standard_normal((1, 8)), 17, axis=0).astype(np.float32)
    table = merging_distances(metric, 1, steps_of(16, 2))
    assert np.allclose(table[np.isfinite(table)], 0, atol=1e-12)


def test_one_merge_moves_two_tokens_by_half_of_their_distance_squared():
    metric = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    metric[1] = (metric[0] + 0.5 * metric[1]) / np.linalg.norm(metric[0] + 0.5 * metric[1])
    apart = float(((metric[0] - metric[1]) ** 2).sum())
    assert np.isclose(merging_distances(metric, 0, steps_of(4, 1))[0, 1], apart / 2)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(4, 40), prefix=st.integers(0, 2), step=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_more_merged_tokens_move_more_and_less_than_half_is_the_most_at_once(tokens, prefix, step, seed):
    metric = np.random.default_rng(seed).standard_normal((tokens + prefix, 6)).astype(np.float32)
    table = merging_distances(metric, prefix, steps_of(tokens, step))
    assert (np.diagonal(table) == 0).all()
    for level, row in enumerate(table):
        assert np.isinf(row[:level]).all()
        reached = row[np.isfinite(row)]
        assert (np.diff(reached) >= 0).all()
        left = tokens - level * step
        assert (len(reached) - 1) * step <= max(0, left // 2 - 1)


def test_levels_may_be_of_any_numbers():
    metric = np.random.default_rng(1).standard_normal((41, 6)).astype(np.float32)
    whole = merging_distances(metric, 1, np.arange(12))
    few = merging_distances(metric, 1, np.array([0, 3, 8]))
    np.testing.assert_allclose(few[0], whole[0, [0, 3, 8]])
    assert (np.diagonal(few) == 0).all()


@given(tokens=st.integers(1, 1400), prefix=st.integers(0, 3))
def test_numbers_that_may_be_merged(tokens, prefix):
    counts = merged_counts(tokens + prefix, prefix)
    assert counts[0] == 0
    assert (np.diff(counts) > 0).all()
    assert counts[-1] < tokens
    if tokens >= 96:  # what is left is a number that kernels like
        assert ((tokens + prefix - counts[1:]) % 8 == 0).all()
        assert 0 < counts[1] <= 8
