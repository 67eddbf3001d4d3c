"""Modules that are refused before they are traced, or have something unusual about them."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional
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


class IsNothingAsACopy(nn.Flatten):
    def __deepcopy__(self, memo):
        return None


class Trains(nn.Flatten):
    def train(self, loader, epochs):
        raise AssertionError


class ByItsGlobalName(nn.Module):
    """What computes with the module itself, also as a copy."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return GLOBAL[0].norm(images).flatten(1)


GLOBAL = [ByItsGlobalName()]


def scripted():
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.script"):
        return torch.jit.script(linear())


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Trains, "Trains cannot be put into evaluation mode: .* missing 1 required"),
        (lambda: nn.Sequential(Trains()), "Sequential cannot be put into evaluation mode"),
        (lambda: GLOBAL[0], "ByItsGlobalName reaches itself in other ways than by self, and is in training mode"),
        (IsNothingAsACopy, "IsNothingAsACopy cannot be copied: its copy is a NoneType"),
        (sparse, "Sequential has sparse weights"),
        (scripted, "RecursiveScriptModule is, or holds, a module of torch.jit"),
        (lambda: nn.Sequential(scripted()), "Sequential is, or holds, a module of torch.jit"),
        (CannotBeCopied, "CannotBeCopied cannot be copied: one of a kind"),
        (lambda: nn.Sequential(IsItsCopy()), "its copy shares modules with it"),
    ],
)
def test_modules_that_are_refused(module, said, tmp_path):
    given = module()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    with pytest.raises(GraphError, match=said) as caught:
        module_file(given, SHAPE, tmp_path)
    assert caught.value.remedy
    assert given.training
    assert all(torch.equal(tensor.to_dense(), before[name].to_dense()) for name, tensor in given.state_dict().items())


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


def normalising_in_place():
    class Normalises(nn.Module):
        def forward(self, images):
            images -= 0.5
            images /= 0.25
            return images.flatten(1)

    return Normalises()


def hooked():
    class Hooked(nn.Module):
        """What has run already, so that a copy has kept something of that run."""

        def __init__(self):
            super().__init__()
            self.body, self.norm, self.kept = linear(), nn.BatchNorm1d(5), {}
            self.body.register_forward_hook(lambda *given: self.kept.__setitem__("x", self.norm(given[-1])))

        def forward(self, images):
            self.body(images)
            return self.kept["x"] * 1

    module = Hooked()
    module(torch.ones(2, *SHAPE))
    return module


def calling_its_method_train():
    module = Trains()
    module.training = False
    return module


def gradual():
    class Gradual(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = linear()

        @torch.enable_grad()
        def forward(self, images):
            return self.body(images)

    return Gradual()


def biased_in_windows():
    class Biased(nn.Module):
        """Attention in windows with a bias that is computed of parameters, as MaxViT's."""

        def __init__(self):
            super().__init__()
            self.bias, self.tokens = nn.Parameter(torch.randn(1, 2, 4, 4)), nn.Linear(3, 24)

        def forward(self, images):
            windows = self.tokens(images.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).reshape(-1, 4, 3))
            given = windows.view(-1, 4, 2, 12).transpose(1, 2).chunk(3, dim=3)
            bias = self.bias.expand(windows.shape[0], -1, -1, -1)
            found = functional.scaled_dot_product_attention(*given, attn_mask=bias)
            return found.transpose(1, 2).reshape(-1, 2, 2, 8).reshape(images.shape[0], -1)

    return Biased()


KINDS = [normalising_in_place, hooked, calling_its_method_train, gradual, biased_in_windows]


@pytest.mark.parametrize("kind", KINDS)
def test_modules_with_ways_of_their_own(kind, tmp_path):
    module = kind()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    file = module_file(module, SHAPE, tmp_path)
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    given = images.copy()
    found = file.infer(given, file.module.names)
    np.testing.assert_array_equal(given, images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    for each in module.modules():
        each.training = False
    expected = module(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    session = onnxruntime.InferenceSession(file.path)
    np.testing.assert_allclose(session.run(None, {"images": given})[0], expected, atol=1e-5)


def test_a_module_that_does_not_run_on_each_image(tmp_path):
    class Tires(nn.Flatten):
        runs = 0

        def forward(self, images):
            self.runs += 1
            assert self.runs < 20, "enough"
            return super().forward(images)

    file = module_file(Tires(), SHAPE, tmp_path)
    with pytest.raises(GraphError, match=r"run on each of 20 images, .*: enough") as caught:
        file.infer(np.zeros((20, *SHAPE), np.float32), ["logits"])
    assert caught.value.remedy


def test_a_module_that_is_trained_meanwhile(tmp_path):
    class Trained(nn.Linear):
        """Changes after it was copied, as by a thread that trains it."""

        def __deepcopy__(self, memo):
            copy = nn.Linear(self.in_features, self.out_features)
            copy.load_state_dict(self.state_dict())
            nn.init.normal_(self.weight)
            return copy

    module_file(nn.Sequential(nn.Flatten(), Trained(48, 5)), SHAPE, tmp_path)


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
