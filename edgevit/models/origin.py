"""Where weights came from: the files, the revision, and the license that is named beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.files import sha256_of
from edgevit.models.licenses import License, license_beside


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """The ``files`` that weights were read from, the ``revision`` on the Hub, and the license."""

    files: tuple[Path, ...] = ()
    revision: str | None = None
    license: License | None = None

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its name."""
        return {file.name: sha256_of(file) for file in self.files}

    def notes(self) -> tuple[str, ...]:
        """Return what should be said aloud: that terms restrict the use."""
        warning = None if self.license is None else self.license.warning()
        return () if warning is None else (warning,)


def weights_origin(files: tuple[Path, ...], said: Mapping[str, Any]) -> WeightsOrigin:
    """Return where ``files``, of one folder, are from; ``said`` is all of the config.json that lies beside them.

    A folder of the Hub's cache is named by the commit.
    """
    folder = files[0].parent
    commit = folder.name if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name) else None
    return WeightsOrigin(files, commit, license_beside(folder, said))
