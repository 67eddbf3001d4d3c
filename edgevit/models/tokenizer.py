"""Token numbers of prompts, by the tokenizer.json that lies beside a model, through the ``tokenizers`` library."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from edgevit.dependencies import require
from edgevit.errors import CheckpointError
from edgevit.models.config import read_json

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
NAMES = (FILE, CONFIG)

_LARGEST = 100 << 20  # bytes; that of SigLIP 2 has 34 MB
#: Of transformers' classes those that fill up at the left where nothing says otherwise.
_FILLING_LEFT = frozenset(
    f"{name}Tokenizer{fast}"
    for name in ("CodeLlama", "Cohere", "Gemma", "Llama", "Siglip2", "XLNet")
    for fast in ("", "Fast")
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class _Token(msgspec.Struct, frozen=True):
    """A special token as newer files have it."""

    content: str


class _TokenizerConfig(msgspec.Struct, frozen=True):
    """tokenizer_config.json."""

    tokenizer_class: str | None = None
    pad_token: str | _Token | None = None
    unk_token: str | _Token | None = None
    padding_side: Literal["left", "right"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    do_lower_case: bool | None = None


class Encoded(NamedTuple):
    """The token numbers of texts, and which of these are longer than was asked for, and so are cut."""

    numbers: list[list[int]]
    cut: list[int]


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Text to token numbers, with the special tokens that the file asks for.

    ``backend`` is the library's object. ``padding`` is the number of the token that fills a prompt up; None where the
    files name none.
    """

    backend: Any
    config: _TokenizerConfig
    padding: int | None
    fills_left: bool = False
    cuts_left: bool = False

    def encode(self, texts: Sequence[str], longest: int, *, fill: bool) -> Encoded:
        """Return the tokens of each text, cut to ``longest``; with ``fill`` all are that long.

        Raises:
            CheckpointError: if they should be filled and no token is named for it, or the tokenizer makes no tokens.

        """
        self.backend.no_padding()
        remedy = f"put the {FILE} of the model beside its weights"
        with _refusing("the tokenizer makes no tokens of the labels", remedy):
            self.backend.enable_truncation(longest, direction="left" if self.cuts_left else "right")
            encoded = self.backend.encode_batch(list(texts))
        found: list[list[int]] = [each.ids for each in encoded]
        empty = next((text for text, ids in zip(texts, found, strict=True) if not ids), None)
        if empty is not None:
            raise CheckpointError(
                f"the tokenizer makes no tokens of '{empty[:60]}'",
                remedy=f"{remedy}, or call the label otherwise",
            )
        if (most := max(map(len, found), default=0)) > longest:
            raise CheckpointError(f"the tokenizer makes {most} tokens where {longest} are asked for", remedy=remedy)
        cut = [place for place, each in enumerate(encoded) if each.overflowing]
        if not fill:
            return Encoded(found, cut)
        if self.padding is None:
            raise CheckpointError(
                f"no {CONFIG} names the token that fills a prompt up to {longest}",
                remedy=f"put the {CONFIG} of the model beside its weights",
            )
        missing = [[self.padding] * (longest - len(ids)) for ids in found]
        filled = [more + ids if self.fills_left else ids + more for ids, more in zip(found, missing, strict=True)]
        return Encoded(filled, cut)

    def strange(self, texts: Sequence[str]) -> list[int]:
        """Return the places of those ``texts`` that have something in them for which there is no token but one for all.

        Raises:
            CheckpointError: as ``encode`` does.
        """
        number = self.backend.token_to_id(_name(self.config.unk_token) or "")
        with _refusing(
            "the tokenizer makes no tokens of the labels", f"put the {FILE} of the model beside its weights"
        ):
            encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [place for place, each in enumerate(encoded) if number in each.ids]

    @property
    def cleaning(self) -> str:
        """What is done to a text of SigLIP's first: by its own tokenizer of transformers, or by another."""
        if self.config.tokenizer_class == "SiglipTokenizer":
            return "whitespace" if self.config.do_lower_case is False else "punctuation"
        return "lower"


def clean_text(text: str, how: str) -> str:
    """Return ``text`` as a model was trained with it, by the name that OpenCLIP has for that, or "punctuation".

    That is SigLIP's way in transformers: lower case without punctuation.

    Raises:
        CheckpointError: if it is not known.

    """
    if how not in ("canonicalize", "lower", "punctuation", "whitespace"):
        raise CheckpointError(
            f"the config says that text is cleaned by '{how}', which EdgeViT does not do",
            remedy="export the image tower alone, without --labels",
        )
    if how == "canonicalize":
        text = text.replace("_", " ")
    if how in ("canonicalize", "punctuation"):
        text = text.translate(_PUNCTUATION)
    if how != "whitespace":
        text = text.lower()
    return re.sub(r"\s+", " ", text).strip()


def read_tokenizer(folder: Path, source: str) -> Tokenizer:
    """Return the tokenizer in ``folder``; ``source`` is what the user called the model.

    Raises:
        CheckpointError: if there is none, or it cannot be read.
        MissingDependencyError: if the library is not there.

    """
    path = folder / FILE
    config = read_json(folder / CONFIG, _TokenizerConfig) or _TokenizerConfig()
    if not path.is_file():
        how = "transformers writes it: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
        if config.tokenizer_class == "SiglipTokenizer":  # which has a spiece.model, and transformers writes no other
            how = "the same SigLIP has one as OpenCLIP's, such as hf://timm/ViT-B-16-SigLIP"
        raise CheckpointError(
            f"{source} has no {FILE}, by which the text of its labels becomes numbers",
            remedy=f"put the {FILE} of the model beside its weights; {how}",
        )
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path} is larger than any tokenizer", remedy="download it again")
    library = require("tokenizers", extra="train")
    with _refusing(f"{path} is no tokenizer", "download it again"):
        backend = library.Tokenizer.from_file(str(path))
    token = _name(config.pad_token)
    own = backend.padding or {}
    padding = backend.token_to_id(token) if token is not None else own.get("pad_id")
    # As transformers has it: the config's word, then the file's, then that of the class.
    side = config.padding_side or own.get("direction", "").lower()
    cut_side = config.truncation_side or (backend.truncation or {}).get("direction", "").lower()
    return Tokenizer(
        backend,
        config,
        padding,
        fills_left=side == "left" if side else config.tokenizer_class in _FILLING_LEFT,
        cuts_left=cut_side == "left",
    )


def _name(token: str | _Token | None) -> str | None:
    return token.content if isinstance(token, _Token) else token


@contextmanager
def _refusing(what: str, remedy: str) -> Iterator[None]:
    """Refuse what the library cannot do; it raises nothing more special than an Exception, and panics."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        said = "".join(each if each.isprintable() else "?" for each in line[:200])
        raise CheckpointError(f"{what}: {said}", remedy=remedy) from error
