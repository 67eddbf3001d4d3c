"""The bytes of a pack around its files: a plain zip archive that can be written in one way only.

Names, sizes and order of the files decide each byte between them: nothing is compressed, nothing is encrypted, there
are no times, comments, links or gaps. What reads a pack makes these bytes again and compares them, so that two readers
cannot find two different archives in it, and no entry lies in another or behind the end. Numbers of fields are those of
PKWARE's APPNOTE 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3 and 4.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

#: Bytes; a model begins at a multiple of it, so that it can be mapped where pages have 4 or 16 KiB.
ALIGNMENT = 16 << 10
#: Bytes; larger archives need another form, which many readers lack.
MOST_BYTES = (1 << 32) - 1
MOST_ENTRIES = 4096

#: What an archive begins with.
MARK = b"PK\3\4"

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _MADE_BY = 20, (3 << 8) | 20  # Unix, whose permissions are in the attributes
_FIRST_DAY = 0x21  # 1980-01-01; a time is the same for all
_ATTRIBUTES = 0o100644 << 16
_PADDING = 0xD935  # the number of Android's zipalign for what lies in front of an aligned entry


class Entry(NamedTuple):
    """A file of an archive: its name in ASCII, its CRC-32 and size, and whether it is aligned."""

    name: str
    crc: int
    bytes: int
    aligned: bool


class Placed(NamedTuple):
    """Where an entry is in the archive: ``start`` is of its header, ``data`` of its content."""

    entry: Entry
    start: int
    data: int
    header: bytes


def placed(entries: Sequence[Entry]) -> Iterator[Placed]:
    """Yield where each of ``entries`` is, and the bytes in front of its content."""
    place = 0
    for entry in entries:
        name = entry.name.encode("ascii")
        data = place + _LOCAL.size + len(name)
        extra = b""
        if entry.aligned:
            padding = -(data + 6) % ALIGNMENT
            extra = struct.pack("<3H", _PADDING, 2 + padding, ALIGNMENT) + bytes(padding)
            data += len(extra)
        fixed = (0, 0, 0, _FIRST_DAY, entry.crc, entry.bytes, entry.bytes, len(name), len(extra))
        yield Placed(entry, place, data, _LOCAL.pack(MARK, _VERSION, *fixed) + name + extra)
        place = data + entry.bytes


def directory(entries: Sequence[Placed]) -> bytes:
    """Return the central directory, with which an archive ends."""
    parts = [_in_directory(each) for each in entries]
    size = sum(map(len, parts))
    start = entries[-1].data + entries[-1].entry.bytes if entries else 0
    return b"".join([*parts, _END.pack(b"PK\5\6", 0, 0, len(parts), len(parts), size, start, 0)])


def total_bytes(entries: Sequence[Entry]) -> int:
    """Return how large the archive of ``entries`` is, without making it."""
    names = sum(_CENTRAL.size + len(entry.name) for entry in entries)
    last = [each.data + each.entry.bytes for each in placed(entries)][-1:]
    return sum(last) + names + _END.size


def parse(archive: memoryview, aligned: Callable[[str], bool]) -> list[Placed]:
    """Return the entries of an archive; ``aligned`` says by its name whether one is.

    Raises:
        ValueError: if it is no archive, or one that this module would have written otherwise; the message says which.

    """
    if len(archive) < _END.size:
        raise ValueError("it is cut short, or no zip archive")
    mark, *_, count, size, start, _ = _END.unpack(archive[-_END.size :])
    if mark != b"PK\5\6" or start + size + _END.size != len(archive):
        raise ValueError("it is cut short, or no zip archive that EdgeViT wrote")
    if count > MOST_ENTRIES:
        raise ValueError(f"it has more than {MOST_ENTRIES} files")
    entries = [each._replace(aligned=aligned(each.name)) for each in _entries(archive[start : start + size], count)]
    if total_bytes(entries) != len(archive):  # may be more than the numbers of a directory hold
        raise ValueError("its list of files is not as EdgeViT writes it")
    found = list(placed(entries))
    if directory(found) != archive[start:]:
        raise ValueError("its list of files is not as EdgeViT writes it")
    for each in found:
        if archive[each.start : each.data] != each.header:
            raise ValueError(f"{each.entry.name} is not where, or not what, the list of files says")
    return found


def _entries(listed: memoryview, count: int) -> Iterator[Entry]:
    place = 0
    for _ in range(count):
        if place + _CENTRAL.size > len(listed):
            raise ValueError("its list of files is cut short")
        fields = _CENTRAL.unpack(listed[place : place + _CENTRAL.size])
        crc, size, length = fields[7], fields[9], fields[10]
        name = bytes(listed[place + _CENTRAL.size : place + _CENTRAL.size + length])
        try:
            yield Entry(name.decode("ascii"), crc, size, aligned=False)
        except UnicodeDecodeError as error:
            raise ValueError("a name in it is not in ASCII") from error
        place += _CENTRAL.size + length


def _in_directory(each: Placed) -> bytes:
    entry = each.entry
    name = entry.name.encode("ascii")
    fixed = (0, 0, 0, _FIRST_DAY, entry.crc, entry.bytes, entry.bytes, len(name), 0, 0, 0, 0, _ATTRIBUTES, each.start)
    return _CENTRAL.pack(b"PK\1\2", _MADE_BY, _VERSION, *fixed) + name
