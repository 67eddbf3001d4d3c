"""Randomly initialised models whose positions are rotary or relative, or whose queries and keys are normalised; and
encoders of transformers' that are trained without labels. See ``zoo``."""

from __future__ import annotations

import importlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from oracles import import_timm
from safetensors.torch import save_file
from torch import Tensor
from zoo import Build, Case, Reference, randomise, timm_case, timm_tower_case, transformers_case

_SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}


def named_case(architecture: str, classes: int = 7, config: dict[str, Any] | None = None, **options: Any) -> Build:
    """One of timm's models beside the config.json that timm would write for it."""

    def build(folder: Path) -> tuple[Path, Reference]:
        args = {**_SIZES, **options}
        model = randomise(import_timm().create_model(architecture, pretrained=False, num_classes=classes, **args))
        save_file(model.state_dict(), folder / "model.safetensors")
        said = {"architecture": architecture, "num_classes": classes, "model_args": args, **(config or {})}
        (folder / "config.json").write_text(json.dumps(said))
        return folder, model

    return build


def alone_case(architecture: str, **options: Any) -> Build:
    """One of timm's models in a file without a config, which nothing but its names tells."""
    return timm_case(architecture, **options)


def dinov3_case(architecture: str) -> Build:
    """timm's DINOv3 under its authors' names, with the tensors that they store and timm does not."""

    def build(folder: Path) -> tuple[Path, Reference]:
        sizes = {**_SIZES, "img_size": 224, "patch_size": 32}
        model = randomise(
            import_timm().create_model(architecture, pretrained=False, num_classes=0, global_pool="token", **sizes)
        )
        renamed = {"reg_token": "storage_tokens", "fc1_g": "w1", "fc1_x": "w2"}
        weights = {"mask_token": torch.randn(1, 128), "rope_embed.periods": model.rope.periods}
        for name, tensor in model.state_dict().items():
            for old, new in renamed.items():
                name = name.replace(old, new)
            name = name.replace("mlp.fc2", "mlp.w3") if "plus" in architecture else name
            for number in (1, 2):
                name = name.replace(f"gamma_{number}", f"ls{number}.gamma")
            weights[name] = tensor
        for name in [name for name in weights if name.endswith("attn.q_bias")]:
            query, value = weights.pop(name), weights.pop(name.replace("q_bias", "v_bias"))
            noise = torch.randn_like(query)  # the authors' key bias, which a mask takes out
            weights[name.replace("q_bias", "qkv.bias")] = torch.cat([query, noise, value])
            ones = torch.ones_like(query)
            weights[name.replace("q_bias", "qkv.bias_mask")] = torch.cat([ones, 0 * ones, ones])
        torch.save(weights, folder / "dinov3.pth")
        return folder / "dinov3.pth", model

    return build


def clip_classifier_case(hidden: int = 128) -> Build:
    def build(folder: Path) -> tuple[Path, Reference]:
        transformers = importlib.import_module("transformers")
        tower = {"hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 320}
        config = transformers.CLIPConfig(
            text_config={**tower, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
            vision_config={**tower, "image_size": 32, "patch_size": 8},
            num_labels=7,
        )
        model = randomise(transformers.CLIPForImageClassification(config))
        model.save_pretrained(folder)
        return folder, lambda images: model(images).logits

    return build


def encoder_case(model_class: str, config_class: str, **options: Any) -> Build:
    """A model of transformers' that gives tokens alone, compared by its class token, or the mean where it has none."""

    def build(folder: Path) -> tuple[Path, Reference]:
        built = transformers_case(model_class, config_class, "last_hidden_state", **options)
        path, tokens = built(folder)

        def reference(images: Tensor) -> Tensor:
            found = tokens(images)
            return found.mean(dim=1) if config_class == "IJepaConfig" else found[:, 0]

        return path, reference

    return build


def pretraining_case() -> Build:
    """MAE with its decoder, which is left out; the same encoder without masks is the reference."""

    def build(folder: Path) -> tuple[Path, Reference]:
        transformers = importlib.import_module("transformers")
        sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 320}
        decoder = {f"decoder_{name}": value // 2 for name, value in sizes.items()}
        config = transformers.ViTMAEConfig(**sizes, **decoder, image_size=32, patch_size=8, mask_ratio=0.0)
        model = randomise(transformers.ViTMAEForPreTraining(config))
        model.save_pretrained(folder)
        return folder, lambda images: model.vit(images).last_hidden_state[:, 0]

    return build


_hf = transformers_case
_beit = partial(_hf, "BeitForImageClassification", "BeitConfig", "logits", num_labels=7)
_MEAN = {"global_pool": "avg"}
CASES = (
    Case("timm DINOv3", "plain MLP, class token", named_case(
        "vit_small_patch16_dinov3", config={"global_pool": "token"}, global_pool="token")),
    Case("timm DINOv3", "biases for queries and values, mean of the patches", named_case(
        "vit_small_patch16_dinov3_qkvb")),
    Case("timm DINOv3", "SwiGLU, width 192, images of 32x64", named_case(
        "vit_small_plus_patch16_dinov3", 0, embed_dim=192, num_heads=3, img_size=(32, 64)), (3, 32, 64)),
    Case("timm DINOv3", "without a config", alone_case(
        "vit_small_plus_patch16_dinov3", img_size=224, patch_size=32), (3, 224, 224)),
    Case("DINOv3", "authors' names, masked biases of keys", dinov3_case("vit_small_patch16_dinov3_qkvb"),
         (3, 224, 224)),
    Case("DINOv3", "authors' names, SwiGLU", dinov3_case("vit_small_plus_patch16_dinov3_qkvb"), (3, 224, 224)),
    Case("Hugging Face DINOv3", "4 registers", _hf(
        "DINOv3ViTModel", "DINOv3ViTConfig", "pooler_output", num_register_tokens=4)),
    Case("Hugging Face DINOv3", "gated MLP, no registers", _hf(
        "DINOv3ViTModel", "DINOv3ViTConfig", "pooler_output", use_gated_mlp=True, hidden_act="silu")),
    Case("Hugging Face DINOv3", "biases of keys alone, another base, images of 16x40", _hf(
        "DINOv3ViTModel", "DINOv3ViTConfig", "pooler_output", key_bias=True, query_bias=False, value_bias=False,
        proj_bias=False, mlp_bias=False, rope_theta=50.0, image_size=[16, 40]), (3, 16, 40)),
    Case("timm EVA", "learned positions, mean-pooled", named_case("eva_giant_patch14_224")),
    Case("timm EVA", "CLIP's, class token", named_case("eva_giant_patch14_clip_224", 0)),
    Case("timm EVA-02", "SwiGLU in one layer", named_case("eva02_tiny_patch14_224")),
    Case("timm EVA-02", "queries, keys and values apart, SwiGLU with a norm", named_case("eva02_base_patch14_224")),
    Case("timm EVA-02", "without a config", alone_case("eva02_small_patch14_224")),
    Case("timm EVA-02 CLIP", "norms in attention and MLP", named_case("eva02_base_patch16_clip_224", 24)),
    Case("OpenCLIP EVA-02", "timm's image tower beside a text tower", timm_tower_case(
        "eva02_base_patch16_clip_224", "token", embed_dim=768, num_heads=12, depth=1)),
    Case("timm RoPE-ViT", "one register, mean-pooled", named_case("vit_medium_patch16_rope_reg1_gap_256")),
    Case("timm RoPE-ViT", "axial, images of 32x64", named_case(
        "vit_small_patch16_rope_224", img_size=(32, 64)), (3, 32, 64)),
    Case("timm RoPE-ViT", "mixed: frequencies of each head", named_case("vit_small_patch16_rope_mixed_224")),
    Case("timm RoPE-ViT", "axial and learned positions", named_case("vit_small_patch16_rope_ape_224")),
    Case("timm RoPE-ViT", "mixed and learned positions, images of 32x64", named_case(
        "vit_small_patch16_rope_mixed_ape_224", img_size=(32, 64)), (3, 32, 64)),
    Case("timm LingBot-Vision", "class token", named_case("vit_small_patch16_lingbot", 0)),
    Case("timm Perception Encoder", "language, nothing normalised at the end", named_case(
        "vit_pe_lang_large_patch14_448", 0)),
    Case("timm BEiT", "BEiT", named_case("beit_base_patch16_224")),
    Case("timm BEiT", "BEiT v2, images of 32x64", named_case("beitv2_base_patch16_224", img_size=(32, 64)),
         (3, 32, 64)),
    Case("timm BEiT", "without a config", alone_case("beit_base_patch16_224")),
    Case("timm BEiT", "one table for all blocks beside their own, learned positions", named_case(
        "beit_base_patch16_224", use_shared_rel_pos_bias=True, use_abs_pos_emb=True)),
    Case("timm BEiT 3", "norms in attention and MLP", named_case("beit3_base_patch16_224")),
    Case("Hugging Face BEiT", "BeitForImageClassification", _beit(use_relative_position_bias=True)),
    Case("Hugging Face BEiT", "one table for all blocks, class token", _beit(
        use_shared_relative_position_bias=True, use_mean_pooling=False)),
    Case("Hugging Face BEiT", "backbone without a head", _hf(
        "BeitModel", "BeitConfig", "pooler_output", use_relative_position_bias=True, use_mask_token=True)),
    Case("Hugging Face data2vec", "Data2VecVisionForImageClassification", _hf(
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", "logits", num_labels=7,
        use_relative_position_bias=True, use_shared_relative_position_bias=True)),
    Case("timm QK-norm", "queries and keys normalised", named_case("vit_tiny_patch16_224", qk_norm=True)),
    Case("timm QK-norm", "without a config", alone_case("vit_tiny_patch16_224", qk_norm=True, num_heads=4)),
    Case("timm registers", "mean of the patches, LayerScale, QK-norm", named_case(
        "vit_tiny_patch16_224", config=_MEAN, qk_norm=True, reg_tokens=4, init_values=0.5, **_MEAN, fc_norm=False)),
    Case("timm ViT", "no norm at the end", named_case("vit_tiny_patch16_224", final_norm=False)),
    Case("Hugging Face CLIP", "CLIPForImageClassification", clip_classifier_case()),
    Case("Hugging Face SigLIP 2", "heads of 72 features", _hf(
        "SiglipVisionModel", "SiglipVisionConfig", "pooler_output", hidden_size=144, num_attention_heads=2)),
    Case("Hugging Face I-JEPA", "IJepaModel, mean of the patches", encoder_case("IJepaModel", "IJepaConfig")),
    Case("Hugging Face I-JEPA", "IJepaForImageClassification", _hf(
        "IJepaForImageClassification", "IJepaConfig", "logits", num_labels=7)),
    Case("Hugging Face MAE", "ViTMAEModel", encoder_case("ViTMAEModel", "ViTMAEConfig", mask_ratio=0.0)),
    Case("Hugging Face MAE", "ViTMAEForPreTraining, decoder left out", pretraining_case()),
    Case("Hugging Face MSN", "ViTMSNForImageClassification", _hf(
        "ViTMSNForImageClassification", "ViTMSNConfig", "logits", num_labels=7)),
    Case("Hugging Face MSN", "ViTMSNModel", encoder_case("ViTMSNModel", "ViTMSNConfig")),
)  # fmt: skip
