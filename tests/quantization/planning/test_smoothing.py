import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.quantization.arithmetic import dequantize, quantize_array, weight_scales
from edgevit.quantization.planning.smoothing import DEVIATIONS, HEADROOM, ChannelStatistics, choose_migration

TOKENS, INPUTS, OUTPUTS = 400, 16, 8


def layer(seed, outlier=1.0, offset=0.0):
    """Return inputs (T, K) with one channel that many times as wide, all that far from 0, and a weight (K, N)."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(TOKENS, INPUTS)) * np.where(np.arange(INPUTS) == 3, outlier, 1.0)
    return values + offset * random.normal(size=INPUTS), random.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)


def statistics(values):
    return ChannelStatistics(values.min(axis=0), values.max(axis=0), values.var(axis=0), values.mean(axis=0))


def error(values, weight, migration):
    """Return the mean squared error of the layer in integers, its input and weight rewritten by ``migration``."""
    moved = ((values - migration.shift) / migration.scale).astype(np.float32)
    scale = np.float32(migration.reach / 127)
    inputs = dequantize(quantize_array(moved, scale, np.int8(0)), scale, np.int8(0))
    rewritten = (migration.scale[:, None] * weight).astype(np.float32)
    scales = weight_scales(rewritten)
    weights = dequantize(quantize_array(rewritten, scales, np.int8(0)), scales, np.int8(0))
    return float(np.mean((inputs.astype(np.float64) @ weights + migration.shift @ weight - values @ weight) ** 2))


@given(st.integers(0, 1000), st.sampled_from([1.0, 10.0, 100.0]), st.sampled_from([0.0, 3.0]))
def test_the_choice_errs_no_more_than_leaving_the_input_as_it_is(seed, outlier, offset):
    values, weight = layer(seed, outlier, offset)
    chosen = choose_migration(statistics(values), [weight], shiftable=True)
    reach = max(HEADROOM * np.abs(values).max(), DEVIATIONS * values.std(axis=0).max())
    untouched = chosen._replace(scale=np.ones(INPUTS), shift=np.zeros(INPUTS), reach=reach)
    assert error(values, weight, chosen) <= 1.1 * error(values, weight, untouched)


def test_an_outlier_channel_no_longer_costs_the_others_their_precision():
    values, weight = layer(0, outlier=100.0)
    chosen = choose_migration(statistics(values), [weight], shiftable=True)
    reach = HEADROOM * float(np.abs(values).max())  # with the same room: it is the scale that is looked at
    untouched = chosen._replace(scale=np.ones(INPUTS), shift=np.zeros(INPUTS), reach=reach)
    assert error(values, weight, chosen) < error(values, weight, untouched) / 4


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_an_alpha_that_is_given_is_smoothquants(alpha):
    values, weight = layer(0, outlier=10.0)
    scale = choose_migration(statistics(values), [weight], shiftable=False, alpha=alpha).scale
    reach = np.maximum(HEADROOM * np.abs(values).max(axis=0), DEVIATIONS * values.std(axis=0))
    expected = reach**alpha / np.abs(weight).max(axis=1) ** (1 - alpha)
    np.testing.assert_allclose(scale / scale[0], expected / expected[0], rtol=1e-6)


def test_what_recipes_of_0_2_called_each_is_1():
    values, weight = layer(0, outlier=10.0)
    each, one = (choose_migration(statistics(values), [weight], shiftable=True, alpha=alpha) for alpha in ("each", 1.0))
    np.testing.assert_array_equal(each.scale, one.scale)


def test_off_moves_channels_and_scales_none():
    values, weight = layer(0, outlier=10.0, offset=3.0)
    migration = choose_migration(statistics(values), [weight], shiftable=True, alpha="off")
    np.testing.assert_array_equal(migration.scale, np.ones(INPUTS))
    assert migration.shift.any()


@given(st.integers(0, 1000), st.booleans())
def test_every_channel_stays_within_reach_with_room_to_spare(seed, shiftable):
    values, weight = layer(seed, outlier=10.0, offset=2.0)
    scale, shift, reach = choose_migration(statistics(values), [weight, weight[:, :3]], shiftable=shiftable)
    assert shiftable or not shift.any()
    room = np.maximum(HEADROOM * np.abs(values - shift).max(axis=0), DEVIATIONS * values.std(axis=0)) / scale
    assert room.max() == pytest.approx(reach)


def test_a_channel_that_never_changes_and_one_without_weights_are_no_trouble():
    values, weight = layer(0)
    values[:, 0], values[:, 1], weight[2] = 0, 5, 0
    for part in choose_migration(statistics(values), [weight], shiftable=True)[:2]:
        assert np.isfinite(part).all()
    assert np.isfinite(choose_migration(statistics(np.zeros_like(values)), [weight], shiftable=True).scale).all()
