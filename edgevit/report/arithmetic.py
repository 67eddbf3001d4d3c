"""Which share of a model's multiply-adds runs in integers, in words."""

from __future__ import annotations

from collections.abc import Mapping

from edgevit.bundle.manifest import INTEGER_PRECISIONS, Arithmetic, Kernels, Variant
from edgevit.numerals import exactly, per_cent

#: The share of multiply-adds in integers below which a variant is warned of.
FEW = 0.8

#: What the nodes of a kind are called, one and several, and why they stay float.
_NODES: Mapping[str, tuple[str, str, str]] = {
    "Linear": ("Linear layer", "Linear layers", "see which by edgevit inspect --kernels --all"),
    "Conv": ("convolution", "convolutions", "this precision or dialect quantizes Linear layers only"),
    "attention": ("product of attention", "products of attention", "the engine was not seen to do them in integers"),
}
_NAMED = 3
_SMALL = 0.01
_DIGITS = 9  # of per cent: fewer than those that a float of 0..1 has


def in_integers(kernels: Kernels) -> str:
    """Say how many Linear layers run in integers, and which share of all multiply-adds that is, by their kinds."""
    linears = f"{kernels.integer_linears} of {kernels.linears} Linear layers"
    convolutions = [each for each in kernels.arithmetic or () if each.kind == "Conv" and each.nodes > 1]
    also = [f" and {each.nodes - each.float_nodes} of {each.nodes} convolutions" for each in convolutions]
    said = f"{linears}{''.join(also)} in integers"
    return f"{said}, {share_in_integers(kernels) or 'an unknown share of the multiply-adds'}"


def share_in_integers(kernels: Kernels) -> str | None:
    """Say which share of all multiply-adds runs in integers, by their kinds; None if it is not known."""
    share = kernels.integer_share
    if share is None:
        return None
    kinds = (f"{each.kind} {per_cent(each.integer_macs / each.macs)}" for each in kernels.arithmetic or () if each.macs)
    return f"{per_cent(share)} of the multiply-adds ({', '.join(kinds)})"


def few_integers(variant: Variant) -> str | None:
    """Say what of an integer variant stays float and why, if that is more than a fifth; None if it is not."""
    kernels = variant.kernels
    if kernels is None or variant.precision not in INTEGER_PRECISIONS:
        return None
    share = kernels.integer_share
    if share is None or share >= FEW:
        return None
    whole = sum(each.macs for each in kernels.arithmetic or ())
    floats = sorted(kernels.arithmetic or (), key=lambda each: each.integer_macs - each.macs)
    kinds = [_stays_float(each, whole, variant) for each in floats if each.macs - each.integer_macs > _SMALL * whole]
    names = [name for each in floats for name in each.largest_float][:_NAMED]
    return (
        f"{per_cent(share)} of the multiply-adds run in integers; {'; '.join(kinds)}. "
        f"The largest in float: {', '.join(names)}"
    )


def share_missed(variant: Variant, least: float | None) -> str | None:
    """Say so where an integer variant has fewer of its multiply-adds in integers than ``least``, in 0..1."""
    if least is None or variant.precision not in INTEGER_PRECISIONS:
        return None
    share = None if variant.kernels is None else variant.kernels.integer_share
    wanted = f"{share_wanted(least)} wanted"
    if share is None:
        return f"the share of multiply-adds in integers is not known, {wanted}"
    return None if share >= least else f"{per_cent(share)} of the multiply-adds run in integers, {wanted}"


def _stays_float(each: Arithmetic, whole: int, variant: Variant) -> str:
    one, several, why = _NODES[each.kind]
    told = [kept.reason for kept in variant.fallback if kept.layer in each.largest_float]
    why = told[0] if told else why
    nodes = f"{each.float_nodes} {one if each.float_nodes == 1 else several}"
    stays = "stays" if each.float_nodes == 1 else "stay"
    return f"{nodes}, {per_cent((each.macs - each.integer_macs) / whole)} of the multiply-adds, {stays} float: {why}"


def share_wanted(least: float) -> str:
    """Write the least share in integers, in 0..1, in per cent with all of its digits."""
    return f"{exactly(round(100 * least, _DIGITS))} %"
