"""The layout of packs: what is written other tools read, and nothing else is read as one."""

import io
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle.zip_layout import ALIGNMENT, Entry, directory, parse, placed, total_bytes

names = st.text("abcxyz019_-.", min_size=1, max_size=20)
contents = st.dictionaries(names, st.binary(max_size=200), max_size=6)


def archive_of(files: dict[str, bytes], aligned: set[str] = frozenset()) -> bytes:
    entries = [Entry(name, zlib.crc32(each), len(each), name in aligned) for name, each in files.items()]
    found = list(placed(entries))
    made = b"".join(each.header + files[each.entry.name] for each in found) + directory(found)
    assert len(made) == total_bytes(entries)
    return made


@given(contents, st.data())
def test_the_standard_library_reads_what_is_written(files, data):
    aligned = data.draw(st.sets(st.sampled_from(sorted(files)))) if files else set()
    made = archive_of(files, aligned)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
        assert all(each.compress_type == zipfile.ZIP_STORED for each in archive.infolist())
    found = parse(memoryview(made), lambda name: name in aligned)
    assert {each.entry.name: made[each.data : each.data + each.entry.bytes] for each in found} == files
    assert all(each.data % ALIGNMENT == 0 for each in found if each.entry.name in aligned)


@given(contents, st.data())
def test_no_byte_between_the_files_can_be_changed(files, data):
    made = bytearray(archive_of(files))
    whole = parse(memoryview(bytes(made)), lambda _: False)
    inside = {place for each in whole for place in range(each.data, each.data + each.entry.bytes)}
    between = [place for place in range(len(made)) if place not in inside]
    made[data.draw(st.sampled_from(between))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = parse(memoryview(made), lambda _: False)
    except ValueError:
        return
    # A name or a checksum that was changed in one of its two places is always found.
    assert not found


@given(contents, st.integers(1, 60))
def test_what_is_cut_short_or_goes_on_is_refused(files, size):
    made = archive_of(files)
    for other in (made[:-size], made + bytes(size), bytes(size) + made):
        with pytest.raises(ValueError, match=r"cut short|no zip|not as EdgeViT"):
            parse(memoryview(other), lambda _: False)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_of_other_tools_are_refused(compression):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("manifest.json", b"{}" * 100)
        archive.writestr("float32/model.onnx", b"model" * 100)
    with pytest.raises(ValueError, match="not as EdgeViT writes it"):
        parse(memoryview(stream.getvalue()), lambda _: False)


def test_names_that_are_not_ascii_are_refused():
    made = archive_of({"aa": b"1"}).replace(b"aa", "é".encode())
    with pytest.raises(ValueError, match="ASCII"):
        parse(memoryview(made), lambda _: False)


@pytest.mark.parametrize("count", [1, 2])
def test_sizes_that_lead_beyond_what_an_archive_can_be_are_refused(count):
    made = archive_of({str(number): b"12345678" for number in range(3)})
    whole = parse(memoryview(made), lambda _: False)
    start = whole[-1].data + 8
    listed = bytearray(made)
    for number in range(count):
        place = start + number * 47 + 20
        listed[place : place + 8] = b"\xff" * 8
    with pytest.raises(ValueError, match="not as EdgeViT writes it"):
        parse(memoryview(listed), lambda _: False)
