"""What is said of merged tokens: budget, what is left, where."""

import msgspec
import pytest

from edgevit.bundle.manifest import TokenMerging
from edgevit.models.spec import GraphSpec
from edgevit.report.data import report_data
from edgevit.report.html import render_html
from edgevit.report.merged_tokens import left_in_words, merged_tokens, where, whole_of

SPACE = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ((0, 0, 16, 16, 16, 8, 0), "16 in each of blocks 2 to 4, 8 in block 5"),
        ((3, 0, 3), "3 in block 0, 3 in block 2"),
        ((5,), "5 in block 0"),
        ((0, 0), "none"),
    ],
)
def test_where_tokens_are_merged(schedule, said):
    assert where(schedule) == said


def test_budget_multiply_adds_and_tokens(sample):
    merging = TokenMerging(budget=0.8, share=0.8043, schedule=(0, 4, 6))
    spec = sample.FULL.spec
    assert spec.tokens == 50
    assert left_in_words(merging, spec) == (
        f"token budget 0.8, 80.4{SPACE}% of the multiply-adds, 40 of 50 tokens at the end"
    )
    third_party = msgspec.convert({"image_size": (28, 28), "channels": 3, "classes": 3, "outputs": 3}, GraphSpec)
    assert left_in_words(merging, third_party).endswith("10 tokens fewer at the end")
    trained = msgspec.structs.replace(merging, student_sha256="a" * 64)
    assert left_in_words(trained, spec) == f"{left_in_words(merging, spec)}, with weights trained for it"


def test_one_line_for_those_that_merge_the_same(sample):
    lines = merged_tokens(sample.MERGED)
    assert [line.partition(":")[0] for line in lines] == [
        "int8-openvino-tokens60",
        "int8-openvino-tokens80",
        "int8-onnxruntime-tokens70",
    ]
    assert lines[0].endswith("23 of 50 tokens at the end; merged: 9 in each of blocks 2 to 4")
    same = [
        msgspec.structs.replace(each, token_merging=sample.MERGED.variants[-1].token_merging)
        for each in sample.MERGED.variants[-2:]
    ]
    (line,) = merged_tokens(sample.manifest(*same))
    assert line.startswith("int8-openvino-tokens80, int8-onnxruntime-tokens70: token budget 0.7")
    assert merged_tokens(sample.FULL) == []


def test_the_variant_with_all_tokens_is_of_the_same_precision_and_engine(sample):
    variants = sample.MERGED.variants
    assert [whole_of(each, variants) for each in variants[-3:]] == [
        "int8-openvino",
        "int8-openvino",
        "int8-onnxruntime",
    ]
    assert whole_of(variants[1], variants) == "int8-onnxruntime"
    assert whole_of(variants[-1], variants[-3:]) is None


def test_the_page_says_it_in_the_table_and_below(sample):
    data = report_data(sample.MERGED)
    merging = data["variants"][-2]["merging"]
    assert (merging["tokens_before"], merging["tokens_after"]) == (50, 38)
    assert data["variants"][-2]["token_merging"]["budget"] == 0.8
    assert all(each["merging"] is None for each in data["variants"][:4])
    page = render_html(data)
    assert page.count(merging["left"]) == 2
    assert "merged: 4 in each of blocks 2 to 4" in page
    assert 'class="budgets int8"' in page
    assert "token budgets</span>" in page
    assert "Pareto front</span>" in page
    plain = render_html(report_data(sample.FULL))
    assert "token budget" not in plain
    assert "Merged tokens" not in plain
