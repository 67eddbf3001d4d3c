"""Preprocessing against the libraries' own: transformers' Pillow processors, and timm's and torchvision's values.

Images go into the libraries upright and in RGB, as transformers' ``load_image`` makes them, and into EdgeViT as they
come. tests/make_preprocessing_values.py makes the values of what needs torchvision.
"""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from preprocessing_cases import DINOV3, HALF, OPENAI, PROCESSORS, TIMM, images, photo, sources, square

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError, DataError, ImageError
from edgevit.models.config import Config, Configs, Processor, TimmCfg, read_configs, read_preprocessing
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.loading import load_checkpoint
from edgevit.models.overrides import Overrides, overridden
from edgevit.models.preprocessing import describe_preprocessing, preprocess_of, resized
from edgevit.models.processors import CLASSES

VALUES = Path(__file__).parents[1] / "data" / "preprocessing.npz"
MODULES = {"ChineseCLIP": "chinese_clip", "OwlViT": "owlvit", "ConvNext": "convnext"}


@dataclass(frozen=True)
class Images:
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3


def prepared(said, size=(224, 224), given=Overrides(), channels=3):  # noqa: B008 - it is frozen
    return preprocess_of(said, Defaults(IMAGENET, 256 / 224), "the usual way", Images(size, channels), given)


def of_processor(keys, **more):
    return prepared(Configs(processor=msgspec.convert(keys, Processor)), **more)


def of_timm(cfg, **more):
    return prepared(Configs(config=Config(pretrained_cfg=msgspec.convert(cfg, TimmCfg))), **more)


def pil_class(name):
    module = MODULES.get(name, name.lower())
    found = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(found, f"{name}ImageProcessorPil")


def greys(values, mean, std):
    """Return normalised values as levels 0..255."""
    scale, shift = (np.asarray(x, dtype=np.float64).reshape(-1, 1, 1) for x in (std, mean))
    return (np.asarray(values, dtype=np.float64) * scale + shift) * 255


@pytest.mark.parametrize("number", range(len(PROCESSORS)))
def test_as_transformers_pillow_processors(number):
    name, said = PROCESSORS[number]
    processor = pil_class(name)(**said)
    preprocess, _ = of_processor({"image_processor_type": f"{name}ImageProcessor", **said})
    for kind, upright in images().items():
        wanted = processor(upright, return_tensors="np")["pixel_values"][0]
        found = preprocess(sources()[kind])
        assert found.shape == wanted.shape, kind
        difference = np.abs(
            greys(found, preprocess.mean, preprocess.std) - greys(wanted, preprocess.mean, preprocess.std)
        )
        # Pillow resizes both; what is padded with a mean has the level that is nearest to it.
        assert difference.max() <= (0.51 if preprocess.pad == "after" else 0.01), kind


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 90), st.integers(1, 90))
def test_bounded_edges_of_any_image_are_transformers(height, width, short, long):
    image = Image.effect_noise((width, height), 60).convert("RGB")
    bounded = {"size": {"shortest_edge": short, "longest_edge": long}, "crop_size": [75, 80], "do_center_crop": True}
    longest = {"size": {"longest_edge": long}, "pad_size": [90, 90], "do_normalize": False}
    for name, said in (("CLIP", bounded), ("Sam", longest)):
        preprocess, _ = of_processor({"image_processor_type": f"{name}ImageProcessor", **said, "resample": 0})
        try:
            wanted = pil_class(name)(**said, resample=0)(image, return_tensors="np")["pixel_values"][0]
        except ValueError:  # of an edge that becomes 0
            with pytest.raises(ImageError, match="too narrow"):
                preprocess(image)
        else:
            assert np.abs(preprocess(image) - wanted).max() <= 1e-5


def test_an_image_that_is_larger_than_what_it_is_padded_to_is_refused_as_in_transformers():
    said = {"size": {"shortest_edge": 40}, "do_center_crop": False, "do_pad": True, "pad_size": square(64), **OPENAI}
    preprocess, _ = of_processor({"image_processor_type": "CLIPImageProcessor", **said})
    processor = pil_class("CLIP")(**said)
    fits, wide = photo(90, 60, 0), photo(200, 60, 0)
    assert np.abs(preprocess(fits) - processor(fits, return_tensors="np")["pixel_values"][0]).max() < 0.01
    with pytest.raises(ValueError, match="larger than the image"):
        processor(wide)
    with pytest.raises(ImageError, match=r"40x133 pixels .* more than the 64x64"):
        preprocess(wide)
    squared, _ = of_processor({"image_processor_type": "LlavaImageProcessor", "do_pad": True})
    with pytest.raises(ImageError, match="too narrow to be padded to a square"):
        squared(Image.new("L", (2, 200_000)))


def test_sam_takes_images_of_the_models_size_where_its_file_says_none():
    preprocess, notes = of_processor({"image_processor_type": "SamImageProcessor"}, size=(64, 64))
    assert (preprocess.size, preprocess.box, preprocess.fit, preprocess.pad) == ((64, 64), (64, 64), "contain", "after")
    assert preprocess.fill == (124, 116, 104)
    assert "size, pad_size: taken from the model's image size" in "\n".join(notes)
    assert "resized to fit in 64x64, padded below and at the right to 64x64 bilinear" in describe_preprocessing(
        preprocess
    )


def test_longest_edge_without_a_class_is_as_sam_does_it():
    keys = {"size": {"longest_edge": 48}, "do_pad": True, "pad_size": square(48), "resample": 2, "image_mean": HALF}
    assert of_processor(keys)[0].fit == "contain"
    named, _ = of_processor({"image_processor_type": "SamImageProcessor", **keys})
    bare, _ = of_processor(keys)
    assert msgspec.structs.replace(named, std=bare.std) == bare


def test_padding_that_the_class_does_not_heed_is_said():
    _, notes = of_processor({"image_processor_type": "BeitImageProcessor", "size": 32, "do_pad": True, "pad_size": 48})
    assert "do_pad is True, which BeitImageProcessor does not heed" in notes
    _, notes = of_processor({"image_processor_type": "ViTImageProcessor", "size": 32, "size_divisor": 32})
    assert "size_divisor is 32, which ViTImageProcessor does not heed" in notes


def test_what_a_user_says_of_mean_and_shape_changes_the_padding():
    keys = {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 32}, "pad_size": square(32)}
    mean = Overrides(mean=(0.2, 0.4, 0.6))
    assert overridden(of_processor(keys, given=mean)[0], mean).fill == (51, 102, 153)
    squash = Overrides(resize="squash")
    squashed = overridden(of_processor(keys, given=squash, size=(32, 32))[0], squash)
    assert (squashed.pad, squashed.fill, squashed.fit, squashed.resize) == ("around", None, "short", None)
    own = of_processor(keys)[0]
    cropped = overridden(own, Overrides(crop=1.0))
    assert (cropped.pad, cropped.longest, cropped.crop, cropped.resize) == ("around", None, None, 32)
    with pytest.raises(DataError, match="no colour"):
        overridden(own, Overrides(mean=(2.0,)))


def test_a_mean_of_pixels_up_to_255_is_refused():
    """Images would all come out nearly the same."""
    with pytest.raises(DataError, match=r"103\.5 is not of pixels in 0\.\.1"):
        load_checkpoint("fashion-micro", images=Overrides(mean=(103.5,), std=(57.4,)))


def test_as_timm_and_torchvision():
    values = np.load(VALUES)
    assert {"timm 1.0.31", "torchvision 0.29.1", "torch 2.14.1"} <= set(values["versions"])
    for number, cfg in enumerate(TIMM):
        preprocess, _ = of_timm({key: value for key, value in cfg.items() if value is not None})
        for kind, source in sources().items():
            found = greys(preprocess(source), preprocess.mean, preprocess.std)
            wanted = values[f"timm-{number}-{kind}"] / 10
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= 0.1, (cfg, kind)


def test_as_dinov3s_processor():
    values = np.load(VALUES)
    for number, said in enumerate(DINOV3):
        preprocess, _ = of_processor({"image_processor_type": "DINOv3ViTImageProcessorFast", **said})
        for kind, source in sources().items():
            found = greys(preprocess(source), preprocess.mean, preprocess.std)
            # torchvision resizes numbers that are not rounded after each of two passes, as Pillow's are.
            assert np.abs(found - values[f"dinov3-{number}-{kind}"] / 10).max() <= 1.05, (said, kind)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"DINOv3ViTImageProcessor"}))
def test_the_table_of_classes_is_transformers(name):
    own, theirs = CLASSES[name], pil_class(name.removesuffix("ImageProcessor"))
    assert own.size == theirs.size
    assert own.statistics == (tuple(theirs.image_mean), tuple(theirs.image_std))
    assert own.resample == theirs.resample
    assert own.center_crop == bool(getattr(theirs, "do_center_crop", None))
    assert own.square == theirs.default_to_square
    assert own.crop_pct == getattr(theirs, "crop_pct", None)
    assert own.pads == bool(getattr(theirs, "do_pad", None))
    if own.crop is not None:
        assert theirs.crop_size == square(own.crop)


def test_values_are_of_sixty_configs_and_six_images():
    assert len(PROCESSORS) + len(TIMM) + len(DINOV3) >= 60
    assert len(images()) == 6


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"image_processor_type": "MobileViTImageProcessor", "size": square(32)}, "MobileViTImageProcessor"),
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, "do_center_crop is false"),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "do_resize is false"),
        ({"size": {"longest_edge": 32}}, r"size is {'longest_edge': 32} and do_center_crop is false"),
        (
            {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 32}, "do_pad": False},
            r"size is {'longest_edge': 32} and do_center_crop is false",
        ),
        ({"image_processor_type": "SamImageProcessor", "size": square(32)}, "takes a longest_edge alone"),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 32}, "do_pad": True, "pad_size": 32},
            r"size is {'longest_edge': 32}, and ViTImageProcessor does not take that",
        ),
        ({"image_processor_type": "ViTImageProcessor", "size": {"max_height": 32, "max_width": 32}}, "max_height"),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 32, "longest_edge": 64},
                "do_center_crop": False,
            },
            "'longest_edge': 64} and do_center_crop is false",
        ),
        (
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 32},
                "do_center_crop": False,
                "do_pad": True,
            },
            "do_pad is true without a pad_size",
        ),
        ({"image_processor_type": "SamImageProcessor", "pad_size": {"longest_edge": 64}}, "pad_size is .*without a"),
        (
            {"image_processor_type": "ViTImageProcessor", "size": square(32), "do_pad": True, "pad_size": [48, 31]},
            r"pad_size is 48x31 \(height x width\), less than the 32x32",
        ),
        ({"size": square(32), "do_pad": True, "size_divisor": 32}, "size_divisor is 32"),
        (
            {"size": square(32), "do_pad": True, "pad_size": 48, "image_mean": [123.7, 116.3, 103.5]},
            r"123\.7, 116\.3, 103\.5 is no colour",
        ),
        ({"image_processor_type": "ViltImageProcessor", "size": {"shortest_edge": 384}}, "ViltImageProcessor"),
        ({"image_processor_type": "YolosImageProcessor", "do_pad": True}, "YolosImageProcessor"),
        ({"image_processor_type": "SwinSRImageProcessor", "do_pad": True, "size_divisor": 8}, "SwinSRImageProcessor"),
        ({"size": square(32), "do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"size": square(32), "resample": 9}, "resample is 9"),
        ({"size": square(32), "rescale_factor": -1}, "rescale_factor"),
        ({"size": {"shortest_edge": 32}, "crop_size": {"shortest_edge": 32}}, "crop_size"),
        ({"image_processor_type": "DINOv3ViTImageProcessor", "resample": 3}, r"resample is 3 \(bicubic\)"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": square(32)}, "ConvNextImageProcessor"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 32, "crop_pct": 0}, "crop_pct is 0"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_named(said, named):
    with pytest.raises(DataError, match=named) as refused:
        of_processor(said)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("cfg", "named"),
    [
        ({"crop_mode": "corner"}, "crop_mode is corner"),
        ({"interpolation": "random"}, "interpolation is random"),
        ({"mean": [0.5], "crop_border_pixels": 4}, "crop_border_pixels is 4"),
        ({"crop_pct": -1.0}, "crop_pct is -1"),
    ],
)
def test_what_timms_config_says_and_is_not_done_is_named(cfg, named):
    with pytest.raises(DataError, match=named):
        of_timm(cfg)


def test_what_a_file_leaves_out_comes_from_timms_config_then_from_the_class_and_is_said():
    said = Configs(
        config=Config(pretrained_cfg=TimmCfg(mean=(0.1, 0.2, 0.3))),
        processor=Processor(image_processor_type="CLIPImageProcessor", size={"shortest_edge": 40}),
    )
    preprocess, notes = prepared(said, size=(32, 32))
    assert preprocess.mean == (0.1, 0.2, 0.3)
    assert preprocess.std == CLASSES["CLIPImageProcessor"].statistics[1]
    assert (preprocess.size, preprocess.resize) == ((32, 32), 40)
    together = "\n".join(notes)
    assert "image_mean: taken from config.json" in together
    assert "resample, image_std: taken from CLIPImageProcessor's defaults" in together
    assert "crop_size: taken from the model's image size" in together


@pytest.mark.parametrize("name", ["ViTFeatureExtractor", "ViTImageProcessorFast", "ViTImageProcessorPil"])
def test_a_class_by_its_other_names(name):
    preprocess, _ = of_processor({"image_processor_type": name})
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == ((224, 224), None, "bilinear")


def test_a_crop_pct_that_the_class_does_not_heed_is_said():
    _, notes = of_processor({"image_processor_type": "ViTImageProcessor", "size": 32, "crop_pct": 0.9})
    assert "crop_pct is 0.9, which ViTImageProcessor does not heed" in notes


def test_the_nested_file_goes_first(tmp_path):
    nested = {"processor_class": "CLIPProcessor", "image_processor": {"size": square(32), "image_mean": [0.1] * 3}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.9] * 3}))
    assert read_configs(tmp_path).processor.image_mean == (0.1, 0.1, 0.1)
    assert read_preprocessing(tmp_path / "processor_config.json").processor.size == square(32)
    (tmp_path / "processor_config.json").write_text('{"tokenizer": {}}')
    assert read_configs(tmp_path).processor.image_mean == (0.9, 0.9, 0.9)
    with pytest.raises(CheckpointError, match="says nothing"):
        read_preprocessing(tmp_path / "processor_config.json")


def test_timms_wrapper_says_it_as_timm_does():
    cfg = {"input_size": [3, 48, 48], "crop_pct": 0.9, "crop_mode": "border", "mean": [0.5] * 3, "std": [0.5] * 3}
    wrapped, _ = of_processor({"image_processor_type": "TimmWrapperImageProcessor", "pretrained_cfg": cfg})
    assert wrapped == of_timm(cfg)[0]
    assert wrapped.fit == "contain"


def test_what_a_user_says_goes_first_and_unlocks_what_is_refused():
    given = Overrides(mean=(0.5,), std=(0.25,), resize="squash", interpolation="lanczos")
    keys = {"image_processor_type": "MobileViTImageProcessor"}
    preprocess = overridden(of_processor(keys, given=given, size=(32, 32))[0], given)
    assert (preprocess.mean, preprocess.std, preprocess.resize) == ((0.5,) * 3, (0.25,) * 3, None)
    assert preprocess.interpolation == "lanczos"
    keys = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False, "image_mean": [0.1] * 3}
    crop = Overrides(crop=0.8)
    preprocess = overridden(of_processor(keys, given=crop, size=(32, 32))[0], crop)
    assert (preprocess.resize, preprocess.mean) == (40, (0.1, 0.1, 0.1))
    oblong = overridden(of_processor(keys, given=crop, size=(64, 32))[0], crop)
    assert (oblong.fit, oblong.box) == ("cover", (80, 40))


def test_grey_models_pad_with_grey():
    preprocess, notes = of_timm({"crop_mode": "border", "crop_pct": 1.0}, channels=1, size=(32, 32))
    assert preprocess.fill == (115,)
    assert "colour statistics are averaged" in notes[-1]
    assert preprocess(sources()["portrait"]).shape == (1, 32, 32)


def test_old_descriptions_mean_what_they_did():
    old = b'{"size":[32,32],"resize":36,"interpolation":"bicubic","mean":[0.5],"std":[0.5],"channel_order":"L"}'
    read = msgspec.json.decode(old, type=Preprocess)
    assert (read.fit, read.box, read.fill, read.rounding) == ("short", None, None, "nearest")
    assert (read.longest, read.pad, read.crop) == (None, "around", None)
    for unknown in (b'"pad":"before"', b'"rounding":"up"', b'"padding":true'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(old.replace(b'"resize":36', b'"resize":36,' + unknown), type=Preprocess)


def test_another_size_keeps_bounds_and_padding():
    keys = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24, "longest_edge": 30}}
    small, _ = of_processor({**keys, "crop_size": 28, "do_pad": True, "pad_size": 32})
    large = resized(small, (64, 64))
    assert (large.size, large.box, large.longest, large.crop) == ((64, 64), (48, 48), 60, (56, 56))
    said = "resized to cover 48x48, long edge at most 60, crop 56x56, padded below and at the right to 64x64 bicubic"
    assert said in describe_preprocessing(large)
    squared, _ = of_processor({"image_processor_type": "LlavaImageProcessor", "do_pad": True})
    assert describe_preprocessing(squared).startswith("padded to a square, short edge 224, crop 224x224 bicubic")


@pytest.mark.parametrize("fit", ["squash", "cover", "contain"])
def test_another_size_keeps_the_part_that_is_cut_out(fit):
    small = Preprocess(size=(32, 16), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3, fit=fit, box=(40, 20))
    large = resized(small, (64, 32))
    assert (large.size, large.box, large.fit) == ((64, 32), (80, 40), fit)
    assert "80x40" in describe_preprocessing(large)


@pytest.mark.parametrize(
    "changes",
    [
        {"fit": "cover"},
        {"fit": "none", "box": (4, 4)},
        {"fit": "squash", "box": (0, 4)},
        {"fit": "squash", "box": (9000, 4)},
        {"fit": "squash", "box": (8, 8), "resize": 8},
        {"fit": "contain", "box": (8, 8), "fill": (0, 256, 0)},
        {"fit": "contain", "box": (8, 8), "fill": (0,)},
        {"fit": "cover", "box": (8, 9), "longest": 9},
        {"fit": "cover", "box": (8, 8), "longest": 0},
        {"fit": "cover", "box": (8, 8), "longest": 9000},
        {"fit": "contain", "box": (8, 8), "longest": 9},
        {"pad": "after"},
        {"pad": "after", "fit": "squash", "box": (8, 9)},
        {"pad": "after", "fit": "cover", "box": (8, 8), "crop": (9, 8)},
        {"pad": "after", "fit": "cover", "box": (8, 8), "crop": (0, 8)},
        {"fit": "cover", "box": (8, 8), "crop": (4, 4)},
    ],
)
def test_contradictions_are_refused(changes):
    with pytest.raises(DataError):
        Preprocess(**{"size": (8, 8), "resize": None, "mean": (0,) * 3, "std": (1,) * 3, **changes})


@pytest.mark.parametrize(
    ("resize", "left", "top"), [("pad", 0, 0), ("letterbox", 0, 8)], ids=["below and at the right", "around"]
)
def test_a_ratio_that_is_kept(resize, left, top):
    """What is not the image is the mean, which is 0 once it is normalised; a model's BGR is turned."""
    usual = Preprocess(size=(32, 32), resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    changed = overridden(usual, Overrides(resize=resize, mean=(0.2, 0.4, 0.6), std=(1.0,), colours="bgr"))
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    found = changed(image)
    inside = found[:, top : top + 16, left : left + 32]
    assert np.allclose(inside[0], -0.2)
    assert np.allclose(inside[2], 1 - 0.6)
    outside = np.ones((32, 32), dtype=bool)
    outside[top : top + 16, left : left + 32] = False
    assert np.abs(found[:, outside]).max() < 1 / 255
    assert changed(Image.new("RGB", (10, 20))).shape == (3, 32, 32)


def test_grey_images_have_no_order_of_colours():
    grey = Preprocess(size=(8, 8), resize=8, mean=(0.5,), std=(0.5,), channel_order="L")
    with pytest.raises(DataError, match="no order of colours"):
        overridden(grey, Overrides(colours="bgr"))
