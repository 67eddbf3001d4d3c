"""Files of labels as people save them."""

import pytest

from edgevit.errors import DataError
from edgevit.models.labels import read_labels


@pytest.mark.parametrize(
    "content",
    [
        b"caf\xc3\xa9\ndog",
        b"caf\xc3\xa9\r\ndog\r\n",
        b"\xef\xbb\xbf caf\xc3\xa9 \rdog\n\n \n",
        "cafe\N{COMBINING ACUTE ACCENT}\ndog\n".encode(),
    ],
)
def test_one_label_a_line(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == ("caf\u00e9", "dog")


def test_joined_letters_are_no_hidden_ones(tmp_path):
    family, farsi = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e"
    (tmp_path / "labels.txt").write_text(f"{family}\n{farsi}", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == (family, farsi)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no label is in"),
        (b"\n\n", "no label is in"),
        (b"cat\n\ndog", "line 2 of .* is empty"),
        ("cat\ndog".encode("utf-16"), "is not UTF-8 text"),
        (b"cat\ncaf\xe9", "is not UTF-8 text"),
        (b"cat\n\x1b[31mdog", r"line 2 of .* cannot be shown: '\\x1b\[31mdog'"),
        ("\u202ecat\ndog".encode(), "line 1 of .* cannot be shown"),
        ("cat\ndog\ufffe".encode(), "line 2 of .* cannot be shown"),
        (b"cat\tn02121808", "line 1 of .* cannot be shown"),
    ],
)
def test_what_are_no_labels(tmp_path, content, message):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_labels(tmp_path / "labels.txt")
    assert caught.value.remedy
