"""``edgevit.verify``."""

from collections.abc import Sequence

from edgevit.api.arguments import names
from edgevit.bundle.signature import TrustedKey
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import BundleLike, bundle_place, keys_given
from edgevit.stages.verify import VerificationResult
from edgevit.stages.verify import verify as stage


def verify(
    bundle: BundleLike,
    *,
    variants: Sequence[str] = (),
    trusted_keys: Sequence[TrustedKey] | None = None,
    progress: Progress | ProgressCallback | None = None,
) -> VerificationResult:
    """Say whether this machine gives the answers that were checked where the bundle was made.

    Every file is checked against its SHA-256, and each variant runs on the golden images as an application runs it.
    What cannot be run here is named, and is no failure as long as something can.

    Args:
        bundle: A bundle or a pack.
        variants: Only these; all without them.
        trusted_keys: One of these must have signed it: paths of public Ed25519 keys, or the keys themselves.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if it is no bundle, its golden images are damaged, or there is no such variant.
        VerificationError: if no trusted key has signed it.
        InputError: if a trusted key is none.
        MissingDependencyError: if the package that checks signatures is not installed.

    """
    return stage(
        bundle_place(bundle),
        variants=names("variants", variants),
        trusted_keys=keys_given(trusted_keys),
        progress=progress_to(progress),
    )
