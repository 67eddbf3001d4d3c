"""The exact rewrites as passes on one model in memory, in the order in which they are applied.

Each says when it is done (``precondition``), changes the model without changing what it computes, and says what ranges
the inputs of its Linear layers have then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from edgevit.data.preprocess import Preprocess
from edgevit.graph.linears import LinearLayer, as_it_is_now, find_linears
from edgevit.graph.metadata import noted
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.prune_tokens import pooled_token
from edgevit.graph.saving import tidy
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration.calibration_table import CalibrationTable, ChannelStatistics, TensorStatistics
from edgevit.quantization.planning.linear_plan import plan_linears
from edgevit.quantization.planning.smoothing import HEADROOM, choose_equalization, choose_migration
from edgevit.quantization.rewrites.activation_shift import shift_input
from edgevit.quantization.rewrites.attention_scale import fold_attention_scales
from edgevit.quantization.rewrites.channel_equalization import equalize_input, follows_activation
from edgevit.quantization.rewrites.patch_embedding import LEVELS, multiply_patches
from edgevit.quantization.rewrites.per_token_scale import add_per_token_scale, has_per_token_scale, least_divisor
from edgevit.quantization.rewrites.residual import add_residual_matmul, ending_layers, ends_mlp, sees_token
from edgevit.quantization.rewrites.smoothing_mappings import find_smoothing_mappings
from edgevit.recipes import NO_REWRITES, Observer, Rewrites

#: An input is shifted if that makes its largest magnitude smaller than this share of what it was. An Add costs
#: time, and this one gains 0.4 bits at least; how much is worth it is a choice (benchmarks/results/ablations.md).
WORTH_SHIFTING = 0.75

Ranges = dict[str, TensorStatistics]  # by Linear layer


@dataclass(frozen=True, slots=True)
class Options:
    """What the rewrites are for: how activations are stored, and what the recipe asks for.

    ``images`` is how many calibration saw.
    """

    scheme: Scheme
    images: int
    observer: Observer = "minmax"
    rewrites: Rewrites = NO_REWRITES


class RewritePass(Protocol):
    """A change to a model that leaves what it computes as it is."""

    name: str

    def precondition(self, options: Options) -> bool:
        """Say whether it is to be done at all."""
        ...

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:
        """Change ``model``, and the ``ranges`` of what its Linear layers read."""
        ...


class SmoothActivations:
    """Shifts and scales the channels of layers' inputs, where what makes them takes that into its own constants."""

    name = "smooth-activations"

    def precondition(self, options: Options) -> bool:  # noqa: ARG002
        """Always: it costs nothing when the model runs."""
        return True

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:
        """Scale by what ``rewrites.alpha`` says; the ranges are predicted from each channel's."""
        alpha = options.rewrites.alpha
        assert alpha != "auto"  # noqa: S101 - the search over ranges has found one
        channels = {name: seen.channels for name, seen in ranges.items() if seen.channels is not None}
        for mapping in find_smoothing_mappings(model.graph):
            weights = [as_it_is_now(consumer).weight for consumer in mapping.consumers]
            # A query's layer behind which one token is chosen was seen with that token alone.
            widest = max(mapping.consumers, key=lambda consumer: ranges[consumer.name].tokens)
            of_input = channels[widest.name]
            migration = choose_migration(of_input, weights, shiftable=mapping.shiftable, alpha=alpha)
            mapping.smooth(model.graph, migration.scale.astype(np.float32), migration.shift.astype(np.float32))
            for consumer in mapping.consumers:
                tokens = ranges[consumer.name].tokens
                ranges[consumer.name] = TensorStatistics.predicted(-migration.reach, migration.reach, tokens)


class FoldAttentionScales:
    """Folds the scale of attention into the layer that makes the query."""

    name = "fold-attention-scales"

    def precondition(self, options: Options) -> bool:  # noqa: ARG002
        """Always. It comes after smoothing: the search for scales counts errors by how large outputs are."""
        return True

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:  # noqa: ARG002
        """Change no range: inputs stay as they are."""
        fold_attention_scales(model.graph)


class EmbedPatches:
    """Puts a Linear layer in the place of the patch embedding, whose input are pixels then, 0 to 255."""

    name = "embed-patches"

    def precondition(self, options: Options) -> bool:
        """Unsigned integers alone hold pixels exactly."""
        return options.scheme == "asymmetric"

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:  # noqa: ARG002
        """Add the range of the new layer's input."""
        InferShapes()(model)
        preprocess = noted(model.metadata_props, "preprocess", Preprocess)
        name = None if preprocess is None else multiply_patches(model.graph, preprocess)
        if name is not None:
            ranges[name] = TensorStatistics.predicted(*LEVELS)


class ScaleTokens:
    """Divides each token behind an activation function by its largest value."""

    name = "per-token-scale"

    def precondition(self, options: Options) -> bool:
        """Where unsigned activations ask for it."""
        return options.scheme == "asymmetric" and options.rewrites.per_token_scale

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:
        """Predict ranges that end at 1."""
        for layer, channels in _behind_activations(model.graph, options.images, ranges):
            if layer.bias is not None and layer.addition is None:
                continue  # a Gemm's own bias would be multiplied by the token's scale
            least = least_divisor(channels)
            add_per_token_scale(model.graph, layer, least)
            low = HEADROOM * min(0.0, float(channels.minimum.min())) / least
            ranges[layer.name] = TensorStatistics.predicted(low, 1.0, ranges[layer.name].tokens)


class EqualizeChannels:
    """Divides the widest channels behind an activation function, by a Mul in front of the layer."""

    name = "channel-equalization"

    def precondition(self, options: Options) -> bool:
        """Where it is asked for, and tokens have no scales of their own."""
        scaled = options.scheme == "asymmetric" and options.rewrites.per_token_scale
        return options.rewrites.channel_equalization > 0 and not scaled

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:
        """Predict the ranges that are left."""
        for layer, channels in _behind_activations(model.graph, options.images, ranges):
            equalization = choose_equalization(channels, options.rewrites.channel_equalization)
            equalize_input(model.graph, layer, equalization.scale.astype(np.float32))
            tokens = ranges[layer.name].tokens
            ranges[layer.name] = TensorStatistics.predicted(equalization.low, equalization.high, tokens)


class ShiftActivations:
    """Puts an Add in front of each Linear layer whose input is one-sided, so that it lies around 0."""

    name = "activation-shift"

    def precondition(self, options: Options) -> bool:
        """For signed integers, half of which no one-sided input would use."""
        return options.scheme == "symmetric"

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:
        """Shift the ranges."""
        for layer in find_linears(model.graph):
            seen = ranges[layer.name]
            low, high = seen.range(options.observer)
            if layer.bias is not None and high - low < 2 * WORTH_SHIFTING * max(abs(low), abs(high)):
                shift = (low + high) / 2
                shift_input(model.graph, layer, shift)
                ranges[layer.name] = seen.shifted(shift)


class AddResiduals:
    """Gives the layers that a recipe names a second product, of what rounding leaves of their input."""

    name = "residual-quantization"

    def precondition(self, options: Options) -> bool:
        """Where it is asked for; the scales of all inputs must be known, so it is the last."""
        return bool(options.rewrites.residual_layers or options.rewrites.residual_token_layers)

    def apply(self, model: ir.Model, ranges: Ranges, options: Options) -> None:
        """Add the ranges of the second products' inputs: half a step to either side."""
        planned = plan_linears(model.graph, ranges, options.scheme, options.observer)
        quantizations = {linear.name: linear.quantization for linear in planned}
        InferShapes()(model)
        for layer, token in _residual_layers(model.graph, ranges, options):
            quantization = quantizations[layer.name]
            if quantization is not None:
                name = add_residual_matmul(model.graph, layer, quantization, token)
                half = quantization.activation_scale / 2
                ranges[name] = TensorStatistics.predicted(-half, half)


#: Exact to float32's last digits; the model may be compared with what it was after them.
SMOOTHING: tuple[RewritePass, ...] = (SmoothActivations(), FoldAttentionScales())
#: A large shift costs digits of float32.
FITTING: tuple[RewritePass, ...] = (EmbedPatches(), ScaleTokens(), EqualizeChannels(), ShiftActivations())
REFINING: tuple[RewritePass, ...] = (AddResiduals(),)


def apply_passes(
    model: ir.Model, table: CalibrationTable, options: Options, passes: Sequence[RewritePass]
) -> CalibrationTable:
    """Apply those of ``passes`` whose preconditions hold to ``model``; return ``table`` with the ranges to expect then.

    Raises:
        GraphError: if it has no Linear layers, or its note on how images are preprocessed cannot be understood.

    """
    ranges = dict(table.inputs)
    for each in passes:
        if each.precondition(options):
            each.apply(model, ranges, options)
            tidy(model)
    return table.with_ranges(ranges)


def _behind_activations(
    graph: ir.Graph, images: int, ranges: Ranges
) -> Iterator[tuple[LinearLayer, ChannelStatistics]]:
    """Yield the layers that read what an activation function gives, with what calibration saw of its channels.

    Of layers that see a single token of each image too few values are known to tell which channels are wide.
    """
    for layer in find_linears(graph):
        seen = ranges[layer.name]
        if seen.channels is not None and seen.tokens > images and follows_activation(layer.input):
            yield layer, seen.channels


def _residual_layers(graph: ir.Graph, ranges: Ranges, options: Options) -> list[tuple[LinearLayer, int | None]]:
    """Return the layers to quantize twice, with the token to do so for, None for all that they see.

    Where the head reads one token of each image, the layers behind the last attention see that token alone: for them a
    second product is one row, too.
    """
    rewrites, ending = options.rewrites, ending_layers(graph)
    mlps = [layer for layer in ending if ends_mlp(layer)]
    scaled = {layer.name for layer in ending if has_per_token_scale(layer)}
    chosen: dict[str, tuple[LinearLayer, int | None]] = {}
    token = pooled_token(graph)
    if token is not None and rewrites.residual_token_layers:
        last = mlps[len(mlps) - _blocks(rewrites.residual_token_layers, len(mlps)) :]
        of_token = (layer for layer in last if sees_token(layer, token.number))
        chosen |= {layer.name: (layer, token.number) for layer in of_token}
    if rewrites.residual_token_layers:
        seen_once = {name for name, one in ranges.items() if one.tokens == options.images}
        chosen |= {layer.name: (layer, None) for layer in find_linears(graph) if layer.name in seen_once}
    first = mlps[: _blocks(rewrites.residual_layers, len(mlps))]
    if first:  # a block ends with its MLP
        until = next(index for index, layer in enumerate(ending) if layer.name == first[-1].name)
        chosen |= {layer.name: (layer, None) for layer in ending[: until + 1]}
    return [(layer, only) for layer, only in chosen.values() if layer.name not in scaled]


def _blocks(share: float, depth: int) -> int:
    """Return how many blocks a ``share`` of the ``depth`` is, rounded up; 0.07 of 100 is 7, in floats as well."""
    return math.ceil(round(share * depth, 9))
