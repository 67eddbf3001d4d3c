"""BatchNorm behind a Linear layer goes into it, and what torch's module gives stays."""

import warnings

import numpy as np
import onnxruntime
import pytest

from edgevit.graph.external_onnx import write_verified
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.passes.fold_batch_norms import FoldBatchNorms

torch = pytest.importorskip("torch")
nn = torch.nn

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


class Rows(nn.Module):
    """Patches, and layers as LeViT has them: tokens are flattened to rows for BatchNorm, and put back."""

    def __init__(self, *, bias, read_twice=False, spatial=False):
        super().__init__()
        self.patch, self.fc, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 12, bias=bias), nn.Linear(12, 5)
        self.norm, self.read_twice, self.spatial = nn.BatchNorm1d(16 if spatial else 12), read_twice, spatial

    def forward(self, images):
        tokens = self.fc(self.patch(images).flatten(2).transpose(1, 2))
        rows = self.norm(tokens) if self.spatial else self.norm(tokens.flatten(0, 1)).reshape_as(tokens)
        if self.read_twice:
            rows = rows + tokens
        return self.head(nn.functional.hardswish(rows)).mean(1)


def given(folder, module):
    path = folder / "given.onnx"
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        for each in module.parameters():
            nn.init.normal_(each)
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2)
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "batch"}}}
        torch.onnx.export(module.eval(), torch.from_numpy(IMAGES), path, dynamo=False, opset_version=17, **names)
    with torch.no_grad():
        return path, module(torch.from_numpy(IMAGES)).numpy()


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"bias": True}, 0),
        ({"bias": False}, 0),
        ({"bias": True, "read_twice": True}, 1),  # what is normalised is read as it is, too
        ({"bias": True, "spatial": True}, 1),  # each token has a scale of its own
    ],
)
def test_what_a_file_gives_stays(tmp_path, options, left):
    path, expected = given(tmp_path, Rows(**options))
    model = open_onnx(path, "given", MetadataOverrides())
    write_verified(model, tmp_path / "model.onnx", IMAGES)
    written = load_graph(tmp_path / "model.onnx")
    operators = [node.op_type for node in written.graph]
    assert operators.count("BatchNormalization") == left
    layers = find_linears(written.graph)
    assert layers[-2].weight.shape == (8, 12)
    if not left:
        assert layers[-2].bias is not None
        assert layers[-2].output.consumers()[0].op_type == "HardSwish"  # no Reshape is between the two
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: IMAGES})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_scale_beyond_float32_is_left_alone(write_graph):
    path = write_graph(
        "g (float[n, 3] images) => (float[n, 2] logits) { p = MatMul(images, w) "
        "logits = BatchNormalization(p, s, b, m, v) }",
        {
            "w": np.full((3, 2), 1e20, dtype=np.float32),
            **{name: np.full(2, value, dtype=np.float32) for name, value in zip("sbmv", (1e30, 0, 0, 1), strict=True)},
        },
    )
    model = load_graph(path)
    assert not FoldBatchNorms()(model).modified
