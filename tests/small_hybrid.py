"""A small network of convolutions of all kinds, with attention's Linear layers behind them, as an ONNX file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn


class _Residual(nn.Module):
    def __init__(self, width: int, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class SmallHybrid(nn.Module):
    """A stem, an inverted bottleneck, a grouped convolution and one with no padding, then two Linear layers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.mixer = _Residual(
            width,
            nn.Conv2d(width, 2 * width, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width),
            nn.GELU(),
            nn.Conv2d(2 * width, width, 1),
        )
        self.grouped = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1, groups=4), nn.ReLU6())
        self.last = nn.Conv2d(2 * width, 2 * width, 2)
        self.mlp = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 32), nn.GELU(), nn.Linear(32, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.last(self.grouped(self.mixer(self.stem(x))))
        return self.mlp(features.flatten(2).transpose(1, 2)).mean(1)


def small_hybrid(path: Path, module: nn.Module | None = None, size: int = 32) -> Path:
    """Write a seeded ``module``, a ``SmallHybrid`` if none is given, to ``path``; it takes any number of images."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = SmallHybrid() if module is None else module
        for each in model.modules():
            if isinstance(each, nn.BatchNorm2d):
                nn.init.uniform_(each.weight, 0.5, 1.5)
                each.running_mean.normal_(0, 0.1)
                each.running_var.uniform_(0.5, 1.5)
        torch.onnx.export(
            model.eval(),
            torch.zeros(1, 3, size, size),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
        )
    return path
