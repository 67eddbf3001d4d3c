"""Files that go to a board: each once, told by its SHA-256, and from where it was cut off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from edgevit.errors import HostError, InputError
from edgevit.files import sha256_of
from edgevit.hosts.link import Acknowledged, DamagedError, Link, NoSpaceError, ReconnectedError
from edgevit.progress import Progress

_PIECE = 1 << 20
_SMALL = 1 << 18
_ASKED_AT_ONCE = 4096
_WHOLE = -1
#: How often a piece may arrive without the file getting longer.
_MOST_STALLED = 8


class Parcel(msgspec.Struct, frozen=True):
    """A file to send: where it lies there, relative to its folder, and its content, in memory or a file here."""

    path: str
    sha256: str
    size: int
    content: bytes | memoryview | Path


class _Offset(msgspec.Struct, frozen=True):
    offset: Annotated[int, msgspec.Meta(ge=-1)]


class _Offsets(msgspec.Struct, frozen=True):
    offsets: list[Annotated[int, msgspec.Meta(ge=-1)]]


def parcel(path: str, content: bytes | memoryview | Path) -> Parcel:
    """Return ``content`` as something to send.

    Raises:
        InputError: if it is a file that cannot be read.
    """
    if not isinstance(content, Path):
        return Parcel(path, hashlib.sha256(content).hexdigest(), len(content), content)
    try:
        return Parcel(path, sha256_of(content), content.stat().st_size, content)
    except OSError as error:
        raise InputError(f"cannot read {content}: {error.strerror}", remedy="make it readable for you") from error


def send(link: Link, parcels: Sequence[Parcel], progress: Progress, *, spare: int = 0) -> None:
    """Send what the board does not have yet.

    ``spare`` are bytes that must be free there beside.

    Raises:
        HostError: if there is no room, or the board cannot be reached any more.
        InputError: if a file here changes, or cannot be read.
    """
    wanted = {each.sha256: each for each in parcels}
    offsets = _offsets(link, list(wanted.values()))
    missing = {sha256: min(at, wanted[sha256].size) for sha256, at in offsets.items() if at != _WHOLE}
    left = sum(wanted[sha256].size - offset for sha256, offset in missing.items())
    if left + spare > link.facts.free:
        raise NoSpaceError(
            f"{link.name} has {link.facts.free / 1e6:,.1f} MB free, and {(left + spare) / 1e6:,.1f} MB are needed",
            remedy="free some space there, or measure fewer variants or images, with --variant and --samples",
        )
    large = [(wanted[sha256], offset) for sha256, offset in missing.items() if wanted[sha256].size > _SMALL]
    groups = list(_grouped([wanted[sha256] for sha256 in missing if wanted[sha256].size <= _SMALL]))
    pieces = len(groups) + sum(-(-(each.size - offset) // _PIECE) or 1 for each, offset in large)
    for _ in progress.track(_steps(link, groups, large), total=pieces, label="Sending"):
        pass


def _offsets(link: Link, parcels: list[Parcel]) -> dict[str, int]:
    found: list[int] = []
    for start in range(0, len(parcels), _ASKED_AT_ONCE):
        asked = parcels[start : start + _ASKED_AT_ONCE]
        names, sizes = [each.sha256 for each in asked], [each.size for each in asked]
        answer = link.request(_Offsets, "have", files=names, sizes=sizes).offsets
        if len(answer) != len(asked):
            raise HostError(
                f"{link.name} answers for other files than it was asked for", remedy="check what runs there"
            )
        found += answer
    return dict(zip((each.sha256 for each in parcels), found, strict=True))


def _grouped(parcels: Iterable[Parcel]) -> Iterator[list[Parcel]]:
    """Yield small files in groups that are sent at once: each by itself would wait for an answer."""
    group: list[Parcel] = []
    for each in parcels:
        if group and (sum(one.size for one in group) + each.size > _PIECE or len(group) >= _ASKED_AT_ONCE):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _steps(link: Link, groups: Iterable[Sequence[Parcel]], large: Iterable[tuple[Parcel, int]]) -> Iterable[None]:
    """Send, and yield once for each piece."""
    for group in groups:
        contents = [_piece(each, 0) for each in group]
        if any(len(content) != each.size for content, each in zip(contents, group, strict=True)):
            raise InputError("a file has changed while it was sent", remedy="run it again")
        sizes = [(each.sha256, each.size) for each in group]
        link.request(Acknowledged, "put_small", b"".join(contents), files=sizes)
        yield
    for each, offset in large:
        yield from _sent(link, each, offset)


def _sent(link: Link, each: Parcel, offset: int) -> Iterable[None]:
    stalled = damaged = 0
    while offset != _WHOLE:
        piece = _piece(each, offset)
        if len(piece) < min(_PIECE, each.size - offset):
            raise InputError("a file has changed while it was sent", remedy="run it again")
        try:
            found = link.once(_Offset, "put", bytes(piece), sha256=each.sha256, offset=offset, size=each.size).offset
        except ReconnectedError:  # a part of the piece has arrived: a link that is cut often gets on, too
            found = _offsets(link, [each])[each.sha256]
        except DamagedError:
            found, damaged = 0, damaged + 1  # by a piece of an older attempt: all of the file again
        stalled += found != _WHOLE and found <= offset
        if stalled > _MOST_STALLED or damaged > 1:
            raise HostError(
                f"{link.name} does not keep what it is sent, or a file has changed meanwhile",
                remedy="check the disk there, and run it again",
            )
        offset = found if found == _WHOLE else min(found, each.size)
        yield


def _piece(each: Parcel, offset: int) -> bytes | memoryview:
    if not isinstance(each.content, Path):
        return each.content[offset : offset + _PIECE]
    try:
        with each.content.open("rb") as file:
            file.seek(offset)
            return file.read(_PIECE)
    except OSError as error:
        raise InputError(f"cannot read {each.content}: {error.strerror}", remedy="make it readable for you") from error


def lay_out(link: Link, place: str, parcels: Sequence[Parcel]) -> None:
    """Make the folder ``place`` on the board anew, of files that were sent."""
    link.request(Acknowledged, "layout", place=place, files=[(each.path, each.sha256) for each in parcels])
