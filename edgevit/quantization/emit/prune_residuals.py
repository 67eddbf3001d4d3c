"""Multiply fewer inputs twice, for engines that pay more for a second product than most of them are worth.

On a GPU a residual product (``rewrites.residual``) is one kernel more, and for one image a kernel takes its time
however small its matrices (benchmarks/results/tensorrt-kernels.md counts them). So only some are kept: how many is a
choice of time against accuracy. `python benchmarks/ablations.py SOURCE --dialect tensorrt --only KEPT ...` prints what
others would give, `python benchmarks/tensorrt_accuracy.py BUNDLE --data IMAGES` what the forms reach.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec
import onnx_ir as ir

from edgevit.graph.passes.prune_tokens import nodes_of_pooled_token
from edgevit.graph.saving import tidy
from edgevit.quantization.plan import QuantizationPlan
from edgevit.quantization.rewrites.residual import ends_mlp, find_residuals, prune_residuals, sees_token

#: From where to where, in shares of them, the products for one token alone are kept.
KEPT = (1 / 3, 2 / 3)


def most_effective_residuals(graph: ir.Graph) -> frozenset[str]:
    """Return the names of the layers whose residual products are worth a kernel each.

    - Those of layers that see several tokens, for all of them: as many as were asked for.
    - Of those that the ends of MLPs have for the one token that the head reads, the middle third (``KEPT``).
    - None of a layer that sees no other token, though it counts among those that the third is of.
    """
    chosen, residuals = nodes_of_pooled_token(graph), find_residuals(graph)
    alone = {each.layer.name for each in residuals if each.layer.matmul in chosen or not sees_token(each.layer, 0)}
    of_all = {each.layer.name for each in residuals if not each.of_token}
    of_token = [
        each.layer.name for each in residuals if each.of_token or (each.layer.name in alone and ends_mlp(each.layer))
    ]
    first, last = int(KEPT[0] * len(of_token)), math.ceil(KEPT[1] * len(of_token))
    return frozenset(of_all.union(of_token[first:last]) - alone)


def keep_residuals(model: ir.Model, plan: QuantizationPlan, kept: Collection[str]) -> QuantizationPlan:
    """Leave in ``model`` the residual products of the layers ``kept`` alone, and return the ``plan`` for that."""
    dropped = frozenset(prune_residuals(model.graph, kept))
    linears = tuple(linear for linear in plan.linears if linear.name not in dropped)
    if dropped:
        tidy(model)
    return msgspec.structs.replace(plan, linears=linears)
