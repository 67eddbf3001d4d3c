"""Writes a model repository for Triton: a bundle behind the Python backend, and its files behind Triton's own ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from edgevit.backends import BACKENDS, backend_class
from edgevit.backends.triton import TritonModel
from edgevit.backends.variants import settings_of
from edgevit.bundle.manifest import Manifest, Variant
from edgevit.bundle.model_interface import TensorType, file_interface
from edgevit.bundle.packing import write_pack
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, InputError
from edgevit.json_file import JSONFile
from edgevit.models.outputs import labelled
from edgevit.progress import SILENT, Progress
from edgevit.runtime.selection import failed, validated
from edgevit.tritonserver.config import VERSION, TritonConfig, TritonInput, TritonOutput
from edgevit.tritonserver.model import FILES, IMAGES, PACK, VARIANT

#: What says that a folder is such a repository, and which models EdgeViT has written to it. Triton looks at folders.
MARKER: Final = "edgevit.json"
_CONFIG, _LABELS, _CODE = "config.pbtxt", "labels.txt", "model.py"
#: Images at once where the file does not say how many it takes.
_BATCH = 8
_LONGEST_NAME = 255  # of a folder

_MODEL_PY: Final = '''\
"""Runs the pack beside this file with EdgeViT, which Triton's Python must have: edgevit, and an engine."""

from edgevit.tritonserver.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a repository: its name, Triton's backend, and the one variant that it runs.

    ``variant`` is None where EdgeViT chooses when it loads the pack. ``notes`` say what is otherwise than in EdgeViT.
    """

    name: str
    backend: str
    variant: str | None
    notes: tuple[str, ...] = ()


class Repository(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What EdgeViT wrote to a repository: its models, and why a variant has no model of its own."""

    what = "list of what EdgeViT wrote to a model repository"
    schema = 1
    remedy = "give another path with -o"
    most_bytes = 1 << 20

    schema_version: int = 1
    format: str = "triton"
    edgevit: str
    models: tuple[Served, ...]
    left_out: dict[str, str]


def write_repository(
    bundle: Bundle,
    folder: Path,
    variants: Sequence[str],
    *,
    name: str,
    version: str,
    key: Path | None = None,
    progress: Progress = SILENT,
) -> Repository:
    """Write ``variants`` of ``bundle`` to the empty ``folder`` as a repository, whose first model is called ``name``.

    Without ``variants`` they are all, but for a model of its own of what missed the gate on accuracy. ``version`` is
    EdgeViT's. ``key`` is the file of a private Ed25519 key that signs the pack.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or a label cannot be a line of a file.
        InputError: if ``key`` is no such key, or a name is too long.
        StorageError: if the disk is full or not writable.

    """
    if name == MARKER:
        raise InputError(f"a model cannot be called {MARKER}", remedy="name the model with --name, such as --name vit")
    chosen = variants or [each.name for each in bundle.manifest.variants]
    models = [_write_python_model(bundle, folder / name, chosen, key, progress)]
    left_out = {}
    for variant in map(bundle.variant, chosen):
        if failed(variant) and not variants:
            left_out[variant.name] = "it missed the gate on accuracy"
            continue
        made = _write_native_model(bundle, folder / f"{name}-{variant.name}", variant)
        if isinstance(made, str):
            left_out[variant.name] = made
        else:
            models.append(made)
    written = Repository(edgevit=version, models=tuple(models), left_out=left_out)
    written.save(folder / MARKER)
    return written


def is_repository(path: Path) -> bool:
    """Return whether the folder ``path`` is a repository in which everything is EdgeViT's.

    Raises:
        BundleError: if it says so and cannot be understood.

    """
    marker = path / MARKER
    if path.is_symlink() or not path.is_dir() or marker.is_symlink() or not marker.is_file():
        return False
    known = {MARKER, *(model.name for model in Repository.load(marker).models)}
    return {each.name for each in path.iterdir()} <= known


def _native(bundle: Bundle, variant: Variant) -> TritonModel | str:
    if variant.backend not in BACKENDS:
        return f"Triton has no backend for {variant.backend}"
    backend = backend_class(variant.backend)
    path = bundle.verify_files(variant.name, backend.formats)
    return backend.triton_model(path, settings_of(variant, {}))


def _write_python_model(
    bundle: Bundle, folder: Path, variants: Sequence[str], key: Path | None, progress: Progress
) -> Served:
    place = _made(folder)
    manifest = write_pack(bundle, place / PACK, variants, key=key, progress=progress)
    (place / _CODE).write_text(_MODEL_PY, encoding="utf-8")
    alone = variants[0] if len(variants) == 1 else None
    shape = (manifest.preprocess.channels, *manifest.preprocess.size)
    labels = _write_labels(manifest, folder)
    typed = manifest.typed_outputs
    names = {each.name: each.shape for each in typed} or {_only_output(manifest): (manifest.width,)}
    config = TritonConfig(
        name=folder.name,
        backend="python",
        max_batch=_BATCH,
        inputs=(
            TritonInput(name=IMAGES, dtype="float32", dims=shape, optional=True),
            TritonInput(name=FILES, dtype="bytes", dims=(1,), optional=True),
        ),
        outputs=tuple(
            TritonOutput(name=output, dtype="float32", dims=dims, labels=labels.get(output))
            for output, dims in names.items()
        ),
        parameters={} if alone is None else {VARIANT: alone},
    )
    (folder / _CONFIG).write_text(config.text(), encoding="ascii")
    return Served(name=folder.name, backend="python", variant=alone)


def _write_native_model(bundle: Bundle, folder: Path, variant: Variant) -> Served | str:
    """Write a model that Triton runs without EdgeViT; else return why it does not."""
    native = _native(bundle, variant)
    if isinstance(native, str):
        return native
    config = _native_config(bundle.manifest, folder.name, variant, native)
    if isinstance(config, str):
        return config
    place = _made(folder)
    for name, path in native.files.items():
        shutil.copyfile(path, place / name)
    _write_labels(bundle.manifest, folder)
    (folder / _CONFIG).write_text(config.text(), encoding="ascii")
    notes = native.notes if validated(variant) else ("it has not been validated", *native.notes)
    return Served(name=folder.name, backend=native.backend, variant=variant.name, notes=notes)


def _native_config(manifest: Manifest, name: str, variant: Variant, native: TritonModel) -> TritonConfig | str:
    interface = file_interface(native.described_by)
    if len(interface.inputs) != 1 or not interface.outputs:
        return f"its file has {len(interface.inputs)} inputs and {len(interface.outputs)} outputs"
    tensors = (*interface.inputs, *interface.outputs)
    if any(not tensor.shape for tensor in tensors):
        return "its file does not say which shape it takes or gives"
    any_number = all(tensor.shape[0] is None for tensor in tensors)
    places = [each.name for each in manifest.typed_outputs] or [_only_output(manifest)]
    labels = {place: _LABELS for place, output in enumerate(places) if output in _labels(manifest)}
    needs = {} if variant.versions is None else {"edgevit_needs": f"{variant.backend} {variant.versions}"}
    notes = {f"edgevit_note_{number}": note for number, note in enumerate(native.notes, 1)}
    return TritonConfig(
        name=name,
        backend=native.backend,
        platform=native.platform,
        max_batch=(native.largest_batch or _BATCH) if any_number else 0,
        inputs=tuple(
            TritonInput(name=each.name, dtype=each.dtype, dims=_dims(each, batched=any_number))
            for each in interface.inputs
        ),
        outputs=tuple(
            TritonOutput(
                name=each.name, dtype=each.dtype, dims=_dims(each, batched=any_number), labels=labels.get(place)
            )
            for place, each in enumerate(interface.outputs)
        ),
        on_gpu=native.on_gpu,
        parameters={**native.parameters, **needs, **notes},
    )


def _dims(tensor: TensorType, *, batched: bool) -> tuple[int, ...]:
    sizes = tuple(-1 if size is None else size for size in tensor.shape)
    return (sizes[1:] or (1,)) if batched else sizes


def _only_output(manifest: Manifest) -> str:
    return "logits" if manifest.outcomes else "embedding"


def _labels(manifest: Manifest) -> Mapping[str, tuple[str, ...]]:
    """Return the labels of the output that has one for each of its numbers."""
    own = labelled(manifest.typed_outputs)
    if own is not None:
        return {own.name: own.labels} if len(own.labels) == own.size else {}
    if manifest.typed_outputs or not manifest.labels or len(manifest.labels) != manifest.classes:
        return {}
    return {_only_output(manifest): manifest.labels}


def _write_labels(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Write the file of labels, if there are any; return its name by the output that has them."""
    found = _labels(manifest)
    for labels in found.values():
        for label in _not_lines(labels):
            raise BundleError(
                f"the label {label!r} cannot be a line of a file of labels",
                remedy="export the model again with --labels FILE",
            )
        (folder / _LABELS).write_bytes("".join(f"{label}\n" for label in labels).encode())
    return dict.fromkeys(found, _LABELS)


def _not_lines(labels: Sequence[str]) -> Iterator[str]:
    return (label for label in labels if any(sign in label for sign in "\n\r\0"))


def _made(folder: Path) -> Path:
    """Make the folder of a model and of its version; return the latter."""
    if len(folder.name) > _LONGEST_NAME:
        raise InputError(f"'{folder.name}' is too long for a folder", remedy="name the model with --name")
    place = folder / VERSION
    place.mkdir(parents=True)
    return place
