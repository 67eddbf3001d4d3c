"""A dialect: the form of Q/DQ nodes that reaches the integer kernels of an engine, and the functions that write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.quantization.arithmetic import Scheme
    from edgevit.quantization.emit.rewrite import Passes, WeightBits
    from edgevit.quantization.engine_file import Emitted
    from edgevit.quantization.plan import QuantizationPlan


#: Returns why an engine would make no single kernel of attention in INT8 by its head's features and its tokens; None if
#: it does.
UnfusedReason = Callable[[int, int], "str | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LintProfile:
    """What a file is held to beside the rules that go for all versions of TensorRT (``lint.tensorrt_rules``).

    ``rules`` are names of rules of its own; ``newest_opset`` is the last one that its engine reads. Without
    ``unfused_reason`` attention of any size passes.
    """

    rules: tuple[str, ...] = ()
    newest_opset: int | None = None
    unfused_reason: UnfusedReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What each module of a dialect declares as ``DIALECT``.

    ``scheme`` is how activations must be stored. The functions write an optimized model, which is used up, in the
    dialect to a path; ``float32_passes`` are what makes a float32 graph the form that its engine runs fastest. Each is
    None where there is no such form. ``convolutions`` says whether it has a form for them in integers, ``pads_tokens``
    whether it can add rows to the tokens, where a plan says so. ``lint`` is None where the engine tells itself what it
    does not take.
    """

    name: str
    scheme: Scheme
    emit: Callable[[ir.Model, QuantizationPlan, Path, WeightBits], Emitted]
    float32_passes: Callable[[], Passes] | None = None
    emit_attention: Callable[[ir.Model, QuantizationPlan, Path, WeightBits], Emitted] | None = None
    emit_float8: Callable[[ir.Model, QuantizationPlan, Path], Emitted] | None = None
    emit_float8_attention: Callable[[ir.Model, QuantizationPlan, Path], Emitted] | None = None
    convolutions: bool = False
    pads_tokens: bool = False
    lint: LintProfile | None = None
