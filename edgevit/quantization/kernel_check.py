"""The kernel check: does the backend run in integers what was quantized?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from edgevit.backends.base import LinearKernel, Session
from edgevit.bundle.manifest import Arithmetic, Kernels
from edgevit.errors import VerificationError
from edgevit.graph.multiply_adds import Counted

#: Nodes that are named of each kind.
_LARGEST = 3


class KernelError(VerificationError):
    """Layers that were quantized do not run on the kernels that they should: ``layers``, by the kernel of each.

    The kernel is None where the engine shows none for the layer.
    """

    def __init__(self, message: str, *, layers: Mapping[str, str | None], engine: str, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.layers = layers
        self.engine = engine


def check_kernels(session: Session, expected: Sequence[str], *, engine: str = "the engine") -> Kernels:
    """Return which arithmetic the backend runs the model's Linear layers in.

    Args:
        session: the model, loaded.
        expected: names of the layers that must run in integers, as ``QuantizationPlan.integer_layers`` gives them;
            none for a float variant.
        engine: what runs it, for the message.

    Raises:
        KernelError: if one of them runs in floating point, or is not found; the message names them.

    """
    return check_linears(session.linear_kernels(), expected, engine=engine)


def check_linears(
    kernels: Sequence[LinearKernel],
    integer: Sequence[str],
    float8: Sequence[str] = (),
    *,
    engine: str = "the engine",
) -> Kernels:
    """Return which arithmetic ``kernels`` are in, those of all the Linear layers of a model.

    Raises:
        KernelError: if one of the layers that must run in integers, or in FP8, does not, or is not found.

    """
    _check("integer", integer, kernels, {kernel.layer for kernel in kernels if kernel.integer}, engine)
    _check("FP8", float8, kernels, {kernel.layer for kernel in kernels if kernel.kernel.endswith(" float8")}, engine)
    return kernels_of(kernels)


def check_convolutions(products: Collection[str], expected: Sequence[str], *, engine: str = "the engine") -> None:
    """Check that each convolution that is ``expected`` in integers is among the ``products`` that are.

    Raises:
        KernelError: if one is not.

    """
    _check("integer", expected, (), set(products), engine)


def name_the_last(kernels: Sequence[LinearKernel], layers: Collection[str]) -> list[LinearKernel]:
    """Return ``kernels`` with the one that has an unknown name called as the one of ``layers`` that none has.

    OpenVINO renames the node behind the model's output, and with one output its weight, too.
    """
    unknown = [kernel for kernel in kernels if kernel.layer not in layers]
    missing = set(layers) - {kernel.layer for kernel in kernels}
    if len(unknown) != 1 or len(missing) != 1:
        return list(kernels)
    named = msgspec.structs.replace(unknown[0], layer=missing.pop())
    return [named if kernel is unknown[0] else kernel for kernel in kernels]


def _check(kind: str, expected: Sequence[str], kernels: Sequence[LinearKernel], right: set[str], engine: str) -> None:
    wrong = [name for name in expected if name not in right]
    if wrong:
        found = {kernel.layer: kernel.kernel for kernel in kernels}
        named = [f"'{name}' ({found.get(name, 'not found')})" for name in wrong[:5]]
        more = f" and {len(wrong) - len(named)} more" if len(wrong) > len(named) else ""
        raise KernelError(
            f"{len(wrong)} of {len(expected)} quantized layers do not run on {kind} kernels: {', '.join(named)}{more}",
            layers={name: found.get(name) for name in wrong},
            engine=engine,
            remedy="use the dialect of this backend; if it is that one, report it with the versions that "
            "`edgevit doctor` prints",
        )


def with_arithmetic(kernels: Kernels, counted: Counted, integer: Collection[str]) -> Kernels:
    """Return ``kernels`` with the multiply-adds of the nodes that were ``counted``, by their kinds.

    ``integer`` are the names of all that the engine was seen to multiply in integers. Where the multiply-adds of a node
    are not known there is no share, and nothing is added.
    """
    if counted.unknown:
        return kernels
    kinds = dict.fromkeys(node.kind for node in counted.nodes)
    found = []
    for kind in kinds:
        nodes = [node for node in counted.nodes if node.kind == kind]
        floats = [node for node in nodes if node.name not in integer and node.output not in integer]
        largest = sorted(floats, key=lambda node: -node.macs)[:_LARGEST]
        macs = sum(node.macs for node in nodes)
        found.append(
            Arithmetic(
                kind=kind,
                macs=macs,
                integer_macs=macs - sum(node.macs for node in floats),
                nodes=len(nodes),
                float_nodes=len(floats),
                largest_float=tuple(node.name for node in largest),
            )
        )
    found.sort(key=lambda each: -each.macs)
    return msgspec.structs.replace(kernels, arithmetic=tuple(found))


def kernels_of(kernels: Sequence[LinearKernel]) -> Kernels:
    """Return what a bundle notes of ``kernels``."""
    return Kernels(
        linears=len(kernels),
        integer_linears=sum(kernel.integer for kernel in kernels),
        float_linears=tuple(kernel.layer for kernel in kernels if not kernel.integer),
    )
