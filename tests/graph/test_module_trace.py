"""Modules as torch.onnx traces them; torch itself is the oracle."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgevit.graph.metadata import INPUT
from edgevit.graph.module_trace import AttentionWrittenOut, cause_of, trace_module


class Windows(nn.Module):
    """Attention within windows: of five axes, which torch.onnx does not take."""

    def __init__(self, mask=None):
        super().__init__()
        self.tokens = nn.Linear(48, 16)
        self.mask = mask

    def forward(self, images):
        x = self.tokens(images.reshape(images.shape[0], 1, 4, 4, 48))
        return (functional.scaled_dot_product_attention(x, x.tanh(), x, attn_mask=self.mask).mean(dim=(1, 2, 3)),)


MASKS = [None, torch.linspace(-2, 2, 16).reshape(4, 4), torch.arange(16).reshape(4, 4) % 3 > 0]


def answers(graph, folder, images):
    ir.save(graph, folder / "traced.onnx")
    return onnxruntime.InferenceSession(folder / "traced.onnx").run(None, {INPUT: images})


@pytest.mark.parametrize("mask", MASKS, ids=["all", "biased", "hidden"])
def test_attention_that_torch_onnx_does_not_take_is_written_out(tmp_path, mask):
    torch.manual_seed(0)
    module = Windows(mask).eval()
    graph = trace_module(module, ["features"], "Windows", (3, 16, 16))
    assert not isinstance(graph.graph.inputs[0].shape[0], int)
    images = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        np.testing.assert_allclose(answers(graph, tmp_path, images.numpy())[0], module(images)[0], atol=1e-5)


def test_a_module_that_writes_its_batch_into_the_graph_is_traced_with_one_image(tmp_path):
    class Flattens(nn.Module):
        def forward(self, images):
            return (images.view(int(images.shape[0]), -1)[:, ::7],)

    graph = trace_module(Flattens().eval(), ["features"], "Flattens", (3, 4, 4))
    assert graph.graph.inputs[0].shape[0] == 1
    image = np.random.default_rng(0).random((1, 3, 4, 4), dtype=np.float32)
    np.testing.assert_array_equal(answers(graph, tmp_path, image)[0], image.reshape(1, -1)[:, ::7])


def test_attention_is_written_out_in_one_thread_alone():
    query = torch.ones(1, 1, 4, 8, requires_grad=True)

    def last_step(**given):
        return functional.scaled_dot_product_attention(query, query, query, **given).grad_fn.name()

    fused = last_step()
    with AttentionWrittenOut(), ThreadPoolExecutor(1) as pool:
        assert last_step() != fused
        assert last_step(is_causal=True) == fused
        assert pool.submit(last_step).result() == fused
    assert last_step() == fused


def test_attention_that_is_written_out_keeps_its_dropout():
    query = torch.ones(1, 1, 4, 8)
    with AttentionWrittenOut():
        dropped = functional.scaled_dot_product_attention(query, query, query, dropout_p=0.9)
        kept = functional.scaled_dot_product_attention(query, query, query)
    assert not torch.allclose(dropped, query)
    assert torch.allclose(kept, query)


def test_the_first_cause_is_said_also_of_errors_that_are_raised_from_themselves():
    first, later, circle = ValueError("first"), RuntimeError("later"), RuntimeError("circle")
    later.__cause__, circle.__cause__ = first, circle
    assert (cause_of(later), cause_of(circle)) == ("first", "circle")
