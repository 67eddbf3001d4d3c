"""Depth, segmentation and detection go the whole way from the file that torch exports: each is measured by its kind."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.runtime import load

IMAGES = "size=32,count=16"


class Task(NamedTuple):
    """A network by its name in small_dense, its outputs with their kinds, and the gate that decides on ``output``."""

    network: str
    given: dict[str, Any]
    outputs: dict[str, str]
    options: tuple[str, ...]
    gate: str
    output: str


TASKS = {
    "depth": Task(
        "Dense",
        {"channels": 1, "depth": True},
        {"predicted_depth": "depth"},
        ("--onnx-output", "predicted_depth"),
        "--min-delta1",
        "predicted_depth",
    ),
    "segmentation": Task(
        "Dense",
        {"channels": 4},
        {"out": "segmentation"},
        ("--onnx-output", "out=segmentation"),
        "--min-miou",
        "out",
    ),
    "detection": Task(
        "Detector",
        {},
        {"logits": "scores", "pred_boxes": "boxes"},
        ("--onnx-output", "logits", "--onnx-output", "pred_boxes"),
        "--min-box-agreement",
        "pred_boxes",
    ),
}


def depth(before, after):
    """Return delta-1 and AbsRel as Eigen et al. 2014 have them; all depths are above 0 here."""
    one, other = before["predicted_depth"], after["predicted_depth"]
    return {"delta1": (np.maximum(one / other, other / one) < 1.25).mean(), "abs_rel": (abs(one - other) / one).mean()}


def segmentation(before, after):
    """Return the mean IoU of classes, and the share of pixels with the same."""
    one, other = before["out"].argmax(1), after["out"].argmax(1)
    shares = [
        ((one == each) & (other == each)).sum() / ((one == each) | (other == each)).sum() for each in np.unique(one)
    ]
    return {"miou": np.mean(shares), "pixel_accuracy": (one == other).mean()}


def detection(before, after):
    """Return the F1 of the boxes that are sure, one image after the other; a query keeps its box in INT8."""
    same = boxes = 0
    for place in range(len(before["logits"])):
        sure = []
        for given in (before, after):
            powers = np.exp(given["logits"][place].astype(np.float64))
            likely = (powers / powers.sum(1, keepdims=True))[:, :-1]
            sure.append({(query, int(row.argmax())) for query, row in enumerate(likely) if row.max() > 0.5})
        assert sure[0], "else the surest are compared"
        same, boxes = same + 2 * len(sure[0] & sure[1]), boxes + len(sure[0]) + len(sure[1])
    return {"box_agreement": same / boxes}


ORACLES = {"depth": depth, "segmentation": segmentation, "detection": detection}


@pytest.mark.parametrize("name", TASKS)
def test_the_whole_way(edgevit, tmp_path, name):
    import small_dense
    import torch

    task, bundle = TASKS[name], tmp_path / "new.edgevit"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(small_dense, task.network)(**task.given)
    small_dense.write(network, tmp_path / "model.onnx", *task.outputs)
    how = ("--mean", "0.5", "--std", "0.1")
    done = edgevit("export", tmp_path / "model.onnx", "-o", bundle, *task.options, *how, "--data", f"shapes:{IMAGES}")
    assert done.code == 0, done.err
    assert {each.name: each.kind for each in Bundle.open(bundle).manifest.typed_outputs} == task.outputs

    quantize = ("quantize", bundle, "--data", f"shapes:{IMAGES}", "--dialect", "onnxruntime")
    done = edgevit(*quantize, "--min-cosine", "0.99", "--min-integer-share", "0.4")
    assert done.code == 0, done.out + done.err
    int8 = Bundle.open(bundle).variant("int8-onnxruntime")
    assert int8.kernels.integer_linears >= 9

    images = load_shapes("test", IMAGES)
    pictures = [images.image(index) for index in range(16)]
    with load(bundle, variant="float32") as before, load(bundle, variant="int8-onnxruntime") as after:
        with torch.inference_mode():
            given = network(torch.from_numpy(before.prepare(pictures)))
        expected, found = before.outputs_batch(pictures), after.outputs_batch(pictures)
    for values, torchs in zip(expected.values(), given if isinstance(given, tuple) else (given,), strict=True):
        assert np.abs(values - torchs.numpy()).max() < 1e-4 * np.abs(values).max()

    figures = ORACLES[name](expected, found)
    figure = next(iter(figures.values()))
    assert 0.5 < figure <= 1
    assert min(figures.values()) < 1
    validate = ("validate", bundle, "--data", f"shapes:{IMAGES}", "--json", task.gate)
    done = edgevit(*validate, "0.5")
    assert done.code == 0, done.out + done.err
    said = {each["name"]: each for each in done.data()["variants"]}
    measured = {each["name"]: each for each in said["int8-onnxruntime"]["outputs"]}
    for called, value in figures.items():
        assert measured[task.output][called] == pytest.approx(value, rel=1e-3)
    assert all(each["cosine_mean"] > 0.99 for each in measured.values())
    if name == "depth":
        for factor, code in ((1.01, 0), (0.99, 1)):
            assert edgevit(*validate, "0.5", "--max-abs-rel", str(factor * figures["abs_rel"])).code == code
    failed = edgevit(*validate, "1")
    assert failed.code == (figure < 1)
    verdicts = {each["name"]: each["reason"] for each in failed.data()["variants"]}
    assert ("at least 1 wanted" in verdicts["int8-onnxruntime"]) == (figure < 1)

    paths = []
    for index, picture in enumerate(pictures[:2]):
        paths.append(tmp_path / f"{index}.png")
        picture.save(paths[-1])
    done = edgevit("predict", bundle, *paths, "--variant", "int8-onnxruntime", "-o", tmp_path / "out.npz")
    assert done.code == 0, done.err
    for output in task.outputs:
        assert f"  {output}: {'x'.join(map(str, expected[output].shape[1:]))}, " in done.out
        assert np.allclose(np.load(tmp_path / "out.npz")[output], found[output][:2], atol=1e-4)
