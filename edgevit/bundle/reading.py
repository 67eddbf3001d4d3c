"""Reads a bundle's manifest and checks its files; a bundle may come from anywhere, so nothing in it is trusted."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

import msgspec

from edgevit.bundle.manifest import SCHEMA_VERSION, DeviceVariant, File, Manifest, Variant
from edgevit.bundle.model_files import MAKE_AGAIN, check_model_file
from edgevit.errors import BundleError
from edgevit.files import sha256_of
from edgevit.json import MOST_BYTES, JSONError, decode
from edgevit.models.outputs import MOST_NUMBERS, width_of
from edgevit.models.spec import label_counts
from edgevit.models.suffixes import MODELS
from edgevit.shell import quoted

T = TypeVar("T")

MANIFEST = "manifest.json"

#: Pixels of a model's input; a quarter of a gigabyte as float32.
_MOST_PIXELS = 4096 * 4096

#: How often a bundle is read again that is replaced meanwhile.
_MOST_ATTEMPTS = 20


class _Version(msgspec.Struct):
    schema_version: int


def decode_manifest(content: bytes) -> Manifest:
    """Parse and check ``manifest.json``.

    Raises:
        BundleError: if it is not valid or was written by a newer EdgeViT; the message names the field.

    """
    _refuse_newer(_parsed(content, _Version).schema_version)
    manifest = _parsed(content, Manifest)
    if reason := _invalid_reason(manifest):
        raise BundleError(f"{MANIFEST} is not valid: {reason}", remedy=MAKE_AGAIN)
    for version in range(manifest.schema_version, SCHEMA_VERSION):
        manifest = MIGRATIONS[version](manifest)
    return msgspec.structs.replace(manifest, schema_version=SCHEMA_VERSION)


def _without_void_accuracy(manifest: Manifest) -> Manifest:
    """Drop what version 1 may have measured of a single logit: it always agreed by 100 %."""
    if manifest.classes != 1:
        return manifest
    kept = tuple(
        msgspec.structs.replace(one, accuracy=None) if one.accuracy and one.accuracy.decisions is None else one
        for one in manifest.variants
    )
    return msgspec.structs.replace(manifest, variants=kept)


def _as_it_is(manifest: Manifest) -> Manifest:
    """Return a manifest whose next version has only more fields, each with a default."""
    return manifest


#: What brings a manifest of a version to the next one. It is written with the newest when the bundle is changed.
MIGRATIONS: Mapping[int, Callable[[Manifest], Manifest]] = {
    1: _without_void_accuracy,
    2: _as_it_is,
}


def _parsed(content: bytes, kind: type[T]) -> T:
    try:
        return decode(content, kind)
    except JSONError as error:
        raise BundleError(f"{MANIFEST} is not valid: {error}", remedy=MAKE_AGAIN) from error


def _refuse_newer(version: int) -> None:
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"the bundle has schema version {version}, and this EdgeViT knows versions up to {SCHEMA_VERSION}",
            remedy="upgrade EdgeViT: git pull, then pip install -e .",
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the JSON of a manifest that is certain to be read again.

    Raises:
        BundleError: if it would not be, such as for a figure that is not a finite number.

    """
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    decode_manifest(content)
    return content


def _invalid_reason(manifest: Manifest) -> str | None:
    names = [variant.name for variant in manifest.variants]
    if (manifest.spec is None) == (manifest.graph is None):
        return "the model must be described by either a spec or a graph - at `$.spec`"
    size, spec = manifest.preprocess.size, manifest.model
    if manifest.schema_version < 1:
        return f"there is no schema version {manifest.schema_version} - at `$.schema_version`"
    if len(set(names)) < len(names):
        return "two variants have the same name - at `$.variants`"
    if len(manifest.labels) not in label_counts(manifest.classes):
        return f"{len(manifest.labels)} labels for {manifest.classes} classes - at `$.labels`"
    if size[0] * size[1] > _MOST_PIXELS:
        return f"images of {size[0]}x{size[1]} are larger than any model takes - at `$.preprocess.size`"
    if size != spec.image_size or manifest.preprocess.channels != spec.channels:
        return "images are preprocessed to another size than the model takes - at `$.preprocess`"
    measured: list[tuple[str, Sequence[Variant | DeviceVariant]]] = [("variants", manifest.variants)]
    measured += [(f"devices.{device.name}", device.variants) for device in manifest.devices]
    found = (_figures_reason(place, variants, manifest) for place, variants in measured)
    return next(filter(None, found), None) or _devices_reason(manifest) or _outputs_reason(manifest)


def _figures_reason(place: str, variants: Sequence[Variant | DeviceVariant], manifest: Manifest) -> str | None:
    if any(one.accuracy and one.accuracy.agreement is None for one in variants) and not manifest.typed_outputs:
        return f"there is no agreement - at `$.{place}[...].accuracy.agreement`"
    if any(_is_of_another_kind(one, manifest) for one in variants):
        return f"a variant was measured as another kind of model than it is - at `$.{place}`"
    if any(one.latency and not one.latency.is_whole for one in variants):
        return f"some of a variant's times are missing - at `$.{place}`"
    return None


def _devices_reason(manifest: Manifest) -> str | None:
    names = [[device.name for device in manifest.devices], *([v.name for v in d.variants] for d in manifest.devices)]
    if any(len(set(those)) < len(those) for those in names):
        return "two devices, or two variants of one, have the same name - at `$.devices`"
    return None


def _outputs_reason(manifest: Manifest) -> str | None:
    outputs = manifest.typed_outputs
    if len({output.name for output in outputs}) < len(outputs) or width_of(outputs) > MOST_NUMBERS:
        return "outputs share a name, or are larger than any model's - at `$.outputs`"
    if manifest.activation == "sigmoid" and not manifest.classes:
        return "a model that gives no logits has no probabilities - at `$.activation`"
    return None


def _is_of_another_kind(variant: Variant | DeviceVariant, manifest: Manifest) -> bool:
    found = variant.accuracy
    if found is None:
        return False
    if manifest.typed_outputs:
        measured = [(each.name, each.kind) for each in found.outputs]
        return measured != [(each.name, each.kind) for each in manifest.typed_outputs]
    features = manifest.classes == 0
    decisions = found.decisions is not None and not manifest.independent
    return bool(found.outputs) or (found.similarity is None) == features or decisions


def read_manifest(bundle: Path) -> Manifest:
    """Return the manifest of the bundle in the folder ``bundle``.

    Raises:
        BundleError: if there is no bundle, or its manifest is not valid.

    """
    return decode_manifest_of(bundle, read_manifest_bytes(bundle))


def read_manifest_bytes(bundle: Path) -> bytes:
    """Return the manifest of the bundle in the folder ``bundle`` as it is written; it may not be valid.

    Raises:
        BundleError: if there is none.

    """
    content = read_beside(bundle, MANIFEST)
    return _no_manifest(bundle) if content is None else content


def read_beside(bundle: Path, name: str) -> bytes | None:
    """Return what is in a file of the bundle that no manifest lists, as itself; None where there is none.

    Raises:
        BundleError: if it may not be read.

    """
    path = bundle / name
    with reading(path):
        if not path.is_file() or path.is_symlink():
            return None
    with reading(path), path.open("rb") as stream:
        return stream.read(MOST_BYTES + 1)


def decode_manifest_of(bundle: Path, content: bytes) -> Manifest:
    """Parse and check the manifest of ``bundle``, which messages name.

    Raises:
        BundleError: as ``decode_manifest``.

    """
    try:
        return decode_manifest(content)
    except BundleError as error:
        raise BundleError(f"{bundle}: {error.message}", remedy=error.remedy) from error


def steadily(bundle: Path, read: Callable[[], T]) -> T:
    """Return what ``read`` does; where it fails because another process changed the bundle meanwhile, try again.

    Between reading a manifest and opening the files that it names, the folder of a variant may have been replaced.

    Raises:
        BundleError: if it fails on a bundle that has not changed, or that changes all the time.

    """
    for _ in range(_MOST_ATTEMPTS):
        before = _generation(bundle)
        try:
            return read()
        except BundleError:
            if _generation(bundle) == before:
                raise
    raise BundleError(f"{bundle} was replaced again and again while it was read", remedy="try again")


def _generation(bundle: Path) -> tuple[int, int] | None:
    """Return what tells one manifest from the next, which may say the same."""
    try:
        status = (bundle / MANIFEST).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make what the system has against reading ``path`` a BundleError that names it."""
    try:
        yield
    except PermissionError as error:
        raise BundleError(
            f"{path} may not be read by this user",
            remedy=f"make it readable, such as with: sudo chmod -R a+rX {quoted(path.parent)}",
        ) from error
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing from the bundle", remedy=MAKE_AGAIN) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}", remedy=MAKE_AGAIN) from error


def _no_manifest(bundle: Path) -> NoReturn:
    if not bundle.exists():
        raise BundleError(f"there is no bundle {bundle}", remedy="check the path, or make one with 'edgevit export'")
    remedy = "give the folder that 'edgevit export' made; if making it was interrupted, run that again"
    with reading(bundle):
        of_model = bundle.is_dir() and any(each.suffix in MODELS for each in bundle.iterdir())
    if of_model:  # the folder of a training run, or from Hugging Face
        remedy = exported_first(bundle)
    raise BundleError(f"{bundle} is not a bundle: it has no {MANIFEST}", remedy=remedy)


def exported_first(model: Path) -> str:
    """Return the remedy for who gives a checkpoint, a training run or an ONNX file where a bundle is wanted."""
    made = Path(f"{model.resolve().name if model.is_dir() else model.stem}.edgevit")
    return f"make a bundle of it first: edgevit export {quoted(model)} -o {quoted(made)}"


def all_files(manifest: Manifest) -> list[File]:
    """Return every file that a manifest names."""
    return [*manifest.golden, *manifest.extra, *(file for variant in manifest.variants for file in variant.files)]


def logical_name(folder: str) -> str:
    """Return the name of a folder without the number that it has while it replaces another (see transaction.py)."""
    name, _, number = folder.rpartition(".")
    return name if number.isdigit() and name else folder


def logical_path(file: File) -> str:
    """Return the path of a file, without the number of its folder."""
    folder, slash, rest = file.path.partition("/")
    return f"{logical_name(folder)}{slash}{rest}" if slash else folder


def locate(bundle: Path, file: File) -> Path:
    """Return where ``file`` is, after a check that it is a file of the right size inside the bundle.

    Raises:
        BundleError: if it is missing, has another size, or is reached through a symbolic link.

    """
    path = bundle / file.path
    try:
        with reading(path):
            if path.resolve(strict=True) != bundle.resolve(strict=True) / file.path:
                raise BundleError(f"{path} is reached through a symbolic link", remedy="put the file itself there")
            status = path.stat()
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise BundleError(f"{path} is a link that leads to itself", remedy=MAKE_AGAIN) from error
    if not stat.S_ISREG(status.st_mode) or status.st_size != file.bytes:
        raise damaged(path, f"it has {status.st_size} bytes, not {file.bytes}")
    return path


def damaged(path: Path, why: str) -> BundleError:
    """Return the error that says that a file of a bundle is damaged, and why."""
    return BundleError(f"{path} is damaged: {why}", remedy=MAKE_AGAIN)


def verified_paths(bundle: Path, files: Iterable[File]) -> list[Path]:
    """Return where ``files`` are, after a check of their SHA-256, and that models among them open no other file.

    Raises:
        BundleError: if one is missing or differs from what the manifest says, or a model is refused by
            ``check_model_file``.

    """
    paths: list[Path] = []
    for file in files:
        path = locate(bundle, file)
        with reading(path):
            found = sha256_of(path)
        if found != file.sha256:
            raise damaged(path, "its content is not what the manifest says")
        paths.append(path)
    for path in paths:
        with reading(path):
            check_model_file(path, frozenset(paths))
    return paths


class VerifiedFile(NamedTuple):
    """A file of a bundle whose SHA-256 was checked."""

    path: Path
    sha256: str


def record(path: Path, name: str) -> File:
    """Return what a manifest says of the file at ``path`` that is called ``name`` in the bundle."""
    return File(path=name, sha256=sha256_of(path), bytes=path.stat().st_size)
