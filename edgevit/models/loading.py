"""Where a checkpoint comes from: a built-in model, a training run, or a file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models import timm
from edgevit.models.checkpoints import TORCH_LOAD_ERRORS, Checkpoint, Description, read_safetensors
from edgevit.models.spec import BUILTIN

_PICKLE_SUFFIXES = (".pth", ".pt", ".bin")


def load_checkpoint(source: str) -> Checkpoint:
    """Return the checkpoint that ``source`` names: a built-in model, a RUN folder, or a file.

    Raises:
        CheckpointError: if there is none, or it cannot be used.
    """
    if source in BUILTIN:
        with as_file(files("edgevit.models") / "builtin" / f"{source}.safetensors") as path:
            return _from_file(path, source)
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        close = difflib.get_close_matches(source, BUILTIN, n=1)
        hint = f"did you mean the built-in model '{close[0]}'?" if close else f"built in: {', '.join(BUILTIN)}"
        raise CheckpointError(
            f"there is no checkpoint at {path}", remedy=f"give a .safetensors or .pth file, or a RUN folder; {hint}"
        )
    return _from_file(path, str(source))


def _from_file(path: Path, source: str) -> Checkpoint:
    weights, description = _read(path)
    if description is not None:
        checkpoint = Checkpoint(description.spec, weights, description.preprocess, description.labels, source)
    elif timm.recognises(weights):
        checkpoint = timm.read(weights, source)
    else:
        raise CheckpointError(
            f"{source} is of no known family; its first tensors are {', '.join(list(weights)[:5]) or 'none'}",
            remedy="give a checkpoint that EdgeViT trained, or one of a plain ViT or DeiT under timm's names",
        )
    return checkpoint


def _read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    if path.suffix in _PICKLE_SUFFIXES:
        return _read_pickle(path), None
    return read_safetensors(path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except TORCH_LOAD_ERRORS as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors, which could run code: {str(error).splitlines()[0]}",
            remedy="save its state_dict() alone, best with safetensors.torch.save_file",
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} does not hold a state_dict", remedy="save the model's state_dict() alone")
    return {str(name): tensor.float() for name, tensor in content.items()}
