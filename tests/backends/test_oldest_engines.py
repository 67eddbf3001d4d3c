"""Each variant runs on the very first version of its engine that it names, and on the one before it is refused.

The versions are real ones, which ``make test-old-engines`` installs; EDGEVIT_ENGINES names their folder.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgevit
from edgevit.backends.onnx_versions import QUANTIZE_23, first_version
from edgevit.bundle.store import Bundle
from edgevit.graph.saving import contents_of

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("EDGEVIT_ENGINES") or Path(sys.prefix) / "engines")

_spec = importlib.util.spec_from_file_location("check_engine_versions", ROOT / "scripts/check_engine_versions.py")
checks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(checks)

PAIRS = [
    (engine, first, *pair)
    for engine, pairs in checks.OLDEST.items()
    for first, pair in pairs.items()
    if first != QUANTIZE_23  # which no file of the tiny model is; a file of two operators is below
]
#: Loads each variant that is named, and then whichever is best; says what came of it.
LOAD = """
import json, sys
from edgevit.errors import EdgeViTError
from edgevit.runtime import load
found = {}
for name in (*sys.argv[2:], None):
    try:
        with load(sys.argv[1], variant=name, threads=1) as model:
            found[name or "best"] = [model.variant.name, *model.notes]
    except EdgeViTError as error:
        found[name or "best"] = {type(error).__name__: [error.message, error.remedy]}
print(json.dumps(found))
"""
OPEN = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.run(None, {"x": numpy.float32([0.26, -0.74])})[0].tolist())
"""


def python(engine, version, code, *arguments):
    """Run ``code`` with this checkout and that version of ``engine``."""
    place = FOLDER / f"{engine}-{version}"
    if not place.is_dir():
        pytest.skip(f"{place} is not there: make test-old-engines brings it")
    paths = os.pathsep.join([str(ROOT), str(place)])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})


def load(engine, version, bundle, *names):
    done = python(engine, version, LOAD, bundle, *names)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def naming(bundle, engine, first):
    """Return the variants of ``engine`` that name ``first`` as the first version."""
    variants = [each for each in Bundle.open(bundle).manifest.variants if each.backend == engine]
    assert variants
    assert all(each.versions for each in variants), "each file says which versions run it"
    return [each.name for each in variants if each.versions == f">={first}"]


def test_every_first_version_that_a_file_names_is_tried(tiny_quantized):
    named = {(each.backend, each.versions) for each in Bundle.open(tiny_quantized).manifest.variants}
    assert named == {(engine, f">={first}") for engine, first, _, _ in PAIRS}


@pytest.mark.parametrize(("engine", "first", "version", "before"), PAIRS)
def test_a_variant_runs_on_the_first_version_that_it_names_and_on_none_before(
    tiny_quantized, engine, first, version, before
):
    names = naming(tiny_quantized, engine, first)
    assert names
    found = load(engine, version, tiny_quantized, *names)
    assert [found[name][0] for name in names] == names
    refused = load(engine, before, tiny_quantized, *names)
    for name in names:
        message, remedy = refused[name]["MissingDependencyError"]
        assert message == f"variant {name} is for {engine} >={first}, and this is {before}"
        assert remedy.startswith(f'pip install "{engine}>={first}"')


def test_an_older_engine_gets_another_variant_that_it_runs_and_is_told_so(tiny_quantized, tmp_path):
    pack = edgevit.pack(
        tiny_quantized, tmp_path / "two.edgevit.zip", variants=["float32-onnxruntime", "int8-onnxruntime"]
    ).path
    assert load("onnxruntime", "1.23.0", pack)["best"][0] == "float32-onnxruntime"
    name, *notes = load("onnxruntime", "1.22.0", pack)["best"]
    assert name == "int8-onnxruntime"
    assert any("float32-onnxruntime is for onnxruntime >=1.23, and this is 1.22.0" in note for note in notes)


def test_quantized_files_of_opset_23_take_the_version_that_is_said(tmp_path):
    constants = {"scale": np.float32(0.5), "zero": np.int8(0)}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
    first = first_version(*contents_of(path))
    version, before = checks.OLDEST["onnxruntime"][first]
    assert json.loads(python("onnxruntime", version, OPEN, path).stdout) == [0.5, -0.5]
    done = python("onnxruntime", before, OPEN, path)
    assert done.returncode != 0
    assert "QuantizeLinear" in done.stderr or "opset 23" in done.stderr, done.stderr
