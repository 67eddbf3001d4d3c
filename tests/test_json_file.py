import json

import msgspec
import pytest

from edgevit.errors import BundleError
from edgevit.json_file import JSONFile


class Note(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    what = "note"
    schema = 3
    remedy = "write it again"
    most_bytes = 100

    schema_version: int = 3
    text: str


def test_what_was_written_is_read(tmp_path):
    Note(text="ä").save(tmp_path / "note.json")
    assert Note.load(tmp_path / "note.json") == Note(text="ä")
    assert list(json.loads((tmp_path / "note.json").read_text())) == ["schema_version", "text"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is no note: it cannot be read: No such file"),
        (b"", "is no note"),
        (b'{"text": 1}', "is no note"),
        (b'{"text": "a", "more": 1}', "is no note"),
        (b'{"text": "%s"}' % (b"a" * 100), "is no note: it is too large"),
        (msgspec.json.encode({"schema_version": 2, "text": "a"}), "has version 2, not 3"),
    ],
)
def test_any_other_file_is_refused_with_what_helps(tmp_path, content, problem):
    path = tmp_path / "note.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Note.load(path)
    assert problem in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.remedy == "write it again"
