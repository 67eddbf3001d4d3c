"""Builds a checkpoint's model with timm or transformers, for ``export --check-with``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgevit.errors import CheckpointError, MissingDependencyError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.config import read_json
from edgevit.models.families.base import Raw
from edgevit.models.loading import local
from edgevit.models.sources import Reading, read_source
from edgevit.models.spec import BUILTIN

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_ModelLoader = Callable[[], nn.Module]


class Built(NamedTuple):
    """A library's model; ``note`` says so where the library could not read the file by itself."""

    infer: Forward
    note: str | None


#: What the libraries raise where names or sizes do not fit their models.
_REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, LookupError, AttributeError, OSError)


class _Named(msgspec.Struct, frozen=True):
    """The part of config.json that says which model a library is to build."""

    architecture: str | None = None
    model_args: dict[str, Any] = {}
    architectures: tuple[str, ...] | None = None
    model_type: str | None = None


def timm_model(source: str, checkpoint: Checkpoint, architecture: str | None, *, raw_weights: bool) -> Built:
    """Return timm's model of ``source``: the one that config.json, or ``architecture``, names.

    timm reads the file, too, where it can: then nothing of EdgeViT's reading is taken for granted.

    Raises:
        CheckpointError: if nothing names it, or timm's model does not take these weights.
        MissingDependencyError: if timm is not installed, or does not load.
    """
    path, raw = _raw(source, raw_weights=raw_weights)
    named = _named(path)
    name = architecture or named.architecture
    if name is None:
        raise CheckpointError(
            f"nothing says which of timm's models {source} is",
            remedy="name it: --check-with timm:vit_small_patch16_224, for example",
        )
    timm = _import("timm")
    spec = checkpoint.spec
    options = {"num_classes": spec.classes, "img_size": spec.image_size, "in_chans": spec.channels, **named.model_args}

    def with_weights(weights: Callable[[], dict[str, Any]]) -> nn.Module:
        model: nn.Module = timm.create_model(name.partition(".")[0], pretrained=False, **options)
        prepare = importlib.import_module("timm.models.vision_transformer").checkpoint_filter_fn
        model.load_state_dict(prepare(weights(), model))
        return model

    file = path if path.is_file() else path / "model.safetensors"
    model, note = _loaded(
        "timm",
        name,
        source,
        lambda: with_weights(lambda: timm.models.load_state_dict(str(file), use_ema=not raw_weights)),
        lambda: with_weights(lambda: dict(raw.weights)),
    )
    return Built(_inference(model, lambda output: output, checkpoint), note)


def transformers_model(source: str, checkpoint: Checkpoint, *, raw_weights: bool) -> Built:
    """Return transformers' model of ``source``: the one that config.json names.

    transformers reads the folder, too, where it can: then nothing of EdgeViT's reading is taken for granted.

    Raises:
        CheckpointError: if there is no such config.json, or the model does not take these weights.
        MissingDependencyError: if transformers is not installed, or does not load.
    """
    path, raw = _raw(source, raw_weights=raw_weights)
    folder = path if path.is_dir() else path.parent
    named = _named(path)
    if named.model_type is None:
        raise CheckpointError(
            f"nothing says which of transformers' models {source} is",
            remedy="give a folder with the model's config.json beside the weights",
        )
    transformers = _import("transformers")
    tower = _tower(named, checkpoint)
    kind = getattr(transformers, tower)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except _REFUSALS as error:
        raise _unfit("transformers", tower, source, error) from error
    if config.model_type in ("clip", "siglip"):
        config = config.vision_config

    def of_folder() -> nn.Module:
        if path.is_file():
            raise ValueError("a file that is named by itself may not be the one that transformers would take")
        return _whole(*kind.from_pretrained(folder, config=config, local_files_only=True, output_loading_info=True))

    def of_weights() -> nn.Module:
        weights = dict(raw.weights)
        return _whole(*kind.from_pretrained(None, config=config, state_dict=weights, output_loading_info=True))

    model, note = _loaded("transformers", tower, source, of_folder, of_weights)
    options = {"interpolate_pos_encoding": True} if checkpoint.spec.image_size != _size(config) else {}
    return Built(_inference(model, lambda output: _answer(output, checkpoint), checkpoint, options), note)


def _whole(model: nn.Module, found: dict[str, Any]) -> nn.Module:
    """Return ``model``, of which no tensor that counts was left without a value."""
    if absent := [key for key in found["missing_keys"] if "pooler" not in key]:
        raise KeyError(f"missing {', '.join(sorted(absent)[:4])}")
    return model


def _loaded(
    library: str, name: str, source: str, of_file: _ModelLoader, of_weights: _ModelLoader
) -> tuple[nn.Module, str | None]:
    """Return the model of the file as the library reads it, else of the tensors that EdgeViT has read, and a note.

    Raises:
        CheckpointError: if it takes neither.
    """
    try:
        return of_file(), None
    except _REFUSALS:
        pass
    try:
        return of_weights(), f"{library} does not read {source} by itself: it was given the tensors that EdgeViT read"
    except _REFUSALS as error:
        raise _unfit(library, name, source, error) from error


def _raw(source: str, *, raw_weights: bool) -> tuple[Path, Raw]:
    if source not in BUILTIN:
        path = local(source)
        raw = read_source(path, source, Reading(raw_weights))
        if isinstance(raw, Raw):
            return path, raw
    raise CheckpointError(f"{source} is EdgeViT's own, which no other library has", remedy="leave out --check-with")


def _named(path: Path) -> _Named:
    return read_json((path if path.is_dir() else path.parent) / "config.json", _Named) or _Named()


def _import(library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name == library:
            raise MissingDependencyError(
                f"the Python package '{library}' is not installed", remedy=f"pip install -c constraints.txt {library}"
            ) from error
        fault: Exception = error
    except (ImportError, RuntimeError, AttributeError) as error:  # a torchvision that was built for another torch
        fault = error
    raise MissingDependencyError(
        f"{library} is installed, but does not load: {str(fault).splitlines()[0]}",
        remedy=f"pip install {library} torchvision, of the release that goes with torch {torch.__version__}; "
        "where there is none, an environment of its own with both",
    ) from fault


def _tower(named: _Named, checkpoint: Checkpoint) -> str:
    """Return the name of the class that answers as the checkpoint does."""
    kind = (named.model_type or "").removesuffix("_vision_model")
    towers = {
        "clip": "CLIPVisionModelWithProjection" if checkpoint.spec.projection else "CLIPVisionModel",
        "siglip": "SiglipVisionModel",
    }
    first = (named.architectures or ("",))[0]
    if checkpoint.spec.classes:
        return first if "ForImageClassification" in first else "AutoModelForImageClassification"
    return towers.get(kind, "AutoModel")


def _size(config: Any) -> tuple[int, int]:  # noqa: ANN401 - of transformers
    size = config.image_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _answer(output: Any, checkpoint: Checkpoint) -> Tensor:  # noqa: ANN401 - of transformers
    """Return what stands for the model's answer: logits, else the projected, pooled or class token's features."""
    for name in ("logits", "image_embeds"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    if checkpoint.spec.pooling == "attention" or checkpoint.spec.pre_norm:
        pooled: Tensor = output.pooler_output
        return pooled
    first: Tensor = output.last_hidden_state[:, 0]
    return first


def _inference(
    model: nn.Module, answer: Callable[[Any], Tensor], checkpoint: Checkpoint, options: dict[str, Any] | None = None
) -> Forward:
    model = model.float().eval()

    def infer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = answer(model(torch.from_numpy(images), **(options or {})))
            found = functional.normalize(found, dim=-1) if checkpoint.spec.l2_normalize else found
        result: NDArray[np.float32] = found.float().numpy()
        return result

    return infer


def _unfit(library: str, name: str, source: str, error: Exception) -> CheckpointError:
    reason = " ".join((str(error) or type(error).__name__).split())[:300]
    return CheckpointError(
        f"{library}'s {name} does not take the weights of {source}: {reason}",
        remedy="correct the config.json beside them, or name another: --check-with timm:NAME; or leave it out",
    )
