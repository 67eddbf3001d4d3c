"""An engine and a dialect are added by one file and one line each; no other module knows any engine by its name."""

import ast
from pathlib import Path

import pytest
from own_code import PACKAGE, called, each_room, tree
from tiny import SHAPES

from edgevit.backends import BACKENDS, available_backends, backend_class
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.quantization.emit import DIALECTS
from edgevit.targets import load_target

TOY = Path(__file__).parent / "toy"
TARGET = """
description = "a toy"
backend = "toy"
dialect = "toy"
precisions = ["float32", "int8"]
weight_bits = 7
versions = ">=1.2"
why = "to see that it can be added"
settings = { level = "9" }
"""


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Register the toys here and in the workers of benchmarks, and return a target for them."""
    monkeypatch.syspath_prepend(TOY)
    monkeypatch.setitem(BACKENDS, "toy", "toy_engine:Toy")
    monkeypatch.setitem(DIALECTS, "toy", "toy_dialect")
    path = tmp_path / "toy.toml"
    path.write_text(TARGET)
    return path


def test_a_toy_engine_goes_the_whole_way(edgevit, tiny_checkpoint, toy, tmp_path, pictures):
    path, reading = tmp_path / "toy.edgevit", ("--data", SHAPES)
    options = ("--target", toy, "--duration", "0.02", "--max-drop", "100")
    done = edgevit("pipeline", tiny_checkpoint, *reading, "-o", path, *options)
    assert done.code == 0, done.err
    variants = {each.name: each for each in Bundle.open(path).manifest.variants}
    assert list(variants) == ["float32", "float32-toy", "int8-toy"]
    for name in ("float32-toy", "int8-toy"):
        made = variants[name]
        assert (made.backend, made.files[0].path.rpartition(".")[2]) == ("toy", "toy")
        assert (made.settings, made.versions) == ({"level": "9"}, ">=1.2")
        assert None not in (made.accuracy, made.latency)
    kernels = variants["int8-toy"].kernels
    assert kernels.integer_linears == kernels.linears > 0
    for command in (("validate", path, *reading, "--max-drop", "100"), ("benchmark", path, "--duration", "0.02")):
        measured = edgevit(*command, "--variant", "int8-toy", "--json")
        assert measured.data()["variants"][-1]["name"] == "int8-toy", measured.err
    said = edgevit("predict", path, pictures[0], "--variant", "int8-toy", "--json")
    assert said.code == 0, said.err
    shown = edgevit("inspect", path, "--kernels", "--json")
    (report,) = (each for each in shown.data()["variants"] if each["variant"] == "int8-toy")
    assert all(linear["integer"] for linear in report["linears"])


def test_a_toy_is_named_where_engines_are_and_not_believed_blindly(toy, tmp_path):
    assert "toy" in available_backends()
    assert load_target(str(toy)).variant_of("int8") == "int8-toy"
    for given, problem, remedy in (
        ('dialect = "portable"', "toy does not take 'portable': use toy", ""),
        ('dialect = "tory"', "there is no 'tory' for dialect", "use toy"),
        ('backend = "tyo"', "there is no 'tyo' for backend", "use toy"),
        ('precisions = ["fp8"]', "toy cannot have fp8: use float32, int8", ""),
        ('device = "NPU"', 'toy runs on no NPU: use device = "CPU"', ""),
        ('settings = { depth = "1" }', "toy has no setting 'depth'", ""),
    ):
        key = given.partition(" ")[0]
        lines = [line for line in TARGET.strip().splitlines() if not line.startswith(f"{key} ")]
        wrong = tmp_path / "wrong.toml"
        wrong.write_text("\n".join([given, *lines]))
        with pytest.raises(InputError) as caught:
            load_target(str(wrong))
        assert problem in caught.value.message
        assert f"{wrong}, line 1: " in caught.value.message
        assert remedy in caught.value.remedy


#: Where engines may be called by their names: what is there is of one engine alone.
OF_ENGINES = ("backends/", "quantization/emit/", "video/")


@each_room
def test_no_other_module_knows_an_engine_by_its_name(paths):
    names = {*BACKENDS, *(dialect for name in BACKENDS for dialect in backend_class(name).dialects)} - {"portable"}
    for path in without_engines(paths):
        said = [
            node.value
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
        ]
        assert not said, f"{called(path)}: ask the class of the backend instead: {said}"


def without_engines(paths):
    return [path for path in paths if not str(path.relative_to(PACKAGE)).startswith(OF_ENGINES)]


#: What the modules are called that are of one engine: as it is, or as the files that it takes.
OF_ONE_ENGINE = ("edgevit.backends.onnx", "edgevit.backends.openvino", "edgevit.backends.tensorrt")


@each_room
def test_no_other_module_imports_one_of_an_engine(paths):
    for path in without_engines(paths):
        nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [f"{getattr(node, 'module', '')}.{alias.name}".lstrip(".") for node in nodes for alias in node.names]
        assert not [name for name in names if name.startswith(OF_ONE_ENGINE)], called(path)
