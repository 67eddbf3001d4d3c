"""How the names of models' files end."""

from __future__ import annotations

#: timm's training writes .pth.tar, which is no archive of files.
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
#: Files of weights.
WEIGHTS = (".safetensors", *PICKLES, ".npz")
#: What ``edgevit export`` takes.
MODELS = (*WEIGHTS, ".onnx")
