"""Names that can be shown, against what reads them: an XML parser, and lists of one name a line."""

from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
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


ORDINARY = {
    "empty": "",
    "French": "caf\u00e9",
    "XML": "a & <b>",
    "Persian, with a joiner": "\u0645\u06cc\u200c\u062e",
    "Hebrew, with a mark of direction": "\u05e9\u05dc\u05d5\u05dd\u200f",
    "Arabic, with a number sign": "\u0600\u0661",
    "Mongolian, with a vowel separator": "\u182e\u1823\u1829\u180e",
    "Sinhala": "\u0d9a\u0dca\u200d\u0dc2",
    "Khmer, with a space of no width": "\u1780\u200b\u1781",
    "German, with a soft hyphen": "Zu\u00adcker",
    "Japanese": "\u65e5\u672c\u3000\u8a9e",
    "a family": "\U0001f468\u200d\U0001f469",
    "a heart in red": "\u2764\ufe0f",
    "the flag of England": "\U0001f3f4" + "".join(chr(0xE0000 + ord(each)) for each in "gbeng") + "\U000e007f",
}


@pytest.mark.parametrize("name", ORDINARY.values(), ids=ORDINARY)
def test_usual_names_can_be_shown(name):
    assert can_be_shown(name)


@pytest.mark.parametrize("control", "\x00\x1b\x7f\x85\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\U000e0001")
def test_what_controls_a_terminal_or_turns_what_follows_cannot(control):
    assert not can_be_shown(f"a{control}b")
