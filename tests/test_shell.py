"""Paths in commands that messages give, which a shell must take for one word."""

import shlex
import subprocess
from pathlib import PurePath

from hypothesis import given
from hypothesis import strategies as st

from edgevit.shell import as_options, quoted


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_shell_reads_one_word_back(text):
    assert shlex.split(f"edgevit inspect {quoted(text)} --json") == ["edgevit", "inspect", text, "--json"]


def test_what_needs_no_quotes_has_none():
    assert quoted(PurePath("models/vit.edgevit")) == "models/vit.edgevit"


def test_a_path_is_no_option():
    assert quoted(PurePath("-x.edgevit")) == "./-x.edgevit"
    assert quoted(PurePath("-my vit.edgevit")) == "'./-my vit.edgevit'"
    assert quoted(PurePath("models/-x.edgevit")) == "models/-x.edgevit"


def test_the_shell_itself_takes_it():
    path = 'it\'s $HOME `here` "now"; rm *'
    said = subprocess.run(["sh", "-c", f"printf %s {quoted(path)}"], capture_output=True, text=True, check=True)
    assert said.stdout == path


def test_options_are_typed_as_they_were_given():
    given = {"root": PurePath("my photos"), "max_drop": 0.25, "variant": ["a", "b"], "strict": True, "keep": False}
    said = as_options({**given, "min_cosine": None, "samples": 0, "target": ()})
    assert said == " --root 'my photos' --max-drop 0.25 --variant a --variant b --strict --samples 0"
    assert as_options({}) == ""
