"""BatchNorm and branches of convolutions become one convolution, which gives what torch's modules give."""

import warnings

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes import common

from edgevit.graph.passes.fold_convolutions import FoldConvolutions

torch = pytest.importorskip("torch")
nn = torch.nn

IMAGES = np.random.default_rng(0).normal(size=(3, 6, 9, 9)).astype(np.float32)


def seeded(module):
    """Give BatchNorm in ``module`` statistics and weights that are not those of the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for each in module.modules():
            if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
                each.running_mean.normal_()
                each.running_var.uniform_(0.5, 2)
                nn.init.uniform_(each.weight, 0.5, 1.5)
                nn.init.normal_(each.bias)
    return module.eval()


def folded(module, tmp_path, images=IMAGES):
    """Return the operators of ``module`` after the pass, and how far its answers are from torch's."""
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            torch.from_numpy(images),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    model = ir.load(path)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    FoldConvolutions()(model)
    common.RemoveUnusedNodesPass()(model)
    ir.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    difference = np.abs(session.run(None, {"x": images})[0] - expected).max()
    return [node.op_type for node in model.graph], difference


class Scaled(nn.Module):
    def __init__(self, shape, read_twice=False):
        super().__init__()
        self.conv, self.read_twice = nn.Conv2d(6, 8, 3, bias=False), read_twice
        self.scale, self.shift = nn.Parameter(torch.rand(shape) + 0.5), nn.Parameter(torch.rand(shape))

    def forward(self, x):
        y = self.conv(x)
        z = self.scale * y + self.shift
        return z + y.relu() if self.read_twice else z


class RepVGG(nn.Module):
    """Three branches, added up; RepMixer's sum with what is read around them where there are as many groups."""

    def __init__(self, groups=1, stride=1, pads=1):
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(6, 6, 3, stride, pads, groups=groups, bias=False), nn.BatchNorm2d(6))
        self.point = nn.Sequential(nn.Conv2d(6, 6, 1, stride, 0, groups=groups, bias=False), nn.BatchNorm2d(6))
        self.identity = nn.BatchNorm2d(6) if stride == 1 else None
        self.scale = nn.Parameter(torch.full((6, 1, 1), 0.3))

    def forward(self, x):
        y = self.wide(x) + self.point(x)
        if self.identity is not None:
            y = y - (0 + self.identity(x))
        return x + self.scale * y if self.identity is not None else y


@pytest.mark.parametrize(
    ("convolution", "norm", "images"),
    [
        (nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), IMAGES),
        (nn.Conv2d(6, 12, 3, groups=6, bias=False), nn.BatchNorm2d(12), IMAGES),
        (nn.Conv1d(6, 8, 3, dilation=2), nn.BatchNorm1d(8), IMAGES[..., 0]),
    ],
)
def test_batch_norm_goes_into_the_convolution_before_it(convolution, norm, images, tmp_path):
    operators, difference = folded(seeded(nn.Sequential(convolution, norm)), tmp_path, images)
    assert operators == ["Conv"]
    assert difference < 1e-5


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (1,)])
def test_constants_for_each_channel_go_into_the_convolution(shape, tmp_path):
    operators, difference = folded(seeded(Scaled(shape)), tmp_path)
    assert operators == ["Conv"]
    assert difference < 1e-5


@pytest.mark.parametrize("shape", [(1, 1, 7), (8, 7, 7)])
def test_constants_for_places_stay(shape, tmp_path):
    assert folded(seeded(Scaled(shape)), tmp_path)[0] == ["Conv", "Mul", "Add"]


def test_what_others_read_stays(tmp_path):
    operators, difference = folded(seeded(Scaled((8, 1, 1), read_twice=True)), tmp_path)
    assert sorted(operators) == ["Add", "Add", "Conv", "Mul", "Relu"]
    assert difference < 1e-5


@pytest.mark.parametrize(("groups", "stride", "left"), [(6, 1, ["Conv"]), (1, 1, ["Conv", "Add"]), (2, 2, ["Conv"])])
def test_branches_are_one_convolution(groups, stride, left, tmp_path):
    operators, difference = folded(seeded(RepVGG(groups, stride)), tmp_path)
    assert operators == left  # what is added to what a dense convolution reads stays a sum in float
    assert difference < 1e-5


def test_branches_that_do_not_lie_alike_stay(tmp_path):
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=2, dilation=2)

        def forward(self, x):
            return self.left(x) + self.right(x)

    operators, difference = folded(seeded(Apart()), tmp_path)
    assert operators == ["Conv", "Conv", "Add"]
    assert difference < 1e-5
