"""A bundle on disk: created, opened, and changed one variant at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.brief import in_brief
from edgevit.bundle.golden import GOLDEN, Golden, read_golden, write_golden
from edgevit.bundle.manifest import (
    PRECISIONS,
    Accuracy,
    ConvolutionStage,
    Fallback,
    File,
    Kernels,
    Latency,
    LimitEvidence,
    LimitVerdict,
    Manifest,
    MeasuredDevice,
    Precision,
    Provenance,
    TokenMerging,
    TokenPadding,
    Variant,
)
from edgevit.bundle.model_files import READABLE, check_model_name
from edgevit.bundle.pack import SIGNATURE, Pack, PackedModel, is_pack
from edgevit.bundle.reading import (
    VerifiedFile,
    all_files,
    decode_manifest_of,
    locate,
    logical_path,
    read_beside,
    read_manifest_bytes,
    record,
    steadily,
    verified_paths,
)
from edgevit.bundle.signature import TrustedKey
from edgevit.data.images import ImageSource
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError, InputError, VerificationError
from edgevit.likeness import PRECISIONS_ELSEWHERE, alike
from edgevit.models.outputs import Output, width_of
from edgevit.models.spec import AnySpec, GraphSpec, ModelSpec, OutputActivation
from edgevit.paths import path_given

if TYPE_CHECKING:
    from edgevit.bundle.transaction import Transaction

# A device only reads, and starts faster without what writing takes: transaction.py is imported where it is used.

Existing = Literal["refuse", "replace"]


class Bundle(msgspec.Struct, frozen=True):
    """A bundle as it was when it was opened. Methods that change it return the new bundle.

    Changes are safe: if the process is killed, either the old bundle or the new one remains, and the next change
    removes what was left behind. Only one process can change a bundle at a time.
    """

    path: Path
    manifest: Manifest
    #: The file that it was read from, where it is no folder; it is never changed.
    pack: Pack | None = None
    #: The trusted key that signed it, in base64, where one had to.
    signed_by: str | None = None

    def __repr__(self) -> str:
        return f"<Bundle {str(self.path)!r}: {', '.join(variant.name for variant in self.manifest.variants)}>"

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, trusted_keys: Sequence[TrustedKey] | None = None) -> Bundle:
        """Open the bundle in the folder ``path``, or the pack that is the file ``path``.

        Every file must exist, lie inside the folder, and have the right size. The contents of a file are checked when
        it is used. With ``trusted_keys``, one of them must have signed the manifest.

        Raises:
            BundleError: if the bundle is missing, damaged, unsafe, or written by a newer EdgeViT.
            VerificationError: if no trusted key has signed it.
            InputError: if it is no path, or a trusted key is not a valid public key.
            MissingDependencyError: if the package that checks signatures is not installed.

        """
        place = Path(path_given("path", path))
        if is_pack(place):
            pack = Pack(place)
            signed_by = _check_signature(place, pack.manifest_bytes, pack.signature_bytes, trusted_keys)
            return cls(place, pack.manifest, pack, signed_by)

        def read() -> Bundle:
            content = read_manifest_bytes(place)
            manifest = decode_manifest_of(place, content)
            signature = None if trusted_keys is None else read_beside(place, SIGNATURE)
            signed_by = _check_signature(place, content, signature, trusted_keys)
            for file in all_files(manifest):
                locate(place, file)
            return cls(place, manifest, signed_by=signed_by)

        return steadily(place, read)

    @staticmethod
    def check_place(path: str | Path, existing: Existing) -> None:
        """Check that ``create`` could make a bundle at ``path``, before the work that it takes.

        Raises:
            BundleError: if something is there that may not be replaced.

        """
        from edgevit.bundle.transaction import refuse_existing

        refuse_existing(Path(path_given("path", path)), existing)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        name: str,
        spec: AnySpec,
        preprocess: Preprocess,
        labels: Sequence[str],
        activation: OutputActivation = "softmax",
        outputs: Sequence[Output] = (),
        provenance: Provenance,
        backend: str,
        float32: Path,
        golden_images: Sequence[ImageSource],
        golden_logits: NDArray[np.float32],
        versions: str | None = None,
        existing: Existing = "refuse",
    ) -> Bundle:
        """Make a bundle in the folder ``path``, with one variant: the ONNX file ``float32``, which ``backend`` runs.

        ``golden_logits`` (images, classes) are float32's answer to ``golden_images``, or all ``outputs``, flattened,
        of a model that has other ones than logits; ``versions`` of the backend run that file. With
        ``existing="replace"`` a bundle that is there already gives way to the new one as a whole; anything else that is
        there never does.

        Raises:
            BundleError: if something is at ``path`` already, or the parts do not fit together.
            StorageError: if the disk is full or not writable; what was at ``path`` is as it was before.

        """
        import shutil

        from edgevit.bundle.transaction import creation

        path = Path(path_given("path", path))
        if not float32.is_file():
            raise BundleError(f"{float32} does not exist", remedy="give the float32 ONNX file")

        def fill_float32(folder: Path) -> Sequence[Path]:
            return [Path(shutil.copyfile(float32, folder / "model.onnx"))]

        def fill_golden(folder: Path) -> Sequence[Path]:
            return write_golden(folder, golden_images, golden_logits, classes=width_of(outputs) or spec.outputs)

        with creation(path, existing) as change:
            model = Variant(
                name="float32",
                precision="float32",
                backend=backend,
                target="any",
                versions=versions,
                files=_filled(change, "float32", fill_float32),
            )
            manifest = Manifest(
                name=name,
                spec=spec if isinstance(spec, ModelSpec) else None,
                graph=spec if isinstance(spec, GraphSpec) else None,
                preprocess=preprocess,
                labels=tuple(labels),
                activation=activation,
                provenance=provenance,
                variants=(model,),
                golden=_filled(change, GOLDEN, fill_golden),
                outputs=tuple(outputs) or msgspec.UNSET,
            )
            return cls(path, change.publish(manifest, "float32", GOLDEN))

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``.

        Raises:
            BundleError: if the bundle has no such variant.
            InputError: if ``name`` is not a string.

        """
        return _variant(self.manifest, name)

    def verify_files(self, variant: str, formats: Sequence[str] = READABLE) -> Path:
        """Check the SHA-256 of each file of a variant, and return the one that its backend opens.

        ``formats`` are the endings of names that the backend opens. An engine may take a file for a model whatever it
        is called: by itself, none passes whose contents have not been looked at.

        Raises:
            BundleError: if there is no such variant, or a file is missing or damaged, or would be opened unseen.

        """
        found = self.variant(variant)
        check_model_name(self.path / found.files[0].path, found.backend, formats)
        if self.pack is not None:
            return self.pack.unpacked(found.files)[0]
        return verified_paths(self.path, found.files)[0]

    def verify_packed(self, variant: str, formats: Sequence[str] = READABLE) -> PackedModel | None:
        """Return what ``verify_files`` does as it is in the pack, without writing anything; None if there is no pack.

        Raises:
            BundleError: as ``verify_files``.

        """
        if self.pack is None:
            return None
        found = self.variant(variant)
        check_model_name(self.path / found.files[0].path, found.backend, formats)
        return self.pack.verified_model(found.files)

    def verified(self, files: Sequence[File]) -> Sequence[Path] | Sequence[memoryview]:
        """Check the SHA-256 of ``files``, which the manifest lists; return where they are, or what is in a pack's.

        Raises:
            BundleError: if one is missing or damaged, or a model would open files that are not listed.

        """
        return verified_paths(self.path, files) if self.pack is None else self.pack.verified(files)

    def verify_float32(self) -> VerifiedFile:
        """Check the SHA-256 of the float32 model's file, and return it.

        Raises:
            BundleError: as ``verify_files``.

        """
        return VerifiedFile(self.verify_files("float32"), self.variant("float32").files[0].sha256)

    def verify_extra(self, name: str) -> VerifiedFile:
        """Check the SHA-256 of the further file ``name``, such as ``calibration/plan.json``, and return the file.

        Raises:
            BundleError: if there is no such file, or it is missing or damaged.

        """
        by_name = {logical_path(file): file for file in self.manifest.extra}
        if not isinstance(name, str) or name not in by_name:
            raise BundleError(
                f"the bundle has no file {in_brief(name)}", remedy=f"it has: {', '.join(by_name) or 'none'}"
            )
        file = by_name[name]
        return VerifiedFile(verified_paths(self.path, [file])[0], file.sha256)

    def golden(self) -> Golden:
        """Return the golden images and float32's logits for them, after a check of their SHA-256.

        Raises:
            BundleError: if there are none, or they are damaged.
            ImageError: if one is not an image.

        """
        return read_golden(self.verified(self.manifest.golden), classes=self.manifest.width)

    def add_variant(
        self,
        name: str,
        *,
        precision: Precision,
        backend: str,
        target: str,
        fill: Callable[[Path], Sequence[Path]],
        settings: Mapping[str, str] | None = None,
        kernels: Kernels | None = None,
        versions: str | None = None,
        fallback: Sequence[Fallback] = (),
        limit: LimitVerdict | None = None,
        convolution_stages: Sequence[ConvolutionStage] = (),
        token_merging: TokenMerging | None = None,
        token_padding: TokenPadding | None = None,
    ) -> Bundle:
        """Add a variant, in place of the one of that name if there is one.

        ``fill`` writes files into the empty folder that it is given and returns them, the one to open first, as
        ``Backend.build`` does. All files in the folder become the variant's. Whatever ``fill`` raises leaves the
        bundle as it was. ``kernels`` is which arithmetic these files have been seen to run in; ``versions``,
        ``fallback``, ``limit``, ``convolution_stages``, ``token_merging`` and ``token_padding`` are as in ``Variant``.

        Raises:
            BundleError: if another process is changing the bundle, the name will not do, or ``fill`` made no file.
            StorageError: if the disk is full or not writable; the bundle is as it was before.

        """
        from edgevit.bundle.transaction import transaction

        with transaction(self.path) as change:
            manifest = _current(change, self.manifest)
            _refuse_names({GOLDEN, *_extra_folders(manifest)}, name)
            variant = Variant(
                name=name,
                precision=precision,
                backend=backend,
                target=target,
                files=_filled(change, name, fill),
                settings=dict(settings or {}),
                kernels=kernels,
                versions=versions,
                fallback=tuple(fallback),
                limit=limit,
                convolution_stages=tuple(convolution_stages),
                token_merging=token_merging,
                token_padding=token_padding,
            )
            return Bundle(self.path, change.publish(_with_variant(manifest, variant), name))

    def update_variant(
        self,
        name: str,
        *,
        accuracy: Accuracy | None = None,
        latency: Latency | None = None,
        kernels: Kernels | None = None,
        evidence: Sequence[LimitEvidence] = (),
    ) -> Bundle:
        """Note what was measured on a variant of this bundle; None leaves what was noted before.

        ``evidence`` is what these figures show; that of figures that were replaced goes with them.

        A pack is never changed: the bundle that is returned has the figures, the file has not.

        Raises:
            BundleError: if the variant's files have been replaced since this bundle was opened, or another process is
                changing it.
            StorageError: if the disk is full or not writable; the bundle is as it was before.

        """
        from edgevit.bundle.transaction import transaction

        def noted(variant: Variant) -> Variant:
            return msgspec.structs.replace(
                variant,
                accuracy=accuracy or variant.accuracy,
                latency=latency or variant.latency,
                kernels=kernels or variant.kernels,
                evidence=tuple(evidence) if evidence or accuracy or latency else variant.evidence,
            )

        measured = self.variant(name)
        if self.pack is not None:
            return msgspec.structs.replace(self, manifest=_with_variant(self.manifest, noted(measured)))
        with transaction(self.path) as change:
            manifest = _current(change, self.manifest)
            variant = _variant(manifest, name)
            if [file.sha256 for file in variant.files] != [file.sha256 for file in measured.files]:
                raise BundleError(
                    f"variant {name} has been replaced since it was measured", remedy="measure the new one"
                )
            return Bundle(self.path, change.publish(_with_variant(manifest, noted(variant))))

    def update_device(self, measured: MeasuredDevice) -> Bundle:
        """Note what was measured on another device, beside what was measured there before on the same files.

        Figures of this machine stay as they are. A pack is never changed, as in ``update_variant``.

        Raises:
            BundleError: if another process is changing the bundle, or the figures cannot be of this model.
            StorageError: if the disk is full or not writable; the bundle is as it was before.

        """
        from edgevit.bundle.devices import with_device
        from edgevit.bundle.transaction import transaction

        if self.pack is not None:
            return msgspec.structs.replace(self, manifest=with_device(self.manifest, measured))
        with transaction(self.path) as change:
            manifest = _current(change, self.manifest)
            return Bundle(self.path, change.publish(with_device(manifest, measured)))

    def add_extra(self, folder: str, fill: Callable[[Path], Sequence[Path]]) -> Bundle:
        """Add a folder of further files, such as ``calibration`` or ``report``, in place of the one of that name.

        ``fill`` is as in ``add_variant``.

        Raises:
            BundleError: if another process is changing the bundle, the name will not do, or ``fill`` made no file.
            StorageError: if the disk is full or not writable; the bundle is as it was before.

        """
        from edgevit.bundle.transaction import transaction

        with transaction(self.path) as change:
            manifest = _current(change, self.manifest)
            _refuse_names({GOLDEN, *(variant.name for variant in manifest.variants)}, folder)
            kept = tuple(file for file in manifest.extra if logical_path(file).partition("/")[0] != folder)
            manifest = msgspec.structs.replace(manifest, extra=(*kept, *_filled(change, folder, fill)))
            return Bundle(self.path, change.publish(manifest, folder))


def _check_signature(
    path: Path, manifest: bytes, signature: bytes | None, trusted_keys: Sequence[TrustedKey] | None
) -> str | None:
    """Check that one of ``trusted_keys`` signed the manifest of the bundle at ``path``, and return it.

    None asks for no signature.
    """
    if trusted_keys is None:
        return None
    from edgevit.bundle.signature import check_signature  # applications that ask for none need no cryptography

    try:
        return check_signature(manifest, signature, trusted_keys)
    except VerificationError as error:
        raise VerificationError(f"{path} is not trusted: {error.message}", remedy=error.remedy) from error


def _variant(manifest: Manifest, name: str) -> Variant:
    if not isinstance(name, str):
        raise InputError(f"a variant's name is {in_brief(name)}", remedy="give a variant's name as a string")
    for variant in manifest.variants:
        if variant.name == name:
            return variant
    names = [variant.name for variant in manifest.variants]
    close = alike(name, names, PRECISIONS_ELSEWHERE)
    remedy = f"use {' or '.join(close)}; it has: {', '.join(names)}" if close else f"use one of: {', '.join(names)}"
    if name == "float32":  # only a pack has none
        remedy += "; pack it, too: edgevit pack BUNDLE --variant float32"
    elif name in PRECISIONS and not close:
        remedy += f"; 'edgevit quantize BUNDLE --precision {name}' adds that"
    raise BundleError(f"the bundle has no variant '{name}'", remedy=remedy)


def _with_variant(manifest: Manifest, variant: Variant) -> Manifest:
    """Return ``manifest`` with ``variant`` in the place of the one of that name, or at the end."""
    by_name = {one.name: one for one in manifest.variants} | {variant.name: variant}
    return msgspec.structs.replace(manifest, variants=tuple(by_name.values()))


def _extra_folders(manifest: Manifest) -> set[str]:
    return {logical_path(file).partition("/")[0] for file in manifest.extra}


def _refuse_names(taken: set[str], name: str) -> None:
    if name in taken:
        raise BundleError(f"'{name}' is the name of another folder of the bundle", remedy="use another name")


def _current(change: Transaction, opened: Manifest) -> Manifest:
    """Return what the bundle is now, which was ``opened`` before: another process may have changed it.

    Variants come and go, but what was made or measured of one model is not put beside another one.
    """
    if change.manifest is None:
        raise BundleError(f"{change.path} is not a bundle any more", remedy="make it again with 'edgevit export'")
    if _model_of(change.manifest) != _model_of(opened):
        raise BundleError(
            f"{change.path} has been replaced by another model meanwhile", remedy="run the same command again"
        )
    return change.manifest


def _model_of(manifest: Manifest) -> tuple[object, ...]:
    """Return what all variants of a bundle have in common."""
    float32 = [file.sha256 for each in manifest.variants if each.name == "float32" for file in each.files]
    golden = [file.sha256 for file in manifest.golden]
    return float32, golden, manifest.preprocess, manifest.provenance.weights_sha256


def _filled(change: Transaction, name: str, fill: Callable[[Path], Sequence[Path]]) -> tuple[File, ...]:
    """Let ``fill`` write the new folder ``name``; return its files: the ones that it returns, then all others."""
    folder = change.folder(name)
    first = [path.relative_to(folder) for path in fill(folder)]
    present = sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    others = [path for path in present if path not in first]
    if not first or any((folder / path).is_symlink() for path in present):
        raise BundleError(f"there is no file for {name}, or only a link", remedy="write at least one file")
    return tuple(record(folder / path, f"{name}/{path.as_posix()}") for path in (*first, *others))
