"""What becomes of each Linear layer and convolution: ``plan.json``, carried out by every emitter alike."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from edgevit.bundle.manifest import ConvolutionStage, Fallback, LimitVerdict, TokenMerging
from edgevit.errors import BundleError
from edgevit.json_file import JSONFile
from edgevit.quantization.arithmetic import Scheme
from edgevit.recipes import Alpha, Observer, observer_name

#: What layers are ranked by: a classifier's KL divergence, or the noise in an embedding model's features.
SensitivityMetric = Literal["kl", "sqnr_db"]

_REMEDY = "quantize again with `edgevit quantize`"


class LinearQuantization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one Linear layer is computed in integers.

    Its input is 8-bit with one scale: unsigned with a zero point, or signed with zero point 0. Its weight is signed
    8-bit and symmetric with one scale per output; scales are float32. See ``arithmetic`` for what they mean.
    ``bias_correction`` (one per output, or none) is added to the bias, see ``bias``; ``input_correction`` is the part
    of it that makes up for the rounding of the input, which a layer that is float has no need of.
    """

    activation_scale: float
    activation_zero_point: int
    activation_type: Literal["uint8", "int8"] = "uint8"
    weight_scales: tuple[float, ...]
    bias_correction: tuple[float, ...] = ()
    input_correction: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_scales(self.activation_scale, *self.weight_scales)
        if not np.isfinite((*self.bias_correction, *self.input_correction)).all():
            raise BundleError("the plan corrects a bias by what is not finite", remedy=_REMEDY)
        if not 0 <= self.activation_zero_point <= (255 if self.activation_type == "uint8" else 0):
            raise BundleError(
                f"{self.activation_zero_point} is no zero point of {self.activation_type}", remedy=_REMEDY
            )

    def zero_point(self) -> np.uint8 | np.int8:
        """Return the zero point of the input, in the type that the input is stored in."""
        return (np.uint8 if self.activation_type == "uint8" else np.int8)(self.activation_zero_point)


class FloatIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dialect in which a layer stays float though others have it in integers, and why."""

    dialect: str
    reason: str


class LinearPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Linear layer: how it is quantized, or None and ``fallback``, the reason why it stays float.

    A layer that a rewrite added for another, such as a residual product, has that one's name as its ``layer``.
    ``float_in`` are the dialects in which it stays float all the same: their engine has no integer kernel for it.
    """

    name: str
    quantization: LinearQuantization | None
    layer: str | None = None
    fallback: str | None = None
    float_in: tuple[FloatIn, ...] = ()

    def __post_init__(self) -> None:
        if (self.quantization is None) == (self.fallback is None):
            raise BundleError(f"the plan must either quantize '{self.name}' or say why not", remedy=_REMEDY)

    @property
    def of(self) -> str:
        """The layer that this one was added for, or its own name."""
        return self.layer or self.name


class EqualizedInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a convolution is computed in integers where each channel of its input is divided by a number first.

    ``quantization`` is of the divided input, and of the weight that takes back what it is divided by.
    """

    divisors: tuple[float, ...]
    quantization: LinearQuantization

    def __post_init__(self) -> None:
        _check_scales(*self.divisors)


class ConvolutionPlan(LinearPlan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One convolution, as a Linear layer: an output is a channel that it gives, and scales are stored as a layer's.

    Its weight is not rounded in the model: each value goes to the nearest integer. ``equalized`` is for engines with
    which it costs little to divide the input. ``output_scale`` and ``output_zero_point`` (unsigned) are of what it
    gives, for engines that convolve in integers only where that is quantized too.
    """

    depthwise: bool = False
    equalized: EqualizedInput | None = None
    output_scale: float = 1.0
    output_zero_point: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scales(self.output_scale)
        if not 0 <= self.output_zero_point <= 255:
            raise BundleError(f"{self.output_zero_point} is no zero point of uint8", remedy=_REMEDY)


class AttentionPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the two products of an attention are computed in integers, for dialects that do so.

    Query (as it is multiplied, scaled), key and value are signed 8-bit and symmetric with one scale each. What softmax
    gives has a fixed scale, as its range is known.
    """

    name: str
    query_scale: float
    key_scale: float
    value_scale: float

    def __post_init__(self) -> None:
        _check_scales(self.query_scale, self.key_scale, self.value_scale)


class LayerSensitivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the outputs move with this layer alone in INT8: KL(float32 || model) in nats, SQNR in dB.

    ``kl`` is None for embedding models, and both are where an output is not a finite number; ``sqnr_db`` is None, too,
    where the outputs do not move at all. ``finite`` tells the two apart.
    """

    layer: str
    kl: float | None
    sqnr_db: float | None
    finite: bool = True

    def degradation(self, measure: SensitivityMetric) -> float:
        """Return what layers are ranked by: the larger, the more accuracy a layer costs."""
        if not self.finite:
            return math.inf
        if measure == "kl":
            return self.kl or 0.0
        return -math.inf if self.sqnr_db is None else -self.sqnr_db

    def say(self) -> str:
        """Return the cost in words."""
        if not self.finite:
            return "some outputs are not finite numbers"
        moved = "no noise" if self.sqnr_db is None else f"SQNR {self.sqnr_db:.1f} dB"
        return moved if self.kl is None else f"KL {self.kl:.2g} nats, {moved}"


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an observer and an alpha did to the outputs, on images not fitted to: see ``evaluator.Score``."""

    observer: Observer
    alpha: Alpha = 1.0
    kl: float | None
    sqnr_db: float | None
    agreement: float | None

    def say(self) -> str:
        """Return the choice and what it gave, in a few words."""
        noise = "exact" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        kl = "" if self.kl is None else f", KL {self.kl:.4f}"
        return f"{observer_name(self.observer)}, alpha {self.alpha}: {noise}{kl}"


class StageVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a race found of the convolutions ``names`` that give maps of the size ``where``, all others float.

    ``reason`` says what they cost in integers: time, as a share of the whole model's, and accuracy.
    """

    dialect: str
    where: str
    names: tuple[str, ...]
    reason: str


class QuantizationPlan(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of each layer of the float32 ONNX file with ``model_sha256``, in the order in which they run.

    ``linears`` are its Linear layers, ``convolutions`` those that a dialect may compute in integers beside them;
    ``raced`` names the dialects for which it was chosen which do, ``stages`` are the verdicts where stages were raced.
    That file is an optimized form of the one with ``source_sha256`` (see ``ptq``), or that file itself where there is
    no such hash; "" stands for a model in memory. ``images`` and ``images_sha256`` say what it was calibrated on,
    ``observer`` how ranges were read off, ``trials`` what others gave where several were tried (see
    ``accuracy.range_search``), the best first.
    ``attentions`` are those whose products could be computed in integers too; a dialect need not. ``limit`` is the
    verdict where layers were to return to float until a limit holds (see ``search``), ``sensitivity`` what each of them
    costs alone, where that was measured. ``token_merging`` says which tokens of that file are merged, if some are.
    ``padded`` names the dialects in which rows are added to the tokens, as their engine is faster so.
    """

    what = "quantization plan"
    schema = 2
    remedy = _REMEDY
    most_bytes = 64 << 20  # a ViT-L's plan takes 5 MB

    schema_version: int = 2
    model_sha256: str = ""
    source_sha256: str | None = None
    images: int
    images_sha256: str
    linears: tuple[LinearPlan, ...]
    convolutions: tuple[ConvolutionPlan, ...] = ()
    raced: tuple[str, ...] = ()
    stages: tuple[StageVerdict, ...] = ()
    attentions: tuple[AttentionPlan, ...] = ()
    limit: LimitVerdict | None = None
    sensitivity: tuple[LayerSensitivity, ...] = ()
    observer: Observer = "minmax"
    trials: tuple[Trial, ...] = ()
    token_merging: TokenMerging | None = None
    padded: tuple[str, ...] = ()

    def limit_in(self, dialect: str) -> LimitVerdict | None:
        """Return the verdict on a limit, if there is one that was found in ``dialect``."""
        return self.limit if self.limit is not None and dialect in (self.limit.dialects or (dialect,)) else None

    def integer_layers(self) -> tuple[str, ...]:
        """Return the names of the layers that must run on integer kernels; a layer's parts go by its name."""
        return (*self.integer_linears(), *self.integer_convolutions())

    def integer_linears(self) -> tuple[str, ...]:
        """Return those of them that are Linear layers."""
        names = dict.fromkeys(linear.of for linear in self.linears)
        partly = {linear.of for linear in self.linears if linear.quantization is None}
        return tuple(name for name in names if name not in partly)

    def integer_convolutions(self) -> tuple[str, ...]:
        """Return those of them that are convolutions."""
        return tuple(each.name for each in self.convolutions if each.quantization is not None)

    def stages_in(self, dialect: str) -> tuple[ConvolutionStage, ...]:
        """Return the verdicts for ``dialect``, with how many convolutions are in integers as the plan is now."""
        integers = set(self.integer_convolutions())
        return tuple(
            ConvolutionStage(
                where=stage.where,
                convolutions=len(stage.names),
                integer_convolutions=len(integers.intersection(stage.names)),
                reason=stage.reason,
            )
            for stage in self.stages
            if stage.dialect == dialect
        )

    def float_layers(self) -> tuple[Fallback, ...]:
        """Return the layers that stay float, with the reasons."""
        return tuple(
            Fallback(layer=linear.name, reason=linear.fallback)
            for linear in (*self.linears, *self.convolutions)
            if linear.fallback is not None and linear.layer is None
        )

    def check_scheme(self, scheme: Scheme) -> None:
        """Check that the plan stores activations by ``scheme``.

        Raises:
            BundleError: if it does not.

        """
        kind = "uint8" if scheme == "asymmetric" else "int8"
        for linear in self.linears:
            found = kind if linear.quantization is None else linear.quantization.activation_type
            if found != kind:
                raise BundleError(
                    f"the plan stores the input of '{linear.name}' as {found}, not {kind}", remedy=_REMEDY
                )

    def check_source(self, sha256: str) -> None:
        """Check that the plan comes from the float32 ONNX file with that SHA-256.

        Raises:
            BundleError: if it comes from another.

        """
        check_sha256("this quantization plan", self.source_sha256 or self.model_sha256, sha256)


def _check_scales(*scales: float) -> None:
    values = np.array(scales)
    limits = np.finfo(np.float32)
    if not ((values >= limits.tiny) & (values <= limits.max)).all():
        raise BundleError("the plan has a scale that is not above 0 and finite in float32", remedy=_REMEDY)


def check_sha256(what: str, expected: str, found: str) -> None:
    """Check that a model is the one that ``what`` was made for, by the SHA-256 of its file.

    Raises:
        BundleError: if it is another.

    """
    if found != expected:
        raise BundleError(
            f"{what} belongs to another model (sha256 {expected[:12]}..., not {found[:12]}...)",
            remedy="calibrate and quantize this model with `edgevit quantize`",
        )
