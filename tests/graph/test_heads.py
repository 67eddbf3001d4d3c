"""Which layers of a graph with several outputs are its head."""

import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgevit.graph.heads import head_layers
from edgevit.graph.linears import find_linears
from edgevit.graph.passes.prune_tokens import pooled_token


class Detector(nn.Module):
    """A small encoder with a head for classes and boxes on its tokens, as DETR has it."""

    def __init__(self, width=32, head=32, several=True):
        super().__init__()
        self.several = several
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.hidden = nn.Linear(width, head)
        self.classes = nn.Linear(head, 5)
        self.boxes = nn.Linear(head, 4)

    def forward(self, images):
        hidden = torch.relu(self.hidden(self.encoder(self.patches(images).flatten(2).transpose(1, 2))))
        return (self.classes(hidden), self.boxes(hidden).sigmoid()) if self.several else self.classes(hidden[:, 0])


def graph_of(module, names, tmp_path):
    from edgevit.graph.external_onnx import write_verified
    from edgevit.graph.linears import load_graph
    from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx

    images = torch.zeros(2, 3, 32, 32)
    torch.manual_seed(0)
    path = tmp_path / "given.onnx"
    torch.onnx.export(
        module.eval(), (images,), path, dynamo=False, opset_version=17, output_names=names,
        dynamic_axes={"x": {0: "batch"}}, input_names=["x"],
    )  # fmt: skip
    model = open_onnx(path, "given.onnx", MetadataOverrides())
    write_verified(model, tmp_path / "model.onnx", torch.rand(3, 3, 32, 32).numpy())
    graph = load_graph(tmp_path / "model.onnx")
    ir.passes.common.ShapeInferencePass()(graph)
    return graph.graph, model


@pytest.mark.filterwarnings("ignore")
def test_the_head_is_what_comes_after_the_last_block(tmp_path):
    torch.manual_seed(0)
    graph, model = graph_of(Detector(), ["logits", "pred_boxes"], tmp_path)
    assert [(output.name, output.kind) for output in model.outputs] == [("logits", "scores"), ("pred_boxes", "boxes")]
    layers = [layer.name for layer in find_linears(graph)]
    assert head_layers(graph) == set(layers[-3:])
    assert len(layers) == 2 * 4 + 3
    assert pooled_token(graph) is None


@pytest.mark.filterwarnings("ignore")
def test_a_head_that_is_most_of_the_work_is_none(tmp_path):
    torch.manual_seed(0)
    graph, _ = graph_of(Detector(head=2048), ["logits", "pred_boxes"], tmp_path)
    assert head_layers(graph) == frozenset()


@pytest.mark.filterwarnings("ignore")
def test_a_classifier_has_no_head_of_this_kind(tmp_path):
    torch.manual_seed(0)
    graph, _ = graph_of(Detector(several=False), ["logits"], tmp_path)
    assert head_layers(graph) == frozenset()
