"""Rewrite a file of others to the form that EdgeViT's own exports have."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.metadata import OUTPUT
from edgevit.graph.passes.canonical_attention import CanonicalAttention
from edgevit.graph.passes.fix_shapes import FixShapes
from edgevit.graph.passes.fold_batch_norms import FoldBatchNorms
from edgevit.graph.passes.fold_convolutions import FoldConvolutions
from edgevit.graph.passes.fuse_gelu import FuseGelu
from edgevit.graph.passes.fuse_layer_norm import FuseLayerNorm
from edgevit.graph.passes.gemm_to_linear import GemmToLinear
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.name_uniquely import NameUniquely
from edgevit.graph.passes.sink_layouts import SinkLayouts
from edgevit.graph.passes.unflatten_softmax import UnflattenSoftmax


class Canonicalize(ir.passes.InPlacePass):
    """Gives sizes, LayerNorm, GELU, Linear layers and attention the form that rewrites, dialects and fusions look for.

    Convolutions and Linear layers take in what scales their channels, and convolutions of the same values are added up.
    Outputs are called
    ``names``. The graph is asked with each of ``sizes`` images what it computes. Whoever runs the pass must compare
    what the graph gives then with what it gave before.
    """

    def __init__(self, sizes: Sequence[int], names: Sequence[str] = (OUTPUT,)) -> None:
        super().__init__()
        self._sizes, self._names = sizes, names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        ir.passes.Sequential(
            NameUniquely(self._names),
            FoldConvolutions(),
            common.RemoveUnusedNodesPass(),
            FuseLayerNorm(),
            InferShapes(),
            FixShapes(self._sizes),
            UnflattenSoftmax(),
            common.RemoveUnusedNodesPass(),
            GemmToLinear(),
            FoldBatchNorms(),
            common.RemoveUnusedNodesPass(),
            FuseGelu(),
            common.RemoveUnusedNodesPass(),
            SinkLayouts(),
            common.RemoveUnusedNodesPass(),
            CanonicalAttention(self._sizes),
            common.RemoveUnusedNodesPass(),
            SinkLayouts(),
            common.RemoveUnusedNodesPass(),
        )(model)
        for node in model.graph:
            for value in node.outputs:
                value.shape = None
        return ir.passes.PassResult(model, modified=True)
