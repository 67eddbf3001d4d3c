"""Bundles and devices side by side."""

import json

import msgspec
import pytest

from edgevit.bundle.manifest import DeviceVariant, MeasuredDevice
from edgevit.errors import InputError
from edgevit.report.columns import comparison, device_columns
from edgevit.report.data import report_data
from edgevit.report.html import render_comparison, render_html, write_comparison
from edgevit.stages.compare import compare

HOSTILE = "</style><script>alert(1)</script>"


def with_board(sample, name="pi5"):
    place = msgspec.structs.replace(sample.PLACE, cpu="Cortex-A76", machine="aarch64")
    measured = DeviceVariant(
        name="int8-onnxruntime",
        precision="int8",
        backend="onnxruntime",
        target="arm64-onnxruntime",
        sha256="a" * 64,
        bytes=1_380_000,
        answers="as exported",
        latency=sample.latency(26.4, 1.5, environment=place),
    )
    board = MeasuredDevice(name=name, environment=place, edgevit="0.2.0", variants=(measured,))
    return msgspec.structs.replace(sample.FULL, devices=(board,))


def test_devices_stand_beside_this_machine(sample):
    data = report_data(with_board(sample))
    found = device_columns(data)
    assert [each["title"] for each in found["columns"]] == ["this machine", "pi5"]
    assert found["rows"][0] == "float32-onnxruntime"
    page = render_html(data)
    for words in ("On other devices", "Cortex-A76", "26.4", "golden answers as exported"):
        assert words in page


def test_bundles_and_their_devices_are_compared(sample):
    other = msgspec.structs.replace(sample.FULL, name="other")
    reports = [("a", report_data(with_board(sample))), ("b", report_data(other))]
    data = comparison(reports, ["a.edgevit", "b.edgevit"])
    assert [each["title"] for each in data["columns"]] == ["a", "a on pi5", "b"]
    assert data["verdict_line"].startswith("The fastest that passed. a: int8-openvino, 0.520")
    assert "a on pi5: nothing has been shown to pass" in data["verdict_line"]
    assert data["warnings"] == []
    page = render_comparison(data)
    assert "edgevit report a.edgevit b.edgevit -o FOLDER" in page
    assert "<script" not in page


def test_what_keeps_columns_from_being_compared_is_said(sample):
    provenance = msgspec.structs.replace(sample.FULL.provenance, weights_sha256="d" * 64)
    variants = tuple(
        msgspec.structs.replace(each, accuracy=each.accuracy and sample.accuracy(data_sha256="9" * 64))
        for each in sample.FULL.variants
    )
    other = msgspec.structs.replace(sample.FULL, provenance=provenance, variants=variants)
    data = comparison([("a", report_data(sample.FULL)), ("b", report_data(other))], ["a", "b"])
    assert "not the same weights" in data["warnings"][0]
    assert "different images" in data["warnings"][1]


def test_hostile_names_stay_text(sample, tmp_path):
    page, data = write_comparison([(HOSTILE, sample.FULL), ("b", with_board(sample))], [HOSTILE, "b"], tmp_path)
    assert "<script>" not in page.read_text("utf-8")
    assert json.loads(data.read_bytes())["titles"][0] == HOSTILE


def test_a_user_compares_two_bundles(edgevit, quantized, tiny_exported, tmp_path):
    exported = tiny_exported
    done = edgevit("report", quantized, exported, "-o", tmp_path / "both", "--json")
    assert done.code == 0
    page = tmp_path / "both" / "index.html"
    assert done.data() == {"report": str(page), "json": str(tmp_path / "both" / "comparison.json")}
    assert "int8-openvino" in page.read_text("utf-8")
    message, remedy = edgevit("report", quantized, exported).failure()
    assert "comparison of several bundles" in message
    assert "-o" in remedy
    assert "exists already" in edgevit("report", quantized, exported, "-o", tmp_path / "both").failure()[0]
    assert edgevit("report", quantized, exported, "-o", tmp_path / "both", "--overwrite").code == 0


def test_more_than_a_page_has_room_for_are_refused(tmp_path):
    with pytest.raises(InputError, match="more than a page"):
        compare([tmp_path] * 9, tmp_path)
