"""Opens what a caller gives as a bundle."""

from __future__ import annotations

import os
from typing import TypeAlias

from edgevit.bundle.store import Bundle
from edgevit.runtime.arguments import path_given

BundleLike: TypeAlias = Bundle | str | os.PathLike[str]
"""A bundle, or the path of its folder."""


def opened(bundle: BundleLike) -> Bundle:
    """Open ``bundle`` as it is on the disk now: a caller may hold it as it was before a variant was added.

    Raises:
        InputError: if it is no path.
        BundleError: if it is missing, damaged, unsafe, or written by a newer EdgeViT.
    """
    return Bundle.open(bundle.path if isinstance(bundle, Bundle) else path_given("bundle", bundle))
