"""What commands show of variants whose tokens are merged."""

import json

from tiny import MERGED, SCHEDULES

from edgevit.bundle.store import Bundle


def test_inspect_says_by_which_budget_and_where(edgevit, tiny_merged):
    found = edgevit("inspect", tiny_merged, "--json").data()["variants"]
    merging = {each["name"]: each["token_merging"] for each in found}
    assert tuple(merging) == MERGED
    assert {name: each["budget"] for name, each in merging.items() if each} == {
        "int8-openvino-tokens80": 0.8,
        "int8-onnxruntime-tokens60": 0.6,
        "int8-openvino-tokens60": 0.6,
    }
    assert tuple(merging["int8-openvino-tokens60"]["schedule"]) == SCHEDULES[0.6]
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in edgevit("inspect", tiny_merged).out.splitlines()]
    assert (
        "int8-openvino-tokens80: token budget 0.8, 81.0 % of the multiply-adds, 13 of 17 tokens at the end; "
        "merged: 4 in block 0"
    ) in lines
    assert (
        "int8-onnxruntime-tokens60, int8-openvino-tokens60: token budget 0.6, 61.0 % of the multiply-adds, "
        "8 of 17 tokens at the end; merged: 7 in block 0, 2 in block 1"
    ) in lines


def test_bundles_with_and_without_budgets_stand_side_by_side(edgevit, tiny_merged, tiny_quantized, tmp_path):
    assert edgevit("report", tiny_merged, tiny_quantized, "-o", tmp_path / "both").code == 0
    data = json.loads((tmp_path / "both" / "comparison.json").read_bytes())
    assert tuple(data["rows"]) == MERGED
    assert "int8-openvino-tokens60" in (tmp_path / "both" / "index.html").read_text("utf-8")


def test_without_models_the_report_says_that_patches_are_missing(edgevit, merged):
    assert edgevit("report", merged, "--figures-only").code == 0
    page = (Bundle.open(merged).path / "report" / "index.html").read_text("utf-8")
    assert "token budget 0.6" in page
    assert "Which patches were merged" not in page
