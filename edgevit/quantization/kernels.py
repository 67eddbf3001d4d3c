"""The kernel check: does the backend run in integers what was quantized?"""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.backends.base import LinearKernel, Session
from edgevit.bundle.manifest import Kernels
from edgevit.errors import VerificationError


def check_kernels(session: Session, expected: Sequence[str]) -> Kernels:
    """Return which arithmetic the backend runs the model's Linear layers in.

    Args:
        session: the model, loaded.
        expected: names of the layers that must run in integers, as ``QuantizationPlan.integer_layers`` gives them;
            none for a float variant.

    Raises:
        VerificationError: if one of them runs in floating point, or is not found; the message names them.

    """
    return check_linears(session.linear_kernels(), expected)


def check_linears(kernels: Sequence[LinearKernel], integer: Sequence[str], float8: Sequence[str] = ()) -> Kernels:
    """Return which arithmetic ``kernels`` are in, those of all the Linear layers of a model.

    Raises:
        VerificationError: if one of the layers that must run in integers, or in FP8, does not, or is not found.

    """
    _check("integer", integer, kernels, {kernel.layer for kernel in kernels if kernel.integer})
    _check("FP8", float8, kernels, {kernel.layer for kernel in kernels if kernel.kernel.endswith(" float8")})
    return kernels_of(kernels)


def _check(kind: str, expected: Sequence[str], kernels: Sequence[LinearKernel], right: set[str]) -> None:
    wrong = [name for name in expected if name not in right]
    if wrong:
        found = {kernel.layer: kernel.kernel for kernel in kernels}
        named = [f"'{name}' ({found.get(name, 'not found')})" for name in wrong[:5]]
        more = f" and {len(wrong) - len(named)} more" if len(wrong) > len(named) else ""
        raise VerificationError(
            f"{len(wrong)} of {len(expected)} quantized layers do not run on {kind} kernels: {', '.join(named)}{more}",
            remedy="use the dialect of this backend; if it is that one, report it with the versions that "
            "`edgevit doctor` prints",
        )


def kernels_of(kernels: Sequence[LinearKernel]) -> Kernels:
    """Return what a bundle notes of ``kernels``."""
    return Kernels(
        linears=len(kernels),
        integer_linears=sum(kernel.integer for kernel in kernels),
        float_linears=tuple(kernel.layer for kernel in kernels if not kernel.integer),
    )
