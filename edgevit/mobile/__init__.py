"""Hand-over to the engines of phones: LiteRT, ExecuTorch, ncnn and Core ML, each by its own converter and quantizer.

All start from the bundle's float32 graph, which ``graph.torch_module`` makes a torch module of. The tools run in a
process of their own (``worker``): they write where they like, and what they load stays there.
"""

from __future__ import annotations

from typing import Literal, get_args

MobileFormat = Literal["coreml", "executorch", "litert", "ncnn"]
#: What a tool's own quantizer makes: weights and activations in integers, or small weights alone.
Quantized = Literal["int8", "int8-weights"]
HandedPrecision = Literal["float32", "int8", "int8-weights"]
#: Changes to the graph that leave its answers as they are, and that a quantizer may gain by.
Rewrite = Literal["rotated", "smoothed"]
MOBILE_FORMATS: tuple[MobileFormat, ...] = get_args(MobileFormat)
