"""How a model is trained, and the file that says so."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError
from edgevit.training.recipe import FINE_TUNING, FROM_SCRATCH, LINEAR_PROBE, RECOVERY, RECOVERY_OF_ALL, TrainRecipe
from edgevit.training.recipe_file import ImageSettings, RunSettings, read_recipe, task, written


@given(epochs=st.integers(1, 20), warmup=st.floats(0, 1), steps=st.integers(1, 50))
def test_the_rate_rises_to_its_peak_and_falls_to_nearly_zero(epochs, warmup, steps):
    recipe = TrainRecipe(epochs=epochs, warmup_epochs=warmup * epochs, learning_rate=1e-3)
    rates = [recipe.rate(step, steps) for step in range(epochs * steps)]
    assert all(0 <= rate <= 1e-3 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_cosine_ends_at_zero():
    assert TrainRecipe(epochs=10, warmup_epochs=1).rate(1000, 100) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("warmup_epochs", 31), ("flip", 1.5), ("shift", -1)],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        TrainRecipe(**{name: value})


SETTINGS = st.builds(
    RunSettings,
    data=st.none() | st.text(min_size=1),
    source=st.none() | st.text(min_size=1),
    image_size=st.none() | st.integers(1, 9999) | st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
    heads=st.none() | st.integers(1, 64),
    raw_weights=st.booleans(),
    device=st.sampled_from(("auto", "cpu", "cuda")),
    images=st.builds(
        ImageSettings,
        mean=st.none() | st.lists(st.floats(0, 1), min_size=1, max_size=3).map(tuple),
        resize=st.none() | st.just("squash") | st.integers(1, 999),
    ),
)
RECIPES = st.builds(
    TrainRecipe,
    learning_rate=st.floats(1e-12, 100),
    clip_norm=st.floats(1e-6, allow_nan=False),
    seed=st.integers(0, 2**63 - 1),
    sampling=st.sampled_from(("shuffled", "balanced")),
)


@given(settings=SETTINGS, recipe=RECIPES)
def test_what_is_written_is_read_again(tmp_path_factory, settings, recipe):
    path = tmp_path_factory.mktemp("recipe") / "train.toml"
    path.write_text(written(settings, recipe), encoding="utf-8")
    again, said = read_recipe(path)
    assert again == settings
    assert TrainRecipe(**said) == recipe


def test_every_key_is_written_once_with_a_comment():
    text = written(RunSettings(), FROM_SCRATCH)
    keys = [line.removeprefix("# ").split(" = ")[0] for line in text.splitlines() if " = " in line]
    assert all("  # " in line for line in text.splitlines() if " = " in line)
    wanted = [*TrainRecipe.__struct_fields__, *msgspec.to_builtins(RunSettings()), *ImageSettings.__struct_fields__]
    assert sorted(keys) == sorted(name for name in wanted if name != "images")


def test_every_commented_key_can_be_taken_as_it_stands(tmp_path):
    lines = written(RunSettings(), FROM_SCRATCH).splitlines()
    path = tmp_path / "train.toml"
    taken = [line.removeprefix("# ") if " = " in line and not line.startswith("# For") else line for line in lines]
    path.write_text("\n".join(line for line in taken if not line.startswith("crop = 0.875")))
    settings, _ = read_recipe(path)
    assert settings.heads == 6
    assert settings.images.resize == 256
    path.write_text("[images]\ncrop = 0.5\nresize = 3\n")
    with pytest.raises(InputError, match="line 2: resize and crop both say what is cut out"):
        read_recipe(path)


def test_a_path_that_is_no_utf8_can_be_kept():
    assert '"\N{REPLACEMENT CHARACTER}.csv"' in written(RunSettings(data="\udcff.csv"), FROM_SCRATCH)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot read the training recipe") as caught:
        read_recipe(tmp_path / "none.toml")
    assert caught.value.remedy


def test_defaults_are_those_of_the_task():
    assert task(None, "full") == FROM_SCRATCH
    assert task("x", "full") == FINE_TUNING
    assert task("x", "probe") == LINEAR_PROBE
    assert task("x", recovery=True) == task("x", "norms", recovery=True) == RECOVERY
    assert task("x", "full", recovery=True) == RECOVERY_OF_ALL
    with pytest.raises(InputError):
        task(None, "probe")


LINES = written(RunSettings(), FROM_SCRATCH).splitlines()


@given(place=st.integers(0, len(LINES) - 1), line=st.text(max_size=40) | st.sampled_from(LINES))
def test_a_damaged_file_is_read_or_refused_with_its_name(tmp_path_factory, place, line):
    path = tmp_path_factory.mktemp("recipe") / "train.toml"
    path.write_bytes("\n".join([*LINES[:place], line, *LINES[place + 1 :]]).encode("utf-8", "surrogatepass"))
    problem = None
    try:
        settings, said = read_recipe(path)
    except InputError as error:
        problem = error
    if problem is not None:
        assert str(path) in problem.message
        assert problem.remedy
    else:
        assert isinstance(settings, RunSettings)
        assert said.keys() <= set(TrainRecipe.__struct_fields__)
