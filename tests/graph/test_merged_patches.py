"""Which patches end in one token: held against torch's own merging, and against how many patches tokens stand for."""

import numpy as np
import pytest
import torch
from tiny import SCHEDULES

from edgevit.bundle.store import Bundle
from edgevit.errors import GraphError
from edgevit.graph.linears import open_graph
from edgevit.graph.merged_patches import merged_patches
from edgevit.models import token_merging
from edgevit.models.loading import load_checkpoint


@pytest.fixture(scope="module")
def images(tiny_exported):
    """Return the golden images, each (1, C, H, W)."""
    bundle = Bundle.open(tiny_exported)
    return [bundle.manifest.preprocess(image)[None] for image in bundle.golden().images]


def by_torch(checkpoint, images, schedule, monkeypatch):
    """Return what torch's model knows of its merged tokens behind the last block."""
    seen = []

    def restore(self, tokens):
        seen.append(self)
        return tokens

    monkeypatch.setattr(token_merging.MergedTokens, "restore", restore)
    model = token_merging.MergingVisionTransformer(load_checkpoint(str(checkpoint)).model(), schedule).eval()
    with torch.inference_mode():
        model(torch.from_numpy(np.concatenate(images)))
    return seen[-1]


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), (1, 3), (0, 5)])
def test_they_are_those_of_torchs_model(tiny_exported, tiny_checkpoint, images, schedule, monkeypatch):
    expected = by_torch(tiny_checkpoint, images, schedule, monkeypatch)
    with open_graph(Bundle.open(tiny_exported).verify_float32().path) as model:
        found = merged_patches(model, schedule, images)
    assert found.prefix == 1
    assert found.numbers.shape == (len(images), 16)
    assert np.array_equal(found.numbers, expected.places.numpy()[:, 1:])
    for numbers, sizes in zip(found.numbers, expected.sizes.numpy(), strict=True):
        assert np.array_equal(np.bincount(numbers, minlength=len(sizes))[1:], sizes[1:, 0])
        assert len(set(numbers.tolist())) == 16 - sum(schedule)


def test_a_model_that_gives_tokens_merges_the_same(tiny_dense, tiny_exported, images):
    found = []
    for path in (tiny_dense, tiny_exported):
        with open_graph(Bundle.open(path).verify_float32().path) as model:
            found.append(merged_patches(model, SCHEDULES[0.6], images).numbers)
    assert np.array_equal(*found)


def test_a_schedule_that_does_not_fit_is_refused_and_the_model_stays(tiny_exported, images):
    with open_graph(Bundle.open(tiny_exported).verify_float32().path) as model:
        nodes = len(model.graph)
        with pytest.raises(GraphError, match="of 3 blocks, the model has 2"):
            merged_patches(model, (1, 1, 1), images)
        assert np.array_equal(merged_patches(model, (0, 0), images).numbers[0], np.arange(1, 17))
        assert len(model.graph) == nodes
