"""Round a layer's weights so that its output, not each weight, comes out nearest.

GPTQ (Frantar et al. 2023): round one input's weights after the other, and let those that are left make up for the error
as far as the inputs correlate. The moments are those of the *quantized* input, and the bias takes up what is left of
the mean (bias correction, Nagel et al. 2019), so that what the rounding of activations does is in the account too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.graph.passes.prune_tokens import PooledToken
from edgevit.quantization.arithmetic import WEIGHT_LIMIT, dequantize, fake_quantize, quantize_array, weight_scales
from edgevit.quantization.calibration.arrays import same_layout
from edgevit.quantization.calibration.observers import ObserverState
from edgevit.quantization.plan import LinearQuantization

#: Share of the mean second moment that is added to each: it keeps the solution calm where inputs hardly vary. It is the
#: paper's (Frantar et al. 2023, section 3, step 3).
DAMPING = 0.01

#: How many other tokens the one that the head reads counts for, where a layer sees it among them: attention averages
#: what noise does in the others. Worth 0.1 to 0.3 dB (benchmarks/results/ablations.md).
TOKEN_WEIGHT = 10

_ROWS = 512  # of a product that are added up at once: they stay in the processor's cache
_HALVED_FROM = 1024  # inputs of a layer; of fewer, half a product takes as long as all of it
_BLOCK = 64  # inputs rounded before the weights after them are brought up to date, in one product


class HessianObserver:
    """What is kept of a layer's input: means as it is and as it comes out of quantization, the latter's covariance.

    The token that the head reads, ``token``, counts ``TOKEN_WEIGHT`` times in the covariance of a layer that sees it
    among as many.
    Memory is K*K floats for K inputs, whatever the number of images.
    """

    def __init__(self, quantization: LinearQuantization, width: int, token: PooledToken | None = None) -> None:
        self._token = token
        self._scale = np.float32(quantization.activation_scale)
        self._zero_point = quantization.zero_point()
        self._origin: NDArray[np.float32] | None = None
        self._products = np.zeros((width, width), dtype=np.float32)
        self._float = np.zeros(width)
        self._quantized = np.zeros(width)
        self._tokens = 0
        self._weighted = np.zeros(width)  # what the products are of, added up
        self._weight = 0.0

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the input (..., K) for one image, (1, N, K) where it has N tokens."""
        rows = values.reshape(-1, values.shape[-1])
        rounded = fake_quantize(rows, self._scale, self._zero_point)
        self._float += rows.sum(axis=0, dtype=np.float64)
        self._quantized += rounded.sum(axis=0, dtype=np.float64)
        if self._origin is None:
            self._origin = rounded.mean(axis=0)  # products of what is near 0 lose no digits in float32
        rounded -= self._origin
        weights = self._weights(values.shape)
        self._weighted += weights @ rounded
        self._weight += float(weights.sum())
        _add_products(self._products, rounded, rounded * weights[:, None])
        self._tokens += len(rows)

    def _weights(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return how often each row of an input of that shape (..., K) counts."""
        weights = np.ones(math.prod(shape[:-1]), dtype=np.float32)
        if self._token is not None and len(shape) == 3 and shape[1] == self._token.among:
            weights[self._token.number] = TOKEN_WEIGHT
        return weights

    def state(self) -> ObserverState:
        """Return all there is to know, for ``restore``, without a copy of the products."""
        origin = np.zeros(len(self._float), dtype=np.float32) if self._origin is None else self._origin
        return {
            "products": self._products,
            "origin": origin,
            "sums": np.stack([self._float, self._quantized, self._weighted]),
            "seen": np.array([self._tokens, self._weight], dtype=np.float64),
        }

    def restore(self, state: ObserverState) -> None:
        """Go on from ``state``.

        Raises:
            ValueError: if it is of a layer of another width, of no input, or not of finite numbers.

        """
        own = self.state()
        tokens, weight = same_layout(state["seen"], own["seen"]).tolist()
        if not (tokens >= 1 and weight > 0 and all(np.isfinite(array).all() for array in state.values())):
            raise ValueError("these are no moments")
        self._products = same_layout(state["products"], self._products)
        self._origin = same_layout(state["origin"], np.zeros(len(self._float), dtype=np.float32))
        self._float, self._quantized, self._weighted = same_layout(state["sums"], own["sums"]).astype(np.float64)
        self._tokens, self._weight = int(tokens), weight

    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean of the input, and of the quantized input, both (K,)."""
        return self._float / self._tokens, self._quantized / self._tokens

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of the quantized input (K, K), shrunk towards its diagonal where tokens are few.

        It is around the mean of all tokens alike, which the bias makes up for.

        Between K inputs, chance alone gives correlations of about one over the root of the number of tokens; a layer
        that sees one token of each image would be fitted to them (shrinkage, Ledoit and Wolf 2004).
        """
        assert self._origin is not None  # noqa: S101 - observe() needs an image
        mean = self._quantized / self._tokens - self._origin
        weighted = self._weighted / self._weight
        covariance: NDArray[np.float64] = self._products.astype(np.float64)
        if _is_halved(covariance):
            for start in range(0, len(mean), _ROWS):
                stop = start + _ROWS
                covariance[start:stop, stop:] = covariance[stop:, start:stop].T
        covariance /= self._weight
        for start in range(0, len(mean), _ROWS):
            rows = slice(start, start + _ROWS)
            around = np.outer(mean[rows], mean)
            around -= np.outer(weighted[rows], mean)
            around -= np.outer(mean[rows], weighted)
            covariance[rows] += around
        diagonal = np.diag(covariance).copy()
        covariance *= self._tokens / (self._tokens + len(mean))
        covariance[np.diag_indices_from(covariance)] = diagonal
        return covariance


def _add_products(total: NDArray[np.float32], left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
    """Add to ``total`` (K, K) the transpose of ``left`` times ``right``, both (N, K), some rows of it at a time.

    Of many inputs only the blocks up to the diagonal: ``right`` is ``left`` with weights for its rows, so that the
    others are the same. Two arrays: of a matrix and itself NumPy computes one half and copies it to the other, which
    takes longer. One row, of a layer that sees the class token alone, is multiplied faster without BLAS.
    """
    halved = _is_halved(total)
    for start in range(0, len(total), _ROWS):
        rows, columns = slice(start, start + _ROWS), slice(start + _ROWS if halved else len(total))
        block, others = left[:, rows].T, right[:, columns]
        total[rows, columns] += block * others if len(left) == 1 else block @ others


def _is_halved(products: NDArray[np.floating]) -> bool:
    """Say whether only the blocks up to the diagonal of ``products`` (K, K) are added up."""
    return len(products) > _HALVED_FROM


class QuantizedWeight(NamedTuple):
    """A layer's weight (K, N) on the grid of its scales (N,), and what to add to its bias (N,).

    ``of_input`` is the part of it that makes up for the rounding of the input.
    """

    weight: NDArray[np.float32]
    scales: NDArray[np.float32]
    correction: NDArray[np.float64]
    of_input: NDArray[np.float64]


def quantize_weight(weight: NDArray[np.float32], moments: HessianObserver) -> QuantizedWeight:
    """Return ``weight`` (K, N) rounded for inputs with ``moments``, with the bias correction that goes with it."""
    scales = weight_scales(weight)
    integers = gptq(weight, scales, moments.covariance())
    rounded = dequantize(integers, scales, np.int8(0))
    exact, quantized = moments.means()
    return QuantizedWeight(rounded, scales, exact @ weight - quantized @ rounded, (exact - quantized) @ rounded)


def gptq(weight: NDArray[np.float32], scales: NDArray[np.float32], covariance: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return integers (K, N) that make integers * scales the nearest to ``weight`` for inputs of that covariance.

    Args:
        weight: (K, N).
        scales: (N,).
        covariance: of the inputs (K, K). It is overwritten: for 3,072 inputs each copy takes 75 MB.

    """
    spread = np.diag(covariance).mean()
    if not spread > 0:  # the input never changes: there is nothing to make up for
        return quantize_array(weight, scales, np.int8(0))
    order = np.argsort(-np.diag(covariance), kind="stable")  # the inputs that matter most first
    covariance[:] = covariance[np.ix_(order, order)]
    covariance[np.diag_indices_from(covariance)] += DAMPING * spread
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).T  # upper triangular
    left = weight[order].astype(np.float64)
    integers = np.empty(left.shape, dtype=np.int8)
    for start in range(0, len(left), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(left)))
        errors = np.empty_like(left[block])
        for row in range(block.start, block.stop):
            done = row - block.start
            value = left[row] - factor[block.start : row, row] @ errors[:done]
            integer = np.clip(np.rint(value / scales), -WEIGHT_LIMIT, WEIGHT_LIMIT)
            integers[row] = integer
            errors[done] = (value - integer * scales) / factor[row, row]
        left[block.stop :] -= factor[block, block.stop :].T @ errors
    restored = np.empty_like(integers)
    restored[order] = integers
    return restored
