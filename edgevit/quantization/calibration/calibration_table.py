"""What calibration measured, as a file: ``table.npz``, plain arrays without pickles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.errors import BundleError
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration import range_estimators
from edgevit.quantization.calibration.arrays import DAMAGE, Arrays, load_arrays, save_arrays
from edgevit.quantization.calibration.histogram import BINS, Histogram
from edgevit.quantization.calibration.pixels import PixelStatistics
from edgevit.recipes import Observer, Percentile

PerChannel = NDArray[np.float64]  # (K,)

SCHEMA_VERSION = 4
FILE_NAME = "table.npz"

_REMEDY = "calibrate again with `edgevit quantize`"


class ChannelStatistics(NamedTuple):
    """What calibration saw of each channel of an input, all (K,)."""

    minimum: PerChannel
    maximum: PerChannel
    variance: PerChannel
    mean: PerChannel


class TensorStatistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, eq=False):
    """One activation tensor over all calibration images.

    ``minimum`` and ``maximum`` are its smallest and largest value; ``average_...`` the mean of those of groups of
    images, ``moving_...`` the moving average of those of images (see ``observers``), both within them.

    What was seen, not predicted, has more: a ``histogram`` of its values, statistics of each of its K ``channels``, and
    how many rows (K) were seen, ``tokens``.

    Raises:
        BundleError: if they are not finite, not in order, or contradict each other.

    """

    minimum: float
    maximum: float
    average_minimum: float
    average_maximum: float
    moving_minimum: float
    moving_maximum: float
    histogram: Histogram | None = None
    channels: ChannelStatistics | None = None
    tokens: int = 0

    def __post_init__(self) -> None:
        for low, high in ((self.average_minimum, self.average_maximum), (self.moving_minimum, self.moving_maximum)):
            if not self.minimum <= low <= high <= self.maximum:
                raise BundleError(f"{self.numbers()} are no range of activations", remedy=_REMEDY)
        if self.minimum == -np.inf or self.maximum == np.inf:
            raise BundleError(f"{self.numbers()} are no range of activations", remedy=_REMEDY)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorStatistics):
            return NotImplemented
        return all(np.array_equal(getattr(self, field), getattr(other, field)) for field in self.__struct_fields__)

    def numbers(self) -> tuple[float, ...]:
        """Return the ranges, in the order of the fields."""
        return tuple(getattr(self, field) for field in _RANGES)

    def range(self, observer: Observer, scheme: Scheme = "asymmetric") -> tuple[float, float]:
        """Return the range that ``observer`` reads off them, for integers of that ``scheme``.

        What was predicted has no other range than its whole one. So has what is nearly always the same: a range of two
        bins or less would clip all that matters.
        """
        match observer:
            case "average-minmax":
                return self.average_minimum, self.average_maximum
            case "moving-average":
                return self.moving_minimum, self.moving_maximum
        low, high = self._clipped(observer, scheme)
        low, high = max(low, self.minimum), min(high, self.maximum)
        narrowest = 2 * self.histogram.width if self.histogram else 0.0
        return (low, high) if high - low > narrowest else (self.minimum, self.maximum)

    def _clipped(self, observer: Observer, scheme: Scheme) -> tuple[float, float]:
        if self.histogram is not None:
            match observer:
                case Percentile(percent=percent):
                    return range_estimators.percentile(self.histogram, percent, scheme)
                case "percentile":
                    return range_estimators.percentile(self.histogram, Percentile().percent, scheme)
                case "entropy":
                    return range_estimators.entropy(self.histogram)
                case "mse":
                    return range_estimators.mean_squared_error(self.histogram, scheme)
        return self.minimum, self.maximum

    @classmethod
    def predicted(cls, minimum: float, maximum: float, tokens: int = 0) -> TensorStatistics:
        """Return the statistics of a tensor that is expected to stay between both, of which ``tokens`` were seen."""
        return msgspec.structs.replace(cls.of((minimum, maximum) * 3), tokens=tokens)

    @classmethod
    def of(cls, numbers: Iterable[float]) -> TensorStatistics:
        """Return the statistics with the ranges that ``numbers`` returned."""
        low, high, average_low, average_high, moving_low, moving_high = numbers
        return cls(
            minimum=low,
            maximum=high,
            average_minimum=average_low,
            average_maximum=average_high,
            moving_minimum=moving_low,
            moving_maximum=moving_high,
        )

    def shifted(self, by: float) -> TensorStatistics:
        """Return the statistics of the same tensor less ``by``, without its channels."""
        moved = TensorStatistics.of(value - by for value in self.numbers())
        histogram = self.histogram and self.histogram.shifted(by)
        return msgspec.structs.replace(moved, histogram=histogram, tokens=self.tokens)


_RANGES = TensorStatistics.__struct_fields__[:6]


class CalibrationTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's Linear layers and convolutions read, by the layer's name, over ``images`` calibration images.

    ``outputs`` are the ranges of what convolutions give, which is clipped where a ReLU follows.
    ``model_sha256`` is that of the float32 ONNX file, ``images_sha256`` that of the preprocessed images in order.
    ``selection_sha256`` is of the files that the images were chosen from and of how they are preprocessed, known before
    they are looked at; "" where nobody asked. ``image_hashes`` are the SHA-256 of the images one by one; older tables
    have none. ``pixels`` says how the images looked. If ``rotated``, inputs are those that the layers have once the
    residual stream of that file is rotated (``rewrites.rotation``).
    """

    inputs: dict[str, TensorStatistics]
    images: int
    model_sha256: str
    images_sha256: str
    selection_sha256: str = ""
    image_hashes: tuple[str, ...] = ()
    pixels: PixelStatistics | None = None
    rotated: bool = False
    outputs: dict[str, TensorStatistics] = {}

    def check_layers(self, widths: Mapping[str, int]) -> None:
        """Check that the table has what was seen of layers with these numbers of inputs.

        Raises:
            BundleError: if it has not.

        """
        for name, width in widths.items():
            seen = self.inputs[name].channels if name in self.inputs else None
            if seen is None or len(seen.mean) != width:
                raise BundleError(f"the calibration table lacks the {width} inputs of '{name}'", remedy=_REMEDY)

    def check_model(self, model_sha256: str) -> None:
        """Check that the table was made for the file with that SHA-256.

        Raises:
            BundleError: if it was made for another.

        """
        if self.model_sha256 != model_sha256:
            raise BundleError(
                f"this calibration table belongs to another model (sha256 {self.model_sha256[:12]}..., not "
                f"{model_sha256[:12]}...)",
                remedy=_REMEDY,
            )

    def with_ranges(self, inputs: Mapping[str, TensorStatistics]) -> CalibrationTable:
        """Return the table with other ``inputs``: those of the model after a rewrite."""
        return msgspec.structs.replace(self, inputs=dict(inputs))

    def save(self, path: Path) -> None:
        """Write a table of what was seen to ``path``, whole or not at all.

        Raises:
            StorageError: if it cannot be written.

        """
        save_arrays(path, self._arrays())

    def _arrays(self) -> Arrays:
        statistics = list(self.inputs.values())
        arrays: dict[str, NDArray[np.generic]] = {
            "schema_version": np.array(SCHEMA_VERSION),
            "layers": np.array(list(self.inputs), dtype=np.str_),
            "images": np.array(self.images),
            "rotated": np.array(self.rotated),
            "pixels": np.array(list(msgspec.structs.astuple(self.pixels)) if self.pixels else [], dtype=np.float64),
            "tokens": np.array([one.tokens for one in statistics], dtype=np.int64),
        }
        for index, one in enumerate(statistics):
            arrays |= {f"{name}/{index}": array for name, array in _seen_arrays(one).items()}
        for name in _TEXTS:
            arrays[name] = np.array(getattr(self, name), dtype=np.str_)
        for field in _RANGES:
            arrays[field] = np.array([getattr(one, field) for one in statistics], dtype=np.float64)
        if self.image_hashes:
            arrays["image_hashes"] = np.array(self.image_hashes, dtype=np.bytes_)
        if self.outputs:
            arrays["outputs"] = np.array(list(self.outputs), dtype=np.str_)
            arrays["output_ranges"] = np.array([one.numbers() for one in self.outputs.values()], dtype=np.float64)
        return arrays

    @classmethod
    def load(cls, path: Path) -> CalibrationTable:
        """Read a table.

        Raises:
            BundleError: if it is missing, damaged, or of another version of EdgeViT.

        """
        try:
            arrays = load_arrays(path)
            version = int(arrays["schema_version"])
            if version != SCHEMA_VERSION:
                raise BundleError(f"{path} has version {version}, not {SCHEMA_VERSION}", remedy=_REMEDY)
            return cls._of(arrays)
        except DAMAGE as error:
            raise BundleError(f"{path} is no calibration table: {error}", remedy=_REMEDY) from error

    @classmethod
    def _of(cls, arrays: Arrays) -> CalibrationTable:
        columns = zip(arrays["layers"], *(arrays[field] for field in (*_RANGES, "tokens")), strict=True)
        inputs = {}
        for index, (name, *numbers, tokens) in enumerate(columns):
            part = msgspec.structs.replace(TensorStatistics.of(map(float, numbers)), tokens=int(tokens))
            inputs[str(name)] = _with_seen(part, arrays, index) if f"counts/{index}" in arrays else part
        outputs = zip(arrays["outputs"], arrays["output_ranges"], strict=True) if "outputs" in arrays else ()
        return cls(
            inputs=inputs,
            outputs={str(name): TensorStatistics.of(map(float, numbers)) for name, numbers in outputs},
            images=int(arrays["images"]),
            rotated=bool(arrays["rotated"]),
            pixels=PixelStatistics(*arrays["pixels"].tolist()) if arrays["pixels"].size else None,
            image_hashes=_image_hashes(arrays),
            **{name: str(arrays[name]) for name in _TEXTS},
        )


_TEXTS = ("model_sha256", "images_sha256", "selection_sha256")


def _image_hashes(arrays: Arrays) -> tuple[str, ...]:
    hashes = arrays.get("image_hashes", np.array([], dtype=np.bytes_))
    if hashes.ndim != 1 or hashes.dtype.kind != "S":
        raise BundleError("what the table says are hashes of images cannot be", remedy=_REMEDY)
    return tuple(hashes.astype(np.str_).tolist())


def _seen_arrays(statistics: TensorStatistics) -> Arrays:
    """Return what was seen of a tensor beside its ranges, nothing where nothing was."""
    histogram, channels = statistics.histogram, statistics.channels
    if histogram is None or channels is None:
        return {}
    grid = np.array([histogram.low, histogram.width])
    return {"counts": histogram.counts, "grid": grid, "channels": np.stack(channels)}


def _with_seen(statistics: TensorStatistics, arrays: Arrays, index: int) -> TensorStatistics:
    """Return ``statistics`` with what a table says was seen of tensor ``index``.

    Raises:
        BundleError: if that can't be.

    """
    counts, grid, channels = (arrays[f"{name}/{index}"] for name in ("counts", "grid", "channels"))
    low, width = map(float, grid)
    whole = (
        counts.dtype == np.int64
        and counts.ndim == 1
        and 0 < len(counts) <= BINS
        and counts.min() >= 0
        and counts.sum() > 0
        and 0 < width < np.inf
        and np.isfinite(low)
    )
    of_channels = channels.dtype == np.float64 and channels.ndim == 2 and len(channels) == 4
    if not (whole and of_channels and np.isfinite(channels).all()):
        raise BundleError(f"what the table says was seen of tensor {index} cannot be", remedy=_REMEDY)
    return msgspec.structs.replace(
        statistics,
        histogram=Histogram(low, width, counts.astype(np.int64)),
        channels=ChannelStatistics(*channels.astype(np.float64)),
    )
