"""Ctrl-C and requests to end, in the middle of real work: one line, nothing half-written, nobody left behind."""

import io
import os
import signal
import time

import msgspec
import pytest
from tiny import Outcome, content, entries

from edgevit.bundle.store import Bundle
from edgevit.cli.console import PlainProgress
from edgevit.cli.signals import Stopped, signal_behind, signals_stop
from edgevit.errors import MissingDependencyError
from edgevit.runtime.selection import rank_variants

ENDINGS = {
    signal.SIGINT: (130, "error: interrupted; no file is half-written"),
    signal.SIGTERM: (143, "error: stopped by SIGTERM; no file is half-written"),
    signal.SIGHUP: (129, "error: stopped by SIGHUP; no file is half-written"),
}


@pytest.fixture
def stop(tmp_path, forked, request):
    """Return a function that runs a command until it says something, and then signals it and its children."""

    def run(*arguments, at, number=signal.SIGINT, after=0.3):
        scratch = tmp_path / "scratch"
        start = request.getfixturevalue("forked_with_torch") if arguments[0] in ("export", "train") else forked
        process = start(*arguments, scratch=scratch)
        said = ""
        for line in process.stderr:
            said += line
            if at in line:
                break
        time.sleep(after)
        assert process.poll() is None, said + process.stderr.read()
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        done = Outcome(process.returncode, out, said + err)
        code, line = ENDINGS[number]
        assert done.code == code, done.err
        said = done.err.splitlines()
        if "--resume" in said[-1]:  # a training says how it goes on
            assert arguments[0] == "train"
            assert said.pop().startswith("  try: edgevit train ")
        assert said[-1] == line
        assert "Traceback" not in done.err
        assert entries(scratch) == [], "temporary files are left"
        assert_gone(process.pid)
        return done

    return run


def assert_gone(group):
    """Check that the process group is empty: no worker has been left behind."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a worker goes on")


ENDLESS = "shapes:size=64,count=1000000"


def test_export(stop, tiny_checkpoint, quantized):
    before, beside = content(quantized), entries(quantized.parent)
    for number, path in ((signal.SIGINT, quantized), (signal.SIGTERM, quantized.parent / "new.edgevit")):
        arguments = ("export", tiny_checkpoint, "-o", path, "--overwrite")
        stop(*arguments, at="Tracing the model", number=number)
        assert content(quantized) == before
        assert entries(quantized.parent) == sorted({*beside, "scratch"})


@pytest.mark.parametrize("number", ENDINGS)
def test_quantize(stop, quantized, number):
    before = content(quantized)
    many = "shapes:size=16,count=1000"  # their content is hashed first
    stop("quantize", quantized, "--data", many, "--samples", "1000", at="Calibrating on", number=number)
    assert content(quantized) == before


def test_validate(stop, quantized):
    before = content(quantized)
    done = stop("validate", quantized, "--data", ENDLESS, "--json", at="Validating", number=signal.SIGTERM)
    assert '"error"' in done.out
    assert content(quantized) == before


def test_a_validation_that_is_interrupted_keeps_what_it_has_measured_as_partial(stop, edgevit, quantized):
    done = stop("validate", quantized, "--data", ENDLESS, at="Validating", after=3)
    assert "images were measured; partial results saved for float32" in done.err
    manifest = Bundle.open(quantized).manifest
    for variant in manifest.variants:
        assert variant.accuracy.partial
        assert not variant.accuracy.passed
        assert 0 < variant.accuracy.images < 1_000_000
    assert "partial" in edgevit("inspect", quantized).out
    with pytest.raises(MissingDependencyError):  # nothing of it is validated
        rank_variants(
            msgspec.structs.replace(
                manifest, variants=tuple(each for each in manifest.variants if each.precision != "float32")
            ),
            ["onnxruntime", "openvino"],
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", ["Timing", "Opening variants: 5/5"])
def test_benchmark(stop, quantized, number, at):
    before = content(quantized)
    stop("benchmark", quantized, "--duration", "1000", at=at, number=number)
    assert content(quantized) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_benchmark_that_is_interrupted_keeps_whole_rounds_as_partial(stop, quantized, number):
    arguments = ("benchmark", quantized, "--variant", "float32", "--duration", "4", "--energy-from", "none")
    done = stop(*arguments, at="Opening variants: 1/1", after=1.5, number=number)
    assert "What was measured so far is in the bundle, marked partial" in done.err
    (latency,) = [each.latency for each in Bundle.open(quantized).manifest.variants if each.latency is not None]
    assert (latency.partial, latency.valid) == (True, False)
    assert 1 <= latency.rounds < 30
    assert latency.p50_ms > 0
    assert latency.invalid_reason.startswith(f"it was interrupted after {latency.rounds} round")


def test_a_benchmark_that_is_interrupted_replaces_no_whole_and_valid_figures(stop, edgevit, quantized):
    edgevit("benchmark", quantized, "--variant", "float32", "--duration", "0.1", "--energy-from", "none")
    measured = Bundle.open(quantized).variant("float32").latency
    whole = msgspec.structs.replace(measured, valid=True, invalid_reason=None)  # however busy this machine is
    before = Bundle.open(quantized).update_variant("float32", latency=whole).variant("float32").latency
    arguments = ("benchmark", quantized, "--variant", "float32", "--duration", "4", "--energy-from", "none")
    done = stop(*arguments, at="Opening variants: 1/1", after=1.5)
    assert "Nothing new is in the bundle; the whole figures of before are kept of float32" in done.err
    assert Bundle.open(quantized).variant("float32").latency == before


def test_train_and_go_on(stop, tmp_path):
    run = tmp_path / "run"
    arguments = ("train", "--data", "shapes:size=28,count=64", "--epochs", "100000", "--batch-size", "16", "-o", run)
    assert "--resume, which goes on" in stop(*arguments, at="epoch 1/100000: loss").err
    assert set(entries(run)) <= {"job.json", "train.toml", "metrics.jsonl", "state.pt"}
    stop(*arguments, "--resume", at="epoch 2/100000", number=signal.SIGTERM)
    assert set(entries(run)) == {"job.json", "train.toml", "metrics.jsonl", "state.pt"}


def test_a_signal_is_found_behind_an_error_and_no_search_is_endless():
    circle = ImportError()
    circle.__cause__ = circle
    assert signal_behind(circle) is None
    error = ImportError()
    error.__context__ = KeyboardInterrupt()
    assert signal_behind(error) is error.__context__


def test_who_said_that_hangups_do_not_matter_is_heard(quantized, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_stop():
            os.kill(os.getpid(), signal.SIGHUP)  # as under nohup
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def usual_handlers():
    """Have signals do what they do in a terminal, also where what runs the tests ignores them."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_swallows_ends_the_command_at_its_next_step(usual_handlers, number):
    """As torch does where it calls Python from C++, in two of 200 signals while it traced a tiny model."""
    said = io.StringIO()
    progress = PlainProgress(said)
    with signals_stop():
        try:
            os.kill(os.getpid(), number)
            pytest.fail("it is not raised where the program is")
        except (Stopped, KeyboardInterrupt):
            progress.note("who cleans up goes on")
        with pytest.raises((Stopped, KeyboardInterrupt)) as caught:
            progress.note("the next step")
        assert isinstance(caught.value, KeyboardInterrupt) == (number == signal.SIGINT)
    progress.note("another command")
    assert said.getvalue().splitlines() == ["who cleans up goes on", "the next step", "another command"]
