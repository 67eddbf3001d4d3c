"""Forms of a model with some convolutions in integers and the others in float: built, opened and judged."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.backends.backend import Backend
from edgevit.backends.base import Session
from edgevit.bundle.manifest import Manifest, Precision
from edgevit.bundle.reading import VerifiedFile
from edgevit.quantization.float_fallback import float_in, note_float_in
from edgevit.quantization.ptq import PtqModel
from edgevit.stages.deviation import Deviation, deviation_between
from edgevit.stages.engines import lower_for
from edgevit.stages.precisions import write_source
from edgevit.targets import Target


@dataclass(frozen=True, slots=True)
class Reference:
    """Preprocessed images (N, C, H, W), and float32's outputs for them."""

    images: NDArray[np.float32]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RacedForm:
    """The convolutions that are float, what to call those in integers, and how far the model is from float32 then."""

    integers: str
    floats: frozenset[str]
    deviation: Deviation


@dataclass(frozen=True, slots=True)
class Workbench:
    """What forms of ``ptq`` are built and judged with, below ``scratch``."""

    manifest: Manifest
    float32: VerifiedFile
    target: Target
    precision: Precision
    ptq: PtqModel
    backend: Backend
    reference: Reference
    scratch: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def image(self) -> NDArray[np.float32]:
        """One image (1, C, H, W) to race with."""
        return self.reference.images[:1]

    @contextmanager
    def open(self, floats: Iterable[str]) -> Iterator[tuple[Session, Deviation]]:
        """Yield a session of the model with the convolutions ``floats`` in float, and how far it is from float32."""
        dialect = self.target.dialect
        folder = self.scratch / f"convolutions-{dialect}-{next(self._numbers)}"
        folder.mkdir()
        try:
            plan = note_float_in(self.ptq.plan, dialect, dict.fromkeys(floats, "tried"))
            form = float_in(replace(self.ptq, plan=plan), dialect)
            source = write_source(self.float32, self.precision, self.target, form, folder / "source.onnx")
            lowered = lower_for(source.file, self.target, self.backend.version()).path
            built = folder / "built"
            built.mkdir()
            model = self.backend.build(lowered, built, self.target.build_options(self.precision))[0]
            settings = self.target.choices_for(self.precision)[0]
            with self.backend.open(model, threads=0, settings=settings) as session:
                yield session, self._judge(session)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _judge(self, session: Session) -> Deviation:
        outputs = np.concatenate([session.infer(image[None]) for image in self.reference.images])
        return deviation_between(self.manifest, self.reference.outputs, outputs)
