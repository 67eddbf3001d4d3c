"""The gates of ``edgevit pipeline``, and which outputs of an ONNX file it takes."""

import pytest
from tiny import SHAPES

from edgevit.bundle.store import Bundle

SHORT = ("--target", "x86-onnxruntime", "--duration", "0.02")


def test_the_share_of_integers_is_a_gate_and_the_recipes_otherwise(edgevit, tiny_exported, tmp_path):
    recipe, path = tmp_path / "own.toml", tmp_path / "new.edgevit"
    recipe.write_text("samples = 16\nmin_integer_share = 0.99\n")
    source = tiny_exported / "float32" / "model.onnx"
    pipeline = ("pipeline", source, "--data", SHAPES, "-o", path, *SHORT, "--max-drop", "100", "--recipe", recipe)
    done = edgevit(*pipeline, "--json")
    assert done.code == 1, done.err
    assert list(done.data()["shares_missed"]) == ["int8-onnxruntime"]
    shares = {each["name"]: each["integer_share"] for each in done.data()["variants"]}
    assert 0.8 < shares["int8-onnxruntime"] < 0.99  # attention stays float
    assert (path / "report" / "index.html").is_file()
    assert edgevit(*pipeline, "--overwrite", "--min-integer-share", "0.8").code == 0


def test_outputs_of_an_onnx_file_have_their_gates(edgevit, tiny_dense, tmp_path):
    path = tmp_path / "new.edgevit"
    outputs = ("--onnx-output", "tokens,logits", "--onnx-output", "block_0=segmentation")
    pipeline = ("pipeline", tiny_dense / "float32" / "model.onnx", "--data", SHAPES, "-o", path, *SHORT, *outputs)
    done = edgevit(*pipeline, "--max-drop", "100", "--min-cosine", "0.9", "--min-miou", "1", "--min-integer-share", "1")
    assert done.code == 1, done.err
    said = " ".join(done.out.split())
    assert "int8-onnxruntime: tokens: cosine" in said
    assert "failed: mIoU 0." in said
    assert "int8-onnxruntime: share missed: " in said
    assert "of the multiply-adds run in integers, 100 % wanted" in said
    kinds = {output.name: output.kind for output in Bundle.open(path).manifest.typed_outputs}
    assert kinds == {"tokens": "tokens", "logits": "logits", "block_0": "segmentation"}
    passed = {each.name: each.passed for each in Bundle.open(path).variant("int8-onnxruntime").accuracy.outputs}
    assert passed == {"tokens": True, "logits": True, "block_0": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--min-miou", "0.9"), "--min-miou decides on none of the model's outputs: logits or features"),
        (("--min-delta1", "0.9"), "--min-delta1 decides on none of the model's outputs"),
        (("--max-abs-rel", "0.1"), "--max-abs-rel decides on none of the model's outputs"),
        (("--min-box-agreement", "0.9"), "--min-box-agreement decides on none of the model's outputs"),
        (("--output", "tokens", "--max-drop", "1"), "--max-drop decides on none of the model's outputs: tokens"),
        (
            ("--precision", "fp16", "--precision", "int8-weights", "--min-integer-share", "0.5"),
            "fp16 and int8-weights multiply in floating point: they have no share of integers to reach",
        ),
        (("--onnx-output", "logits"), "--onnx-output goes with an ONNX file"),
        (("--onnx-output", "a=b"), "'b' is no kind of output"),
    ],
)
def test_a_gate_or_an_output_that_means_nothing_is_refused_before_the_work(
    edgevit, tiny_checkpoint, tmp_path, given, message
):
    path = tmp_path / "new.edgevit"
    done = edgevit("pipeline", tiny_checkpoint, "--data", SHAPES, "-o", path, *given)
    assert done.code == 2
    assert message in done.failure()[0]
    assert not path.exists()
