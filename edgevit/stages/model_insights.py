"""Looks into the models of a bundle for its report: where they attend, and how much noise each layer has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import EdgeViTError
from edgevit.files import scratch_folder
from edgevit.graph.attention_maps import AttentionMaps, AttentionProbe, TokenGrid, overlap
from edgevit.models.spec import ModelSpec
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.layer_noise import float_twin, layer_noise, write_unfused
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.emit import UNFUSED, scheme_of
from edgevit.quantization.ptq import PtqModel
from edgevit.report.heatmap import heatmap, photo
from edgevit.report.insights import AttentionSeen, Insights, LayersSeen, MapsSeen, MergedSeen
from edgevit.stages.calibrate import TABLE
from edgevit.stages.merged_insights import look_at_merged, smallest_budget
from edgevit.stages.own_onnx import own_onnx
from edgevit.stages.precisions import OPTIMIZED, PLANS
from edgevit.targets import load_target, split_name, target_names

#: Samples that maps are drawn of, and variants beside float32.
_SAMPLES, _VARIANTS = 3, 3


def look_into_models(bundle: Bundle, found: Insights, progress: Progress = SILENT) -> Insights:
    """Return ``found`` with what is seen inside float32 and the variants of ``bundle`` on its golden images.

    What cannot be shown is named with the reason.
    """
    try:
        images = np.stack([bundle.manifest.preprocess(image) for image in bundle.golden().images])
        progress.note("Looking into the models for the report")
        with scratch_folder() as scratch:
            look = _ModelProbes(bundle, images, scratch)
            attention = look.attention(progress)
            merged = look.merged()
            layers = look.layers(progress)
    except EdgeViTError as error:  # damaged golden images, or no room to work in
        return msgspec.structs.replace(found, missing=(*found.missing, f"No model was looked into: {error.message}."))
    return msgspec.structs.replace(
        found,
        layers=layers,
        attention=attention,
        merged=merged,
        pictures={**found.pictures, **look.pictures},
        missing=(*found.missing, *look.missing),
    )


@dataclass
class _ModelProbes:
    """A bundle that is looked into, with its golden ``images`` (N, C, H, W) as the model takes them."""

    bundle: Bundle
    images: NDArray[np.float32]
    scratch: Path
    pictures: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def attention(self, progress: Progress) -> AttentionSeen | None:
        """Return where float32 and quantized variants look in the first golden images; None where it cannot be read."""
        manifest = self.bundle.manifest
        of_class_token = _reads_class_token(manifest)
        try:
            float32 = self._maps(self.bundle.verify_float32().path, of_class_token=of_class_token)
        except EdgeViTError as error:
            self.missing.append(f"Attention maps are not shown: {error.message}.")
            return None
        pixels, photos = self._samples()
        models = [self._drawn("float32", "the exported file", float32, pixels)]
        those = [each for each in manifest.variants if each.token_merging is None]
        if len(those) < len(manifest.variants):
            self.missing.append(
                "Attention maps and the error of each layer are those of the variants whose tokens are not merged: "
                "merged ones are no patches, and rounding may merge others."
            )
        quantized = [each for each in those if each.precision != "float32"]
        wanted = sorted(quantized, key=lambda each: each.precision != "int8")[:_VARIANTS]
        for variant in progress.track(wanted, total=len(wanted), label="Drawing attention"):
            try:
                path, said = self._graph_of(variant)
                found = self._maps(path, of_class_token=of_class_token)
            except EdgeViTError as error:
                self.missing.append(f"Attention of {variant.name} is not shown: {error.message}.")
                continue
            models.append(self._drawn(variant.name, said, found, pixels, float32))
        return AttentionSeen(photos=photos, of_class_token=of_class_token, models=tuple(models))

    def merged(self) -> MergedSeen | None:
        """Return which patches of the first golden images are merged; None where none are, or it cannot be seen."""
        if smallest_budget(self.bundle.manifest) is None:
            return None
        pixels, photos = self._samples()
        try:
            return look_at_merged(
                self.bundle, self.images[:_SAMPLES], pixels, _grid(self.bundle.manifest), photos, self._keep
            )
        except EdgeViTError as error:
            self.missing.append(f"Which patches were merged is not shown: {error.message}.")
            return None

    def layers(self, progress: Progress) -> tuple[LayersSeen, ...]:
        """Return the noise of each layer in INT8, for each way to store activations that a variant has."""
        found = []
        for scheme, variants in self._by_scheme().items():
            twin, integers = (self.scratch / f"{scheme}-{each}.onnx" for each in ("twin", "int8"))
            try:
                table = CalibrationTable.load(self.bundle.verify_extra(TABLE).path)
                engine = load_target(variants[0].target).dialect
                float_twin(
                    self._planned(scheme), self.bundle.verify_float32(), table, UNFUSED[scheme], self.images, twin
                )
                write_unfused(self._planned(scheme), engine, UNFUSED[scheme], integers, attention=False)
                layers = layer_noise(self._planned(scheme), twin, integers, engine, self.images, progress)
            except EdgeViTError as error:
                self.missing.append(f"The error of each layer is not shown: {error.message}.")
                continue
            names = tuple(each.name for each in variants)
            found.append(LayersSeen(variants=names, images=len(self.images), layers=layers))
        return tuple(found)

    def _samples(self) -> tuple[list[NDArray[np.uint8]], tuple[str, ...]]:
        """Return the images that are drawn (H, W, C), and the names of their pictures."""
        pixels = [_pixels(self.bundle.manifest, image) for image in self.images[:_SAMPLES]]
        return pixels, tuple(self._keep(f"photo-{place}", photo(each)) for place, each in enumerate(pixels))

    def _maps(self, path: Path, *, of_class_token: bool) -> list[AttentionMaps]:
        probe = AttentionProbe(path, from_class_token=of_class_token, grid=_grid(self.bundle.manifest))
        return [probe.maps(image[None]) for image in self.images[:_SAMPLES]]

    def _graph_of(self, variant: Variant) -> tuple[Path, str]:
        """Return a graph of the variant whose attention can be read: its own ONNX, or where that fuses it, another."""
        folder = self.scratch / variant.name
        folder.mkdir()
        own = own_onnx(self.bundle, variant, folder)
        try:
            AttentionProbe(own.path)
        except EdgeViTError:
            if variant.precision != "int8":
                raise
            dialect = load_target(variant.target).dialect
            scheme = scheme_of(dialect)
            path = folder / "unfused.onnx"
            write_unfused(self._planned(scheme), dialect, UNFUSED[scheme], path, attention=False)
            return path, "the same integers with attention in single steps, in onnxruntime: the engine fuses it"
        return own.path, f"{own.said}, in onnxruntime"

    def _drawn(
        self,
        name: str,
        said: str,
        maps: Sequence[AttentionMaps],
        pixels: Sequence[NDArray[np.uint8]],
        reference: Sequence[AttentionMaps] = (),
    ) -> MapsSeen:
        last, rolled = [], []
        for place, (each, under) in enumerate(zip(maps, pixels, strict=True)):
            last.append(self._keep(f"{name}-last-{place}", heatmap(under, each.last)))
            if each.rollout is not None:
                rolled.append(self._keep(f"{name}-rollout-{place}", heatmap(under, each.rollout)))
        pairs = list(zip(reference, maps, strict=True)) if reference else []
        both = [(one.rollout, other.rollout) for one, other in pairs]
        rollouts = [overlap(one, other) for one, other in both if one is not None and other is not None]
        return MapsSeen(
            variant=name,
            said=said,
            last=tuple(last),
            rollout=tuple(rolled) if len(rolled) == len(maps) else None,
            overlap_last=float(np.mean([overlap(one.last, other.last) for one, other in pairs])) if pairs else None,
            overlap_rollout=float(np.mean(rollouts)) if rollouts else None,
        )

    def _keep(self, name: str, content: bytes) -> str:
        self.pictures[name] = content
        return name

    def _by_scheme(self) -> dict[Scheme, list[Variant]]:
        found: dict[Scheme, list[Variant]] = {}
        for variant in self.bundle.manifest.variants:
            if (
                variant.token_merging is None
                and variant.precision == "int8"
                and split_name(variant.target)[0] in target_names()
            ):
                found.setdefault(scheme_of(load_target(variant.target).dialect), []).append(variant)
        return found

    def _planned(self, scheme: Scheme) -> PtqModel:
        """Read it anew each time: an emitter uses it up."""
        plan = self.bundle.verify_extra(PLANS[scheme]).path
        return PtqModel.load(self.bundle.verify_extra(OPTIMIZED[scheme]), plan)


def _reads_class_token(manifest: Manifest) -> bool:
    """Say whether the answer is read off the class token; of a third-party file that is assumed where there is one."""
    spec = manifest.model
    return not isinstance(spec, ModelSpec) or (spec.class_token and spec.pooling.startswith("class"))


def _grid(manifest: Manifest) -> TokenGrid | None:
    """Return how the model's tokens lie; None of a third-party file, whose tokens tell."""
    spec = manifest.model
    if not isinstance(spec, ModelSpec):
        return None
    rows, columns = (size // patch for size, patch in zip(spec.image_size, spec.patch_size, strict=True))
    return TokenGrid(int(spec.class_token) + spec.register_tokens, rows, columns)


def _pixels(manifest: Manifest, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what the model sees, as a picture (H, W, C) in the order R, G, B."""
    pixels: NDArray[np.uint8] = manifest.preprocess.pixels(image[None])[0]
    return pixels[..., ::-1] if manifest.preprocess.channel_order == "BGR" else pixels
