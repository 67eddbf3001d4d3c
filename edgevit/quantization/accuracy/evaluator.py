"""Images that nothing was fitted to, and how near to float32 a model stays on them.

What a choice does to a layer's own error misleads: outliers carry meaning, and errors of some tokens and layers hardly
reach the output. So choices are judged by what the whole model gives, on images of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import REFERENCE, get_backend
from edgevit.backends.base import Session
from edgevit.errors import DataError
from edgevit.models.outputs import Output
from edgevit.quantization.accuracy.output_distance import worst_sqnr_db
from edgevit.statistics import agreement, mean_kl, sqnr_db


@dataclass(frozen=True, slots=True)
class AccuracyScore:
    """How near outputs are to float32's: KL(float32 || model) in nats, SQNR in dB, share of images of the same top-1.

    Where each logit decides by itself, the last is the share of the same decisions. ``sqnr_db`` is None where outputs
    are the same. Of a model with outputs of other kinds it is the worst one's, and the others are None.
    """

    kl: float | None
    sqnr_db: float | None
    agreement: float | None


class Evaluator:
    """Float32's outputs for images that nothing was fitted to."""

    def __init__(
        self,
        model: Path,
        images: Iterable[NDArray[np.float32]],
        *,
        independent: bool = False,
        typed: Sequence[Output] = (),
    ) -> None:
        """Run the float32 ONNX file ``model`` on ``images`` of (B, C, H, W), which are kept.

        With ``independent`` logits each is a decision of its own, as a single one always is. ``typed`` are the outputs
        of a model that gives anything but one row of logits or features.

        Raises:
            DataError: if there are no images.

        """
        self.images = tuple(images)
        if not self.images:
            raise DataError("there are no images to judge by", remedy="give more images with --data")
        self.reference = self.outputs(model)
        self.typed = tuple(typed)
        self.independent = not typed and (independent or self.reference.shape[1] == 1)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.reference)

    def outputs(
        self, model: Path, backend: str = REFERENCE, settings: Mapping[str, str] = MappingProxyType({})
    ) -> NDArray[np.float32]:
        """Return what the ONNX file ``model`` gives for the images (N, classes or features)."""
        with get_backend(backend).open(model, threads=0, settings=settings, batch=len(self.images[0])) as session:
            return self.outputs_of(session)

    def outputs_of(self, session: Session) -> NDArray[np.float32]:
        """Return what a model that is open gives for the images (N, classes or features)."""
        return np.concatenate([session.infer(batch) for batch in self.images])

    def score(self, outputs: NDArray[np.float32]) -> AccuracyScore:
        """Return how near ``outputs`` (N, classes or features) are to float32's."""
        if self.typed:
            return AccuracyScore(None, worst_sqnr_db(self.reference, outputs, self.typed), None)
        return AccuracyScore(
            mean_kl(self.reference, outputs, independent=self.independent),
            sqnr_db(self.reference, outputs),
            agreement(self.reference, outputs, independent=self.independent),
        )
