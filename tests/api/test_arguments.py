"""Whatever a caller gives to a public function is taken, or refused by an error that says what to give."""

import importlib
import inspect
import itertools
import operator
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from notes import Notes
from PIL import Image
from tiny import SHAPES

import edgevit as public
from edgevit.api.arguments import recipe_given
from edgevit.api.export_arguments import labels_given
from edgevit.data.shapes import load_shapes
from edgevit.errors import EdgeViTError, InputError
from edgevit.recipes import FallbackLimits, GateLimits, Percentile, Recipe, Rewrites
from edgevit.runtime import AsyncModel, LoadWarning, load
from edgevit.runtime.arguments import images_given
from edgevit.system import Memory


class Unknown:
    """What no argument takes."""

    def __repr__(self):
        return "the whole of it" * 1000


#: Fewer characters than a path may have bytes, but more bytes; and a name.
DEEP, LONG = "/".join(["字" * 80] * 18), "ä" * 130
WRONG = (
    Unknown(), Unknown, 3, -1, 2.5, float("nan"), 10**400, True, None, "no such thing", "", "\0", "a" * 5000, DEEP,
    LONG, "\ud800", b"x", (), ["x"], [Unknown()], [None], [["x"]], {"a": 1}, {1}, np.array([1, 2]), np.zeros(()),
    np.float32(0.5), print, Path("nowhere"), range(3),
)  # fmt: skip
#: Function -> what it is called with beside the bundle, and where the work begins, which these tests do not wait for.
FUNCTIONS = {
    "benchmark": ({}, ("benchmark.stage", "benchmark.on_hosts")),
    "build": ({"target": "x86-onnxruntime"}, ("build.stage",)),
    "export": ({"output": "new.edgevit"}, ("export.load_source", "export._of_module")),
    "load": ({}, ()),
    "pack": ({}, ("pack.pack_zip", "pack.pack_triton", "pack.pack_video")),
    "pack_mobile": ({"format": "litert"}, ("edgevit.stages.pack_mobile.pack_mobile",)),
    "predict": ({"images": [np.zeros((8, 8, 3), np.uint8)]}, ()),
    "quantize": ({"data": SHAPES}, ("quantize.stage", "quantize.quantize_merged", "quantize.quantize_student")),
    "race": ({"data": SHAPES, "target": "x86-onnxruntime"}, ("race.stage", "race.on_hosts")),
    "validate": ({"data": SHAPES}, ("validate.stage", "validate.on_hosts")),
    "verify": ({}, ()),
}
ARGUMENTS = [(name, each) for name in FUNCTIONS for each in inspect.signature(getattr(public, name)).parameters]


class Begun(Exception):
    """The arguments were taken."""


def begin(*_, **__):
    raise Begun


def whole(found):
    """Take what a stream gives, which begins then."""
    return list(found) if isinstance(found, Iterator) else found


def refused(call):
    """Return the error that ``call`` ends in, or None where it takes what it is given."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except EdgeViTError as error:
        return error
    except Begun:
        pass
    return None


def test_every_public_function_is_tried():
    assert FUNCTIONS.keys() == {name for name in public.__all__ if inspect.isfunction(getattr(public, name))}


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_what_is_given_is_taken_or_refused_with_a_remedy(name, argument, tiny_quantized, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others, work = FUNCTIONS[name]
    for place in work:
        module, _, attribute = place.rpartition(".")
        module = module if module.startswith("edgevit.") else f"edgevit.api.{module}"
        monkeypatch.setattr(importlib.import_module(module), attribute, begin)
    function = getattr(public, name)
    first = {"source" if name == "export" else "bundle": "fashion-micro" if name == "export" else tiny_quantized}
    given = first | others
    assert refused(lambda: function(**given)) is None
    for wrong in WRONG:
        error = refused(lambda wrong=wrong: function(**(given | {argument: wrong})))
        if wrong is WRONG[0]:
            assert error is not None, argument
        if error is not None:
            assert error.remedy
            assert "the whole of it" not in error.message


#: Methods of a model and of a bundle, and what they are called with.
METHODS = {
    "predict": {"image": np.zeros((8, 8, 3), np.uint8)},
    "predict_batch": {"images": [np.zeros((8, 8, 3), np.uint8)]},
    "stream": {"images": [np.zeros((8, 8, 3), np.uint8)]},
    "warm_up": {},
    "outputs": {"image": np.zeros((8, 8, 3), np.uint8)},
    "outputs_batch": {"images": [np.zeros((8, 8, 3), np.uint8)]},
    "infer_images": {"images": [np.zeros((8, 8, 3), np.uint8)]},
    "prepare": {"images": [np.zeros((8, 8, 3), np.uint8)]},
    "infer": {"images": np.zeros((1, 3, 16, 16), np.float32)},
}


@pytest.fixture(scope="module")
def model(tiny_quantized):
    with load(tiny_quantized, variant="float32") as loaded:
        yield loaded


@pytest.mark.parametrize("name", METHODS)
def test_what_a_model_is_given_is_taken_or_refused(name, model):
    method = getattr(model, name)
    for argument in inspect.signature(method).parameters:
        for wrong in WRONG:
            if argument in ("batch", "runs", "prefetch") and wrong is WRONG[6]:  # as many as that take for ever
                continue
            error = refused(lambda given=METHODS[name] | {argument: wrong}: whole(method(**given)))
            assert wrong is not WRONG[0] or error is not None, argument
            assert error is None or "the whole of it" not in error.message


@pytest.mark.parametrize(
    "endless",
    [
        lambda: itertools.cycle([np.zeros((64, 64, 3), np.uint8)]),
        lambda: iter(lambda: Image.new("RGB", (64, 64)), None),
        lambda: itertools.repeat(b"x" * 10_000),
        lambda: range(10**9),
        lambda: range(10**30),
        lambda: np.broadcast_to(np.zeros((4, 4, 3), np.uint8), (10**9, 4, 4, 3)),
    ],
)
def test_images_without_an_end_are_refused(tiny_quantized, monkeypatch, endless):
    monkeypatch.setattr("edgevit.runtime.arguments.memory", lambda: Memory(100, 20))
    for call in (
        lambda: public.quantize(tiny_quantized, data=endless(), samples=8, dialect="onnxruntime"),
        lambda: public.predict(tiny_quantized, endless()),
    ):
        error = refused(call)
        assert error is not None
        assert "islice" in error.remedy


class Sized:
    """Has a size that is none."""

    def nbytes(self):
        return 5


def test_what_has_no_size_is_no_image(model):
    error = refused(lambda: model.predict_batch(iter([Sized()])))
    assert "is not an image" in error.message


@pytest.mark.parametrize(("free_mb", "taken"), [(24_000, 11), (20, 0)])
def test_images_that_come_one_by_one_may_take_half_of_the_free_memory(monkeypatch, free_mb, taken):
    monkeypatch.setattr("edgevit.runtime.arguments.memory", lambda: Memory(32_000, free_mb))
    large = np.broadcast_to(np.uint8(0), (1024, 1024, 1024))  # 1 GiB, of a byte
    assert len(images_given(itertools.repeat(large, taken))) == taken
    error = refused(lambda: images_given(itertools.repeat(large, taken + 1)))
    assert f"most of the memory: {taken + 1} were read" in error.message


def test_images_that_come_one_by_one_for_long_are_counted(monkeypatch):
    seconds = itertools.count(0, 0.5)
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("edgevit.runtime.arguments.time", clock)
    progress = Notes()
    frame = np.zeros((1000, 1000, 3), np.uint8)
    assert len(images_given(iter([frame] * 3), progress)) == 3
    assert not progress.said
    images_given(itertools.repeat(frame, 100), progress)
    read = "Reading images that come one by one: "
    assert progress.said[0] == f"{read}5 so far, 15 MB"
    assert len(progress.said) == 4  # after twice as long each time


@pytest.mark.parametrize("name", ["export", "predict", "quantize", "race", "validate"])
def test_images_that_never_end_are_seen_and_can_be_stopped(name, tiny_quantized, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgevit.runtime.arguments._FIRST_NOTE_S", 0.0)
    frame = np.zeros((16, 16, 3), np.uint8)

    def stop(event):
        if "one by one" in event.message:
            raise Begun

    others, _ = FUNCTIONS[name]
    given = {"images" if name == "predict" else "data": itertools.repeat(frame)}
    first = "fashion-micro" if name == "export" else tiny_quantized
    with pytest.raises(Begun):
        getattr(public, name)(first, **(others | given), progress=stop)


class Frames(Sequence):
    """A sequence without slices."""

    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        return self.frames[operator.index(index)]


@pytest.mark.parametrize("kind", [deque, Frames])
def test_sequences_need_no_slices(model, kind):
    frames = [np.full((16, 16, 3), 7 * index, np.uint8) for index in range(35)]
    assert np.array_equal(model.infer_images(kind(frames)), model.infer_images(frames))


def test_names_of_classes_may_have_joiners():
    names = ["\u0645\u06cc\u200c\u062e", *map(str, range(9))]
    assert labels_given(names) == tuple(names)
    with pytest.raises(InputError, match="labels has"):
        labels_given(["\u202ecat", "dog"])


def test_keys_without_an_end_are_refused(tiny_quantized):
    error = refused(lambda: load(tiny_quantized, trusted_keys=itertools.repeat("a.pem")))
    assert error is not None
    assert "trusted_keys" in error.message


def test_paths_without_an_end_are_refused(tiny_quantized, monkeypatch):
    monkeypatch.setattr("edgevit.runtime.arguments.MOST_IMAGES", 1000)
    error = refused(lambda: public.validate(tiny_quantized, data=itertools.repeat("a.png")))
    assert error is not None
    assert "1001 were read" in error.message


def test_a_generator_of_images_is_run(quantized):
    shapes = load_shapes("test", "size=16,count=8")
    images = (shapes.image(index) for index in range(len(shapes)))
    assert public.validate(quantized, data=images).images == len(shapes)


@pytest.mark.parametrize(
    ("image", "said", "remedy"),
    [
        (torch.zeros(3, 16, 16), "a torch.Tensor is not an image", ".numpy()"),
        (np.zeros((16, 16, 3), np.float32), "float32", "uint8"),
        (np.zeros((3, 16, 16), np.uint8), "(3, 16, 16)", "height"),
        (Image.new("F", (16, 16)), "floating-point pixels", "8 or 16 bits"),
        (Image.fromarray(np.full((16, 16), 70_000, np.int32)), "70000", "8 or 16 bits"),
        (b"GIF89a", "damaged", "save it again"),
        ("nowhere.png", "nowhere.png", "give the path"),
        (None, "NoneType", "give a path"),
        (["a.png", "b.png"], "a list is not an image", "predict_batch"),
    ],
)
def test_why_images_cannot_be_read_is_said(quantized, image, said, remedy):
    for call in (
        lambda: public.quantize(quantized, data=[image] * 4, dialect="onnxruntime"),
        lambda: public.validate(quantized, data=[image] * 4),
    ):
        error = refused(call)
        assert error is not None
        assert error.message.startswith("none of the 4 images of the given images can be read: ")
        assert said in error.message
        assert remedy in error.remedy


def test_an_empty_path_is_not_the_current_folder(quantized, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path / "photos")
    for call in (
        lambda: public.quantize(quantized, data="", dialect="onnxruntime"),
        lambda: public.validate(quantized, data=""),
        lambda: public.validate(quantized, data=SHAPES, root=""),
        lambda: public.predict(quantized, ""),
        lambda: public.export("fashion-micro", ""),
        lambda: public.load(""),
        lambda: public.load(quantized, trusted_keys=[""]),
        lambda: public.Bundle.open(""),
        lambda: public.Bundle.check_place("", "refuse"),
        lambda: load(quantized).predict(""),
    ):
        error = refused(call)
        assert error is not None
        assert "is empty" in error.message
    assert public.validate(quantized, data=".").images == 1


@pytest.mark.parametrize("kind", [Recipe, Rewrites, FallbackLimits, GateLimits, Percentile])
def test_what_a_field_of_a_recipe_is_given_is_taken_as_in_a_file_or_refused(kind):
    names = {Rewrites: "rewrites", FallbackLimits: "fallback", GateLimits: "gate", Percentile: "observer"}
    for field in kind.__struct_fields__:
        for wrong in WRONG:
            part = kind(**{field: wrong})
            recipe = part if kind is Recipe else Recipe(**{names[kind]: part})
            error = refused(lambda recipe=recipe: recipe_given(recipe))
            assert error is not None or recipe_given(recipe) == recipe, "taken as it is"
            assert error is None or "the whole of it" not in error.message


def test_numpys_own_values_in_a_recipe_are_taken_as_pythons():
    given = Recipe(
        samples=np.int64(8),
        observer=np.str_("mse"),
        max_kl=np.float32(0.5),
        why=np.str_("to see"),
        rewrites=Rewrites(per_token_scale=np.bool_(False)),
    )
    plain = Recipe(samples=8, observer="mse", max_kl=0.5, why="to see", rewrites=Rewrites(per_token_scale=False))
    assert recipe_given(given) == plain
    assert type(recipe_given(given).rewrites.per_token_scale) is bool


@pytest.mark.parametrize(
    ("wrong", "said", "remedy"),
    [
        ({"observer": "percentil"}, "there is no 'percentil' for observer", "use percentile"),
        ({"max_kl": float("nan")}, "max_kl: expected", "correct it"),
        ({"rewrites": Rewrites(channel_equalization=0.6)}, "rewrites.channel_equalization: expected", "correct it"),
        ({"rewrites": {"alpha": 2}}, "rewrites.alpha: expected", "correct it"),
        ({"observer": "mse", "rewrites": {"per_token_scale": True}}, "observer mse has nothing to read", "leave out"),
    ],
)
def test_quantize_says_what_is_wrong_with_a_recipe(tiny_quantized, wrong, said, remedy):
    with pytest.raises(InputError, match=said) as caught:
        public.quantize(tiny_quantized, data=SHAPES, recipe=Recipe(**wrong))
    assert remedy in caught.value.remedy


def test_parts_of_a_recipe_that_contradict_each_other_are_refused_as_any_input():
    with pytest.raises(InputError, match="nothing to read") as caught:
        Recipe(observer="mse", rewrites=Rewrites(per_token_scale=True))
    assert caught.value.remedy


def test_a_bundle_is_given_as_a_path_or_as_it_is(tiny_quantized, tmp_path):
    pack = public.pack(tiny_quantized, tmp_path / "tiny.zip", variants=["float32"]).path
    for place in (tiny_quantized, str(tiny_quantized), pack):
        for bundle in (place, public.Bundle.open(place)):
            with load(bundle, variant="float32") as model:
                assert model.variant.name == "float32"
            assert public.verify(bundle, variants=["float32"]).passed


def test_load_reports_to_a_function_and_else_warns(quantized):
    seen = []
    with load(quantized, progress=seen.append) as model:
        notes = model.notes
    assert [event.message for event in seen] == [f"{note}; loading {model.variant.name}" for note in notes]
    assert notes
    for call in (lambda: load(quantized).close(), lambda: public.predict(quantized, [np.zeros((16, 16, 3), np.uint8)])):
        with pytest.warns(LoadWarning, match="; loading ") as warned:
            call()
        assert [each.filename for each in warned] == [__file__]  # the line that calls EdgeViT


def test_a_bundle_is_opened_by_its_path_alone(tiny_quantized):
    bundle = public.Bundle.open(tiny_quantized)
    for wrong in WRONG:
        assert refused(lambda wrong=wrong: public.Bundle.open(wrong)) is not None
        assert refused(lambda wrong=wrong: bundle.variant(wrong)) is not None
        assert refused(lambda wrong=wrong: bundle.verify_extra(wrong)) is not None
        assert refused(lambda wrong=wrong: AsyncModel(wrong)) is not None
