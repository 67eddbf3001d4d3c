"""A small classifier as plain ONNX, so that backends are tested without torch."""

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.data.preprocess import Preprocess
from edgevit.graph.node_facts import PRODUCTS, products_note
from edgevit.graph.products import products_in

TEXT = """<ir_version: 8, opset_import: ["": 20]>
g (float[batch, 1, 4, 4] images) => (float[batch, 3] logits) {
    x = Reshape(images, shape)
    a = MatMul(x, fc1_weight)
    b = Add(a, fc1_bias)
    c = Gelu(b)
    d = MatMul(c, head_weight)
    logits = Add(d, head_bias)
}"""


def graph():
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    for node in model.graph.node:  # with names as EdgeViT gives them, which the text cannot hold
        node.input[:] = [name.replace("_weight", ".weight") for name in node.input]
    constants = {
        "shape": np.array([-1, 16]),
        "fc1.weight": random.normal(size=(16, 8)).astype(np.float32),
        "fc1_bias": random.normal(size=8).astype(np.float32),
        "head.weight": random.normal(size=(8, 3)).astype(np.float32),
        "head_bias": random.normal(size=3).astype(np.float32),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "source.onnx"
    found = graph()
    products = products_note(products_in(ir.serde.from_proto(found).graph))
    found.metadata_props.add(key=PRODUCTS, value=products)
    onnx.save(found, path)
    return path


@pytest.fixture(scope="session")
def described(tmp_path_factory):
    """Return the classifier with metadata as ``edgevit export`` writes it."""
    path = tmp_path_factory.mktemp("described") / "source.onnx"
    wants = Preprocess(size=(4, 4), resize=None, mean=(0.3,), std=(0.2,), channel_order="L", interpolation="bilinear")
    facts = {"edgevit.preprocess": wants, "edgevit.labels": ("a cat", 'a "dog" & <bird>', "ça\tva")}
    model = graph()
    onnx.helper.set_model_props(model, {key: msgspec.json.encode(fact).decode() for key, fact in facts.items()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(1).normal(size=(5, 1, 4, 4)).astype(np.float32)
