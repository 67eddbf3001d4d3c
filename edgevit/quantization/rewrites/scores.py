"""Rewrite the layers that make queries and keys, so that softmax(s Q K^T) stays and Q and K are easier to round.

- Balance: each channel of K is shifted by c and divided by t, that of Q multiplied by t. A shift of all keys adds the
  same to all scores of a query, which softmax takes out again; the factors cancel. (Equalisation of two layers that
  follow each other, as Nagel et al. 2019; a shift as in Outlier Suppression+, Wei et al. 2023.)
- Fold the scale s into Q: a multiplication less for each token, and the form in which TensorRT knows attention whose
  products are in integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.attention import Attention, find_attentions
from edgevit.quantization.linears import LinearLayer, as_it_is_now, linears_in
from edgevit.quantization.rewrites.constants import set_linear
from edgevit.quantization.smoothing import ChannelStatistics

#: A channel narrower than this share of the widest is not widened: it adds next to nothing to a score.
_NARROWEST = 1e-3


@dataclass(frozen=True, slots=True)
class Projection:
    """The outputs ``columns`` of a Linear layer, which are an attention's queries or keys and nothing else."""

    layer: LinearLayer
    columns: slice

    def move(self, graph: ir.Graph, factor: NDArray[np.float32] | float, shift: NDArray[np.float32] | float) -> None:
        """Make factor (y - shift) of what was y; a shift needs a bias."""
        layer = as_it_is_now(self.layer)  # other columns of it may have been rewritten
        weight, bias = layer.weight.copy(), None if layer.bias is None else layer.bias.copy()
        weight[:, self.columns] *= factor
        if bias is not None:
            bias[self.columns] = (bias[self.columns] - shift) * factor
        set_linear(graph, layer, weight, bias)


def tokens_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return the queries and keys (B, N, D) of each attention: ``ATTENTION.query``, ``.key``."""
    found: dict[str, ir.Value] = {}
    for attention in find_attentions(graph):
        found |= {f"{attention.name}.query": attention.query, f"{attention.name}.key": attention.key}
    return found


def balance_scores(graph: ir.Graph, channels: Mapping[str, ChannelStatistics]) -> None:
    """Give each channel of the keys a range around 0, and the same range to queries and keys.

    ``channels`` are those of ``tokens_of``; attentions that are not among them stay as they are.
    """
    for attention, query, key in _projected(graph):
        if f"{attention.name}.query" not in channels:
            continue
        queries, keys = channels[f"{attention.name}.query"], channels[f"{attention.name}.key"]
        shift = (keys.minimum + keys.maximum) / 2 if key.layer.bias is not None else np.zeros_like(keys.minimum)
        wide = np.maximum(queries.maximum, -queries.minimum) * abs(attention.scale)
        reach = np.maximum(keys.maximum - shift, shift - keys.minimum)
        factor = np.sqrt(_floored(reach) / _floored(wide)).astype(np.float32)
        query.move(graph, factor, 0.0)
        key.move(graph, np.reciprocal(factor), shift.astype(np.float32))


def _floored(reach: NDArray[np.float64]) -> NDArray[np.float64]:
    widest = float(reach.max())
    return np.maximum(reach, _NARROWEST * widest) if widest > 0 else np.ones_like(reach)


def fold_scales(graph: ir.Graph) -> bool:
    """Let the layers that make queries make them scaled; say whether there was any.

    An attention stays as it is if its query comes from anything else than a Linear layer, or is used elsewhere too.
    """
    changed = False
    for attention, query, _ in _projected(graph):
        if attention.scaling is not None:
            query.move(graph, attention.scale, 0.0)
            unscaled = next(
                value for value in attention.scaling.inputs if value is not None and not _is_constant(value)
            )
            ir.convenience.replace_all_uses_with(attention.scaling.outputs[0], unscaled)
            graph.remove(attention.scaling, safe=True)
            changed = True
    return changed


def _projected(graph: ir.Graph) -> Iterator[tuple[Attention, Projection, Projection]]:
    """Yield the attentions whose queries and keys come from Linear layers and go nowhere else, with where from."""
    layers = {layer.output: layer for layer in linears_in(graph)}
    for attention in find_attentions(graph):
        packed = attention.packed()
        wholes = (attention.query, attention.key) if packed is None else (packed, packed)
        private = all(map(_is_private, (attention.query, attention.key, *wholes)))
        query, key = (layers.get(whole) for whole in wholes)
        if not private or query is None or key is None:
            continue
        size = query.weight.shape[1] if packed is None else query.weight.shape[1] // 3
        first = slice(0, size)
        yield attention, Projection(query, first), Projection(key, first if packed is None else slice(size, 2 * size))


def _is_private(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_constant(value: ir.Value) -> bool:
    return ir.convenience.get_const_tensor(value) is not None
