"""What is taken of all that a module may give."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from edgevit.errors import GraphError
from edgevit.graph.module_outputs import ModuleOutputs

IMAGES = torch.arange(96, dtype=torch.float32).reshape(2, 3, 4, 4)
ROWS, MAPS = IMAGES.flatten(1), IMAGES[:, :1]


class Pair(NamedTuple):
    depth: torch.Tensor
    mask: torch.Tensor | None


class Gives(nn.Module):
    def __init__(self, given):
        super().__init__()
        self.given = given

    def forward(self, _images):
        return self.given


@pytest.mark.parametrize(
    ("given", "wanted", "names"),
    [
        (ROWS, (), ["logits"]),
        ([MAPS], (), ["output"]),
        ((ROWS, MAPS), (), ["output_0", "output_1"]),
        (Pair(MAPS, MAPS), (), ["depth", "mask"]),
        (Pair(MAPS, None), (), ["depth"]),
        ((ROWS, None), (), ["logits"]),
        ([None, MAPS, None, ROWS], (), ["output_1", "output_3"]),
        ({"logits": ROWS, "tokens": MAPS, "loss": None}, (), ["logits"]),
        ({"logits": ROWS, "tokens": MAPS, "states": (ROWS,)}, ["tokens"], ["tokens"]),
        ({"logits": MAPS, "depth": MAPS}, (), ["logits", "depth"]),
    ],
)
def test_the_outputs_that_are_meant(given, wanted, names):
    outputs = ModuleOutputs(Gives(given), "Gives", wanted)
    assert len(outputs(IMAGES)) == len(names)
    assert list(outputs.names) == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Gives gives no tensors"),
        ({"logits": None}, "gives no tensors"),
        ((None, None), "gives no tensors"),
        (None, "gives a NoneType, not a tensor"),
        ({1: ROWS, "1": MAPS}, "two outputs under one name, of 1, 1"),
        ({"images": ROWS, "other": MAPS}, "calls an output 'images'"),
        ({"": ROWS, "other": MAPS}, "calls an output ''"),
        (ROWS.to_sparse(), "output 'logits' of Gives is sparse"),
        ({"depth": MAPS, "wave": MAPS.to(torch.complex64)}, "output 'wave' of Gives is complex"),
    ],
)
def test_outputs_that_cannot_be_taken(given, said):
    with pytest.raises(GraphError, match=said) as caught:
        ModuleOutputs(Gives(given), "Gives")(IMAGES)
    assert caught.value.remedy


def test_the_images_are_left_as_they_are():
    outputs = ModuleOutputs(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()), "Rectifies")
    images = torch.full((1, 3, 4, 4), -1.0)
    (found,) = outputs(images)
    assert (found == 0).all()
    assert (images == -1).all()


def test_an_output_that_is_not_there():
    outputs = ModuleOutputs(Gives({"logits": ROWS, "tokens": MAPS, "states": (ROWS,)}), "Gives", ["tokns"])
    with pytest.raises(GraphError, match="Gives has no output 'tokns'") as caught:
        outputs(IMAGES)
    assert "one of: logits, tokens" in caught.value.remedy
