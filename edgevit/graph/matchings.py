"""See which tokens a model merges, and run another with the same: what is alike by a hair may fall out either way.

Two models that compute the same in another order differ in the last digits, and where two tokens are alike to these,
one goes with this partner in the one model and with that in the other. So their answers are comparable only if both
merge the same tokens. How alike they are is compared, too: that decides which are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.graph.node_facts import Role, role_of
from edgevit.graph.running import ENGINE_ERRORS, concatenated, session_of
from edgevit.graph.saving import tidy
from edgevit.graph.weights import letting_go

_SIMILARITY, _NUMBERS = 0, 1  # what TopK gives


class MergedRun(NamedTuple):
    """What a model gives: ``outputs`` (N, ...), then how alike tokens are at each step; and per image the numbers.

    ``numbers`` are of tokens, int64, in the order of the steps.
    """

    outputs: list[NDArray[np.float32]]
    numbers: list[list[NDArray[np.int64]]]


def run_merged(
    model: ir.Model,
    images: Sequence[NDArray[np.float32]],
    numbers: Sequence[Sequence[NDArray[np.int64]]] | None = None,
) -> MergedRun:
    """Run ``model``, whose tokens are merged, on ``images``, each (1, C, H, W); it stays as it is.

    It merges the tokens of ``numbers``, which another run gave, or those that it finds itself.

    Raises:
        GraphError: if it cannot be run.

    """
    with letting_go(model.clone()) as tapped:
        graph = tapped.graph
        steps = [node for node in graph if role_of(node) is Role.MATCHING]
        count = len(graph.outputs) + len(steps)
        graph.outputs.extend(node.outputs[_SIMILARITY] for node in steps)
        if numbers is None:
            graph.outputs.extend(node.outputs[_NUMBERS] for node in steps)
        else:
            graph.inputs.extend(_given(node.outputs[_NUMBERS]) for node in steps)
        tidy(tapped)
        session = session_of(tapped)
    names = [each.name for each in session.get_inputs()]
    found = []
    try:
        for index, image in enumerate(images):
            given = [image, *(() if numbers is None else numbers[index])]
            found.append(session.run(None, dict(zip(names, given, strict=True))))
    except ENGINE_ERRORS as error:
        raise GraphError(f"the model cannot be run: {error}", remedy="export it again") from error
    return MergedRun(concatenated(one[:count] for one in found), [one[count:] for one in found])


def _given(numbers: ir.Value) -> ir.Value:
    """Return an input in the place of ``numbers``."""
    given = ir.Value(name=f"{numbers.name}.given", shape=numbers.shape, type=ir.TensorType(ir.DataType.INT64))
    numbers.replace_all_uses_with(given)
    return given
