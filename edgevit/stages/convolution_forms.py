"""Forms of a model with some convolutions in integers and the others in float: built, opened and judged."""

from __future__ import annotations

import itertools
import math
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
from edgevit.quantization.accuracy.output_distance import worst_sqnr_db
from edgevit.quantization.float_fallback import float_in, note_float_in
from edgevit.quantization.ptq import PtqModel
from edgevit.stages.engines import lower_for
from edgevit.stages.precisions import write_source
from edgevit.statistics import mean_kl
from edgevit.targets import Target

#: How far from float32 a model with convolutions in integers may be in any case: as far as INT8 leaves a ViT.
_MOST_KL, _LEAST_SQNR = 0.002, 24.0
#: And how many times as far as with Linear layers in integers alone.
_TIMES = 2.0


@dataclass(frozen=True, slots=True)
class Reference:
    """Preprocessed images (N, C, H, W), and float32's outputs for them."""

    images: NDArray[np.float32]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far outputs are from float32's: KL in nats, None for features; SQNR in dB, None where they are the same."""

    kl: float | None
    sqnr: float | None

    @property
    def noise(self) -> float:
        """Noise, as a share of the power of the outputs."""
        return 0.0 if self.sqnr is None else 10 ** (-self.sqnr / 10)

    def say(self) -> str:
        """Return it in words."""
        if self.noise == math.inf:
            return "outputs that are not finite"
        noise = "no noise" if self.sqnr is None else f"SQNR {self.sqnr:.1f} dB"
        return noise if self.kl is None else f"KL {self.kl:.2g} nats, {noise}"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How far from float32 convolutions in integers may take a model that is as far as ``without`` when they are float.

    Both measures count. KL alone says little where logits are flat, as those of a model that is not trained are:
    probabilities that are all alike hardly move. Noise alone says little where few of the classes count.
    """

    without: Deviation

    @property
    def noise(self) -> float:
        """The largest noise, as a share of the power of the outputs."""
        return max(10 ** (-_LEAST_SQNR / 10), _TIMES * self.without.noise)

    @property
    def kl(self) -> float:
        """The largest KL in nats."""
        return max(_MOST_KL, _TIMES * (self.without.kl or 0.0))

    def holds(self, deviation: Deviation) -> bool:
        """Say whether ``deviation`` is allowed."""
        return deviation.noise <= self.noise and (deviation.kl is None or deviation.kl <= self.kl)

    def used(self, deviation: Deviation) -> float:
        """Return which share ``deviation`` uses up of what is allowed beyond ``without``; 1 is all of it.

        Errors of layers are as good as independent, so that the shares of parts of a model add up, about.
        """
        shares = [(deviation.noise - self.without.noise) / (self.noise - self.without.noise)]
        if deviation.kl is not None:
            before = self.without.kl or 0.0
            shares.append((deviation.kl - before) / (self.kl - before))
        return max(0.0, *shares)


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
        if not np.isfinite(outputs).all():
            return Deviation(None, -math.inf)
        expected, manifest = self.reference.outputs, self.manifest
        kl = mean_kl(expected, outputs, independent=manifest.independent) if manifest.classes else None
        return Deviation(kl, worst_sqnr_db(expected, outputs, manifest.typed_outputs))
