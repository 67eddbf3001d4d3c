"""Opens what a caller gives as a bundle."""

from __future__ import annotations

from edgevit.bundle.pack import refuse_pack
from edgevit.bundle.store import Bundle
from edgevit.runtime.arguments import BundleLike, bundle_place


def opened(bundle: BundleLike, *, to_change: bool = False) -> Bundle:
    """Open ``bundle`` as it is on the disk now: a caller may hold it as it was before a variant was added.

    A pack cannot be opened ``to_change`` it.

    Raises:
        InputError: if it is neither a bundle nor a path.
        BundleError: if it is missing, damaged, unsafe, or written by a newer EdgeViT.
    """
    place = bundle_place(bundle)
    if to_change:
        refuse_pack(place)
    return Bundle.open(place)
