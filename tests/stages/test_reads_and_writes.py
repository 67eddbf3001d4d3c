"""How often ``quantize`` reads, writes, checks and hashes model files: each as seldom as it can be."""

from collections import Counter

import onnx
import pytest
from tiny import SHAPES

import edgevit
from edgevit.bundle import reading
from edgevit.graph import linears, saving
from edgevit.quantization import ptq


@pytest.fixture
def counts(monkeypatch):
    """Count what is done with files of models, by file; a build's own draft is the file that it becomes."""
    found = {what: Counter() for what in ("reads", "writes", "checks", "hashes")}

    def watch(module, name, what):
        function = getattr(module, name)

        def watching(first, *arguments, **options):
            path = arguments[0] if what == "writes" else first
            if str(path).endswith(".onnx"):
                found[what]["/".join(str(path).split("/")[-2:])] += 1
            return function(first, *arguments, **options)

        monkeypatch.setattr(module, name, watching)

    watch(onnx, "load", "reads")
    watch(onnx.checker, "check_model", "checks")
    for module in (ptq, linears, saving):
        if hasattr(module, "sha256_of"):
            watch(module, "sha256_of", "hashes")
    watch(reading, "sha256_of", "hashes")
    write = saving.write_atomically

    def writing(path, content):
        found["writes"][path.name] += 1
        return write(path, content)

    monkeypatch.setattr(saving, "write_atomically", writing)
    return found


def totals(counts):
    """Return how many reads, writes and checks there were; no file is hashed twice."""
    assert max(counts["hashes"].values()) == 1
    return {what: sum(counter.values()) for what, counter in counts.items() if what != "hashes"}


def test_a_model_is_read_checked_and_hashed_once_and_written_where_it_stays(exported, counts):
    """The float32 form for the engine, which is made once for a bundle, is one file more."""
    edgevit.quantize(exported, data=SHAPES, dialect="onnxruntime")
    assert counts["reads"]["float32/model.onnx"] == 2  # to be quantized, and for the engine's own form of it
    # Each variant is read as the engine has optimised it.
    assert totals(counts) == {"reads": 4, "writes": 3, "checks": 2}


def test_for_two_engines_one_reading_gives_the_float32_form_of_each(exported, counts):
    """OpenVINO reads what it is to run as ONNX, so that each of its variants is a file more.

    Handed over in memory, it would stay there while the engine compiles, and add its size to the peak.
    """
    edgevit.quantize(exported, data=SHAPES)
    assert counts["reads"]["float32/model.onnx"] == 2
    assert totals(counts) == {"reads": 4, "writes": 5, "checks": 2}


def test_with_the_float32_form_there_two_files_are_written_and_two_read(exported, counts):
    edgevit.build(exported, target="x86-onnxruntime", precision="float32")
    for counter in counts.values():
        counter.clear()
    edgevit.quantize(exported, data=SHAPES, dialect="onnxruntime")
    assert totals(counts) == {"reads": 2, "writes": 2, "checks": 1}
