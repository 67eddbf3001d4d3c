"""A JSON file that says of itself of which version it is: what is written by EdgeViT, and read by the same version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from edgevit.errors import BundleError
from edgevit.files import write_atomically
from edgevit.json import MOST_BYTES, JSONError, read

if TYPE_CHECKING:
    from typing_extensions import Self


class JSONFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What such a file holds.

    A subclass says ``what`` it is, which ``schema`` it has today, and the ``remedy`` where a file is no such one.
    """

    what: ClassVar[str]
    schema: ClassVar[int]
    remedy: ClassVar[str]
    most_bytes: ClassVar[int] = MOST_BYTES

    schema_version: int

    def save(self, path: Path) -> None:
        """Write it to ``path``, whole or not at all.

        Raises:
            StorageError: if it cannot be written.

        """
        write_atomically(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            BundleError: if it is missing, damaged, or of another version of EdgeViT.

        """
        try:
            found = read(path, cls, most_bytes=cls.most_bytes)
        except JSONError as error:
            raise BundleError(f"{path} is no {cls.what}: {error}", remedy=cls.remedy) from error
        if found.schema_version != cls.schema:
            raise BundleError(f"{path} has version {found.schema_version}, not {cls.schema}", remedy=cls.remedy)
        return found
