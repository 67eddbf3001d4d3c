"""Read tensors, and the configs beside them, from a file or a folder: .safetensors, .pth, .npz, shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models import runs
from edgevit.models.archives import read_npz, read_pickle
from edgevit.models.checkpoints import Checkpoint, Description, read_safetensors
from edgevit.models.config import CONFIG_NAMES, read_configs, read_json
from edgevit.models.families.base import Raw
from edgevit.models.suffixes import PICKLES, WEIGHTS
from edgevit.models.wrapping import unwrapped
from edgevit.shell import quoted

_WEIGHT = ("proj.weight", "qkv.weight", "query.weight", "fc1.weight", "dense.weight", "in_proj_weight", "head.weight")
#: Names that libraries give to weights, the safest format first.
_STANDARD = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)


class _Index(msgspec.Struct, frozen=True):
    """``*.index.json``: in which file each tensor is."""

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a file is wanted: ``raw_weights`` though it has averaged ones, the state of an ``unfinished`` run."""

    raw_weights: bool = False
    unfinished: bool = False


def read_source(path: Path, name: str, reading: Reading) -> Raw | Checkpoint:
    """Return the tensors at ``path`` (a file or a folder) as float32, with the configs beside them.

    What EdgeViT wrote itself, a checkpoint or an unfinished run, needs no more than that, and comes back whole.

    Raises:
        CheckpointError: if there are none, they are damaged or unsafe, or a config cannot be used.
    """
    if run := runs.unfinished(path):
        return runs.read_unfinished(run, name, reading.unfinished)
    if reading.unfinished:
        raise CheckpointError(f"{name} is no unfinished run", remedy="leave out --unfinished")
    file = _weights_in(path) if path.is_dir() else path
    content, description = _read(file)
    if description is not None:
        weights = {str(key): tensor for key, tensor in content.items() if isinstance(tensor, Tensor)}
        return Checkpoint(
            description.spec,
            weights,
            description.preprocess,
            description.labels,
            name,
            activation=description.activation,
        )
    if runs.is_state(content):
        raise CheckpointError(
            f"{name} is where a run of edgevit train stands, without the job.json of its RUN",
            remedy="give the RUN, or put the file back beside its job.json",
        )
    found = unwrapped(content, name, raw_weights=reading.raw_weights)
    configs = read_configs(file.parent)
    return Raw(
        name,
        _plain(found.weights, name),
        beside=_plain(found.beside, name),
        prefix=found.prefix,
        notes=found.notes,
        config=configs.config,
        said=configs.said,
        processor=configs.processor,
        open_clip=configs.open_clip,
    )


def configs_taken(path: Path) -> list[str]:
    """Return the configs that lie beside a file of weights whose name does not say that they go together."""
    if path.is_dir() or path.name in _STANDARD:
        return []
    return [name for name in CONFIG_NAMES if (path.parent / name).is_file()]


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files that the tensors at ``path`` lie in, which ``read_source`` has read; none of a RUN's."""
    if runs.unfinished(path):
        return ()
    file = _weights_in(path) if path.is_dir() else path
    if not file.name.endswith(".index.json"):
        return (file,)
    found = read_json(file, _Index)
    return (file, *(file.parent / name for name in sorted(set(found.weight_map.values() if found else ()))))


def _weights_in(folder: Path) -> Path:
    for name in _STANDARD:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS)
    if len(others) == 1:
        return others[0]
    graphs = sorted(folder.glob("*.onnx"))
    if not others and graphs:
        raise CheckpointError(
            f"{folder} holds no files of weights, but a graph", remedy=f"edgevit export takes {graphs[0]} itself"
        )
    if not others and (folder / "manifest.json").is_file() and (folder / "golden").is_dir():
        raise CheckpointError(
            f"{folder} is a bundle already, and holds no weights to export",
            remedy=f"go on with it: edgevit quantize {quoted(folder)} --data IMAGES; "
            "for another bundle, give the checkpoint that it was made of",
        )
    raise CheckpointError(
        f"{folder} holds {len(others) or 'no'} files of weights",
        remedy=f"name one of them: {', '.join(path.name for path in others[:4])}"
        if others
        else "give the folder of a training run, a Hugging Face folder with model.safetensors, or a file of weights",
    )


def _read(path: Path) -> tuple[Mapping[object, object], Description | None]:
    if path.name.endswith(".index.json"):
        return _read_shards(path), None
    if path.suffix in PICKLES:
        return read_pickle(path), None
    if path.suffix == ".npz":
        return dict(read_npz(path).items()), None
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is a graph, which has no weights that could be trained or resized",
            remedy="give the weights that it was exported from; edgevit export takes the ONNX file as it is",
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a weights file",
            remedy=f"give a file that ends in {', '.join(WEIGHTS)}, or the folder that it lies in",
        )
    weights, description = read_safetensors(path)
    return dict(weights.items()), description


def _read_shards(index: Path) -> Mapping[object, object]:
    found = read_json(index, _Index)
    files = sorted(set(found.weight_map.values())) if found else []
    weights: dict[object, object] = {}
    for name in files:
        if Path(name).name != name or Path(name).suffix not in WEIGHTS:
            raise CheckpointError(f"{index} names '{name}', which is no file beside it", remedy="download it again")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names '{name}', which is not there", remedy="download the missing part")
        weights.update(_read(index.parent / name)[0])
    absent = sorted((found.weight_map.keys() if found else set()) - {str(key) for key in weights})
    if absent:
        raise CheckpointError(f"the parts of {index} lack {', '.join(absent[:4])}", remedy="download them again")
    return weights


def _plain(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    whole = [key for key, tensor in tensors.items() if key.endswith(_WEIGHT) and not _has_fractions(tensor)]
    if whole:
        raise CheckpointError(
            f"{name} holds whole numbers for weights ({whole[0]}: {tensors[whole[0]].dtype}): it is quantized already",
            remedy="give the weights in float32, float16 or bfloat16 that it was quantized from",
        )
    odd = [key for key, tensor in tensors.items() if not _is_plain(tensor)]
    if odd:
        raise CheckpointError(
            f"{name} holds tensors that are no plain arrays of numbers: {odd[0]}",
            remedy="save its state_dict() alone, best with safetensors.torch.save_file",
        )
    return {key: tensor.detach().float() for key, tensor in tensors.items()}


def _has_fractions(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_plain(tensor: Tensor) -> bool:
    """Return whether each value of ``tensor`` is a real number that the file has bytes for (views may repeat some)."""
    kinds = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return kinds and not tensor.is_complex() and tensor.nbytes <= tensor.untyped_storage().nbytes()
