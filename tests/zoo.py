"""Randomly initialised models of every family that loads, saved as their libraries save them.

Each case gives a source for ``load_checkpoint`` and the output that the reference gives for the same images.
torchvision does not load beside every torch, and JAX is not installed: their references are written out here or are
timm's own reader.
"""

from __future__ import annotations

import importlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles import import_timm, import_vit_pytorch
from safetensors.torch import save_file
from torch import Tensor, nn

Reference = Callable[[Tensor], Tensor]
Build = Callable[[Path], tuple[Path, Reference]]


@dataclass(frozen=True)
class Case:
    """``size`` is the image's (channels, height, width); ``loads`` says what the table in docs/models.md shows."""

    family: str
    loads: str
    build: Build
    size: tuple[int, int, int] = (3, 32, 32)
    expect: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.family}: {self.loads}"


def randomise(model: nn.Module) -> nn.Module:
    """Give every parameter values of its own, so that none can be taken for another or be left out unnoticed."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.ndim > 1 else 0.2
            nn.init.normal_(parameter, std=0.08 * scale if parameter.ndim > 1 else scale)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def timm_case(architecture: str, file: str = "model.pth", config: dict | None = None, **options: Any) -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        timm = import_timm()
        base = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 7}
        model = randomise(timm.create_model(architecture, pretrained=False, **{**base, **options}))
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
            save_file(model.state_dict(), folder / "model.safetensors")
            return folder, model
        torch.save(model.state_dict(), folder / file)
        return folder / file, model

    return build


def pre_logits_case(hidden: int) -> Build:
    """The linear layer and tanh that timm's ImageNet-21k models had before their head; timm 1.0 has dropped it."""

    def build(folder: Path) -> tuple[Path, Reference]:
        path, backbone = timm_case("vit_tiny_patch16_224", num_classes=0)(folder)
        pre_logits, head = randomise(nn.Linear(128, hidden)), randomise(nn.Linear(hidden, 7))
        weights = {**torch.load(path), **pre_logits.state_dict(prefix="pre_logits.fc.")}
        torch.save({**weights, **head.state_dict(prefix="head.")}, path)
        return path, lambda images: head(pre_logits(backbone(images)).tanh())

    return build


def dinov2_case(rename: dict[str, str], **options: Any) -> Build:
    """timm's DINOv2 under its authors' names, with the tensors that they store and timm does not."""

    def build(folder: Path) -> tuple[Path, Reference]:
        timm = import_timm()
        base = {"img_size": 28, "patch_size": 14, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 0}
        model = randomise(timm.create_model("vit_small_patch14_dinov2", pretrained=False, **{**base, **options}))
        weights = {}
        for name, tensor in model.state_dict().items():
            for old, new in rename.items():
                name = name.replace(old, new)
            weights[name] = tensor
        if options.get("no_embed_class"):  # the authors give the class token a position, and registers none
            weights["pos_embed"] = torch.cat([weights["cls_token"] * 0.25, weights["pos_embed"]], dim=1)
            weights["cls_token"] = weights["cls_token"] * 0.75
        weights["mask_token"] = torch.randn(1, 128)
        torch.save(weights, folder / "dinov2.pth")
        return folder / "dinov2.pth", model

    return build


def transformers_case(model_class: str, config_class: str, output: str, **options: Any) -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        transformers = importlib.import_module("transformers")
        base: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32}
        base |= {"patch_size": 8}
        if "Dinov2" not in config_class:
            base["intermediate_size"] = 320
        config = getattr(transformers, config_class)(**{**base, **options})
        model = randomise(getattr(transformers, model_class)(config))
        model.save_pretrained(folder, **({"max_shard_size": "200kB"} if options.get("num_labels") == 4 else {}))
        return folder, lambda images: getattr(model(images), output)

    return build


def siglip_classifier_case() -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        transformers = importlib.import_module("transformers")
        tower = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 320}
        vision = {**tower, "image_size": 32, "patch_size": 8}
        config = transformers.SiglipConfig(
            text_config={**tower, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
            vision_config=vision,
            num_labels=7,
        )
        model = randomise(transformers.SiglipForImageClassification(config))
        model.save_pretrained(folder)
        return folder, lambda images: model(images).logits

    return build


def in_memory_case(model_class: str, config_class: str, **options: Any) -> Build:
    """``model.state_dict()`` of transformers, whose names are not those that ``save_pretrained`` writes."""

    def build(folder: Path) -> tuple[Path, Reference]:
        path, reference = transformers_case(model_class, config_class, "logits", num_labels=7, **options)(folder)
        model = getattr(importlib.import_module("transformers"), model_class).from_pretrained(path).eval()
        (folder / "alone").mkdir()
        torch.save(model.state_dict(), folder / "alone" / "model.pth")
        return folder / "alone" / "model.pth", reference

    return build


def open_clip_case(file: str, top: str, width: int, extras: dict[str, Tensor], config: dict | None = None) -> Build:
    """transformers' CLIP under OpenAI's names: an independent forward pass for the same weights."""

    def build(folder: Path) -> tuple[Path, Reference]:
        transformers = importlib.import_module("transformers")
        quick = "input_resolution" in extras or bool(config and config["model_cfg"].get("quick_gelu"))
        model = randomise(
            transformers.CLIPVisionModelWithProjection(
                transformers.CLIPVisionConfig(
                    hidden_size=width,
                    num_hidden_layers=2,
                    num_attention_heads=width // 64,
                    intermediate_size=320,
                    image_size=32,
                    patch_size=8,
                    projection_dim=24,
                    hidden_act="quick_gelu" if quick else "gelu",
                )
            )
        )
        weights = {**extras, **{f"{top}{name}": tensor for name, tensor in openai_names(model.state_dict()).items()}}
        if config is not None:
            (folder / "open_clip_config.json").write_text(json.dumps(config))
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / file)
            return folder, lambda images: model(images).image_embeds
        torch.save({"state_dict": weights}, folder / file)
        return folder / file, lambda images: model(images).image_embeds

    return build


def timm_tower_case(architecture: str, pool: str, projection: int = 0, **options: Any) -> Build:
    """One of timm's models as OpenCLIP's image tower, beside a text tower, with what open_clip_config.json says."""

    def build(folder: Path) -> tuple[Path, Reference]:
        timm = import_timm()
        base = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 0}
        model = randomise(timm.create_model(architecture, pretrained=False, **{**base, **options}))
        weights = {"logit_bias": torch.ones(1), "text.positional_embedding": torch.ones(3, 3)}
        weights |= {f"visual.trunk.{name}": tensor for name, tensor in model.state_dict().items()}
        matrix = torch.randn(projection, 128) * 0.1
        if projection:
            weights["visual.head.proj.weight"] = matrix
        vision = {"image_size": 32, "timm_model_name": architecture, "timm_pool": pool}
        config = {"model_cfg": {"embed_dim": projection or model.num_features, "vision_cfg": vision}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        save_file(weights, folder / "open_clip_model.safetensors")
        return folder, (lambda images: model(images) @ matrix.T) if projection else model

    return build


def openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of transformers' CLIPVisionModelWithProjection, of two layers, as OpenAI names them."""
    weights = {
        "class_embedding": state["vision_model.embeddings.class_embedding"],
        "conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
    }
    for new, old in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for kind in ("weight", "bias"):
            weights[f"{new}.{kind}"] = state[f"vision_model.{old}.{kind}"]
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    parts |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(2):
        new, old = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            weights |= {f"{new}.{name}.{kind}": state[f"{old}.{part}.{kind}"] for name, part in parts.items()}
            stacked = [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"{new}.attn.in_proj_{kind}"] = torch.cat(stacked)
    return weights


class TorchvisionBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Torchvision(nn.Module):
    """torchvision's VisionTransformer as its documentation describes it, on torch's own attention."""

    def __init__(self, width: int, mlp_names: tuple[str, str], hidden: int | None) -> None:
        super().__init__()

        def mlp() -> nn.Module:
            layers = [(mlp_names[0], nn.Linear(width, 320)), ("act", nn.GELU()), (mlp_names[1], nn.Linear(320, width))]
            return nn.Sequential(OrderedDict(layers))

        self.conv_proj = nn.Conv2d(3, width, 8, stride=8)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 17, width))
        blocks = [(f"encoder_layer_{index}", TorchvisionBlock(width, width // 64, mlp())) for index in range(2)]
        self.encoder.layers = nn.Sequential(OrderedDict(blocks))
        self.encoder.ln = nn.LayerNorm(width, 1e-6)
        pre = [("pre_logits", nn.Linear(width, hidden)), ("act", nn.Tanh())] if hidden else []
        self.heads = nn.Sequential(OrderedDict([*pre, ("head", nn.Linear(hidden or width, 7))]))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.encoder.pos_embedding
        return self.heads(self.encoder.ln(self.encoder.layers(x))[:, 0])


def torchvision_case(width: int, mlp_names: tuple[str, str], hidden: int | None = None) -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        model = randomise(Torchvision(width, mlp_names, hidden))
        torch.save(model.state_dict(), folder / "vit_b_16.pth")
        return folder / "vit_b_16.pth", model

    return build


def vit_pytorch_case(**options: Any) -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        vit_pytorch = import_vit_pytorch()
        base = {"image_size": 32, "patch_size": 8, "num_classes": 7, "dim": 128, "depth": 2, "heads": 2, "mlp_dim": 200}
        model = randomise(vit_pytorch.ViT(**{**base, **options}))
        torch.save({"model_state_dict": model.state_dict()}, folder / "vit.pt")
        return folder / "vit.pt", model

    return build


def jax_case(width: int, hidden: int = 0, top: str = "") -> Build:
    """A .npz with random arrays in the original's layout; timm's reader for it is the reference."""

    def build(folder: Path) -> tuple[Path, Reference]:
        timm = import_timm()
        heads, random = 2, np.random.default_rng(0)

        def array(*shape: int) -> np.ndarray:
            return random.normal(scale=0.1, size=shape).astype(np.float32)

        arrays = {"cls": array(1, 1, width), "Transformer/posembed_input/pos_embedding": array(1, 17, width)}
        shapes = {"embedding": (8, 8, 3, width), "head": (hidden or width, 7)}
        shapes |= {"pre_logits": (width, hidden)} if hidden else {}
        for layer in range(2):
            block = f"Transformer/encoderblock_{layer}"
            for norm in ("LayerNorm_0", "LayerNorm_2"):
                arrays |= {f"{block}/{norm}/scale": 1 + array(width), f"{block}/{norm}/bias": array(width)}
            attention = f"{block}/MultiHeadDotProductAttention_1"
            for part in ("query", "key", "value"):
                arrays[f"{attention}/{part}/kernel"] = array(width, heads, width // heads)
                arrays[f"{attention}/{part}/bias"] = array(heads, width // heads)
            arrays[f"{attention}/out/kernel"] = array(heads, width // heads, width)
            arrays[f"{attention}/out/bias"] = array(width)
            shapes |= {f"{block}/MlpBlock_3/Dense_0": (width, 4 * width)}
            shapes |= {f"{block}/MlpBlock_3/Dense_1": (4 * width, width)}
        arrays |= {"Transformer/encoder_norm/scale": 1 + array(width), "Transformer/encoder_norm/bias": array(width)}
        for name, shape in shapes.items():
            arrays |= {f"{name}/kernel": array(*shape), f"{name}/bias": array(shape[-1])}
        np.savez(folder / "vit.npz", **{f"{top}{name}": value for name, value in arrays.items()})
        model = timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=8, embed_dim=width, num_heads=heads,
            depth=2, num_classes=0 if hidden else 7,
        ).eval()  # fmt: skip
        model.load_pretrained(str(folder / "vit.npz"))
        if not hidden:
            return folder / "vit.npz", model
        pre, head = (
            [torch.from_numpy(arrays[f"{name}/{kind}"]) for kind in ("kernel", "bias")]
            for name in ("pre_logits", "head")
        )  # timm has no layer for these
        return folder / "vit.npz", lambda images: (model(images) @ pre[0] + pre[1]).tanh() @ head[0] + head[1]

    return build


_hf = transformers_case
_CLIP_TEXT = {"logit_scale": torch.ones(()), "text_projection": torch.ones(3, 3), "transformer.x.weight": torch.ones(2)}
_OPENAI = {**_CLIP_TEXT, "input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}
_SWIGLU = partial(dinov2_case, {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3", "reg_token": "register_tokens"})
_QUICK = {"architecture": "vit_base_patch16_clip_quickgelu_224", "num_classes": 7}
_SIGLIP2 = {"architecture": "vit_base_patch32_siglip_256", "num_classes": 0}


def _swiglu(**options: Any) -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        packed = importlib.import_module("timm.layers").SwiGLUPacked
        return _SWIGLU(mlp_layer=packed, act_layer=nn.SiLU, mlp_ratio=5.25, **options)(folder)

    return build


CASES = (
    Case("timm", "ViT, width 128", timm_case("vit_tiny_patch16_224")),
    Case("timm", "ViT, width 192, patch 16x8, grey", timm_case(
        "vit_tiny_patch16_224", patch_size=(16, 8), img_size=(64, 32), embed_dim=192, num_heads=3, in_chans=1),
        (1, 64, 32)),
    Case("timm", "ViT for images of 32x64, size from config.json", timm_case(
        "vit_tiny_patch16_224", img_size=(32, 64), config={"pretrained_cfg": {"input_size": [3, 32, 64]}}),
        (3, 32, 64)),
    Case("timm", "ViT without qkv biases", timm_case("vit_tiny_patch16_224", qkv_bias=False)),
    Case("timm", "pre_logits, as older versions store it", pre_logits_case(48)),
    Case("timm", "backbone without a head", timm_case("vit_tiny_patch16_224", num_classes=0)),
    Case("timm DeiT distilled", "two tokens, two heads averaged", timm_case("deit_tiny_distilled_patch16_224")),
    Case("timm DeiT distilled", "width 192", timm_case(
        "deit_tiny_distilled_patch16_224", embed_dim=192, num_heads=3)),
    Case("timm DeiT III", "LayerScale, class token without a position", timm_case("deit3_small_patch16_224")),
    Case("timm DeiT III", "width 192", timm_case("deit3_small_patch16_224", embed_dim=192, num_heads=3)),
    Case("timm mean-pooled", "fc_norm", timm_case("vit_tiny_patch16_224", global_pool="avg")),
    Case("timm mean-pooled", "no class token", timm_case(
        "vit_tiny_patch16_224", global_pool="avg", class_token=False, fc_norm=False)),
    Case("timm mean-pooled", "class token and norm, pooling from config.json", timm_case(
        "vit_tiny_patch16_224", global_pool="avg", fc_norm=False, config={"global_pool": "avg"})),
    Case("timm registers", "4 registers, positions for patches alone", timm_case(
        "vit_medium_patch16_reg4_gap_256", embed_dim=128, num_heads=2)),
    Case("timm registers", "1 register, positions for all, class token", timm_case(
        "vit_tiny_patch16_224", reg_tokens=1)),
    Case("timm DINOv2", "registers, LayerScale", timm_case(
        "vit_small_patch14_reg4_dinov2", img_size=42, patch_size=14), (3, 42, 42)),
    Case("timm CLIP", "pre-norm", timm_case("vit_base_patch16_clip_224")),
    Case("timm CLIP", "QuickGELU from config.json", timm_case("vit_base_patch16_clip_quickgelu_224", config=_QUICK)),
    Case("timm SigLIP", "attention pool", timm_case("vit_base_patch16_siglip_224", num_classes=0)),
    Case("timm SigLIP", "attention pool beside a class token and registers", timm_case(
        "vit_tiny_patch16_224", global_pool="map", reg_tokens=2)),
    Case("timm SigLIP", "tanh GELU from config.json, classes", timm_case(
        "vit_base_patch32_siglip_256", config={**_SIGLIP2, "num_classes": 7})),
    Case("DINOv2", "authors' names", dinov2_case({}), (3, 28, 28)),
    Case("DINOv2", "registers", dinov2_case(
        {"reg_token": "register_tokens"}, reg_tokens=4, no_embed_class=True, img_size=42), (3, 42, 42)),
    Case("DINOv2", "SwiGLU", _swiglu(), (3, 28, 28)),
    Case("DINOv2", "SwiGLU, registers, width 192", _swiglu(
        embed_dim=192, num_heads=3, reg_tokens=4, no_embed_class=True, img_size=42), (3, 42, 42)),
    Case("Hugging Face ViT", "ViTForImageClassification", _hf(
        "ViTForImageClassification", "ViTConfig", "logits", num_labels=7)),
    Case("Hugging Face ViT", "sharded, width 64, images of 16x40, no qkv biases", _hf(
        "ViTForImageClassification", "ViTConfig", "logits", num_labels=4, hidden_size=64, image_size=[16, 40],
        qkv_bias=False), (3, 16, 40)),
    Case("Hugging Face ViT", "names of transformers 5 in memory", in_memory_case(
        "ViTForImageClassification", "ViTConfig", layer_norm_eps=1e-12, num_attention_heads=2)),
    Case("Hugging Face DINOv2", "names of transformers 5 in memory, SwiGLU", in_memory_case(
        "Dinov2ForImageClassification", "Dinov2Config", use_swiglu_ffn=True, num_attention_heads=2)),
    Case("Hugging Face DeiT", "one head", _hf("DeiTForImageClassification", "DeiTConfig", "logits", num_labels=7)),
    Case("Hugging Face DeiT", "two heads averaged", _hf(
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", "logits", num_labels=7)),
    Case("Hugging Face DINOv2", "Dinov2ForImageClassification", _hf(
        "Dinov2ForImageClassification", "Dinov2Config", "logits", num_labels=7)),
    Case("Hugging Face DINOv2", "SwiGLU", _hf(
        "Dinov2ForImageClassification", "Dinov2Config", "logits", num_labels=7, use_swiglu_ffn=True)),
    Case("Hugging Face DINOv2", "registers", _hf(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", "logits", num_labels=7)),
    Case("Hugging Face DINOv2", "backbone without a head", _hf("Dinov2Model", "Dinov2Config", "pooler_output")),
    Case("Hugging Face CLIP", "CLIPVisionModelWithProjection", _hf(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", "image_embeds", projection_dim=24)),
    Case("Hugging Face CLIP", "GELU, width 192", _hf(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", "image_embeds", projection_dim=24, hidden_act="gelu",
        hidden_size=192)),
    Case("Hugging Face SigLIP", "SiglipVisionModel", _hf("SiglipVisionModel", "SiglipVisionConfig", "pooler_output")),
    Case("Hugging Face SigLIP", "SiglipForImageClassification, mean of the patches", siglip_classifier_case()),
    Case("Hugging Face SigLIP", "width 192", _hf(
        "SiglipVisionModel", "SiglipVisionConfig", "pooler_output", hidden_size=192)),
    Case("CLIP", "OpenAI's state_dict, QuickGELU, text tower left out", open_clip_case(
        "clip.pt", "visual.", 128, _OPENAI)),
    Case("CLIP", "OpenCLIP's state_dict", open_clip_case("open_clip.pt", "visual.", 192, _CLIP_TEXT)),
    Case("CLIP", "OpenCLIP's image tower alone", open_clip_case("visual.pt", "", 128, {})),
    Case("CLIP", "OpenCLIP folder, QuickGELU from open_clip_config.json", open_clip_case(
        "open_clip_model.safetensors", "visual.", 128, _CLIP_TEXT, {"model_cfg": {"quick_gelu": True}})),
    Case("OpenCLIP SigLIP", "attention pool, text tower left out", timm_tower_case(
        "vit_base_patch16_siglip_224", "map")),
    Case("OpenCLIP SigLIP", "tanh GELU, width 192", timm_tower_case(
        "vit_base_patch32_siglip_256", "map", embed_dim=192, num_heads=3)),
    Case("OpenCLIP SigLIP", "a tower of timm's with a projection", timm_tower_case(
        "vit_tiny_patch16_224", "avg", 24, global_pool="avg", fc_norm=False)),
    Case("torchvision", "vit_b_16 and kin", torchvision_case(128, ("0", "3"))),
    Case("torchvision", "older names, pre_logits", torchvision_case(192, ("linear_1", "linear_2"), 48)),
    Case("vit-pytorch", "ViT", vit_pytorch_case()),
    Case("vit-pytorch", "heads wider than the model", vit_pytorch_case(heads=3)),
    Case("vit-pytorch", "mean pooling, grey", vit_pytorch_case(pool="mean", channels=1), (1, 32, 32)),
    Case("JAX .npz", "ViT", jax_case(128)),
    Case("JAX .npz", "AugReg with pre_logits, from an optimiser's state", jax_case(64, hidden=32, top="opt/target/")),
)  # fmt: skip
