"""What merging tokens costs a model's outputs, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.linears import load_graph
from edgevit.graph.multiply_adds import MultiplyAdds, count_multiply_adds
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.passes.pad_tokens import MULTIPLE
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.graph.saving import save
from edgevit.graph.taps import TappedModel
from edgevit.graph.token_stream import TokenStream, find_token_stream
from edgevit.graph.weights import letting_go
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.criteria import Limit, measure_loss
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.token_merging.distances import merging_distances

#: Into how many steps the patches are divided, and how many of them each block by itself is measured with. They are
#: choices of how long to search: a finer table takes longer to make, and each number measured is a run of the model.
_STEPS, _MEASURED = 24, (3, 9)
_MANY = 12  # times ``MULTIPLE``
#: How fast losses grow with distances, at least and at most: as the error or as its square. Noise in a measurement does
#: not make it more or less.
_EXPONENTS = (1.0, 2.0)
#: Images whose keys are looked at; distances differ little between images.
_LOOKED_AT = 8


class MergedModels:
    """A float32 model with its tokens merged, in one way after another; ``limit`` says what is lost by it."""

    def __init__(self, float32: Path, evaluator: Evaluator, limit: Limit, scratch: Path) -> None:
        """Read the float32 ONNX file; what is written goes to the folder ``scratch``.

        Raises:
            GraphError: if its tokens cannot be merged.

        """
        self._model = _read(float32)
        self.stream: TokenStream = find_token_stream(self._model.graph)
        self._evaluator, self._limit, self._scratch = evaluator, limit, scratch
        self._whole = multiply_adds_of(self._model)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many tokens can be merged so far at a block, of which schedules are made."""
        return merged_counts(self.stream.tokens, self.stream.prefix)

    def loss(self, schedule: Sequence[int], evaluator: Evaluator | None = None, limit: Limit | None = None) -> float:
        """Return what merging by ``schedule`` costs in float32, by another evaluator and limit if they are given."""
        evaluator, limit = evaluator or self._evaluator, limit or self._limit
        path = self.write(schedule, self._scratch / "merged.onnx")
        return measure_loss(limit, evaluator.reference, evaluator.outputs(path))

    def write(self, schedule: Sequence[int], path: Path) -> Path:
        """Write the model with its tokens merged by ``schedule`` to ``path``, and return that.

        Raises:
            StorageError: if it cannot be written.

        """
        with letting_go(self._merged(schedule)) as model:
            return save(model, path).path

    def share(self, schedule: Sequence[int]) -> float:
        """Return the share of the multiply-adds that is left with ``schedule``, with those of merging itself."""
        with letting_go(self._merged(schedule)) as model:
            return sum(each.macs for each in multiply_adds_of(model)) / sum(each.macs for each in self._whole)

    def losses(self, progress: Progress = SILENT) -> NDArray[np.float64]:
        """Return the loss (blocks, levels, levels) of going from so many merged steps of tokens to so many at a block.

        How far merging moves a block's keys says how the loss grows with the number of tokens, as a power of that.
        Which power, and how much it costs, is measured with two numbers for each block.
        """
        distances = self._distances()
        few, many = (min(steps, int(np.isfinite(distances[0, 0]).sum()) - 1) for steps in _MEASURED)
        alone = [self._alone(block, steps) for block in range(len(self.stream.blocks)) for steps in (few, many)]
        measured = [
            self.loss(schedule)
            for schedule in progress.track(alone, total=len(alone), label="Measuring what merging tokens costs")
        ]
        table = np.full(distances.shape, np.inf)
        for block, (of_few, of_many) in enumerate(np.reshape(measured, (-1, 2))):
            reached = np.isfinite(distances[block])
            law = _power_law(distances[block, 0, few], of_few, distances[block, 0, many], of_many)
            table[block, reached] = law.factor * distances[block, reached] ** law.exponent
        return table

    def work(self, levels: int) -> NDArray[np.float64]:
        """Return the multiply-adds (blocks, levels) between the merging of a block and the next, in shares of all."""
        places = {str(value.name): index for index, value in enumerate(_outputs(self._model.graph))}
        merges = [places[str(block.residual.name)] for block in self.stream.blocks]
        whole = sum(each.macs for each in self._whole)
        left = 1 - self.counts[:levels] / self.stream.tokens
        table = np.zeros((len(merges), levels))
        for each in self._whole:
            block = int(np.searchsorted(merges, places[each.output])) - 1
            if block >= 0:
                table[block] += each.macs / whole * (left**2 if each.kind == "attention" else left)
        return table

    def _alone(self, block: int, steps: int) -> tuple[int, ...]:
        return tuple(int(self.counts[steps]) * (number == block) for number in range(len(self.stream.blocks)))

    def _merged(self, schedule: Sequence[int]) -> ir.Model:
        model = self._model.clone()
        MergeTokens(schedule)(model)
        return model

    def _distances(self) -> NDArray[np.float64]:
        """Return how far merging moves each block's keys, on average, as ``merging_distances`` does for one."""
        stream = self.stream
        keys = [str(block.attention.key.name) for block in stream.blocks]
        tapped = TappedModel(self._model, keys)
        images = np.concatenate(self._evaluator.images)[:_LOOKED_AT]
        seen = [tapped.run(image[None]) for image in images]
        return np.array(
            [
                np.mean([self._distance(each[name][0], block.attention.heads) for each in seen], axis=0)
                for name, block in zip(keys, stream.blocks, strict=True)
            ]
        )

    def _distance(self, keys: NDArray[np.float32], heads: int) -> NDArray[np.float64]:
        metric = keys.reshape(len(keys), heads, -1).mean(axis=1)
        return merging_distances(metric, self.stream.prefix, self.counts)


def merged_counts(tokens: int, prefix: int) -> NDArray[np.int64]:
    """Return the numbers of tokens, 0 first, that may be merged so far at a block of a model.

    Of many tokens a multiple of ``MULTIPLE`` is left each time: engines' kernels take others up to a quarter longer.
    """
    patches = tokens - prefix
    step = first = max(1, round(patches / _STEPS))
    if patches >= _MANY * MULTIPLE:
        step = max(1, round(step / MULTIPLE)) * MULTIPLE
        first = tokens % MULTIPLE or MULTIPLE
    counts = np.array([0, *range(first, max(first, patches - step) + 1, step)])
    return counts[counts < max(1, patches)]  # one stays


def check_graph_mergeable(float32: Path) -> None:
    """Check that tokens of the float32 ONNX file can be merged.

    Raises:
        GraphError: if they cannot be.

    """
    with letting_go(_read(float32)) as model:
        find_token_stream(model.graph)


def share_left(float32: Path, schedule: Sequence[int]) -> float:
    """Return the share of the multiply-adds of the float32 ONNX file that is left once tokens are merged.

    Raises:
        GraphError: if they cannot be.

    """
    with letting_go(_read(float32)) as model:
        whole = sum(each.macs for each in multiply_adds_of(model))
        MergeTokens(schedule)(model)
        return sum(each.macs for each in multiply_adds_of(model)) / whole


def _read(float32: Path) -> ir.Model:
    """Return the model in an ONNX file, with the shapes of its values: files of others seldom say them."""
    model = load_graph(float32)
    InferShapes()(model)
    return model


class _PowerLaw(NamedTuple):
    factor: float
    exponent: float


def _power_law(first: float, of_first: float, second: float, of_second: float) -> _PowerLaw:
    """Return the law that gives two losses at two distances, as nearly as its exponent may."""
    if min(first, of_first, of_second) <= 0 or second <= first:
        return _PowerLaw(0.0, 1.0)
    exponent = float(np.clip(np.log(of_second / of_first) / np.log(second / first), *_EXPONENTS))
    return _PowerLaw(of_second / second**exponent, exponent)


def multiply_adds_of(model: ir.Model) -> tuple[MultiplyAdds, ...]:
    """Return the multiply-adds of ``model``, without those of tokens that no output depends on."""
    with letting_go(model.clone()) as pruned:
        PruneToClassToken()(pruned)
        return count_multiply_adds(pruned).nodes


def _outputs(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]
