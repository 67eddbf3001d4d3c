"""``manifest.json``: the typed and versioned description of a bundle."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

from edgevit.brief import printed
from edgevit.bundle.measured import EndToEnd, Energy, MachineState, Sweep, Transfers, WarmUp
from edgevit.bundle.scalars import Bytes, Change, Count, FolderName, Quantity, Rate, Reason, RelativePath, Sha256
from edgevit.data.preprocess import Preprocess
from edgevit.models.licenses import License
from edgevit.models.outputs import Output, OutputKind, width_of
from edgevit.models.spec import AnySpec, GraphSpec, ModelSpec, OutputActivation, outcomes

#: Raised whenever an older EdgeViT could not read a new manifest, or would misunderstand it. An older one is brought up
#: to date by ``reading.MIGRATIONS``.
SCHEMA_VERSION = 3

#: int8 and fp8 are static, with ranges from calibration images; int8-dynamic finds them as it runs; int8-weights and
#: int4-weights are files of small weights, whose activations are float, or in what the engine finds fast.
Precision = Literal["float32", "fp16", "fp8", "int8", "int8-dynamic", "int8-weights", "int4-weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: Those whose Linear layers must run in integers.
INTEGER_PRECISIONS: tuple[Precision, ...] = ("int8", "int8-dynamic")
#: Those that follow a plan of scales, which are calibrated on images.
PLANNED: tuple[Precision, ...] = ("int8", "fp8")


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle: its path relative to the bundle, with forward slashes, and what is in it."""

    path: RelativePath
    sha256: Sha256
    bytes: Bytes


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where something was measured."""

    machine: str
    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    os: str
    python: str
    packages: dict[str, str]
    measured_at: str


class Similarity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How near a variant's features are to float32's, on the same images; an embedding model's measure.

    ``cosine_mean`` and ``cosine_p1``, the 1st percentile, are of the cosine similarities, one for each image.
    ``cosine_between`` is float32's own mean cosine between different images: where it is near 1, so is every cosine.
    ``recall_at_1`` is the share of images whose nearest other image, by the cosine, has their label, with its interval;
    ``delta_recall_at_1`` its change from float32. They are None where the images have no labels, cosines where a
    feature is not a finite number. ``min_cosine`` is the ``cosine_mean`` that the gate asks for.
    """

    cosine_mean: float | None
    cosine_p1: float | None
    cosine_between: float | None
    recall_at_1: Rate | None
    recall_at_1_ci95: tuple[Rate, Rate] | None
    delta_recall_at_1: Change | None
    min_cosine: float


class Truth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How right decisions are where images may have several labels, and the data says which.

    ``right`` is the share of all decisions that are right; ``f1`` the F1 of the yes decisions over all images and
    labels, None where there is no yes; ``mean_ap`` the mean over labels of their average precision, None where a logit
    is not a finite number or no image has a label.
    """

    right: Rate
    f1: Rate | None
    mean_ap: Rate | None


class Decisions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How near a variant is to float32 where each logit decides by itself, yes above 0: a probability above 0.5.

    ``yes`` is the share of float32's decisions that are yes; where it is 0 or 1 they show nothing of a variant. ``f1``
    is the F1 of the variant's yes with float32's as the truth, None where neither has one. ``mean_distance`` and
    ``max_distance`` are of the logits from float32's, None where one is not a finite number. ``truth`` is of several
    labels where the data says which are right.
    """

    yes: Rate
    f1: Rate | None
    mean_distance: float | None
    max_distance: float | None
    truth: Truth | None = None


class OutputAccuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How near one of several outputs of a variant is to float32's, on the same images.

    ``sqnr_db`` is of all its numbers. Cosines, and the SQNR's mean and 1st percentile, are of tokens one by one, or of
    an image's numbers where they are no tokens. Figures that mean nothing for its kind are None: ``agreement`` is of
    logits, the share of images, or of their places, with float32's class; ``miou`` and ``pixel_accuracy`` of masks;
    ``delta1``, the share of depths within a factor of 1.25 of float32's, and ``abs_rel``, their mean relative
    difference, of depth; ``box_agreement`` of boxes: the F1 of those that match one of float32's, of the same class
    with an IoU of 0.5, ``box_iou`` the mean IoU of these, and ``score_difference`` how far their scores differ.
    """

    name: str
    kind: OutputKind
    sqnr_db: float | None = None
    cosine_mean: float | None = None
    cosine_p1: float | None = None
    sqnr_db_mean: float | None = None
    sqnr_db_p1: float | None = None
    agreement: Rate | None = None
    miou: Rate | None = None
    pixel_accuracy: Rate | None = None
    delta1: Rate | None = None
    abs_rel: float | None = None
    box_agreement: Rate | None = None
    box_iou: Rate | None = None
    score_difference: float | None = None
    passed: bool
    reason: str


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A variant against float32 on the same images; rates in 0..1, ``delta_top1`` negative when the variant is worse.

    ``top1``, ``top5``, ``delta_top1`` and ``mcnemar_p`` are None where the images have no labels. ``agreement`` is the
    share of images with float32's top-1; ``kl`` the mean KL(float32 || variant) in nats; ``sqnr_db`` the logits'
    signal to quantization noise ratio, None for float32 itself. Both are None where a logit is not a finite number.
    ``passed`` is the gate's verdict for a drop of at most ``max_drop`` percentage points, ``reason`` why, in a line.

    An embedding model has a ``similarity``, which a classifier's JSON does not even name. Its ``agreement`` is the
    share of images with float32's nearest neighbour among the others, its ``sqnr_db`` that of the features; what is
    said of classes, and ``max_drop``, is None.

    Where each logit decides by itself there are ``decisions``; ``agreement`` is the share of all decisions that are
    float32's, ``kl`` the sum of the divergences of an image's probabilities. ``top1`` and its change are then the share
    of images that are decided rightly, by a single logit or in all of their labels.

    A model with ``outputs`` of its own has the figures of each of them, and ``sqnr_db`` is the worst one's; all else
    that is said of classes is None. They are ``partial`` where Ctrl-C ended the measuring, and passed nothing then.
    """

    data: str
    data_sha256: str
    images: int
    top1: Rate | None
    top1_ci95: tuple[Rate, Rate] | None
    top5: Rate | None
    delta_top1: Change | None
    mcnemar_p: float | None
    agreement: Rate | None
    kl: float | None
    sqnr_db: float | None
    max_drop: float | None
    passed: bool
    reason: str
    similarity: Similarity | None = None
    decisions: Decisions | None = None
    outputs: tuple[OutputAccuracy, ...] = ()
    partial: bool = False
    delta_top1_ci95: tuple[Change, Change] | None = None

    __repr__ = printed


class OperatorTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of operator by the engine's own name, and its milliseconds of one run, as the engine counts them."""

    operator: Annotated[str, msgspec.Meta(max_length=128)]
    ms: Quantity


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast a variant is: milliseconds per batch, images per second, MiB.

    ``speedup_vs_float32`` is the median of the ratios of interleaved blocks, float32 on the same backend, with its
    interval. A figure that could not be measured is None; then ``valid`` is False and ``invalid_reason``
    says why. ``operators`` say what the time goes to, the most first; none where the engine does not.

    ``partial`` figures are of a run that was interrupted. ``p50_ci95`` is the interval of the median, by ``rounds``
    blocks; ``quantiles_ms`` are the times at 0, 5, ... 100 %. ``load_ms`` is what opening the file took, ``first_ms``
    the first inference, ``rss_mb`` the most memory that the process ever had; ``cold_start_ms`` is all of the start,
    with that of the process. ``energy_reason`` says why there is no ``energy``.
    """

    batch: int
    threads: int
    p50_ms: Quantity | None
    p90_ms: Quantity | None
    p99_ms: Quantity | None
    throughput_ips: Quantity | None
    speedup_vs_float32: Quantity | None
    speedup_ci95: tuple[Quantity, Quantity] | None
    rss_mb: Quantity | None
    cold_start_ms: Quantity | None
    valid: bool
    invalid_reason: str | None
    environment: Environment
    operators: tuple[OperatorTime, ...] = ()
    partial: bool = False
    rounds: Count = 0
    p50_ci95: tuple[Quantity, Quantity] | None = None
    quantiles_ms: Annotated[tuple[Quantity, ...], msgspec.Meta(max_length=101)] = ()
    load_ms: Quantity | None = None
    first_ms: Quantity | None = None
    warm_up: WarmUp | None = None
    machine: MachineState | None = None
    energy: Energy | None = None
    energy_reason: Reason | None = None
    end_to_end: EndToEnd | None = None
    transfers: Transfers | None = None
    sweep: Sweep | None = None

    __repr__ = printed

    @property
    def is_whole(self) -> bool:
        """Return whether the times of inference are all there, or none of them."""
        return len({time is None for time in (self.p50_ms, self.p90_ms, self.p99_ms, self.throughput_ips)}) == 1


class Arithmetic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The multiply-adds of one kind that the model does for one image, and those that the engine does in integers.

    ``nodes`` is how many nodes do them, ``float_nodes`` how many in floating point; ``largest_float`` are names of the
    largest of these. ``attention`` are the products of two activations.
    """

    kind: Literal["Linear", "Conv", "attention"]
    macs: Count
    integer_macs: Count
    nodes: Count
    float_nodes: Count
    largest_float: tuple[str, ...] = ()


class Kernels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which arithmetic the backend runs a variant in, read from its optimised graph.

    ``arithmetic`` has one entry for each kind of multiply-adds that the model has, as it was before what rounds better
    was added, or what no answer depends on left out. It is None where they cannot be counted, and in older bundles.
    """

    linears: int
    integer_linears: int
    float_linears: tuple[str, ...]
    arithmetic: tuple[Arithmetic, ...] | None = None

    def __repr__(self) -> str:
        share = self.integer_share
        known = "" if share is None else f", integer_share={share:.3g}"
        return f"<Kernels: integer_linears={self.integer_linears} of {self.linears}{known}>"

    @property
    def integer_share(self) -> float | None:
        """The share of all multiply-adds that run in integers, in 0..1; None where it is not known."""
        whole = sum(each.macs for each in self.arithmetic or ())
        return sum(each.integer_macs for each in self.arithmetic or ()) / whole if whole else None


class Fallback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Linear layer that is float on purpose where the others are integer, and why, with the figures."""

    layer: str
    reason: str


class ConvolutionStage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The convolutions that give maps of one size, and the verdict of the race on whether they pay in integers.

    ``where`` is the size, as 56x56. ``reason`` says what they cost in integers, all others float.
    """

    where: str
    convolutions: int
    integer_convolutions: int
    reason: str


class TokenMerging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many tokens are merged behind the attention of each block: ``schedule`` (ToMe, Bolya et al. 2023).

    ``budget`` is the share of the multiply-adds that was asked for, in 0..1, ``share`` what is left of them.
    ``student_sha256`` is that of the weights that were trained to make up for it, None where they are the model's own.
    """

    budget: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    schedule: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=1024)]
    student_sha256: Sha256 | None = None

    @property
    def merged(self) -> int:
        """How many tokens are merged in all blocks together."""
        return sum(self.schedule)


class TokenPadding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of ``tokens`` that is ``padded`` with rows that nothing looks at, as kernels take the sum faster.

    ``share`` is the time that it took where it was built, over that of the same model without them.
    """

    tokens: Annotated[int, msgspec.Meta(ge=1)]
    padded: Annotated[int, msgspec.Meta(ge=1)]
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]


class LimitVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether what was quantized kept the limit that was asked for, on ``images`` that nothing was fitted to.

    ``reason`` says in a line what was measured and what was allowed. It holds for ``dialects``; for all
    where none is named.
    """

    passed: bool
    images: int
    reason: str
    dialects: tuple[str, ...] = ()


#: What is shown of a limit: that it is kept, that it is missed, or neither.
LimitOutcome = Literal["passed", "failed", "not shown"]
#: Limits on what a variant costs; all others are on how near its answers are to float32's.
COSTS = ("speed", "p99", "size", "memory", "energy", "kernels")


class LimitEvidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a race shows of one limit, and why, in a line.

    ``needed`` images or seconds would show what these do not; None if that is not known.
    """

    limit: Annotated[str, msgspec.Meta(max_length=128)]
    word: LimitOutcome
    reason: str
    needed: Quantity | None = None


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One precision of the model for one backend: its files, and what was measured on them.

    ``files`` share a folder, called ``name`` or ``name.2``; the first is the one that the backend opens. ``settings``
    are what the backend must be opened with to do what was measured, such as OpenVINO's precision hint. ``versions``
    are those of the backend that the target is for, as in PEP 440. ``fallback`` are the layers that are
    float on purpose, ``limit`` the verdict where quantizing was to keep a limit. ``convolution_stages`` are those of a
    network whose convolutions were raced stage by stage, ``token_merging`` says how many tokens are merged where some
    are, ``token_padding`` how many rows are added to them where some are. ``evidence`` is what the last race showed of
    ``accuracy`` and ``latency``; there is none where they were measured since.
    """

    name: FolderName
    precision: Precision
    backend: str
    target: str
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1)]
    settings: dict[str, str] = {}
    versions: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    kernels: Kernels | None = None
    fallback: tuple[Fallback, ...] = ()
    limit: LimitVerdict | None = None
    convolution_stages: tuple[ConvolutionStage, ...] = ()
    token_merging: TokenMerging | None = None
    token_padding: TokenPadding | None = None
    evidence: tuple[LimitEvidence, ...] = ()

    def __repr__(self) -> str:
        return f"<Variant {self.name!r}: precision={self.precision}, engine={self.backend}, bytes={self.bytes}>"

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


#: How many others a bundle keeps figures of.
MOST_DEVICES = 64
#: Whether a variant answers to the golden images as where the bundle was made.
GoldenAnswers = Literal["as exported", "differs", "fails", "not run here"]
#: What a user calls another device; it is shown in tables, and never is a path.
DeviceName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.:-]*\Z", max_length=128)]


class DeviceVariant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured of a variant on another device, in the terms of ``Variant``.

    ``sha256`` is that of the file that its backend opened there, ``bytes`` the size of all its files. A variant that
    was made there, such as an engine of TensorRT, is not among the bundle's own, or has another file there. ``answers``
    is what the golden check found, None where it was not made.
    """

    name: FolderName
    precision: Precision
    backend: Annotated[str, msgspec.Meta(max_length=128)]
    target: Annotated[str, msgspec.Meta(max_length=512)]
    sha256: Sha256
    bytes: Bytes
    answers: GoldenAnswers | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    kernels: Kernels | None = None
    evidence: Annotated[tuple[LimitEvidence, ...], msgspec.Meta(max_length=64)] = ()

    __repr__ = printed


class MeasuredDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured on another device, called ``name``: nothing of it counts on this one.

    ``environment`` is of the last run there, ``edgevit`` the version that measured.
    """

    name: DeviceName
    environment: Environment
    edgevit: Annotated[str, msgspec.Meta(max_length=128)]
    variants: Annotated[tuple[DeviceVariant, ...], msgspec.Meta(max_length=256)] = ()

    __repr__ = printed


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a model came from and what it was exported with.

    ``weights_sha256`` is that of a checkpoint's tensors, or of a third-party ONNX file with the files of its weights.
    ``files`` are the SHA-256 of the files that were read, by name, ``revision`` the commit on the Hub, ``license`` what
    was named beside them; a bundle of before has none of these.
    """

    source: str
    weights_sha256: str
    edgevit: str
    packages: dict[str, str]
    created_at: str
    revision: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    files: dict[str, Sha256] = {}
    license: License | None = None

    __repr__ = printed


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a bundle except the contents of its files.

    Either ``spec`` says what the model is, or, for one that came as a third-party ONNX file, ``graph``.
    ``golden`` are image files (PNG) and, last, ``golden/logits.npy`` (images, classes): float32's logits for them.
    ``extra`` are further files, such as the calibration table and the plan. ``activation`` makes probabilities of the
    logits; a single logit's is always the sigmoid. Its ``labels`` are those of no and yes, or that of yes alone.

    A model that gives anything but one row of logits or features has ``outputs``, in the order in which its files have
    them. Labels are then those of one of these, and golden logits hold all outputs, flattened, one after the other.

    ``devices`` are the others that it was measured on, each once.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    spec: ModelSpec | None = None
    graph: GraphSpec | None = None
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: Provenance
    variants: tuple[Variant, ...]
    golden: tuple[File, ...] = ()
    extra: tuple[File, ...] = ()
    activation: OutputActivation = "softmax"
    outputs: tuple[Output, ...] | msgspec.UnsetType = msgspec.UNSET
    devices: Annotated[tuple[MeasuredDevice, ...], msgspec.Meta(max_length=MOST_DEVICES)] = ()

    __repr__ = printed

    @property
    def typed_outputs(self) -> tuple[Output, ...]:
        """The outputs of a model that gives anything but one row of logits or features; else none."""
        return () if isinstance(self.outputs, msgspec.UnsetType) else self.outputs

    @property
    def classes(self) -> int:
        """How many classes the model chooses from; 0 for an embedding model, and one with ``outputs``."""
        return 0 if self.typed_outputs else self.model.classes

    @property
    def width(self) -> int:
        """How many numbers the model gives for an image."""
        return width_of(self.typed_outputs) or self.model.outputs

    @property
    def independent(self) -> bool:
        """Whether each logit is a decision of its own, so that an image may have any number of labels."""
        return self.classes == 1 or (self.activation == "sigmoid" and self.classes > 0)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What the model can say of an image: its labels, of which a single logit has two."""
        return outcomes(self.labels, self.classes)

    @property
    def model(self) -> AnySpec:
        """What is known of the model."""
        known = self.graph if self.spec is None else self.spec
        assert known is not None  # noqa: S101 - reading.py refuses a manifest without
        return known
