"""What the front matter of a model card (README.md, as the Hub has it) says of the license.

It is YAML, of which people write any form; only the few keys of the license are read.
"""

from __future__ import annotations

import re
from pathlib import Path

CARD = "README.md"
_CARD_BYTES = 1 << 18  # the front matter stands at the beginning
_LONGEST_VALUE = 1 << 14

_FRONT = re.compile(r"\s*^---[ \t]*\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*$", flags=re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"""(["']?)(license|license_name|license_link)\1[ \t]*:(?:[ \t]+(?P<value>.*))?$""")
_QUOTED = re.compile(r"""\s*(?:"(?P<double>(?:[^"\\]|\\[\s\S])*)"|'(?P<single>(?:[^']|'')*)')""")
_ESCAPES = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U0([0-9a-fA-F]{7})|\n\s*|(.))")
_LAST_CHARACTER = 0x10FFFF


def front_matter(card: Path) -> dict[str, str]:
    """Return what a model card says of its license in the YAML that it begins with, if it does.

    Several licenses are joined by "and", as the strictest of them holds. Anything else in the card is passed over.
    """
    try:
        with card.open("rb") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return {}
    match = _FRONT.match(re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff")))
    said: dict[str, list[str]] = {}
    for key, block in _blocks(match["yaml"].split("\n") if match else []):
        said[key] = _values(block)
    names, own = said.get("license", []), said.get("license_name")
    if own and len(names) > 1:  # of which one is none of the usual ones
        said["license"] = [name for each in names for name in (own if each.lower() == "other" else [each])]
    return {key: " and ".join(values) for key, values in said.items() if values}


def _blocks(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Return the keys of the license, each with the lines of its value, the one behind the key first."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in lines:
        if entry := _KEY.match(line):
            found.append((entry[2], [entry["value"] or ""]))
            inside = True
        elif inside and (line[:1] in (" ", "\t", "]", "") or re.match(r"-(\s|$)", line)):
            found[-1][1].append(line)
        elif line[:1] != "#":
            inside = False
    return found


def _values(block: list[str]) -> list[str]:
    """Return the texts of a value: of a list each."""
    first, *rest = block
    first = re.sub(r"^(?:[!&]\S*\s+)+|^#.*", "", first.strip())  # a tag, an anchor, or a comment
    if re.match(r"[|>][-+0-9]*\s*(#.*)?$", first):
        return _some(" ".join(rest))
    starts = [place for place, line in enumerate(rest) if re.match(r"\s*-(\s|$)", line)]
    if starts and not first:
        ends = [*starts[1:], len(rest)]
        items = ([rest[start].strip()[1:], *rest[start + 1 : end]] for start, end in zip(starts, ends, strict=True))
        return [text for item in items for text in _values(item)]
    quoted = first[:1] in ("'", '"', "[")
    told = [line.strip() for line in rest if quoted or not line.lstrip().startswith("#")]
    whole = "\n".join([first, *told]).strip()[:_LONGEST_VALUE]
    if whole.startswith("["):
        return _flow(whole[1:])
    return _some(_plain(whole))


def _flow(text: str) -> list[str]:
    """Return the texts of a list in brackets, behind the first one."""
    found = []
    while text := text.strip():
        quoted = _QUOTED.match(text)
        end = re.compile(r"[,\]]").search(text, quoted.end() if quoted else 0)
        found += _some(_plain(text[: end.start()] if end else text))
        if end is None or end[0] == "]":
            break
        text = text[end.end() :]
    return found


def _some(text: str) -> list[str]:
    return [line] if (line := " ".join(text.split())) else []


def _plain(text: str) -> str:
    """Return a text without its quotes, or without what follows it as a comment."""
    text = text.strip()
    quoted = _QUOTED.match(text)
    if quoted is None:
        return re.sub(r"(^|\s)#.*$", "", text, flags=re.MULTILINE).strip()
    if quoted["single"] is not None:
        return quoted["single"].replace("''", "'")
    return _ESCAPES.sub(_character, quoted["double"])


def _character(escape: re.Match[str]) -> str:
    number = next((each for each in escape.groups()[:3] if each), None)
    if number is None:
        return "" if escape[4] is None else escape[4] if escape[4] in "\"\\/'" else " "
    return chr(int(number, 16)) if int(number, 16) <= _LAST_CHARACTER else " "
