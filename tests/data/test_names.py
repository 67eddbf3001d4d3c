"""Names that can be shown, against what reads them: an XML parser, and lists of one name a line."""

from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from class_names import ORDINARY
from hypothesis import given
from hypothesis import strategies as st

from edgevit.data.names import can_be_shown


@given(
    st.text(st.characters(exclude_categories=()) | st.sampled_from("\x00\x1b\x85\u2028\ufffe\uffff\ud800"), max_size=9)
)
def test_what_can_be_shown_is_xml_and_one_line(name):
    if can_be_shown(name):
        assert (ElementTree.fromstring(f"<a>{escape(name)}</a>").text or "") == name
        assert len(f"a{name}b".splitlines()) == 1


@pytest.mark.parametrize("name", ORDINARY.values(), ids=ORDINARY)
def test_usual_names_can_be_shown(name):
    assert can_be_shown(name)


@pytest.mark.parametrize("control", "\x00\x1b\x7f\x85\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\U000e0001")
def test_what_controls_a_terminal_or_turns_what_follows_cannot(control):
    assert not can_be_shown(f"a{control}b")
