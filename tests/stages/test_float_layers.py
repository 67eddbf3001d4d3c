"""Layers that an engine has no integer kernel for: they stay float there, and lose nothing else."""

import json

import msgspec
import numpy as np
import pytest
import torch
from external_vits import write_old
from tiny import SHAPES, content
from torch import nn

from edgevit.bundle.store import Bundle
from edgevit.cli.app import run as edgevit
from edgevit.data.batches import Unreadable
from edgevit.errors import MissingDependencyError, VerificationError
from edgevit.quantization import kernel_check
from edgevit.runtime import load
from edgevit.stages import build as building
from edgevit.stages.build import build
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.targets import load_target

DATA = "shapes:size=32,count=24"
IMAGES = DataSource(DATA, "train", Unreadable(), samples=8)
TARGETS = {name: load_target(name) for name in ("x86-onnxruntime", "x86-openvino", "portable")}


class Small(nn.Module):
    """Patches, one MLP, and a head of one of the kinds that came back float."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.norm, self.kind = nn.Conv2d(3, 32, 8, 8), nn.LayerNorm(32), kind
        self.fc1, self.fc2 = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 1 if "one output" in kind else 5, bias="no bias" not in kind)
        self.queries, self.query = nn.Parameter(torch.randn(1, 3, 32)), nn.Linear(32, 32)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))
        if self.kind == "queries":
            query = self.query(self.norm(self.queries.expand(len(images), -1, -1)))
            x = (query @ x.transpose(1, 2)).softmax(-1) @ x
        x = self.norm(x)
        return self.head(x).flatten(1) if "per token" in self.kind else self.head(x.mean(1))


def exported(tmp_path, kind, opset=17):
    path, bundle = tmp_path / "given.onnx", tmp_path / "new.edgevit"
    write_old(Small(kind).eval(), path, opset=opset)
    assert edgevit(["export", str(path), "-o", str(bundle), "--data", DATA]) == 0
    return Bundle.open(bundle)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("one output, pooled", "/head/"),
        ("one output, pooled, no bias", "/head/"),
        ("one output, per token", "/head/"),
        ("queries", "/query/"),
    ],
)
def test_layers_that_not_every_engine_has_in_integers_stay_float(tmp_path, capsys, kind, layer):
    bundle = exported(tmp_path, kind)
    made = quantize(bundle, IMAGES, TARGETS)
    assert not made.failed
    for name in ("int8-onnxruntime", "int8-openvino", "int8-portable"):
        variant = made.bundle.variant(name)
        (kept,) = variant.fallback
        assert kept.layer.startswith(layer)
        assert kept.reason
        assert set(variant.kernels.float_linears) <= {kept.layer}
        assert variant.kernels.integer_linears == variant.kernels.linears - len(variant.kernels.float_linears) >= 2
        assert_near(made.bundle, name)
    plan = json.loads((bundle.path / "calibration/plan.json").read_text())
    assert any(each["name"].startswith(layer) and each["fallback"] for each in plan["linears"])
    capsys.readouterr()
    assert edgevit(["inspect", str(bundle.path)]) == 0
    assert kept.layer in capsys.readouterr().out


def assert_near(bundle, name):
    images = IMAGES.load()
    with load(bundle.path, variant=name) as model, load(bundle.path, variant="float32") as exact:
        inputs = model.prepare([images.image(index) for index in range(8)])
        expected, found = exact.infer(inputs), model.infer(inputs)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def missing(name, monkeypatch, dialect="openvino"):
    """Let the engine of ``dialect`` show a float kernel for the layer called ``name``, as long as it is quantized."""
    real = building.check

    def check(bundle, source, precision, target, *rest):
        if target.dialect == dialect and name in source.integer_layers:
            found = [*source.integer_layers]
            raise kernel_check.KernelError("one is float", layers={name: "gemm_f32"}, engine=dialect, remedy=str(found))
        return real(bundle, source, precision, target, *rest)

    monkeypatch.setattr(building, "check", check)


@pytest.mark.parametrize("layer", ["blocks.0.mlp.fc1", "blocks.1.mlp.fc2", "head"])
def test_a_layer_that_one_engine_runs_in_float_stays_float_for_that_one(quantized, monkeypatch, layer):
    missing(layer, monkeypatch)
    targets = {name: TARGETS[name] for name in ("x86-onnxruntime", "x86-openvino")}
    images = DataSource(SHAPES, "train", Unreadable(), samples=16)
    bundle = quantize(Bundle.open(quantized), images, targets).bundle
    one, other = bundle.variant("int8-onnxruntime"), bundle.variant("int8-openvino")
    assert one.fallback == ()
    assert [(each.layer, each.reason) for each in other.fallback] == [(layer, "openvino runs it in float (gemm_f32)")]
    assert other.kernels.float_linears == (layer,)
    # The plan says so, so that what is built later from it is the same file.
    plan = json.loads((bundle.path / "calibration/plan.json").read_text())
    noted = {each["name"]: each["float_in"] for each in plan["linears"] if each["float_in"]}
    assert noted[layer] == [{"dialect": "openvino", "reason": "openvino runs it in float (gemm_f32)"}]
    before = [file.sha256 for file in other.files if file.path.endswith(".bin")]
    again = build(bundle, "x86-openvino", TARGETS["x86-openvino"], "int8").bundle.variant("int8-openvino")
    assert again.fallback == other.fallback
    assert [file.sha256 for file in again.files if file.path.endswith(".bin")] == before


def test_a_model_whose_layers_are_float_for_the_most_part_is_refused(quantized, monkeypatch):
    def check(bundle, source, *rest):
        layers = dict.fromkeys(source.integer_layers[1:], "gemm_f32")
        raise kernel_check.KernelError("most are float", layers=layers, engine="openvino", remedy="none")

    monkeypatch.setattr(building, "check", check)
    with pytest.raises(VerificationError, match="most are float"):
        build(Bundle.open(quantized), "x86-openvino", TARGETS["x86-openvino"], "int8")


def test_what_one_engine_refuses_does_not_undo_anothers(quantized, capsys, monkeypatch):
    real = building.compile_variant

    def refusing(bundle, float32, name, target, *rest, **more):
        if target.backend == "openvino":
            raise VerificationError("no such kernel", remedy="buy another")
        return real(bundle, float32, name, target, *rest, **more)

    monkeypatch.setattr("edgevit.stages.quantize.compile_variant", refusing)
    before = [each.name for each in Bundle.open(quantized).manifest.variants]
    assert edgevit(["quantize", str(quantized), "--data", SHAPES, "--samples", "16", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in answer["variants"]] == ["int8-onnxruntime"]
    assert answer["failed"] == [{"name": "int8-openvino", "error": "no such kernel", "remedy": "buy another"}]
    assert [each.name for each in Bundle.open(quantized).manifest.variants] == before


def test_where_nothing_can_be_made_the_bundle_is_as_it_was(quantized):
    before = content(quantized)
    old = msgspec.structs.replace(TARGETS["x86-openvino"], versions=">=9999")
    with pytest.raises(MissingDependencyError, match="is for openvino >=9999"):
        quantize(Bundle.open(quantized), DataSource(SHAPES, "train", Unreadable(), samples=16), {"old": old})
    assert content(quantized) == before


@pytest.mark.parametrize("dialect", ["portable", "tensorrt", "tensorrt-legacy"])
def test_a_layer_norm_in_single_nodes_is_no_obstacle(tmp_path, dialect):
    bundle = exported(tmp_path, "plain", opset=14)
    made = quantize(bundle, IMAGES, {dialect: load_target(dialect)})
    assert made.names[-1] == f"int8-{dialect}"
