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
    """Check that this machine gives the same answers as the machine where the bundle was made.

    Every file is checked against its SHA-256. Each variant then runs on the golden images, as it would in an
    application. Variants that cannot run here are named; that is no failure if at least one can.

    Args:
        bundle: A bundle that ``edgevit.export`` made, or a pack: its path, or a ``Bundle``.
        variants: Check only these; by default, all.
        trusted_keys: One of these must have signed the bundle: paths of public Ed25519 keys, or the keys themselves, in
            PEM or as OpenSSH writes them. By default, no signature is needed.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        BundleError: if it is not a bundle, its golden images are damaged, or there is no such variant.
        VerificationError: if no trusted key has signed it.
        InputError: if a trusted key is not a valid public key.
        MissingDependencyError: if the package that checks signatures is not installed.

    """
    return stage(
        bundle_place(bundle),
        variants=names("variants", variants),
        trusted_keys=keys_given(trusted_keys),
        progress=progress_to(progress),
    )
