"""What all float32 files of bundles have in common: names, and what they say of themselves."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

import edgevit
from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import AnySpec

#: Names of the input and the output; an embedding model's features are called logits too.
INPUT, OUTPUT = "images", "logits"

#: The first with a native Gelu.
OPSET = 20

#: Bytes of weights; a file of protobuf's is at most 2 GiB, and the graph around the weights needs some.
LARGEST_FILE = 2**31 - 2**20


def describe(graph: ir.Model, spec: AnySpec, preprocess: Preprocess, labels: tuple[str, ...]) -> None:
    """Write into the file's metadata what one must know to use it without EdgeViT."""
    graph.producer_name = "edgevit"
    graph.producer_version = edgevit.__version__
    facts = {"spec": spec, "preprocess": preprocess, "labels": labels}
    graph.metadata_props.clear()
    graph.metadata_props.update({f"edgevit.{key}": msgspec.json.encode(fact).decode() for key, fact in facts.items()})
