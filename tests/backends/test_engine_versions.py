"""Which versions of onnxruntime a file says that it runs on, and what an earlier one says of it.

With EDGEVIT_ENGINES, a folder that ``python scripts/check_engine_versions.py FOLDER`` has filled, the files are run on
the first version that they name.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import helper

from edgevit.backends import onnxruntime as backend
from edgevit.backends.onnx_versions import first_version
from edgevit.backends.variants import backend_for
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, MissingDependencyError
from edgevit.graph.saving import contents_of
from edgevit.stages.build import build
from edgevit.targets import load_target
from edgevit.versions import in_range

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_engine_versions.py"
FOLDER = os.environ.get("EDGEVIT_ENGINES")


def script():
    spec = importlib.util.spec_from_file_location("check_engine_versions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opsets(path):
    return {each.domain: each.version for each in onnx.load(path).opset_import}


def test_files_say_which_versions_run_them(quantized):
    bundle = Bundle.open(quantized)
    named = {variant.name: variant.versions for variant in bundle.manifest.variants if variant.backend == "onnxruntime"}
    # Two heads: float32 has ONNX's Attention, of opset 23; INT8 has none of it, and keeps the opset of the export.
    assert named == {"float32": ">=1.20", "float32-onnxruntime": ">=1.23", "int8-onnxruntime": ">=1.20"}
    assert opsets(bundle.verify_files("float32-onnxruntime"))[""] == 23
    assert opsets(bundle.verify_files("int8-onnxruntime"))[""] == 20


@pytest.mark.parametrize(
    ("opset", "kinds", "first"),
    [
        (17, ["QuantizeLinear"], "1.20"),
        (21, ["QuantizeLinear"], "1.20"),
        (23, ["Attention"], "1.23"),
        (23, ["Attention", "QuantizeLinear"], "1.24"),
        (23, ["DequantizeLinear"], "1.24"),
    ],
)
def test_the_first_version_follows_from_opset_and_operators(tmp_path, opset, kinds, first):
    nodes = [helper.make_node(kind, ["x"], [f"y{index}"]) for index, kind in enumerate(kinds)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [], []), opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    )
    onnx.save(model, tmp_path / "model.onnx")
    assert first_version(*contents_of(tmp_path / "model.onnx")) == first


def test_an_engine_that_is_too_old_is_told_from_the_manifest(quantized, monkeypatch):
    variant = Bundle.open(quantized).variant("float32-onnxruntime")
    monkeypatch.setattr(backend.OnnxRuntime, "version", lambda self: "1.20.1")
    with pytest.raises(MissingDependencyError, match=r"is for onnxruntime >=1\.23, and this is 1\.20\.1") as caught:
        backend_for(variant)
    assert caught.value.remedy.startswith('pip install "onnxruntime>=1.23"')


@pytest.mark.parametrize(("version", "error"), [("1.22.0", MissingDependencyError), ("1.31.1", BundleError)])
def test_an_older_bundle_that_does_not_say_it_is_understood_all_the_same(tmp_path, version, error):
    import onnxruntime

    class Refusing:
        def __init__(self, *arguments, **options):
            kind = onnxruntime.capi.onnxruntime_pybind11_state.Fail
            raise kind("Load model failed: ONNX Runtime only guarantees support for models stamped with official opset")

    engine = SimpleNamespace(
        __version__=version,
        InferenceSession=Refusing,
        SessionOptions=onnxruntime.SessionOptions,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
    )
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(error):
        backend.OnnxRuntimeSession(engine, tmp_path / "model.onnx", 1)


@pytest.mark.parametrize(
    ("version", "operator", "first"), [("1.22.0", "MultiHeadAttention", "1.20"), ("1.23.0", "Attention", "1.23")]
)
def test_what_is_built_with_an_older_engine_is_for_that(quantized, tmp_path, monkeypatch, version, operator, first):
    monkeypatch.setattr(backend.OnnxRuntime, "version", lambda self: version)
    shutil.copytree(quantized, tmp_path / "copy.edgevit")
    made = build(
        Bundle.open(tmp_path / "copy.edgevit"), "x86-onnxruntime", load_target("x86-onnxruntime"), precision="float32"
    ).bundle.variant("float32-onnxruntime")
    model = onnx.load(tmp_path / "copy.edgevit" / made.files[0].path)
    assert {node.op_type for node in model.graph.node if "Attention" in node.op_type} == {operator}
    assert made.versions == f">={first}"


def test_int4_takes_a_later_openvino_to_build_than_to_run(quantized, tmp_path, monkeypatch):
    openvino = pytest.importorskip("edgevit.backends.openvino")
    monkeypatch.setattr(openvino.OpenVINO, "version", lambda self: "2025.2.0")
    shutil.copytree(quantized, tmp_path / "copy.edgevit")
    with pytest.raises(MissingDependencyError, match=r"int4-weights is built with openvino>=2025\.3") as caught:
        build(
            Bundle.open(tmp_path / "copy.edgevit"),
            "x86-openvino",
            load_target("x86-openvino"),
            precision="int4-weights",
        )
    assert caught.value.remedy.startswith('pip install "openvino>=2025.3"')


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(FOLDER is None, reason="EDGEVIT_ENGINES names no folder of python scripts/check_engine_versions.py")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_each_file_runs_on_the_versions_that_it_names_and_on_no_other(tmp_path, engine):
    checks = script()
    files = checks.bundle(tmp_path, engine, 2)
    _, expected = checks.run(engine, None, files)
    for version in checks.VERSIONS[engine]:
        found, answers = checks.run(engine, checks.install(engine, version, Path(FOLDER)), files)
        assert found == version
        for name, answer in answers.items():
            assert isinstance(answer, list) == in_range(found, files[name].versions), (name, found, answer)
            if isinstance(answer, list):
                assert checks.difference(answer, expected[name]) <= 0.05 * max(map(abs, expected[name][0][0]))
