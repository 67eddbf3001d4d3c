"""A token budget, as a caller gives it."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

from edgevit.brief import in_brief
from edgevit.errors import InputError

#: A share of the multiply-adds, in 0..1; or the smallest that keeps the limit.
TokenBudget = float | Literal["auto"]

_PER_CENT = 100


def token_budget_given(value: Any) -> TokenBudget | None:  # noqa: ANN401
    """Return ``value`` as a share in whole per cent, or "auto"; None stays None.

    Raises:
        InputError: if it is neither.

    """
    if value is None or (isinstance(value, str) and value == "auto"):
        return value  # type: ignore[return-value]
    return share_given(value, ', or "auto" for the smallest that keeps the limit')


def share_given(value: Any, otherwise: str = "") -> float:  # noqa: ANN401
    """Return ``value`` as a share in whole per cent; ``otherwise`` says what else could be given.

    Raises:
        InputError: if it is none.

    """
    given: Any = value  # for mypy, which takes a Real for what has no order
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < given < 1:
        raise InputError(
            f"the token budget is {in_brief(value)}, not a share of the multiply-adds between 0 and 1",
            remedy=f"give 0.8, say{otherwise}",
        )
    share = round(float(value), 2)
    if not 0 < share < 1 or abs(share - float(value)) * _PER_CENT > 1e-6:
        raise InputError(
            f"the token budget is {in_brief(value)}, and budgets are in whole per cent",
            remedy=f"give {min(max(share, 0.01), 0.99):g}",
        )
    return share
