"""The graph of a ``torch.nn.Module`` of any kind, as torch.onnx traces it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edgevit.errors import GraphError
from edgevit.graph.metadata import INPUT, OPSET
from edgevit.graph.onnx_file import shown_line
from edgevit.graph.torch_export import TRACING, only_real_warnings

_REMEDY = "make torch.export.export(module, (torch.zeros(2, C, H, W),)) work first, or export it to ONNX by other means"
_UNTRACED = (torch.onnx.OnnxExporterError, ir.passes.PassError, RuntimeError, ValueError, TypeError)
_KEEPS = r"The tensor attributes? .* assigned during export"  # by a hook, in what is a copy, and compared afterwards
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def trace_module(module: nn.Module, outputs: Sequence[str], name: str, shape: tuple[int, int, int]) -> ir.Model:
    """Return the graph of ``module``, called ``name``, with a batch of any size, or of one where it takes no other.

    ``shape`` is that of an image (C, H, W), and ``outputs`` what the tensors that the module gives are called.

    Attention in forms that torch.onnx does not take, such as Hiera's in windows, is written out for it.

    Raises:
        GraphError: if torch cannot trace it.
    """
    ways = [(any_size, form) for any_size in (True, False) for form in (nullcontext, AttentionWrittenOut)]
    with TRACING:
        for any_size, form in ways:
            try:
                with form():
                    return _traced(module, outputs, shape, any_size=any_size)
            except _UNTRACED as error:  # noqa: PERF203 - a try is nothing beside a trace
                failure = error
    raise GraphError(f"torch cannot trace {name}: {cause_of(failure)}", remedy=_REMEDY) from failure


def cause_of(error: BaseException) -> str:
    """Return one line that says what went wrong at first."""
    seen: set[int] = set()
    while error.__cause__ is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        error = error.__cause__
    return shown_line(_COLOUR.sub("", str(error)) or type(error).__name__)


class AttentionWrittenOut(TorchFunctionMode):
    """Has torch's attention as two products and a softmax in this thread, where nothing is dropped or causal.

    Rows of a mask that hide everything give NaN, which no file passes with, instead of 0.
    """

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - as torch has it
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Return what ``func`` does."""
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 - as torch has it
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002
) -> Tensor:
    if is_causal or enable_gqa or dropout_p:
        given = (query, key, value, attn_mask, dropout_p, is_causal)
        return functional.scaled_dot_product_attention(*given, scale=scale, enable_gqa=enable_gqa)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query * factor @ key.transpose(-2, -1)
    if attn_mask is not None:
        hides = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if hides else scores + attn_mask
    return scores.softmax(dim=-1) @ value


def _traced(module: nn.Module, outputs: Sequence[str], shape: tuple[int, int, int], *, any_size: bool) -> ir.Model:
    with only_real_warnings():
        warnings.filterwarnings("ignore", _KEEPS, UserWarning)
        program = torch.onnx.export(
            module,
            (torch.zeros(2 if any_size else 1, *shape, dtype=torch.float32, device="cpu"),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},) if any_size else None,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx gave no graph")
    if any_size and isinstance(_batch_of(program.model), int):  # some of torch's ways to trace fix it without a word
        raise RuntimeError("torch.onnx fixed the number of images")
    common.NameFixPass()(program.model)  # an output may be called as a value within is
    return program.model


def _batch_of(model: ir.Model) -> object:
    shape = model.graph.inputs[0].shape
    return None if shape is None else shape[0]
