"""timm's models that do not load from weights, small and with seeded weights: they are exported as modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from oracles import import_timm
from seeding import BRANCH, seed_as_trained
from synthetic_images import pictures
from torch import Tensor, nn

_STATISTICS = 32  # images that BatchNorm sees


@dataclass(frozen=True)
class ModuleCase:
    """``architecture`` is timm's name, ``options`` make it smaller; ``size`` is the image's edge."""

    family: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 64

    @property
    def name(self) -> str:
        return f"{self.family}: {self.architecture}"

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        model = import_timm().create_model(self.architecture, pretrained=False, num_classes=7, **self.options)
        with torch.no_grad():
            others = (module for module in model.modules() if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d))
            for name, values in (each for module in others for each in module.named_parameters(recurse=False)):
                if not values.any() and name != "bias":  # norms that switch a branch off, positions in attention
                    values.uniform_(0.5, 1.5)
            # timm starts many heads near 0, where nothing could be told
            head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
            nn.init.normal_(head.weight, std=head.in_features**-0.5)
        return seed_as_trained(model, self.normalised_images(_STATISTICS, seed=5), branches=BRANCH)

    def normalised_images(self, count: int, *, seed: int) -> Tensor:
        """Return images (count, 3, size, size) of the kind that BatchNorm's statistics are of.

        Of noise, which is another kind, some of these networks make such numbers that float32 is off by per cents.
        """
        shown = np.stack(pictures((3, self.size, self.size), count, seed=seed))
        return (torch.from_numpy(shown).movedim(-1, 1) / 255 - 0.45) / 0.225


_SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 32, "depths": (1, 2), "num_heads": (1, 2)}
MODULES = (
    ModuleCase("Swin", "swin_tiny_patch4_window7_224", _SWIN),
    ModuleCase("Swin V2", "swinv2_tiny_window8_256", _SWIN),
    ModuleCase("Hiera", "hiera_tiny_224", {"img_size": 64, "embed_dim": 32, "stages": (1, 1, 1, 1)}),
    ModuleCase("TinyViT", "tiny_vit_5m_224", {
        "embed_dims": (32, 32, 64, 64), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}),
    ModuleCase("MobileViT", "mobilevit_xxs"),
    ModuleCase("MobileViT V2", "mobilevitv2_050"),
    ModuleCase("FastViT", "fastvit_t8", {"layers": (1, 1, 1, 1)}),
    ModuleCase("MobileCLIP", "fastvit_mci0"),
    ModuleCase("EfficientViT (MIT)", "efficientvit_b0"),
    ModuleCase("EfficientViT (MSRA)", "efficientvit_m0", size=224),
    ModuleCase("EfficientFormer", "efficientformer_l1", size=224),
    ModuleCase("EfficientFormer V2", "efficientformerv2_s0", size=224),
    ModuleCase("LeViT", "levit_128s", size=224),
    ModuleCase("CaiT", "cait_xxs24_224", {"img_size": 64, "depth": 2}),
    ModuleCase("XCiT", "xcit_nano_12_p16_224", {"img_size": 64, "depth": 2}),
    ModuleCase("PiT", "pit_ti_224", {"img_size": 64}),
    ModuleCase("PVT V2", "pvt_v2_b0"),
    ModuleCase("EdgeNeXt", "edgenext_xx_small"),
    ModuleCase("RepViT", "repvit_m0_9"),
    ModuleCase("ConViT", "convit_tiny", {"img_size": 64, "depth": 2}),
)  # fmt: skip
