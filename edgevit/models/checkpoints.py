"""A checkpoint: weights and everything needed to use them, in one ``.safetensors`` file."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError, SpecError
from edgevit.files import write_atomically
from edgevit.json import JSONError, decode
from edgevit.models.origin import WeightsOrigin
from edgevit.models.positions import TIMM, Resampling
from edgevit.models.spec import ModelSpec, OutputActivation, label_counts
from edgevit.models.vit import VisionTransformer

SCHEMA_VERSION = 1
_METADATA_KEY = "edgevit"

#: What ``torch.load`` raises on files that are cut short, or are no checkpoints.
TORCH_LOAD_ERRORS = (
    pickle.UnpicklingError, struct.error, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    OSError,
)  # fmt: skip

_COPIED_WHOLE = "use the checkpoint of a plain ViT, and check that it was saved and copied whole"
_NO_BIAS = (
    "if its head is a linear layer without a bias, save zeros as head.bias; one that compares directions (cosine) is "
    "none: export the model to ONNX by its own code and give that file"
)


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint file says of itself beside its tensors."""

    schema_version: int = SCHEMA_VERSION
    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    activation: OutputActivation = "softmax"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A ViT's weights, float32 under timm's names, with its architecture, preprocessing and labels.

    ``source`` says where it came from; ``notes`` what was assumed on the way and should be said aloud; ``resampling``
    how its library has positions at another size; ``activation`` what makes probabilities of its logits. ``origin`` are
    the files, and the license that is named beside them.

    Raises:
        CheckpointError: if there is not one label for each class, or the images are of another kind than the model's.
    """

    spec: ModelSpec
    weights: Mapping[str, Tensor]
    preprocess: Preprocess
    labels: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    resampling: Resampling = TIMM
    activation: OutputActivation = "softmax"
    origin: WeightsOrigin = field(default_factory=WeightsOrigin)

    def __post_init__(self) -> None:
        if len(self.labels) not in label_counts(self.spec.classes):
            raise CheckpointError(
                f"{self.source} has {len(self.labels)} labels for {self.spec.classes} classes",
                remedy="give one label for each class",
            )
        if self.preprocess.channels != self.spec.channels or self.preprocess.size != self.spec.image_size:
            raise CheckpointError(
                f"{self.source}: the model takes {_kind(self.spec.channels, self.spec.image_size)}, "
                f"its preprocessing makes {_kind(self.preprocess.channels, self.preprocess.size)}",
                remedy="correct the preprocessing so that both are the same",
            )

    def model(self) -> VisionTransformer:
        """Return the model with these weights, in evaluation mode.

        Raises:
            CheckpointError: if tensors are missing, left over, misshapen or not numbers.
        """
        model = check_tensors(self.weights, self.spec, self.source)
        model.load_state_dict({name: tensor.clone() for name, tensor in self.weights.items()}, assign=True)
        return model.eval()

    def normalized(self) -> Checkpoint:
        """Return this embedding model with features of length 1.

        Raises:
            SpecError: if it is a classifier.
        """
        if self.spec.classes and not self.spec.l2_normalize:
            raise SpecError(
                f"{self.source} is a classifier of {self.spec.classes} classes, which normalises no features",
                remedy="leave out --l2-normalize",
            )
        return replace(self, spec=msgspec.structs.replace(self.spec, l2_normalize=True))

    def sha256(self) -> str:
        """Return the SHA-256 of the weights' names, shapes and values."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            tensor = self.weights[name].float().contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the checkpoint to ``path`` (``.safetensors``), whole or not at all, its tensors stored as ``dtype``.

        Raises:
            StorageError: if the disk is full or not writable.
        """
        description = Description(
            spec=self.spec, preprocess=self.preprocess, labels=self.labels, activation=self.activation
        )
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in self.weights.items()}
        write_atomically(path, save(tensors, metadata={_METADATA_KEY: msgspec.json.encode(description).decode()}))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    """Return the tensors of a ``.safetensors`` file, and its description if EdgeViT wrote it: then as float32.

    Raises:
        CheckpointError: if the file is damaged, or its description does not hold.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable .safetensors file: {error}",
            remedy="copy or download it again; its size or header does not fit its contents",
        ) from error
    description = _description(path, metadata.get(_METADATA_KEY))
    if description is not None:
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    return tensors, description


def _description(path: Path, text: str | None) -> Description | None:
    if text is None:
        return None
    try:
        description = decode(text, Description)
    except JSONError as error:
        raise CheckpointError(
            f"what {path} says of itself does not hold: {error}", remedy="train or export it again with this EdgeViT"
        ) from error
    if description.schema_version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} was written by a newer EdgeViT", remedy="upgrade EdgeViT: git pull, then pip install -e ."
        )
    return description


def check_tensors(weights: Mapping[str, Tensor], spec: ModelSpec, source: str) -> VisionTransformer:
    """Return a model of ``spec`` without values, once ``weights`` are known to be its tensors.

    Raises:
        CheckpointError: if tensors are missing, left over, misshapen or not numbers.
    """
    if spec.depth > len(weights):
        raise CheckpointError(
            f"{source} has {len(weights)} tensors for {spec.depth} blocks",
            remedy=_COPIED_WHOLE,
        )
    with torch.device("meta"):  # sizes from a file may be hostile: nothing is allocated before they are checked
        model = VisionTransformer(spec)
    _compare(weights, model.state_dict(), source)
    return model


def _compare(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    missing = sorted(wanted.keys() - weights.keys())
    left_over = sorted(weights.keys() - wanted.keys())
    misshapen = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & weights.keys())
        if weights[name].shape != wanted[name].shape
    ]
    parts = (("missing", missing), ("left over", left_over), ("misshapen", misshapen))
    reasons = [f"{label}: {_some(names)}" for label, names in parts if names]
    if reasons:
        alone = len(reasons) == 1 and missing == ["head.bias"]
        raise CheckpointError(
            f"the tensors of {source} do not fit the model; {'; '.join(reasons)}",
            remedy=_NO_BIAS if alone else _COPIED_WHOLE,
        )
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"tensors of {source} hold values that are not finite: {_some(broken)}",
            remedy="use an earlier checkpoint; this one's training broke down",
        )


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _kind(channels: int, size: tuple[int, int]) -> str:
    return f"{channels}-channel {size[0]}x{size[1]} images"
