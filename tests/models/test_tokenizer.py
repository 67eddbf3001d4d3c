"""Prompts as token numbers; transformers' own classes are the oracle."""

import json

import pytest

from edgevit.errors import CheckpointError
from edgevit.models.tokenizer import read_tokenizer

TEXTS = ["a cat", "a photo of a very long dog on grass", "hen"]
LONGEST = 12


def saved(folder, **said):
    """Save a tokenizer of SigLIP 2's class, which fills up at the left unless it is told otherwise; return it."""
    from transformers import Siglip2Tokenizer

    vocabulary = {name: number for number, name in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))}
    for letter in "abcdefghijklmnopqrstuvwxyz \u2581":
        vocabulary[letter] = len(vocabulary)
    tokenizer = Siglip2Tokenizer(vocab=vocabulary, merges=[], **said)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("cut", [None, "left", "right"])
def test_prompts_are_filled_and_cut_at_the_side_that_transformers_takes(tmp_path, side, cut):
    said = {"padding_side": side, "truncation_side": cut}
    theirs = saved(tmp_path, **{key: value for key, value in said.items() if value})
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=LONGEST).input_ids
    found = read_tokenizer(tmp_path, "it").encode(TEXTS, LONGEST, fill=True)
    assert found.numbers == expected
    assert (expected[0][0] == 0) == (side != "right")
    assert found.cut == [1]


def test_the_files_own_side_counts_where_the_config_says_none(tmp_path):
    theirs = saved(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<pad>",
    }  # fmt: skip
    path.write_text(json.dumps(content))
    theirs = type(theirs).from_pretrained(tmp_path)
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=LONGEST).input_ids
    assert expected[0][-1] == 0
    assert read_tokenizer(tmp_path, "it").encode(TEXTS, LONGEST, fill=True).numbers == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "WordLevel", "vocab": {"cat": 5}, "unk_token": "<gone>"}}, "makes no tokens of the labels"),
        ({"post_processor": ["<gone>"]}, "makes no tokens of the labels"),  # here the library panics
        ({"post_processor": ["<eos>"] * 30}, r"makes \d\d tokens where 12 are asked for"),
        ({"model": {"type": "BPE", "vocab": {"z": 0}, "merges": []}}, "makes no tokens of 'a cat'"),
    ],
)
def test_a_tokenizer_that_makes_no_prompts_is_refused(tmp_path, change, message):
    saved(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text()) | change
    if isinstance(ends := content["post_processor"], list):
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}]
            + [{"SpecialToken": {"id": each, "type_id": 0}} for each in ends],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<eos>": {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}},
        }
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tokenizer(tmp_path, "it").encode(TEXTS, LONGEST, fill=False)
    assert "tokenizer.json" in caught.value.remedy
