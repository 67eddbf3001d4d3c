"""The terms under which weights may be used, as far as the files beside them name them.

They are read from the model card's front matter (README.md), from config.json, and from timm's ``pretrained_cfg``.
What they mean is the reader's to judge: known is only which names ask for more than to be named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

CARD = "README.md"
_CARD_BYTES = 1 << 18  # the front matter stands at the beginning
_LONGEST = 512

#: Names, or beginnings of names, that let everyone use the weights for everything; some ask that changes be shared.
_OPEN = re.compile(
    r"mit(-0)?|apache-2\.0|bsd(-\S+)?|isc|zlib|unlicense|wtfpl|0bsd|cc0-1\.0|cc-by-(sa-)?\d\S*|cc-by(-sa)?|pddl|odc-by"
    r"|odbl|cdla-\S+|(a|l)?gpl-\S+|mpl-2\.0|epl-\S+|eupl-\S+|afl-3\.0|artistic-2\.0|ms-pl|bsl-1\.0|ecl-2\.0|postgresql"
)
#: What names of other terms tell of them; the first that fits.
_RESTRICTIONS = (
    (r"(^|-)nc(-|$)|non-?commercial", "forbids commercial use"),
    (r"(^|-)nd(-|$)", "forbids to pass on what was changed, and a quantized model is changed"),
    (r"research|academic|amlr", "allows research alone"),
    (r"rail(-|$|\+)|openrail", "forbids some uses, and asks that these terms are passed on"),
    (r"dinov3|llama|gemma|sapiens|nvidia|apple|meta|deepfloyd|tongyi|qwen", "has terms of its maker's own"),
    (r"^other$|custom|proprietary|^see-", "has terms of its own"),
)


class License(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The license that weights are under: its ``name`` as ``said_by`` has it, and a ``link`` to its text.

    ``restriction`` says in words what it does not allow, or what to look for; None where it restricts no use, or where
    its name is not known: ``known`` is False then.
    """

    name: Annotated[str, msgspec.Meta(max_length=_LONGEST)]
    said_by: Annotated[str, msgspec.Meta(max_length=64)]
    link: Annotated[str, msgspec.Meta(max_length=_LONGEST)] | None = None
    restriction: Annotated[str, msgspec.Meta(max_length=_LONGEST)] | None = None
    known: bool = True

    def in_words(self) -> str:
        """Return what is known of it, in one line."""
        at = f", {self.link}" if self.link else ""
        meaning = f": {self.restriction}" if self.restriction else "" if self.known else ": no license that is known"
        return f"{self.name} ({self.said_by}{at}){meaning}"

    def warning(self) -> str | None:
        """Return what to be aware of before the model is passed on or used; None where nothing is restricted."""
        if self.restriction is None:
            return None
        read = self.link or f"the terms of {self.name}"
        return f"the weights' license, {self.name} ({self.said_by}), {self.restriction}: read {read} before you ship it"


def license_called(name: str, said_by: str, link: str | None = None) -> License | None:
    """Return the license of that name; None where the name says nothing."""
    plain = _line(name)
    if plain is None or plain.lower() in ("unknown", "none", "null", "~"):
        return None
    key = re.sub(r"[\s_]+", "-", plain.lower())
    restriction = next((words for pattern, words in _RESTRICTIONS if re.search(pattern, key)), None)
    known = restriction is not None or _OPEN.fullmatch(key) is not None
    return License(name=plain, said_by=said_by, link=_line(link), restriction=restriction, known=known)


def license_beside(folder: Path, config: Mapping[str, Any]) -> License | None:
    """Return the license that the model card in ``folder`` names, else ``config``, which config.json says there."""
    said = front_matter(folder / CARD)
    if (found := _of(said, CARD)) is not None:
        return found
    if (found := _of(config, "config.json")) is not None:
        return found
    cfg = config.get("pretrained_cfg")
    return _of(cfg, "config.json") if isinstance(cfg, Mapping) else None


def _of(said: Mapping[str, Any], said_by: str) -> License | None:
    """Return the license in the keys of the Hub's model cards: ``license``, and of others ``license_name``."""
    name, own, link = (said.get(key) for key in ("license", "license_name", "license_link"))
    if isinstance(name, str) and name.strip().lower() == "other" and isinstance(own, str) and own.strip():
        found = license_called(own, said_by, link if isinstance(link, str) else None)
        if found is not None and not found.known:  # its owner says himself that it is none of the usual ones
            return msgspec.structs.replace(found, restriction="has terms of its own", known=True)
        return found
    if not isinstance(name, str):
        name = own
    if not isinstance(name, str):
        return None
    return license_called(name, said_by, link if isinstance(link, str) else None)


def front_matter(card: Path) -> dict[str, str]:
    """Return what a model card says of its license in the YAML that it begins with, if it does.

    Of a list of licenses all are named, as the strictest of them holds. Anything else in the card is passed over.
    """
    try:
        with card.open("rb") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return {}
    match = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", text, flags=re.DOTALL)
    said: dict[str, str] = {}
    key = None
    for line in match[1].splitlines() if match else ():
        if entry := re.match(r"(license|license_name|license_link)[ \t]*:(?:[ \t]+(.*))?$", line):
            key = entry[1]
            said[key] = _scalar(entry[2] or "")
        elif key is not None and (item := re.match(r"[ \t]*-[ \t]+(.*)$", line)):
            said[key] = " and ".join(filter(None, (said[key], _scalar(item[1]))))
        elif line[:1] not in (" ", "\t", "#", ""):
            key = None
    return {key: value for key, value in said.items() if value}


def _scalar(text: str) -> str:
    """Return what a YAML value says: without quotes, comments, and the brackets of a list."""
    text = text.strip()
    if quoted := re.match(r"""(["'])(.*?)\1""", text):
        return quoted[2].strip()
    text = re.sub(r"(^|[ \t])#.*$", "", text).strip()
    if text.startswith("[") and text.endswith("]"):
        return " and ".join(part for each in text[1:-1].split(",") if (part := _scalar(each)))
    return text


def _line(text: str | None) -> str | None:
    """Return ``text`` in one line of printable characters, None where nothing is left."""
    if text is None:
        return None
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:_LONGEST] or None
