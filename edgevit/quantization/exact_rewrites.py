"""Check that rewrites, which are to change no answer, change none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import VerificationError
from edgevit.graph.linears import load_graph
from edgevit.graph.matchings import MergedRun, run_merged
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.running import largest_difference, run_all_outputs
from edgevit.graph.weights import letting_go
from edgevit.quantization.calibration.image_pass import single_images

_CHECKED = 4  # images that the rewritten model is compared on
_TOLERANCE = 1e-3  # of the largest number of an output; float32 in another order differs by about 1e-6 of it
_LEAST = 1e-6  # an output of smaller numbers is nothing but rounding


class ExactRewrites:
    """Checks on the first images that a rewritten model gives what the float32 file does.

    Where tokens are merged, both merge the same ones: those that are most alike in the float32 file. How alike they are
    in the rewritten model must agree as its answers do.
    """

    def __init__(
        self,
        float32: Path,
        read: Callable[[], Iterable[NDArray[np.float32]]],
        token_schedule: Sequence[int] = (),
    ) -> None:
        """Compare with the file ``float32``, its tokens merged by ``token_schedule``; ``read`` yields (B, C, H, W)."""
        self._float32, self._read, self._schedule = float32, read, token_schedule
        self._images: list[NDArray[np.float32]] = []
        self._expected: MergedRun | None = None

    def check(self, rewritten: ir.Model) -> None:
        """Compare ``rewritten``, which stays as it is.

        Raises:
            VerificationError: if it gives anything else.

        """
        if self._expected is None:
            self._images = list(islice(single_images(self._read()), _CHECKED))
            self._expected = self._before()
        if any(self._schedule):
            found = run_merged(rewritten, self._images, self._expected.numbers).outputs
        else:
            found = run_all_outputs(rewritten, self._images)
        difference = largest_difference(found, self._expected.outputs, least=_LEAST)
        if not difference <= _TOLERANCE:
            raise VerificationError(
                f"rewriting the model before quantization changed its answers by {difference:g} of the largest",
                remedy="report it with the model's architecture: an exact rewrite took it for another",
            )

    def _before(self) -> MergedRun:
        if not any(self._schedule):
            return MergedRun(run_all_outputs(self._float32, self._images), [])
        with letting_go(load_graph(self._float32)) as model:
            InferShapes()(model)
            MergeTokens(self._schedule)(model)
            return run_merged(model, self._images)
