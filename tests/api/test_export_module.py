"""``edgevit.export`` of a ``torch.nn.Module``: the oracle is the module."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import edgevit
from edgevit.data.shapes import load_shapes
from edgevit.errors import BundleError, DataError, GraphError, InputError

pytestmark = pytest.mark.usefixtures("all_cores")

LABELS = load_shapes("test", "size=8,count=1").class_names
SHAPE = (3, 24, 32)


class ConvNet(nn.Module):
    """Convolutions, BatchNorm, a depthwise layer and a residual sum; no ViT."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 8)

    def forward(self, images):
        x = self.stem(images)
        x = x + torch.nn.functional.gelu(self.point(self.depth(x)))
        return self.head(x.mean(dim=(2, 3)))


class OneAtATime(nn.Module):
    """A model whose batch is written into it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 24 * 32, 8)

    def forward(self, images):
        if images.shape[0] != 1:
            raise ValueError("one image, please")
        return self.layer(images.reshape(1, -1))


class Attention(nn.Module):
    """``nn.MultiheadAttention`` over patches."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, 8)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 8)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(x.mean(1))


class Noisy(nn.Module):
    """What no file can repeat."""

    def forward(self, images):
        return images.mean(dim=(2, 3)) + torch.rand(1)


class Several(nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3)), images


class Nested(nn.Module):
    def forward(self, images):
        return images, (images, images)


class TwoHeads(nn.Module):
    """A backbone with a head for depth and one for classes of pixels, as a dictionary."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.heads = nn.ModuleList([nn.Conv2d(8, 1, 1), nn.Conv2d(8, 5, 1)])

    def forward(self, images):
        features = torch.relu(self.patches(images))
        return {"depth": self.heads[0](features).relu(), "logits": self.heads[1](features), "nothing": None}


class Raises(nn.Module):
    def forward(self, images):
        raise KeyError("boom")


class OfOthers(nn.Module):
    """A module whose answer depends on the other images of a batch."""

    def forward(self, images):
        rows = images.mean(dim=(2, 3))
        return rows - rows.mean(dim=0)


class Named(ConvNet):
    """A module that answers as transformers' models do."""

    def forward(self, images):
        return {"logits": super().forward(images), "loss": None}


class Calibrates(ConvNet):
    """A module that scales by the first image that it is given."""

    scale = None

    def forward(self, images):
        if self.scale is None:
            self.scale = images.abs().mean()
        return super().forward(images) * self.scale


class Counts(ConvNet):
    """A module that keeps count of its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


def seeded(kind):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = kind()
        if isinstance(module, ConvNet):
            with torch.no_grad():
                module.stem[1].running_mean.uniform_(-0.5, 0.5)
                module.stem[1].running_var.uniform_(0.5, 2)
        return module


def logits(given):
    return given["logits"] if isinstance(given, dict) else given


@pytest.mark.parametrize("kind", [ConvNet, OneAtATime, Attention, Named])
def test_a_bundle_answers_as_the_module(kind, tmp_path):
    module = seeded(kind)
    assert module.training
    made = edgevit.export(
        module, tmp_path / "own.edgevit", input_shape=SHAPE, mean=(0.5, 0.4, 0.3), std=0.25, labels=LABELS
    )
    assert module.training  # as it was
    assert made.equal_to == (kind.__name__,)
    assert made.bundle.manifest.labels == LABELS
    data = load_shapes("test", "size=40,count=5")
    with edgevit.load(made.bundle.path) as model, torch.inference_mode():
        images = model.prepare([data.image(index) for index in range(5)])
        assert images.shape == (5, *SHAPE)
        expected = torch.cat([logits(module.eval()(torch.from_numpy(image[None]))) for image in images]).numpy()
        np.testing.assert_allclose(model.infer(images), expected, atol=1e-4)


@pytest.mark.parametrize("last", [nn.Softmax(dim=1), nn.Sigmoid()])
def test_a_module_that_gives_probabilities(last, tmp_path):
    module = nn.Sequential(seeded(Attention), last)
    made = edgevit.export(module, tmp_path / "own.edgevit", input_shape=SHAPE, labels=LABELS)
    with edgevit.load(made.bundle.path) as model, torch.inference_mode():
        image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        expected = module.eval()(torch.from_numpy(model.prepare([image])))[0].numpy()
        found = {each.label: each.probability for each in model.predict(image, top=8)}
    np.testing.assert_allclose([found[label] for label in LABELS], expected, atol=1e-5)


def test_a_module_goes_the_whole_way(tmp_path):
    made = edgevit.export(seeded(Attention), tmp_path / "own.edgevit", input_shape=SHAPE, labels=LABELS)
    built = edgevit.quantize(made.bundle, data="shapes:size=32,count=48")
    assert built.passed
    assert built.bundle.variant("int8-onnxruntime").kernels.integer_linears > 0
    assert edgevit.validate(made.bundle, data="shapes:size=32,count=32").accuracies.keys() >= {"int8-openvino"}


def test_the_module_is_left_as_it_was(tmp_path):
    module = seeded(Counts)
    module.stem[1].eval()  # a BatchNorm that is frozen
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with suppress(GraphError):  # torch may refuse to trace a buffer that changes
        edgevit.export(module, tmp_path / "own.edgevit", input_shape=SHAPE, labels=LABELS)
    assert module.training
    assert not module.stem[1].training
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_several_threads_export_in_turn(tmp_path):
    module = seeded(ConvNet)  # the generator of torch's random numbers is the process's

    def made(index):
        return edgevit.export(module, tmp_path / f"{index}.edgevit", input_shape=SHAPE, labels=LABELS)

    with ThreadPoolExecutor(3) as pool:
        bundles = [result.bundle for result in pool.map(made, range(3))]
    assert len({bundle.manifest.provenance.weights_sha256 for bundle in bundles}) == 1


def test_features(tmp_path):
    module = seeded(ConvNet)
    module.head = nn.Identity()
    made = edgevit.export(module, tmp_path / "own.edgevit", input_shape=SHAPE, embedding=True)
    with edgevit.load(made.bundle.path) as model:
        assert model.embed(np.zeros((24, 32, 3), np.uint8)).shape == (16,)


@pytest.mark.parametrize(
    ("source", "arguments", "kind", "said"),
    [
        (ConvNet, {}, InputError, "does not say which images"),
        (ConvNet, {"input_shape": (24, 32)}, InputError, "input_shape is"),
        (ConvNet, {"input_shape": (24, 32, 3)}, InputError, "input_shape is"),
        (ConvNet, {"input_shape": 96}, InputError, "input_shape is 96"),
        (ConvNet, {"input_shape": SHAPE, "labels": ["a"]}, DataError, "1 labels, the model has 8"),
        (ConvNet, {"input_shape": SHAPE, "heads": 3}, InputError, "heads does not go with"),
        (ConvNet, {"input_shape": SHAPE, "image_size": 48}, InputError, "image_size does not go"),
        (lambda: ConvNet().half(), {"input_shape": SHAPE}, GraphError, "not float32"),
        (lambda: nn.Linear(7, 7), {"input_shape": SHAPE}, GraphError, "Linear cannot be run on an image"),
        (Noisy, {"input_shape": SHAPE}, GraphError, "something else for the same image each time"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(8)), {"input_shape": SHAPE}, GraphError, "without weights"),
        (lambda: nn.LazyBatchNorm2d(), {"input_shape": SHAPE}, GraphError, "without weights yet"),
        (Calibrates, {"input_shape": SHAPE}, GraphError, "has run on another one before"),
        (Nested, {"input_shape": SHAPE}, GraphError, "gives a tuple, not a tensor"),
        (Several, {"input_shape": SHAPE, "onnx_output": "mean"}, GraphError, "has no output 'mean'"),
        (Several, {"input_shape": SHAPE, "outputs": "tokens"}, InputError, "outputs does not go with a module"),
        (Raises, {"input_shape": SHAPE}, GraphError, "KeyError: 'boom'"),
        (OfOthers, {"input_shape": SHAPE}, GraphError, "otherwise among others than alone"),
        (
            lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.AvgPool2d(8), nn.Flatten()),
            {"input_shape": SHAPE, "data": [np.full((24, 32, 3), 90, np.uint8)]},
            GraphError,
            "otherwise among others than alone",
        ),
        (ConvNet, {"input_shape": 32}, InputError, "input_shape is"),
        (ConvNet, {"input_shape": SHAPE, "resize": "256"}, InputError, "resize"),
        (ConvNet, {"input_shape": SHAPE, "mean": 123.7}, DataError, "not of pixels in 0..1"),
        (ConvNet, {"input_shape": SHAPE, "mean": "0.5"}, InputError, "mean is a str"),
        (ConvNet, {"input_shape": SHAPE, "crop": float("nan")}, InputError, "crop is nan"),
        (ConvNet, {"input_shape": SHAPE, "interpolation": "foo"}, InputError, "interpolation is 'foo'"),
        (ConvNet, {"input_shape": SHAPE, "activation": "relu"}, InputError, "activation is 'relu'"),
        (ConvNet, {"input_shape": SHAPE, "labels": set(LABELS)}, InputError, "labels is a set"),
        (ConvNet, {"input_shape": SHAPE, "labels": list(range(8))}, InputError, "labels has 0 in it"),
        (dict, {"input_shape": SHAPE}, InputError, "source is a dict"),
        (lambda: "fashion-micro", {"input_shape": SHAPE}, InputError, "goes with a module"),
    ],
)
def test_what_is_no_model_is_refused(source, arguments, kind, said, tmp_path):
    module = source()
    drawn = torch.get_rng_state()
    with pytest.raises(kind, match=said) as caught:
        edgevit.export(module, tmp_path / "own.edgevit", **arguments)
    assert caught.value.remedy
    assert not (tmp_path / "own.edgevit").exists()
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_module_that_has_run_on_the_users_image_keeps_what_it_has_of_it(tmp_path):
    module = seeded(Calibrates)
    module(torch.full((1, *SHAPE), 0.7))
    made = edgevit.export(module, tmp_path / "own.edgevit", input_shape=SHAPE, labels=LABELS)
    with edgevit.load(made.bundle.path) as model, torch.inference_mode():
        image = model.prepare([np.full((24, 32, 3), 90, np.uint8)])
        np.testing.assert_allclose(model.infer(image), module.eval()(torch.from_numpy(image)).numpy(), atol=1e-4)


def test_a_place_that_is_taken_is_said_before_anything_is_traced(tmp_path):
    (tmp_path / "own.edgevit").mkdir()
    (tmp_path / "own.edgevit/thesis.txt").write_text("mine")
    with pytest.raises(BundleError):
        edgevit.export(object(), tmp_path / "own.edgevit")


def test_several_outputs_by_their_names(tmp_path):
    torch.manual_seed(0)
    module = TwoHeads()
    made = edgevit.export(module, tmp_path / "own.edgevit", input_shape=SHAPE)
    height, width = SHAPE[1] // 4, SHAPE[2] // 4
    assert [(each.name, each.kind, each.shape) for each in made.bundle.manifest.typed_outputs] == [
        ("depth", "depth", (1, height, width)),
        ("logits", "segmentation", (5, height, width)),
    ]
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE[1:], 3), dtype=np.uint8)
    with edgevit.load(made.bundle.path) as model, torch.inference_mode():
        expected = module(torch.from_numpy(model.prepare([image])))
        found = model.outputs(image)
    for name in ("depth", "logits"):
        assert np.allclose(found[name], expected[name][0].numpy(), atol=1e-4)


def test_outputs_without_names(tmp_path):
    made = edgevit.export(Several(), tmp_path / "own.edgevit", input_shape=SHAPE, onnx_output=["output_1=features"])
    (output,) = made.bundle.manifest.typed_outputs
    assert (output.name, output.kind, output.shape) == ("output_1", "features", SHAPE)
    made = edgevit.export(nn.Conv2d(3, 8, 3), tmp_path / "one.edgevit", input_shape=SHAPE)
    assert made.bundle.manifest.typed_outputs[0].name == "output"
