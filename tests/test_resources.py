import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import ENGINES

from edgevit import resources
from edgevit.errors import InputError, MissingDataError
from edgevit.recipes import NO_REWRITES, Percentile, Recipe, Rewrites, load_recipe, recipe_names
from edgevit.targets import load_target, target_names


def test_every_target_is_valid_and_says_why():
    assert {"x86-onnxruntime", "x86-openvino"} <= set(target_names())
    for name in target_names():
        target = load_target(name)
        assert target.description
        assert target.why
        # The others are measured against it; every bundle has the exported file, where the target has no form of it.
        assert "float32" in target.precisions or target.dialect not in ENGINES or target.device == "NPU"


def test_openvino_is_pinned_to_float32_because_it_would_silently_run_bf16():
    target = load_target("x86-openvino")
    for precision in target.precisions:
        hints = [choice["INFERENCE_PRECISION_HINT"] for choice in target.choices_for(precision)]
        assert hints == (["f32", "bf16"] if precision == "int8" else ["f32"])  # INT8 is no float32
        assert target.settings_for(precision)["INFERENCE_PRECISION_HINT"] == "f32"


def test_every_recipe_is_valid():
    assert "default" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name).why


@pytest.mark.parametrize(("typed", "meant"), [("x86-openvin", "x86-openvino"), ("x86-onnx-runtime", "x86-onnxruntime")])
def test_a_mistyped_name_brings_the_closest(typed, meant):
    with pytest.raises(InputError, match=typed) as caught:
        load_target(typed)
    assert meant in caught.value.remedy


def test_a_name_like_no_other_brings_all():
    with pytest.raises(InputError) as caught:
        load_target("zzz")
    assert all(name in caught.value.remedy for name in target_names())


def test_a_name_cannot_lead_out_of_the_folder():
    with pytest.raises(InputError, match="there is no recipe"):
        load_recipe("../../export/targets/x86-openvino")


def test_the_users_own_file_is_read(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('description = "d"\nsamples = 3\nobserver = "average-minmax"\nseed = 1\nwhy = "w"\n')
    assert load_recipe(str(own)) == Recipe(description="d", samples=3, observer="average-minmax", seed=1, why="w")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((f'"{name}"', name) for name in ("minmax", "moving-average", "percentile", "entropy", "mse", "auto")),
        ('{name = "percentile", percent = 99.9}', Percentile(99.9)),
        ('{name = "percentile"}', Percentile(99.99)),
    ],
)
def test_an_observer_is_named_alone_or_with_its_parameter(tmp_path, written, meant):
    own = tmp_path / "own.toml"
    own.write_text(f'description = "d"\nsamples = 3\nobserver = {written}\nseed = 1\nwhy = "w"\n')
    assert load_recipe(str(own)).observer == meant


@pytest.mark.parametrize(("written", "meant"), [('"auto"', "auto"), ('"off"', "off"), ("0.5", 0.5), ("1", 1.0)])
def test_an_alpha_is_a_number_or_a_word(tmp_path, written, meant):
    own = tmp_path / "own.toml"
    own.write_text(
        f'description = "d"\nsamples = 3\nobserver = "mse"\nseed = 1\nwhy = "w"\nrewrites.alpha = {written}\n'
    )
    assert load_recipe(str(own)).rewrites.alpha == meant


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("rewrites.alpha = 1.5", "alpha"),
        ('rewrites.alpha = "all"', "alpha"),
        (
            "rewrites.channel_equalization = 0.1",
            "average-minmax has nothing to read where rewrites.channel_equalization",
        ),
        ("rewrites.per_token_scale = true", "average-minmax has nothing to read where rewrites.per_token_scale"),
        ("rewrites.residual_layers = 2", "rewrites.residual_layers: expected `float` <= 1"),
        ("rewrites.residual_token_layers = nan", "rewrites.residual_token_layers"),
        ("fallback.max_kl = inf", "max_kl"),
        ("fallback.min_sqnr_db = 1e400", "min_sqnr_db"),
        ("fallback.max_kl = -1", "max_kl"),
        ("fallback.max_drop = 1", "max_drop"),
        ("rewrites.channel_equalization = -0.1", "rewrites.channel_equalization: expected `float` >= 0"),
        ("samples = 0", "samples"),
        ('samples = "many"', "samples"),
        ('observer = "median"', "observer"),
        ('observer = {name = "percentile", percent = 101}', "percent"),
        ('observer = {name = "percentile", share = 99}', "share"),
        ('observer = {name = "mse"}', "observer"),
        ("sample = 3", "sample"),
        ("samples =", "own.toml, line 5"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, line, named):
    fields = {"description": '"d"', "samples": "3", "observer": '"average-minmax"', "seed": "1", "why": '"w"'}
    fields.pop(line.split(" ")[0], None)
    own = tmp_path / "own.toml"
    own.write_text("\n".join([*(f"{name} = {value}" for name, value in fields.items()), line]))
    with pytest.raises(InputError, match=named) as caught:
        load_recipe(str(own))
    assert str(own) in caught.value.message


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_recipe(str(tmp_path / "none.toml"))


@given(content=st.binary(max_size=200))
def test_no_content_crashes_the_reader(tmp_path_factory, content):
    own = tmp_path_factory.getbasetemp() / "any.toml"
    own.write_bytes(content)
    try:
        found = load_recipe(str(own))
    except InputError:
        return
    assert found == Recipe(), "blank lines and comments say nothing"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", {}),
        ("samples = 64\nseed = 3", {"samples": 64, "seed": 3}),
        ('observer = "percentile"\nsamples = 9', {"observer": "percentile", "samples": 9}),
        (
            "max_drop = 0.3\nrewrites.residual_layers = 0.1",
            {"max_drop": 0.3, "rewrites": Rewrites(residual_layers=0.1)},
        ),
    ],
)
def test_what_a_recipe_leaves_out_is_as_in_the_documentation(tmp_path, written, meant):
    own = tmp_path / "own.toml"
    own.write_text(written)
    usual = {"description": "", "samples": 128, "observer": "minmax", "seed": 0, "rewrites": NO_REWRITES, "why": ""}
    assert load_recipe(str(own)) == Recipe(**{**usual, **meant})
    default = load_recipe("default")
    assert (default.samples, default.observer, default.seed) == (128, "minmax", 0), "as the built-in one"


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_can_be_read_again(edgevit, tmp_path, name):
    own = tmp_path / "own.toml"
    own.write_text(edgevit("recipes", name).out)
    assert load_recipe(str(own)) == load_recipe(name)
    assert edgevit("recipes", name, "--json").data()["recipe"]["samples"] == load_recipe(name).samples


def test_a_copy_without_its_folders_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "edgevit" / "resources.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDataError, match="calibration"):
        resources.folder("calibration")
