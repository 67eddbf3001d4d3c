"""Read tensors, and the configs beside them, from a file or a folder: .safetensors, .pth, .npz, shards."""

from __future__ import annotations

import re
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.checkpoints import TORCH_LOAD_ERRORS, Description, read_safetensors
from edgevit.models.config import read_configs, read_json
from edgevit.models.families.base import Raw

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # timm's training writes .pth.tar, which is no archive of files
_SUFFIXES = (".safetensors", *_PICKLES, ".npz")
#: Names that libraries give to weights, the safest format first.
_STANDARD = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
_WRAPPINGS = ("state_dict", "model", "model_state_dict", "teacher", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_MOST_INFLATION = 50  # honest weights hardly shrink


class _Index(msgspec.Struct, frozen=True):
    """``*.index.json``: in which file each tensor is."""

    weight_map: dict[str, str]


def read_source(path: Path, name: str) -> tuple[Raw, Description | None]:
    """Return the tensors at ``path`` (a file or a folder) as float32 with the configs beside them.

    The second value is what EdgeViT wrote of its own checkpoint, None for others'.

    Raises:
        CheckpointError: if there are none, they are damaged or unsafe, or a config cannot be used.
    """
    file = _weights_in(path) if path.is_dir() else path
    weights, description = _read(file)
    if file.name not in _STANDARD and not path.is_dir():
        return Raw(name, weights), description
    found = read_configs(file.parent)
    raw = Raw(name, weights, config=found.config, processor=found.processor, open_clip=found.open_clip)
    return raw, description


def _weights_in(folder: Path) -> Path:
    for name in _STANDARD:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(others) == 1:
        return others[0]
    graphs = sorted(folder.glob("*.onnx"))
    if not others and graphs:
        raise CheckpointError(
            f"{folder} holds no files of weights, but a graph", remedy=f"edgevit export takes {graphs[0]} itself"
        )
    raise CheckpointError(
        f"{folder} holds {len(others) or 'no'} files of weights",
        remedy=f"name one of them: {', '.join(path.name for path in others[:4])}"
        if others
        else "give a RUN, a Hugging Face folder with model.safetensors, or a file of weights",
    )


def _read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    if path.name.endswith(".index.json"):
        return _read_shards(path), None
    if path.suffix in _PICKLES:
        return _unwrapped(_read_pickle(path)), None
    if path.suffix == ".npz":
        return _read_npz(path), None
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is a graph, which has no weights that could be trained or resized",
            remedy="give the weights that it was exported from; edgevit export takes the ONNX file as it is",
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is no kind of file that weights are read from",
            remedy=f"give a file that ends in {', '.join(_SUFFIXES)}, or the folder that it lies in",
        )
    weights, description = read_safetensors(path)
    return (weights if description else _unwrapped(weights)), description


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away what training loops put before all names."""
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _read_shards(index: Path) -> dict[str, Tensor]:
    found = read_json(index, _Index)
    files = sorted(set(found.weight_map.values())) if found else []
    weights: dict[str, Tensor] = {}
    for name in files:
        if Path(name).name != name or Path(name).suffix not in _SUFFIXES:
            raise CheckpointError(f"{index} names '{name}', which is no file beside it", remedy="download it again")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names '{name}', which is not there", remedy="download the missing part")
        weights |= _read(index.parent / name)[0]
    absent = sorted((found.weight_map.keys() if found else set()) - weights.keys())
    if absent:
        raise CheckpointError(f"the parts of {index} lack {', '.join(absent[:4])}", remedy="download them again")
    return weights


def _read_pickle(path: Path) -> dict[str, Tensor]:
    remedy = "save its state_dict() alone, best with safetensors.torch.save_file"
    try:
        if zipfile.is_zipfile(path):
            _check_inflation(path, remedy)
            _check_no_program(path)
        with torch.serialization.safe_globals([Namespace]):  # the options of a training; holds values, runs nothing
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (*TORCH_LOAD_ERRORS, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} {_fault(str(error))}", remedy=remedy) from error
    for key in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} does not hold a state_dict", remedy="save the model's state_dict() alone")
    odd = [str(name) for name, tensor in content.items() if not _is_plain(tensor)]
    if odd:
        raise CheckpointError(f"{path} holds tensors that are no plain arrays of numbers: {odd[0]}", remedy=remedy)
    return {str(name): tensor.float() for name, tensor in content.items()}


def _fault(error: str) -> str:
    """Say in words what torch did not like; its own message tells how to run the code that a file brings."""
    if found := re.search(r"(?:Unsupported global: |unsupported )GLOBAL ([\w.]+)", error):
        return f"holds more than tensors, which could run code: {found[1]}"
    return f"is damaged, or holds more than tensors, which could run code: {error.splitlines()[0]}"


def _is_plain(tensor: Tensor) -> bool:
    """Return whether each value of ``tensor`` is a real number that the file has bytes for (views may repeat some)."""
    kinds = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return kinds and not tensor.is_complex() and tensor.nbytes <= tensor.untyped_storage().nbytes()


def _read_npz(path: Path) -> dict[str, Tensor]:
    remedy = "download it again; only .npz files of plain arrays are read"
    try:
        _check_inflation(path, remedy)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    except (ValueError, TypeError, EOFError, KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(
            f"{path} is not a readable .npz file: {str(error).splitlines()[0]}", remedy=remedy
        ) from error


def _check_inflation(path: Path, remedy: str) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MOST_INFLATION * path.stat().st_size:
            raise CheckpointError(f"{path} would fill the memory when unpacked", remedy=remedy)


def _check_no_program(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise CheckpointError(
                f"{path} is a TorchScript archive, a program that brings its tensors along",
                remedy="if you trust it: torch.save(torch.jit.load(OLD).state_dict(), NEW), and give NEW",
            )
