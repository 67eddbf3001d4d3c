"""Opens what a caller gives as a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from edgevit.bundle.pack import refuse_pack
from edgevit.bundle.store import Bundle
from edgevit.runtime.arguments import path_given

BundleLike: TypeAlias = Bundle | str | os.PathLike[str]
"""A bundle, or the path of its folder, or of a pack."""


def opened(bundle: BundleLike, *, to_change: bool = False) -> Bundle:
    """Open ``bundle`` as it is on the disk now: a caller may hold it as it was before a variant was added.

    A pack cannot be opened ``to_change`` it.

    Raises:
        InputError: if it is no path.
        BundleError: if it is missing, damaged, unsafe, or written by a newer EdgeViT.
    """
    place = Path(bundle.path if isinstance(bundle, Bundle) else path_given("bundle", bundle))
    if to_change:
        refuse_pack(place)
    return Bundle.open(place)
