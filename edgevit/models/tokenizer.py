"""Token numbers of prompts, by the tokenizer.json that lies beside a model, through the ``tokenizers`` library."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgevit.dependencies import require
from edgevit.errors import CheckpointError
from edgevit.models.config import read_json

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
NAMES = (FILE, CONFIG)

_LARGEST = 100 << 20  # bytes; that of SigLIP 2 has 34 MB
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class _Token(msgspec.Struct, frozen=True):
    """A special token as newer files have it."""

    content: str


class _TokenizerConfig(msgspec.Struct, frozen=True):
    """tokenizer_config.json."""

    tokenizer_class: str | None = None
    pad_token: str | _Token | None = None
    padding_side: Literal["left", "right"] = "right"
    do_lower_case: bool | None = None


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Text to token numbers, with the special tokens that the file asks for.

    ``backend`` is the library's object. ``padding`` is the number of the token that fills a prompt up; None where the
    files name none.
    """

    backend: Any
    config: _TokenizerConfig
    padding: int | None

    def encode(self, texts: Sequence[str], longest: int, *, fill: bool) -> list[list[int]]:
        """Return the tokens of each text, cut to ``longest``; with ``fill`` all are that long.

        Raises:
            CheckpointError: if they should be filled and no token is named for it.

        """
        self.backend.no_padding()
        self.backend.enable_truncation(longest)
        found: list[list[int]] = [each.ids for each in self.backend.encode_batch(list(texts))]
        if not fill:
            return found
        if self.padding is None:
            raise CheckpointError(
                f"no {CONFIG} names the token that fills a prompt up to {longest}",
                remedy=f"put the {CONFIG} of the model beside its weights",
            )
        left = self.config.padding_side == "left"
        missing = [[self.padding] * (longest - len(ids)) for ids in found]
        return [more + ids if left else ids + more for ids, more in zip(found, missing, strict=True)]

    @property
    def cleaning(self) -> str:
        """What is done to a text of SigLIP's first: by its own tokenizer of transformers, or by another."""
        if self.config.tokenizer_class == "SiglipTokenizer":
            return "whitespace" if self.config.do_lower_case is False else "punctuation"
        return "lower"


def cleaned(text: str, how: str) -> str:
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
    if not path.is_file():
        raise CheckpointError(
            f"{source} has no {FILE}, by which the text of its labels becomes numbers",
            remedy=f"put the {FILE} of the model beside its weights; transformers writes it: "
            f"AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)",
        )
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path} is larger than any tokenizer", remedy="download it again")
    library = require("tokenizers", extra="train")
    try:
        backend = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise CheckpointError(f"{path} is no tokenizer: {error}", remedy="download it again") from error
    config = read_json(folder / CONFIG, _TokenizerConfig) or _TokenizerConfig()
    token = config.pad_token.content if isinstance(config.pad_token, _Token) else config.pad_token
    padding = backend.token_to_id(token) if token is not None else (backend.padding or {}).get("pad_id")
    return Tokenizer(backend, config, padding)
