import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.training.recipe import Recipe


@given(epochs=st.integers(1, 20), warmup=st.floats(0, 1), steps=st.integers(1, 50))
def test_the_rate_rises_to_its_peak_and_falls_to_nearly_zero(epochs, warmup, steps):
    recipe = Recipe(epochs=epochs, warmup_epochs=warmup * epochs, learning_rate=1e-3)
    rates = [recipe.rate(step, steps) for step in range(epochs * steps)]
    assert all(0 <= rate <= 1e-3 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_cosine_ends_at_zero():
    assert Recipe(epochs=10, warmup_epochs=1).rate(1000, 100) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("warmup_epochs", 31), ("flip", 1.5), ("shift", -1)],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        Recipe(**{name: value})
