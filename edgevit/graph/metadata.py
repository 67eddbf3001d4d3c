"""What all float32 files of bundles have in common: names, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
import onnx_ir as ir

import edgevit
from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError
from edgevit.graph.node_facts import PRODUCTS, products_note
from edgevit.graph.products import products_in
from edgevit.json import JSONError, decode
from edgevit.models.outputs import Output
from edgevit.models.spec import AnySpec, OutputActivation

T = TypeVar("T")

#: Names of the input and the output; an embedding model's features are called logits too.
INPUT, OUTPUT = "images", "logits"

#: The first with a native Gelu.
OPSET = 20

#: Bytes of weights; a file of protobuf's is at most 2 GiB, and the graph around the weights needs some.
LARGEST_FILE = 2**31 - 2**20


def noted(properties: Mapping[str, str], key: str, kind: type[T]) -> T | None:
    """Return what ``add_metadata`` wrote as ``key`` into a file whose metadata is ``properties``; None if it did not.

    Raises:
        GraphError: if that cannot be understood, or contradicts itself.

    """
    text = properties.get(f"edgevit.{key}")
    if text is None:
        return None
    try:
        return decode(text, kind)
    except JSONError as error:
        raise GraphError(
            f"the file's own note on its {key} cannot be understood: {error}", remedy="export the model again"
        ) from error


def add_metadata(
    graph: ir.Model,
    spec: AnySpec,
    preprocess: Preprocess,
    labels: tuple[str, ...],
    activation: OutputActivation = "softmax",
    outputs: Sequence[Output] = (),
) -> None:
    """Write into the file's metadata what one must know to use it without EdgeViT; that softmax is used goes unsaid."""
    graph.producer_name = "edgevit"
    graph.producer_version = edgevit.__version__
    facts: dict[str, object] = {"spec": spec, "preprocess": preprocess, "labels": labels}
    if activation != "softmax":
        facts["activation"] = activation
    if outputs:
        facts["outputs"] = tuple(outputs)
    graph.metadata_props.clear()
    graph.metadata_props.update({f"edgevit.{key}": msgspec.json.encode(fact).decode() for key, fact in facts.items()})
    graph.metadata_props[PRODUCTS] = products_note(products_in(graph.graph))
