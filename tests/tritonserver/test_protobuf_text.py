"""Text that protobuf itself reads back as what was written, whatever the strings hold."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from triton_config import model_config, parsed

from edgevit.tritonserver.config import TritonConfig, TritonInput, TritonOutput
from edgevit.tritonserver.protobuf_text import Symbol, text_of

pytest.importorskip("google.protobuf")
strings = st.text(st.characters(exclude_categories=["Cs"]))


@given(name=strings, value=strings, dims=st.lists(st.integers(-1, 1 << 40), max_size=5), flag=st.booleans())
@example(name='x"\nbackend: "evil', value="\\\"'\x00é\U0001f600\x7f{}#", dims=[], flag=True)
def test_whatever_the_strings_hold_they_come_back(name, value, dims, flag):
    config = TritonConfig(
        name=name,
        backend="python",
        max_batch=4,
        inputs=(TritonInput(name=value, dtype="float32", dims=tuple(dims), optional=flag),),
        outputs=(TritonOutput(name=name, dtype="bytes", dims=(), labels=value),),
        parameters={name: value, value: name},
    )
    text = config.text()
    assert text.isascii()
    found = parsed(text)
    assert (found.name, found.backend, found.max_batch_size) == (name, "python", 4)
    (taken,), (given_,) = found.input, found.output
    assert (taken.name, list(taken.dims), taken.optional) == (value, dims, flag)
    assert (given_.name, given_.label_filename) == (name, value)
    assert given_.data_type == model_config().TYPE_STRING
    assert {key: each.string_value for key, each in found.parameters.items()} == {name: value, value: name}


def test_a_message_in_a_message():
    text = text_of([("a", 1), ("b", [("c", Symbol("D")), ("e", [])]), ("f", False)])
    assert text == "a: 1\nb {\n  c: D\n  e {\n  }\n}\nf: false\n"
