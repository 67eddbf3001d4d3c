"""Modules that are refused before they are traced, or have something unusual about them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from edgevit.errors import GraphError, StorageError
from edgevit.graph.metadata_overrides import MetadataOverrides
from edgevit.graph.module import module_file

SHAPE = (3, 4, 4)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


def sparse():
    module = linear()
    module[1].weight = nn.Parameter(module[1].weight.data.to_sparse())
    return module


class CannotBeCopied(nn.Flatten):
    def __deepcopy__(self, memo):
        raise ValueError("one of a kind")


class IsItsCopy(nn.Flatten):
    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (sparse, "Sequential has sparse weights"),
        (CannotBeCopied, "CannotBeCopied cannot be copied: one of a kind"),
        (lambda: nn.Sequential(IsItsCopy()), "its copy shares modules with it"),
    ],
)
def test_modules_that_are_refused(module, said, tmp_path):
    given = module()
    with pytest.raises(GraphError, match=said) as caught:
        module_file(given, SHAPE, tmp_path)
    assert caught.value.remedy
    assert given.training


def test_no_room_for_the_file(tmp_path):
    with pytest.raises(StorageError):
        module_file(linear(), SHAPE, tmp_path / "missing")


@pytest.mark.parametrize("name", ["a/b", "a" * 300, "Linear\x1b"])
def test_classes_of_any_name(name, tmp_path):
    kind = type("Named", (nn.Sequential,), {})
    kind.__name__ = name
    file = module_file(kind(nn.Flatten()), SHAPE, tmp_path)
    assert file.path.is_file()
    assert file.name.isprintable()


def weight_normed():
    module = linear()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(module[1])
    return module


def pruned():
    module = linear()
    prune.l1_unstructured(module[1], "weight", amount=0.5)
    return module


@pytest.mark.parametrize("kind", [weight_normed, pruned])
def test_modules_that_keep_weights_which_they_compute(kind, tmp_path):
    module = kind()
    file = module_file(module, SHAPE, tmp_path)
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    expected = module(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(file.infer(images, ["logits"]), expected, atol=1e-6)
    file.model(MetadataOverrides())  # takes it


def test_a_module_is_float32_whatever_the_caller_computes_in(tmp_path):
    module = linear()
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    expected = module(torch.from_numpy(images)).detach().numpy()
    with torch.autocast("cpu", torch.bfloat16):
        file = module_file(module, SHAPE, tmp_path)
        np.testing.assert_allclose(file.infer(images, ["logits"]), expected, atol=1e-6)
        file.model(MetadataOverrides())


def test_errors_name_the_module_and_not_its_file(tmp_path):
    file = module_file(linear(), SHAPE, tmp_path)
    file.path.write_bytes(b"?")
    with (
        pytest.raises(GraphError, match="the ONNX graph of Sequential is not a valid") as caught,
        file.named_in_errors(),
    ):
        file.model(MetadataOverrides())
    assert "by other means" in caught.value.remedy
