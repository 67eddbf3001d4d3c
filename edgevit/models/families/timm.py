"""timm's ViT and DeiT in all variants that ``vision_transformer.py`` has, and checkpoints of their authors."""

from __future__ import annotations

import re

from edgevit.models.config import Config, TimmArgs
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.families.base import Converted, Family, Raw, rename
from edgevit.models.spec import Activation

#: DeiT III as its authors published it names LayerScale so; timm 1.0 has LayerScale as modules.
_RULES = {r"(blocks\.\d+)\.gamma_([12])": r"\1.ls\2.gamma"}

#: SigLIP 2 trained these architectures, with the approximate GELU.
_TANH = r"vit_(base_patch32|so400m_patch16|giantopt_patch16|large_patch16)_siglip_.*"
_EXACT = r"vit_large_patch16_siglip_(gap_)?(256|384)"


def convert(raw: Raw) -> Converted:
    """Keep the names."""
    weights, _ = rename(raw.weights, _RULES)
    config, cfg = raw.config, raw.config.pretrained_cfg
    clip = "norm_pre.weight" in weights
    pool = (config.model_args or TimmArgs()).global_pool or config.global_pool
    return Converted(
        weights,
        norm_epsilon=1e-5 if clip else 1e-6,
        activation=_activation(config),
        image_size=cfg.input_size[1:] if cfg and cfg.input_size else None,
        mean_pooling=pool == "avg",
        notes=("assumed GELU; OpenAI's CLIP models have QuickGELU, as their config.json would say",)
        if clip and config.architecture is None
        else (),
    )


def _activation(config: Config) -> Activation:
    named: dict[str | None, Activation] = {"quick_gelu": "quick_gelu", "gelu_tanh": "gelu_tanh"}
    given = (config.model_args or TimmArgs()).act_layer
    architecture = (config.architecture or "").split(".")[0]
    if given in named:
        return named[given]
    if "quickgelu" in architecture:
        return "quick_gelu"
    return "gelu_tanh" if re.fullmatch(_TANH, architecture) and not re.fullmatch(_EXACT, architecture) else "gelu"


FAMILY = Family(
    "timm ViT or DeiT",
    (r"patch_embed\.proj\.weight", r"pos_embed", r"blocks\.0\.attn\.qkv\.weight", r"blocks\.0\.norm1\.weight"),
    convert,
    Defaults(IMAGENET, 256 / 224),
)
