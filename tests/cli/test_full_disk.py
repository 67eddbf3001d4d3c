"""Writes that fail midway, at many places: one line, exit 3, and everything as it was before.

Files may not grow beyond a limit, which also native code that writes files meets; a full disk behaves alike.
"""

import pytest
from tiny import SHAPES, content, entries, finish


@pytest.fixture
def refused(tmp_path, forked, request):
    """Return a function that runs a command which meets a full disk, and gives its error and remedy."""

    def run(*arguments, limit):
        scratch = tmp_path / "scratch"
        start = request.getfixturevalue("forked_with_torch") if arguments[0] in ("export", "train") else forked
        done = finish(start(*arguments, scratch=scratch, file_size=limit))
        assert done.code == 3, done.err
        message, remedy = done.failure()
        assert entries(scratch) == [], "temporary files are left"
        assert remedy
        return message, remedy

    return run


@pytest.mark.parametrize("limit", [0, 50_000])
def test_export(refused, tiny_checkpoint, quantized, limit):
    before, beside = content(quantized), entries(quantized.parent)
    for path, options in ((quantized, ["--overwrite"]), (quantized.parent / "new.edgevit", []))[: 2 - bool(limit)]:
        message, remedy = refused("export", tiny_checkpoint, "-o", path, "--data", SHAPES, *options, limit=limit)
        assert "cannot" in message
        assert "TMPDIR" in remedy
        assert content(quantized) == before
        assert entries(quantized.parent) == sorted({*beside, "scratch"})


@pytest.mark.parametrize("limit", [0, 1_000, 4_000, 20_000, 60_000])
def test_quantize(refused, exported, limit):
    before = content(exported)
    message, _ = refused("quantize", exported, "--data", SHAPES, "--samples", "8", limit=limit)
    assert "cannot" in message
    assert content(exported) == before


@pytest.mark.parametrize(("command", "limit"), [("report", 0), ("report", 3_000), ("validate", 0), ("validate", 1_000)])
def test_what_only_notes_or_draws(refused, quantized, command, limit):
    options = ("--data", SHAPES, "--variant", "float32") if command == "validate" else ()
    before = content(quantized)
    message, _ = refused(command, quantized, *options, limit=limit)
    assert f"cannot write {quantized}" in message
    assert content(quantized) == before


def test_a_report_elsewhere(refused, quantized, tmp_path):
    refused("report", quantized, "-o", tmp_path / "site", limit=1_000)
    assert not (tmp_path / "site").exists() or entries(tmp_path / "site") == []


@pytest.mark.parametrize("limit", [0, pytest.param(100_000, marks=pytest.mark.slow)])
def test_train(refused, forked_with_torch, tmp_path, limit):
    run = tmp_path / "run"
    options = ("--data", "shapes:size=28,count=32", "--epochs", "1", "--batch-size", "16")
    message, _ = refused("train", *options, "-o", run, limit=limit)
    assert f"cannot write {run}" in message
    if limit:
        assert entries(run) == ["job.json", "train.toml"]
        done = finish(forked_with_torch("train", *options, "-o", run, "--resume", scratch=tmp_path / "scratch"))
        assert done.code == 0, done.err
        assert (run / "model.safetensors").is_file()
