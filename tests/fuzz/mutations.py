"""Damage to files, as hypothesis strategies: small, so that the parts behind a header are reached, too."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

_Change = Callable[[bytes], bytes]

#: What parsers trip over: ends of number ranges, odd letters, brackets, names of what there is not.
_TOKENS = (
    b"", b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\r\n",
    b"\xef\xbb\xbf", b"\xc3\x28", b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"0.0000001", b"null",
    b"true", b"[]", b"{}", b'""', b"[[[[[[", b"../../etc/passwd", b"/dev/zero", b"\x1b[2J", b"\xe2\x80\xae", b"%s%n",
    b"__reduce__", b"a" * 300,
)  # fmt: skip


def _at(content: bytes, share: float) -> int:
    return int(share * len(content))


def _put(share: float, token: bytes) -> _Change:
    return lambda content: content[: _at(content, share)] + token + content[_at(content, share) + len(token) :]


def _insert(share: float, token: bytes) -> _Change:
    return lambda content: content[: _at(content, share)] + token + content[_at(content, share) :]


def _cut(share: float, length: int) -> _Change:
    return lambda content: content[: _at(content, share)] + content[_at(content, share) + length :]


def _end(share: float, _: int) -> _Change:
    return lambda content: content[: _at(content, share)]


def _repeat(share: float, length: int) -> _Change:
    def change(content: bytes) -> bytes:
        place = _at(content, share)
        return content[: place + length] + content[place:]

    return change


def _flip(share: float, bit: int) -> _Change:
    def change(content: bytes) -> bytes:
        if not content:
            return content
        place = min(_at(content, share), len(content) - 1)
        return content[:place] + bytes([content[place] ^ (1 << bit % 8)]) + content[place + 1 :]

    return change


_SHARE = st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.floats(0.95, 1))
_TOKEN = st.one_of(st.sampled_from(_TOKENS), st.binary(min_size=1, max_size=8))
_CHANGE = st.one_of(
    st.builds(_put, _SHARE, _TOKEN),
    st.builds(_insert, _SHARE, _TOKEN),
    st.builds(_cut, _SHARE, st.integers(1, 64)),
    st.builds(_repeat, _SHARE, st.integers(1, 64)),
    st.builds(_flip, _SHARE, st.integers(0, 7)),
    st.builds(_end, _SHARE, st.just(0)),
)


class Damaged(bytes):
    """A file's content; what hypothesis prints of it is short."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the length: the content is written to a file."""
        return f"<{len(self)} bytes>"


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[Damaged]:
    """Return a strategy for files like ``seeds`` with one change to four."""

    def change(seed: bytes, changes: list[_Change]) -> Damaged:
        for one in changes:
            seed = one(seed)
        return Damaged(seed)

    return st.builds(
        change, st.sampled_from([Damaged(seed) for seed in seeds]), st.lists(_CHANGE, min_size=1, max_size=4)
    )
