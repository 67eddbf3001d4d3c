"""A dialect: the form of Q/DQ nodes that reaches the integer kernels of an engine, and the functions that write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgevit.quantization.arithmetic import Scheme
    from edgevit.quantization.emit.rewrite import WeightBits
    from edgevit.quantization.plan import QuantizationPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LintProfile:
    """What a file is held to beside the rules that go for all versions of TensorRT (``lint.rules``).

    ``rules`` are names of rules of its own; ``newest_opset`` is the last one that its engine reads.
    """

    rules: tuple[str, ...] = ()
    newest_opset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What each module of a dialect declares as ``DIALECT``.

    ``scheme`` is how activations must be stored. The functions write a float32 ONNX file in the dialect to a path; None
    where it has no such form. Those that put attention in integers return the attentions that stay in float, with the
    reasons. ``lint`` is None where the engine tells itself what it does not take.
    """

    name: str
    scheme: Scheme
    emit: Callable[[Path, QuantizationPlan, Path, WeightBits], None]
    emit_float32: Callable[[Path, Path], None] | None = None
    emit_attention: Callable[[Path, QuantizationPlan, Path, WeightBits], Mapping[str, str]] | None = None
    emit_float8: Callable[[Path, QuantizationPlan, Path], None] | None = None
    emit_float8_attention: Callable[[Path, QuantizationPlan, Path], Mapping[str, str]] | None = None
    lint: LintProfile | None = None
