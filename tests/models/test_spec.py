import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import SpecError
from edgevit.models.spec import PRESETS, GraphSpec, ModelSpec, preset


def make(**changes) -> ModelSpec:
    fields = {"image_size": (32, 32), "patch_size": (8, 8), "width": 32, "depth": 2, "heads": 4, "classes": 5}
    return ModelSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "fault", "fix"),
    [
        ({"image_size": (30, 32)}, "image height 30 is not divisible by the patch height 8", "use image height 24"),
        ({"image_size": (32, 4)}, "image width 4", "use image width 8"),
        ({"patch_size": (0, 8)}, "patch height 0", "a multiple of the patch size"),
        ({"heads": 5}, "width 32 is not divisible by 5 heads", "use 4 heads, or width 30"),
        ({"heads": 64}, "width 32 is not divisible by 64 heads", "use 32 heads, or width 64"),
        ({"width": 33, "heads": 3, "position_embedding": "sincos"}, "divisible by 4, not 33", "use width 36"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0", "usually 4"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan", "usually 4"),
        ({"norm_epsilon": 0.0}, "norm_epsilon is 0.0", "usually 1e-6"),
        ({"depth": 0}, "depth is 0", "at least 1"),
        ({"classes": -1}, "classes is -1", "at least 0"),
        ({"register_tokens": -1}, "register_tokens is -1", "at least 0"),
        ({"width": 1 << 21}, "width is 2097152", "at most 1048576"),
        ({"attention_width": 0}, "attention_width is 0", "leave it out"),
        ({"attention_width": 30}, "width 30 is not divisible by 4 heads", "heads, or width 32"),
        ({"class_token": False}, "without a class token", "pooling='mean'"),
        ({"pooling": "class+register"}, "no register token", "register_tokens=1"),
        ({"projection": 8}, "projects what it reads to length 1 alone", "use classes=0"),
    ],
)
def test_contradictory_sizes_are_refused_with_the_fix(changes, fault, fix):
    with pytest.raises(SpecError) as caught:
        make(**changes)
    assert fault in caught.value.message
    assert fix in caught.value.remedy


@given(
    patch=st.tuples(st.integers(1, 32), st.integers(1, 32)),
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    heads=st.integers(1, 16),
    head_width=st.integers(1, 64),
)
def test_sizes_that_fit_are_taken_and_survive_json(patch, grid, heads, head_width):
    spec = make(
        image_size=(patch[0] * grid[0], patch[1] * grid[1]), patch_size=patch, width=heads * head_width, heads=heads
    )
    assert spec.grid == grid
    assert spec.tokens == grid[0] * grid[1] + 1
    assert spec.head_width == head_width
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ModelSpec) == spec


def test_json_with_an_unknown_field_is_refused():
    document = msgspec.to_builtins(make()) | {"dept": 3}
    with pytest.raises(msgspec.ValidationError, match="dept"):
        msgspec.convert(document, ModelSpec)


def test_presets_have_the_published_parameter_counts():
    # Dosovitskiy et al. 2021, table 1 (B 86 M, L 307 M); Touvron et al. 2021, table 1 (Ti 5 M, S 22 M).
    published = {"vit-tiny": 5.7e6, "vit-small": 22.1e6, "vit-base": 86.6e6, "vit-large": 304.3e6}
    for name, count in published.items():
        spec = preset(name)
        width, inner = spec.width, spec.mlp_width
        block = 4 * width + 3 * width * width + 3 * width + width * width + width + 2 * width * inner + inner + width
        patch = spec.patch_size[0] * spec.patch_size[1] * spec.channels * width + width
        total = spec.depth * block + patch + (1 + spec.tokens) * width + 2 * width + (width + 1) * spec.classes
        assert total == pytest.approx(count, rel=0.01)
    assert PRESETS["vit-micro"].image_size == (28, 28)


def test_an_unknown_preset_names_those_that_there_are():
    with pytest.raises(SpecError) as caught:
        preset("vit-huge")
    assert "vit-tiny" in caught.value.remedy


@pytest.mark.parametrize(
    "wrong", [{"image_size": (0, 8)}, {"channels": 4}, {"outputs": 0}, {"outputs": 1 << 40}, {"classes": 3}]
)
def test_a_graph_that_cannot_be(wrong):
    with pytest.raises(SpecError) as caught:
        GraphSpec(**{"image_size": (8, 8), "channels": 3, "classes": 0, "outputs": 5, **wrong})
    assert caught.value.remedy
