"""What a model file would open or do beyond itself, found without the engine; onnx is the oracle."""

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgevit.bundle.model_files import check_model_file, contents_of_ir, contents_of_onnx
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, EdgeViTError, InputError
from edgevit.limits import still_working
from edgevit.memory import ALLOWED
from edgevit.processor import most_threads
from edgevit.runtime import load


def graph_with(nodes, name="g"):
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])


def save(graph, path, functions=()):
    model = helper.make_model(graph, functions=functions, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def external(location):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def all_kinds(model):
    found, graphs = set(), [model.graph]
    while graphs:
        for node in graphs.pop().node:
            found.add(node.op_type)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found


def test_it_finds_what_onnx_finds(quantized):
    for path in quantized.rglob("*.onnx"):
        contents = contents_of_onnx(path)
        assert contents.kinds == all_kinds(onnx.load(path))
        assert contents.others == set()


def test_branches_and_loops_are_found_wherever_they_are(tmp_path):
    inner = graph_with([helper.make_node("Loop", ["m", "c"], ["y"], body=graph_with([], "body"))], "inner")
    for name, kinds, build in (
        ("plain", {"Loop"}, lambda: (graph_with([helper.make_node("Loop", ["m"], ["y"])]), ())),
        ("nested", {"If", "Loop"}, lambda: (graph_with([helper.make_node("If", ["c"], ["y"], then_branch=inner)]), ())),
        (
            "function",
            {"Mine", "Scan"},
            lambda: (
                graph_with([helper.make_node("Mine", ["x"], ["y"], domain="d")]),
                [helper.make_function("d", "Mine", ["x"], ["y"], [helper.make_node("Scan", ["x"], ["y"])], [])],
            ),
        ),
    ):
        graph, functions = build()
        path = save(graph, tmp_path / f"{name}.onnx", functions)
        assert contents_of_onnx(path).kinds == kinds
        with pytest.raises(BundleError, match="branches or loops"):
            check_model_file(path, frozenset([path]))


@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../outside", ""])
def test_weights_in_other_files_must_be_listed(tmp_path, where, location):
    constant = helper.make_node("Constant", [], ["w"], value=external(location))
    graph = graph_with([constant] if where == "constant" else [])
    if where == "initializer":
        graph.initializer.append(external(location))
    path = save(graph, tmp_path / "model.onnx")
    assert contents_of_onnx(path).others == {location}
    with pytest.raises(BundleError, match="no file that the manifest lists"):
        check_model_file(path, frozenset([path]))
    check_model_file(path, frozenset([path, tmp_path / location]))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_answer_or_our_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with suppress(BundleError):
        contents_of_onnx(path)


def rehash(bundle, manifest):
    files = [file for variant in manifest["variants"] for file in variant["files"]]
    for file in files:
        content = (bundle / file["path"]).read_bytes()
        file.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("linked", [True, False])
def test_the_weights_of_an_ir_must_be_listed(quantized, tmp_path, linked, edgevit):
    manifest = json.loads((quantized / "manifest.json").read_text())
    for variant in manifest["variants"]:
        variant["files"] = [file for file in variant["files"] if not file["path"].endswith("openvino/model.bin")]
    if linked:
        shutil.move(quantized / "int8-openvino/model.bin", tmp_path / "outside.bin")
        os.symlink(tmp_path / "outside.bin", quantized / "int8-openvino/model.bin")  # noqa: PTH211
    rehash(quantized, manifest)
    with pytest.raises(BundleError, match=r"model\.bin"):
        load(quantized, variant="int8-openvino")
    assert edgevit("inspect", quantized).code == 1
    load(quantized, variant="int8-onnxruntime", check="files").close()


HIDDEN = {
    "behind a bracket in a name": lambda ir: ir.replace(b'name="logits" type="', b'name="a>b" type="'),
    "as a character reference": lambda ir: ir.replace(b'type="L', b'type="&#76;'),
    "behind another in a name": lambda ir: ir.replace(b'name="logits" type="', b"""name="a type='Add'" type=\""""),
    "in UTF-16": lambda ir: ir.decode().replace('"1.0"?>', '"1.0" encoding="utf-16"?>').encode("utf-16"),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_kinds_in_an_ir_are_found_however_they_are_written(tmp_path, how):
    ir = b'<?xml version="1.0"?><net name="n"><layers><layer id="0" name="logits" type="Loop"/></layers></net>'
    path = tmp_path / "model.xml"
    assert HIDDEN[how](ir) != ir
    path.write_bytes(HIDDEN[how](ir))
    with pytest.raises(BundleError, match="Loop"):
        check_model_file(path, frozenset([path]))


@pytest.mark.parametrize(
    "ir",
    [
        b"",
        b"<net>",
        b'<!DOCTYPE net [<!ENTITY l "Loop">]><net><layer type="&l;"/></net>',
        b'<net><layer type="Add" type="Loop"/></net>',
        b'<?xml version="1.0" encoding="ebcdic"?><net/>',
        b'<net><layer type="\xff"/></net>',
    ],
)
def test_what_is_no_ir_is_refused(tmp_path, ir):
    (tmp_path / "model.xml").write_bytes(ir)
    with pytest.raises(BundleError, match="not a readable IR"):
        contents_of_ir(tmp_path / "model.xml")


def test_a_field_that_protobuf_takes_for_another_is_refused(tmp_path):
    graph = graph_with([helper.make_node("Loop", ["m"], ["y"])]).SerializeToString()
    size = bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7])
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a" + size + graph)  # the field that a graph is in, in one byte
    assert contents_of_onnx(path).kinds == {"Loop"}
    path.write_bytes(b"\xba\x80\x80\x80\x10" + size + graph)  # the same and bits above the 32nd
    with pytest.raises(BundleError, match="too large"):
        contents_of_onnx(path)


@pytest.mark.parametrize("name", ["model.txt", "model.ort", "MODEL.ONNX", "model"])
def test_a_model_by_a_name_that_hides_it_is_refused(exported, name):
    """onnxruntime opens a file of any name, and looped and read other files in one that was not called .onnx."""
    manifest = json.loads((exported / "manifest.json").read_text())
    shutil.move(exported / "float32/model.onnx", exported / "float32" / name)
    manifest["variants"][0]["files"][0]["path"] = f"float32/{name}"
    rehash(exported, manifest)
    with pytest.raises(BundleError, match="does not end in"):
        load(exported)
    with pytest.raises(BundleError, match="does not end in"):
        Bundle.open(exported).verify_files("float32")


def with_more(bundle, nodes, initializers):
    """Let the float32 model of ``bundle`` compute what ``nodes`` do, and add it to its logits."""
    path = bundle / "float32/model.onnx"
    model = onnx.load(path)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if output == name else output for output in node.output]
    model.graph.initializer.extend(initializers)
    model.graph.node.extend([*nodes, helper.make_node("Add", ["before", "more"], [name])])
    onnx.save(model, path)
    rehash(bundle, json.loads((bundle / "manifest.json").read_text()))


def numbers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


BOMBS = {
    "constant": ([helper.make_node("ConstantOfShape", ["n"], ["big"])], [numbers("n", 1 << 16, 1 << 15)]),
    "expand": ([helper.make_node("Expand", ["one", "n"], ["big"])], [numbers("n", 1 << 16, 1 << 15)]),
    "tile": ([helper.make_node("Tile", ["one", "n"], ["big"])], [numbers("n", 1 << 31)]),
    "outer": (
        [
            helper.make_node("ConstantOfShape", ["n"], ["column"]),
            helper.make_node("Transpose", ["column"], ["row"]),
            helper.make_node("MatMul", ["column", "row"], ["big"]),
        ],
        [numbers("n", 46_000, 1)],
    ),
    "doubled": (
        [helper.make_node("Concat", [f"d{step}"] * 2, [f"d{step + 1}"], axis=0) for step in range(31)]
        + [helper.make_node("Identity", ["d31"], ["big"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "d0")],
    ),
}


@pytest.fixture(params=sorted(BOMBS))
def bomb(request, monkeypatch):
    """Return the name of a bomb; the one that grows step by step gets little memory, all of which it fills."""
    if request.param == "doubled":
        monkeypatch.setenv(ALLOWED, str(1280 + 16 * most_threads()))
    return request.param


def test_a_small_file_that_asks_for_gigabytes_is_refused(exported, bomb):
    nodes, initializers = BOMBS[bomb]
    total = helper.make_node("ReduceSum", ["big"], ["more"], keepdims=0)
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    with_more(exported, [*nodes, total], [*initializers, one])
    with pytest.raises(EdgeViTError) as caught:
        load(exported, variant="float32", threads=1)
    assert caught.value.remedy


#: 322 GFLOP, in a file of 9 KB; engines compute what depends on constants alone while they open it.
SLOW = (
    [helper.make_node("ConstantOfShape", ["n"], ["m0"], value=numpy_helper.from_array(np.full(1, 1e-3, np.float32)))]
    + [helper.make_node("MatMul", [f"m{step}", "m0"], [f"m{step + 1}"]) for step in range(150)]
    + [helper.make_node("Identity", ["m150"], ["big"])],
    [numbers("n", 1024, 1024)],
)


def test_a_small_file_that_takes_long_is_refused(exported, monkeypatch):
    nodes, initializers = SLOW
    with_more(exported, [*nodes, helper.make_node("ReduceSum", ["big"], ["more"], keepdims=0)], initializers)
    monkeypatch.setenv("EDGEVIT_LOAD_SECONDS", "1")
    with pytest.raises(InputError, match="float32 takes more than 1 s"):
        load(exported, variant="float32", threads=1)
    wait_for_engines()


def wait_for_engines():
    """Wait for what a limit on time has left working: the limit on memory goes with it."""
    while still_working():
        time.sleep(0.05)


def test_the_input_of_a_manifest_is_bounded(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    manifest["spec"]["image_size"] = manifest["preprocess"]["size"] = [8192, 8192]
    manifest["preprocess"]["resize"] = 8192
    rehash(exported, manifest)
    with pytest.raises(BundleError, match="larger than any model"):
        Bundle.open(exported)


def bomb_file(path, nodes, initializers):
    """Write a file that would be a model of images of 8 x 8 pixels, had it not ``nodes``."""
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    weight = numpy_helper.from_array(np.ones((192, 3), np.float32), "weight")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["before"]),
            *nodes,
            helper.make_node("ReduceSum", ["big"], ["more"], keepdims=0),
            helper.make_node("Add", ["before", "more"], ["logits"]),
        ],
        "bomb",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [weight, one, *initializers],
    )
    return save(graph, path)


def test_an_onnx_file_that_asks_for_gigabytes_is_not_exported(bomb, tmp_path, edgevit):
    path = bomb_file(tmp_path / "bomb.onnx", *BOMBS[bomb])
    done = edgevit("export", path, "--image-size", "8", "-o", tmp_path / "b.edgevit")
    assert done.code == 2, done.err
    assert "bomb.onnx" in done.err
    assert "while running" in done.err  # not while the file was read
    assert not (tmp_path / "b.edgevit").exists()


def test_an_onnx_file_that_takes_long_is_not_exported(tmp_path, edgevit, monkeypatch):
    monkeypatch.setenv("EDGEVIT_LOAD_SECONDS", "1")
    path = bomb_file(tmp_path / "slow.onnx", *SLOW)
    done = edgevit("export", path, "--image-size", "8", "-o", tmp_path / "b.edgevit")
    assert done.code == 2, done.err
    wait_for_engines()
    assert "takes more than 1 s" in done.err
    assert not (tmp_path / "b.edgevit").exists()
