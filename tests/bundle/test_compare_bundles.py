"""``benchmarks/compare_bundles.py``: what it says of equal bundles, and of those that differ."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny import VARIANTS

from edgevit.bundle.store import Bundle
from edgevit.files import sha256_of
from edgevit.stages.precisions import PLANS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def compare(monkeypatch, capsys):
    """Return a function that calls the command line, and gives its exit code and the lines that it prints."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("compare_bundles")

    def call(before, after, *options):
        monkeypatch.setattr("sys.argv", ["compare_bundles.py", *map(str, (before, after, "--images", 2, *options))])
        code = module.main()
        return code, capsys.readouterr().out.splitlines()

    return call


def line_of(lines, name):
    (found,) = [line for line in lines if line.startswith(f"| {name} ")]
    return found


def change_head(bundle, name, change):
    """Change the last weights of a variant, and let the manifest know the file."""
    variant = bundle.variant(name)
    path = bundle.path / variant.files[0].path
    model = onnx.load(path)
    bias = [each for each in model.graph.initializer if numpy_helper.to_array(each).shape == (8,)][-1]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(change), bias.name))
    onnx.save(model, path)
    place = bundle.path / "manifest.json"
    manifest = json.loads(place.read_text())
    (entry,) = [each for each in manifest["variants"] if each["name"] == name]
    entry["files"][0] |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    place.write_text(json.dumps(manifest))


def test_a_bundle_is_equal_to_its_copy(compare, tiny_quantized, quantized):
    code, lines = compare(tiny_quantized, quantized)
    assert code == 0
    assert all("bit for bit | the same" in line_of(lines, name) for name in VARIANTS)
    assert [line for line in lines if line.startswith("plan")] == ["plan, asymmetric: equal"]


def test_other_logits_end_it_with_1_unless_they_are_tolerated(compare, tiny_quantized, quantized):
    change_head(Bundle.open(quantized), "float32-onnxruntime", np.linspace(0, 0.01, 8))
    code, lines = compare(tiny_quantized, quantized)
    assert code == 1
    assert "of the largest" in line_of(lines, "float32-onnxruntime")
    assert "bit for bit" in line_of(lines, "int8-onnxruntime")
    assert compare(tiny_quantized, quantized, "--tolerance", 0.1)[0] == 0


def test_a_variant_that_one_lacks_ends_it_with_1(compare, tiny_exported, tiny_quantized):
    for bundles in ((tiny_exported, tiny_quantized), (tiny_quantized, tiny_exported)):
        code, lines = compare(*bundles)
        assert code == 1
        assert "bit for bit" in line_of(lines, "float32")
        assert "not in both" in line_of(lines, "int8-onnxruntime")
        assert "plan, asymmetric: not in both" in lines


def test_fields_of_plans_that_differ_are_named(compare, tiny_quantized, quantized):
    place = quantized / PLANS["asymmetric"]
    plan = json.loads(place.read_text())
    hashed = place.read_text().replace(plan["source_sha256"], "0" * 64)  # files may differ where the model does not
    place.write_text(hashed)
    assert "plan, asymmetric: equal" in compare(tiny_quantized, quantized)[1]
    place.write_text(
        hashed.replace('"images": 96', '"images": 95').replace('"observer": "minmax"', '"observer": "maxmin"')
    )
    assert "plan, asymmetric: differs in images, observer" in compare(tiny_quantized, quantized)[1]


def test_images_of_a_users_own_are_taken(compare, tiny_quantized, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for each in sorted((tiny_quantized / "golden").glob("*.png"))[:2]:
        shutil.copy(each, images)
    code, lines = compare(tiny_quantized, tiny_quantized, "--data", images)
    assert code == 0
    assert "bit for bit" in line_of(lines, "float32")
