"""What is fuzzed: for each kind of file a few good ones, made here, and what reads them."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from PIL import Image

from edgevit.backends.base import BatchProfile
from edgevit.backends.tensorrt.engine_info import EngineInfo, read_info
from edgevit.bundle.golden import read_golden
from edgevit.bundle.model_files import contents_of_ir, contents_of_onnx
from edgevit.bundle.model_interface import file_interface
from edgevit.bundle.packing import write_pack
from edgevit.bundle.reading import decode_manifest
from edgevit.bundle.store import Bundle
from edgevit.data.csv_table import load_csv
from edgevit.data.images import decode_image
from edgevit.data.labels import check_one_label, map_several
from edgevit.errors import EdgeViTError
from edgevit.graph.interface import interface_of
from edgevit.graph.onnx_file import read_onnx
from edgevit.models.config import read_configs, read_preprocessing
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.labels import read_labels
from edgevit.models.licenses import license_beside
from edgevit.models.preprocessing import describe_preprocessing, preprocess_of, resized
from edgevit.models.spec import ModelSpec
from edgevit.models.tokenizer import read_tokenizer
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.plan import QuantizationPlan
from edgevit.recipes import load_recipe
from edgevit.targets import load_target

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Target:
    """One kind of file: ``seeds`` are good ones, ``name`` is what a mutated one is called, ``read`` reads it."""

    seeds: tuple[bytes, ...]
    name: str
    read: Callable[[Path], object]


def image_seeds() -> tuple[bytes, ...]:
    """Return a small image in each format, some with metadata."""
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (7, 5), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for image, kind, options in (
        (colour, "JPEG", {"exif": exif}),
        (colour, "PNG", {}),
        (colour.convert("P"), "PNG", {"transparency": 0}),
        (deep, "PNG", {}),
        (colour, "WEBP", {"lossless": True}),
        (colour, "BMP", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (deep, "TIFF", {}),
        (colour.convert("P"), "GIF", {}),
        (colour, "PPM", {}),
    ):
        stream = io.BytesIO()
        image.save(stream, format=kind, **options)
        made.append(stream.getvalue())
    return tuple(made)


def _torch_file(content: object) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def tiny_weights() -> dict[str, torch.Tensor]:
    """Return the tensors of the smallest model that loads, under timm's names."""
    import torch

    from edgevit.models.spec import ModelSpec
    from edgevit.models.vit import VisionTransformer

    torch.manual_seed(0)
    spec = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=4, depth=1, heads=1, classes=2, mlp_ratio=1.0)
    return {name: tensor.detach() for name, tensor in VisionTransformer(spec).state_dict().items()}


IMAGES = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=4, depth=1, heads=1, classes=2)

CONFIGS = (
    {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": {"num_heads": 2, "act_layer": "gelu"},
     "pretrained_cfg": {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}},
    {"model_type": "vit", "hidden_size": 4, "num_attention_heads": 1, "id2label": {"0": "a", "1": "b"}},
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}, "resample": 2, "do_resize": True},
    {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 8}, "pad_size": {"height": 8, "width": 9}},
    {"size": {"shortest_edge": 8, "longest_edge": 9}, "crop_size": 8, "do_center_crop": True, "do_pad": True,
     "pad_size": 16, "image_mean": [0.5] * 3, "image_std": 0.5},
    {"image_processor_type": "LlavaImageProcessor", "size": {"shortest_edge": 8}, "crop_size": 8, "do_pad": True},
    {"model_cfg": {"embed_dim": 4, "vision_cfg": {"image_size": 8}}, "preprocess_cfg": {"mean": [0.5] * 3}},
)  # fmt: skip

TOML_TARGET = (Path(__file__).parents[2] / "export/targets/x86-openvino.toml").read_bytes()
TOML_RECIPE = (Path(__file__).parents[2] / "calibration/recipes/default.toml").read_bytes()

CSVS = (
    b"path,label\na.png,cat\nb.png,dog\n",
    b"Path;Label;split\r\na.png;cat;train\r\nb.png;dog;test\r\n\r\n",
    "image\tclass\na.png\t0\nb.png\t1\n".encode("utf-8-sig"),
    b"path,cat,dog,is_test\na.png,1,0,no\nb.png,1,1,yes\n",
    "path\tlabel\tis_valid\r\na.png\t0\tTrue\r\nb.png\t1\tFalse\r\n".encode("utf-16"),
)


def _read_config(path: Path) -> None:
    read_configs(path.parent)
    preprocess, _ = preprocess_of(read_preprocessing(path), Defaults(IMAGENET, None), "the usual way", IMAGES)
    describe_preprocessing(resized(preprocess, (16, 16)))
    preprocess(Image.new("RGB", (13, 9), "red"))


def _read_csv(path: Path) -> None:
    for name in ("a.png", "b.png"):
        (path.parent / name).touch()
    images = load_csv(path)
    with suppress(EdgeViTError):
        check_one_label(images)
    map_several(images, ("cat", "dog"))


CARDS = (
    b"---\nlicense: other\nlicense_name: acme-nc\nlicense_link: https://example.org\ntags:\n- vit\n---\n# A model\n",
    b"---\r\nlicense: [mit, 'cc-by-nc-4.0', \"x \\u00e9\"]\r\n---\r\n",
    b"\xef\xbb\xbf---\nlicense:\n- mit\n- >-\n  apache-2.0\n  # x\n---\n",
)
LABELS = ("cat\r\ndog\r\n\r\n".encode("utf-8-sig"), "caf\u00e9\nna\u00efve \u0645\u06cc\u200c\u062e\n".encode())


def _read_card(path: Path) -> None:
    found = license_beside(path.parent, {})
    if found is not None:
        assert found.in_words().isprintable()
        msgspec.json.encode(found)


def _tokenizer() -> bytes:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = {name: number for number, name in enumerate(["<unk>", "<end>", *"abcdefghijklmnopqrstuvwxyz"])}
    model = models.BPE(vocab={**letters, "at": 28}, merges=[("a", "t")], unk_token="<unk>")  # noqa: S106 - a token
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return backend.to_str().encode()


def _read_tokenizer(path: Path) -> None:
    tokenizer = read_tokenizer(path.parent, "it")
    tokenizer.encode(["a cat", "Na\u00efve dog!"], 8, fill=False)
    tokenizer.strange(["cat"])


def _read_onnx(path: Path) -> None:
    contents_of_onnx(path)
    file_interface(path)
    interface_of(read_onnx(path))


def _read_ir(path: Path) -> None:
    contents_of_ir(path)
    file_interface(path)


ENGINE = EngineInfo(
    flavour="tensorrt",
    version="10.3.0",
    driver="python",
    compute_capability="8.7",
    batch=BatchProfile(min=1, opt=1, max=4),
    precision="int8",
    settings={"version_compatible": "no"},
    engine_sha256="0" * 64,
    source_sha256="0" * 64,
)


def _read_pack(path: Path) -> None:
    opened = Bundle.open(path)
    opened.golden()
    for variant in opened.manifest.variants:
        opened.verify_packed(variant.name)


def _pack_of(bundle: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "seed.zip"
        write_pack(Bundle.open(bundle), made, ["int8-onnxruntime", "int8-openvino"])
        return made.read_bytes()


def targets(bundle: Path) -> dict[str, Target]:
    """Return all targets; ``bundle`` has variants for both engines, from which some seeds come."""
    from safetensors.torch import save

    from edgevit.models.loading import load_checkpoint

    weights = tiny_weights()
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    logits = next(path for path in bundle.glob("golden/logits.npy")).read_bytes()
    classes = np.load(io.BytesIO(logits)).shape
    return {
        "image": Target(image_seeds(), "image", decode_image),
        "manifest": Target(
            ((bundle / "manifest.json").read_bytes(),), "manifest.json", lambda path: decode_manifest(path.read_bytes())
        ),
        "golden": Target(
            (logits,),
            "logits.npy",
            lambda path: read_golden([*sorted(bundle.glob("golden/*.png")), path], classes=classes[1]),
        ),
        "onnx": Target(((bundle / "float32/model.onnx").read_bytes(),), "model.onnx", _read_onnx),
        "ir": Target(((bundle / "int8-openvino/model.xml").read_bytes(),), "model.xml", _read_ir),
        "safetensors": Target((save(weights),), "model.safetensors", lambda path: load_checkpoint(str(path))),
        "pth": Target(
            (_torch_file(weights), _torch_file({"state_dict": weights, "epoch": 3, "best": np.float64(0.5)})),
            "model.pth",
            lambda path: load_checkpoint(str(path)),
        ),
        "npz": Target((_npz(arrays),), "model.npz", lambda path: load_checkpoint(str(path))),
        "config": Target(tuple(json.dumps(config).encode() for config in CONFIGS), "config.json", _read_config),
        "csv": Target(CSVS, "images.csv", _read_csv),
        "target": Target((TOML_TARGET,), "target.toml", lambda path: load_target(str(path))),
        "recipe": Target((TOML_RECIPE,), "recipe.toml", lambda path: load_recipe(str(path))),
        "plan": Target(((bundle / "calibration/plan.json").read_bytes(),), "plan.json", QuantizationPlan.load),
        "table": Target(((bundle / "calibration/table.npz").read_bytes(),), "table.npz", CalibrationTable.load),
        "pack": Target((_pack_of(bundle),), "model.zip", _read_pack),
        "card": Target(CARDS, "README.md", _read_card),
        "labels": Target(LABELS, "labels.txt", read_labels),
        "tokenizer": Target((_tokenizer(),), "tokenizer.json", _read_tokenizer),
        "engine": Target(
            (msgspec.json.encode(ENGINE),), "engine.json", lambda path: read_info(path.with_name("model.engine"))
        ),
    }
