"""The terms under which weights may be used, as far as the files beside them name them.

They are read from the model card's front matter (README.md), from config.json, and from timm's ``pretrained_cfg``.
What they mean is the reader's to judge: known is only which names ask for more than to be named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgevit.errors import InputError
from edgevit.models.model_card import CARD, front_matter

_LONGEST = 512
_SHOWN = 80

#: Names that let everyone use the weights for everything; some ask that changes be shared.
_OPEN = re.compile(
    r"mit(-0)?|apache-?2(\.0)?|bsd(-\S+)?|isc|zlib|unlicense|wtfpl|0bsd|ncsa|cc0(-1\.0)?|cc-by-(sa-)?\d\S*|cc-by(-sa)?"
    r"|pddl|odc-by|odbl|cdla-\S+|(a|l)?gpl(-\S+)?|gfdl|mpl-2\.0|epl-\S+|eupl-\S+|afl-3\.0|osl-3\.0|ofl-1\.1|artistic-2\.0"
    r"|ms-pl|bsl-1\.0|ecl-2\.0|etalab-2\.0|lppl-1\.3c|postgresql|openmdw\S*"
)
#: What names of other terms tell of them; the first that fits.
_RESTRICTIONS = (
    (r"(^|-)nc(-|\d|$)|non-?commercial", "forbids commercial use"),
    (r"(^|-)nd(-|\d|$)|no-?derivatives", "forbids to pass on what was changed, and a quantized model is changed"),
    (r"research|academic|amlr", "allows research alone"),
    (r"rail(-|$|\+)|openrail", "forbids some uses, and asks that these terms are passed on"),
    (
        r"(^|-)(dinov3|llama\S*|gemma|sapiens|nvidia|apple|meta|deepfloyd|tongyi|qwen)(-|$)",
        "has terms of its maker's own",
    ),
    (r"^other$|custom|proprietary|^see-", "has terms of its own"),
)
_ANY_OF, _ALL_OF = re.compile(r"-or-"), re.compile(r"-and-|-with-|/|[,;]-?")
_EXCEPTION = re.compile(r"-with-[a-z0-9.-]*?exception(-\d[\d.]*)?")  # it allows more


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
    restriction, known = _meaning(plain)
    return License(name=plain, said_by=said_by, link=_line(link), restriction=restriction, known=known)


def license_said(name: str | None, link: str | None) -> License | None:
    """Return the license that a user says, and the ``link`` to its text; None where none is said.

    Raises:
        InputError: if the name, or the link, is none that can be shown, or there is a link without a name.
    """
    if name is None:
        if link is not None:
            raise InputError("--license-url is of a license that --license names", remedy="give --license NAME, too")
        return None
    found = license_called(name, "said at the export", link)
    if found is None or found.name != name.strip() or len(name) > _LONGEST:
        raise InputError(
            f"'{_line(name[:_SHOWN]) or ''}' names no license",
            remedy=f"give its SPDX identifier, such as Apache-2.0, or its name, in one line of {_LONGEST} characters",
        )
    if link is not None and not (len(link) <= _LONGEST and re.fullmatch(r"https?://[!-~]+", link)):
        raise InputError(
            f"'{_line(link[:_SHOWN]) or ''}' is no address of a license",
            remedy="give one that begins with https://, with what is not ASCII percent-encoded",
        )
    return found


def _meaning(name: str) -> tuple[str | None, bool]:
    """Return what a name, or several joined by AND and OR as SPDX has it, tells of terms, and whether it is known."""
    key = _EXCEPTION.sub("", re.sub(r"[\s_]+", "-", name.lower())).replace(",-version", "")
    either = [key] if "(" in key else _ANY_OF.split(key)
    found = [_of_all(_ALL_OF.split(re.sub(r"-or-", "-and-", each))) for each in either]
    return min(found, key=lambda each: (not each[1], each[0] is not None))  # one of them can be chosen


def _of_all(keys: Sequence[str]) -> tuple[str | None, bool]:
    fitting = (words for pattern, words in _RESTRICTIONS if any(re.search(pattern, key) for key in keys))
    restriction = next(fitting, None)
    return restriction, restriction is not None or all(_OPEN.fullmatch(_short(key)) for key in keys)


def _short(key: str) -> str:
    """Return the name of a license as it is shortest: "The MIT License (MIT)" is "mit"."""
    short = re.sub(r"\([^)]*\)?|\)", "", key).strip("-")
    short = re.sub(r"(^|-)(the|licen[sc]e|version)(?=-|$)", "", short).strip("-")
    return re.sub(r"(^|-)v(?=\d)", r"\1", short)


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
    name, own, link = (_joined(said.get(key)) for key in ("license", "license_name", "license_link"))
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


def _joined(said: object) -> object:
    """Return several names as front matter has them."""
    several = isinstance(said, list) and said and all(isinstance(each, str) for each in said)
    return " and ".join(said) if isinstance(said, list) and several else said


def _line(text: str | None) -> str | None:
    """Return ``text`` in one line of printable characters, None where nothing is left."""
    if text is None:
        return None
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:_LONGEST] or None
