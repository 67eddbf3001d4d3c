"""A tool runs in a process of its own: how it fails is said, and nothing is written where its answers are wrong."""

import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from edgevit.api.images import images_of
from edgevit.bundle.store import Bundle
from edgevit.errors import VerificationError
from edgevit.mobile import process
from edgevit.mobile.converter import converter_install_command
from edgevit.mobile.formats import CONVERTERS
from edgevit.mobile.messages import ANSWERS, IMAGES, MODEL, ConversionMade, ConvertedModel
from edgevit.stages import pack_mobile

SHAPES = "shapes:size=16,count=96"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Return a function that puts a Python package in the place of Core ML's tools."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def put(text):
        package = tmp_path / "site/coremltools"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(text)

    return put


@pytest.fixture
def forked_worker(torch_server, monkeypatch):
    """Have conversions run in processes that have loaded torch, but for that they are as others."""

    def run(command, *, input, stdout, stderr, cwd, env):  # noqa: A002
        assert (command, stdout) == ([sys.executable, "-m", "edgevit.mobile.worker"], subprocess.PIPE)
        worker = torch_server.talk(command[-1], env, cwd, stderr)
        with worker.stdin:
            worker.stdin.write(input)
        with worker.stdout:
            answer = worker.stdout.read()
        return subprocess.CompletedProcess(command, worker.wait(60), answer)

    monkeypatch.setattr(process, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run}))


@pytest.fixture
def answering(monkeypatch):
    """Return a function that has LiteRT's tools answer by the graph that they are given, changed by a function."""
    from edgevit.graph.running import run_all_outputs

    def put(change):
        def convert(job, converter, folder):
            made = []
            for precision in ("float32", "int8") if job.calibration else ("float32",):
                (folder / precision).mkdir()
                (folder / precision / "model.tflite").write_bytes(b"model")
                images = np.load(folder / IMAGES)
                (logits,) = run_all_outputs(folder / MODEL, [image[None] for image in images])
                np.save(folder / ANSWERS.format(precision), change(logits, precision).astype(np.float32))
                made.append(ConvertedModel(precision, f"{precision}/model.tflite"))
            return ConversionMade(tuple(made), {"torch": "2"})

        monkeypatch.setattr(process, "convert_in_process", convert)
        monkeypatch.setattr(pack_mobile.CONVERTERS["litert"], "check_installed", classmethod(lambda cls: None))

    return put


def test_what_a_tool_says_last_is_the_reason(edgevit, exported, tool, forked_worker):
    tool("import sys\nprint('noise')\nraise RuntimeError('no such \\x1b[31moperator')")
    message, remedy = edgevit("pack", exported, "--format", "coreml").failure()
    assert message == "Core ML does not convert this model: RuntimeError: no such  [31moperator"
    assert "take another format" in remedy
    assert not exported.with_name("tiny.coreml").exists()


def test_a_tool_that_dies_is_said(edgevit, exported, tool):
    tool("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    message, _ = edgevit("pack", exported, "--format", "coreml").failure()
    assert "ended by signal 11" in message


def test_a_package_that_a_tool_lacks_is_named_with_the_line_to_type(edgevit, exported, tool, forked_worker):
    tool("import a_package_that_nobody_has")
    done = edgevit("pack", exported, "--format", "coreml")
    message, remedy = done.failure()
    assert done.code == 3
    assert "a_package_that_nobody_has" in message
    assert remedy.startswith("pip install --no-deps -r ")
    assert remedy.endswith("export/mobile/coreml.txt")


@pytest.mark.parametrize("name", CONVERTERS)
def test_a_tool_that_is_not_there_is_named_with_the_line_to_type(edgevit, exported, name, monkeypatch):
    monkeypatch.setattr(CONVERTERS[name], "modules", ("no_such_tool_of_anybody",))
    done = edgevit("pack", exported, "--format", name)
    message, remedy = done.failure()
    assert done.code == 3
    assert "no_such_tool_of_anybody" in message
    assert "--no-deps" in remedy
    assert remedy.endswith(f"/{name}.txt")


def test_answers_of_float32_that_are_off_are_refused(edgevit, exported, answering):
    answering(lambda logits, _: logits + 0.01)
    done = edgevit("pack", exported, "--format", "litert")
    message, remedy = done.failure()
    assert done.code == 1
    assert "logits differ by 0.01, more than 0.001" in message
    assert remedy
    assert not exported.with_name("tiny.litert").exists()


def test_int8_that_decides_otherwise_is_refused(edgevit, exported, answering):
    answering(lambda logits, precision: -logits if precision == "int8" else logits)
    message, remedy = edgevit("pack", exported, "--format", "litert", "--data", SHAPES).failure()
    assert "in int8 answers to the golden images otherwise" in message
    assert "leave --data out" in remedy
    assert not exported.with_name("tiny.litert").exists()


def test_what_was_checked_is_said_and_measured_on_images_not_calibrated_with(edgevit, exported, answering):
    answering(lambda logits, precision: logits if precision == "float32" else 1.01 * logits)
    done = edgevit("pack", exported, "--format", "litert", "--data", SHAPES, "--samples", "8")
    assert done.code == 0, done.err
    assert f"{exported.with_name('tiny.litert')}: litert, rotated" in done.out
    content = json.loads((exported.with_name("tiny.litert") / "edgevit.json").read_text())
    assert content["calibration"]["images"] == 8
    float32, int8 = content["models"]
    assert float32["check"]["tolerance"] == "a difference of at most 0.001"
    assert int8["check"]["images"] == 64
    assert int8["check"]["images_agreement"] == 1
    assert int8["check"]["images_sqnr_db"] == pytest.approx(40, abs=0.1)
    assert not (exported / ".calibrating").exists()


def test_a_folder_is_replaced_only_if_it_is_one_of_these_and_asked_for(edgevit, exported, answering):
    answering(lambda logits, _: logits)
    out = exported.with_name("tiny.litert")
    assert edgevit("pack", exported, "--format", "litert").code == 0
    message, remedy = edgevit("pack", exported, "--format", "litert").failure()
    assert message == f"{out} exists already"
    assert "--overwrite" in remedy
    assert edgevit("pack", exported, "--format", "litert", "--overwrite").code == 0
    (out / "notes.txt").write_text("mine")
    message, _ = edgevit("pack", exported, "--format", "litert", "--overwrite").failure()
    assert "has more in it than this command writes" in message
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "ncnn", "--variant", "float32"), "--variant does not go with --format ncnn"),
        (("--format", "ncnn", "--sign", "key.pem"), "--sign does not go with --format ncnn"),
        (("--data", SHAPES), "--data does not go with --format zip"),
        (("--samples", "5"), "--samples does not go with --format zip"),
        (("--root", "."), "--root does not go with --format zip"),
        (("--format", "triton", "--strict"), "--strict does not go with --format triton"),
        (("--format", "deepstream", "--seed", "0"), "--seed does not go with --format deepstream"),
        (("--format", "ncnn", "--name", "x"), "--name does not go with --format ncnn"),
        (("--format", "ncnn", "--samples", "5"), "--samples does not go without --data"),
        (("--name", "x"), "--name is only for --format triton"),
        (("--frame", "8x8"), "--frame is only for --format deepstream or dlstreamer"),
        (("--format", "dlstreamer", "--sign", "key.pem"), "--sign is only for --format zip or triton"),
    ],
)
def test_what_does_not_go_together_is_refused(edgevit, exported, options, said):
    message, remedy = edgevit("pack", exported, *options).failure()
    assert said in message
    assert remedy.startswith("leave ")


def test_the_line_to_type_takes_a_path_with_a_space(monkeypatch, tmp_path):
    monkeypatch.setattr("edgevit.resources.folder", lambda _: tmp_path / "my tools")
    *_, path = shlex.split(converter_install_command(CONVERTERS["ncnn"]))
    assert path == str(tmp_path / "my tools/mobile/ncnn.txt")


def test_a_pack_without_float32_is_refused(edgevit, quantized, answering):
    answering(lambda logits, _: logits)
    assert edgevit("pack", quantized, "--variant", "int8-onnxruntime").code == 0
    message, _ = edgevit("pack", quantized.with_name("tiny.edgevit.zip"), "--format", "litert").failure()
    assert "has no variant float32" in message


def test_the_process_refuses_a_graph_by_the_name_of_its_operator(tmp_path, write_graph, forked_worker):
    path = write_graph(
        "g (float[batch, 1, 2, 2] x) => (float[batch, 1, 2, 2] y) { y = CumSum(x, axis) }", {"axis": np.array(1)}
    )
    (tmp_path / MODEL).write_bytes(path.read_bytes())
    np.save(tmp_path / IMAGES, np.zeros((1, 1, 2, 2), np.float32))
    from edgevit.errors import GraphError
    from edgevit.mobile.messages import ConversionJob

    with pytest.raises(GraphError, match="CumSum"):
        process.convert_in_process(ConversionJob("coreml"), CONVERTERS["coreml"], tmp_path)


def test_answers_that_are_no_json_are_no_answers(tmp_path, monkeypatch):
    from edgevit.mobile.messages import ConversionJob

    monkeypatch.setattr(process.sys, "executable", "/bin/true")
    with pytest.raises(VerificationError, match="it ended with code 0"):
        process.convert_in_process(ConversionJob("coreml"), CONVERTERS["coreml"], tmp_path)


@pytest.mark.parametrize("rewrites", [(), ("smoothed",), ("rotated", "smoothed")])
def test_rewrites_leave_the_answers_as_they_are(exported, answering, tmp_path, rewrites):
    answering(lambda logits, _: logits)
    images = images_of(SHAPES, "train", samples=16)
    made = pack_mobile.pack_mobile(Bundle.open(exported), "litert", tmp_path / "out", images=images, rewrites=rewrites)
    assert made.content.rewrites == rewrites
    assert made.content.models[0].check.difference <= 1e-4
    assert (made.content.models[0].check.difference > 0) == bool(rewrites)
