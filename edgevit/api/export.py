"""``edgevit.export``."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgevit.api.arguments import number, one_of, optional_path, text
from edgevit.api.export_arguments import (
    heads_given,
    image_size_given,
    labels_given,
    numbers_given,
    resize_given,
    shape_given,
    strings_given,
)
from edgevit.api.images import Images, images_of
from edgevit.api.sources import Source, TorchModule
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.preprocess import Interpolation
from edgevit.errors import InputError
from edgevit.files import scratch_folder
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.interface import onnx_outputs_in
from edgevit.graph.metadata_overrides import MetadataOverrides
from edgevit.models.licenses import License, license_called, license_said
from edgevit.models.origin import WeightsOrigin
from edgevit.models.overrides import Colours, Resize
from edgevit.models.requested import requests_in
from edgevit.models.spec import OutputActivation
from edgevit.paths import path_given
from edgevit.progress import Progress, ProgressCallback, progress_to
from edgevit.runtime.arguments import flag
from edgevit.stages import export as stage
from edgevit.stages.peers import Peer, peer_called
from edgevit.stages.results import ExportResult
from edgevit.stages.source import load_source, under_license

if TYPE_CHECKING:
    from edgevit.models.checkpoints import Checkpoint


def export(
    source: Source,
    output: str | os.PathLike[str],
    *,
    data: Images | None = None,
    input_shape: tuple[int, int, int] | None = None,
    image_size: int | tuple[int, int] | None = None,
    l2_normalize: bool = False,
    heads: int | None = None,
    activation: OutputActivation | None = None,
    raw_weights: bool = False,
    unfinished: bool = False,
    check_with: str | None = None,
    preprocess: str | os.PathLike[str] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    resize: Resize | None = None,
    crop: float | None = None,
    interpolation: Interpolation | None = None,
    colours: Colours | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    template: str | Sequence[str] | None = None,
    embedding: bool = False,
    license: str | None = None,  # noqa: A002 - what it is called everywhere
    license_url: str | None = None,
    outputs: str | Sequence[str] = (),
    onnx_output: str | Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | ProgressCallback | None = None,
) -> ExportResult:
    """Export ``source`` to float32 ONNX in a new bundle, and check that the file gives the same answers on images.

    ``source`` is one of these:

    - a checkpoint: a file, a folder, ``hf://owner/name``, or a built-in name;
    - an ONNX file;
    - a ``torch.nn.Module`` that takes images (B, C, H, W) and gives logits or features (B, N). It needs
      ``input_shape``.

    Args:
        source: What to export.
        output: Where to make the bundle: a folder, usually ``NAME.edgevit``.
        data: Images to check the file on, as in ``edgevit.quantize``; by default, images that come with EdgeViT.
        input_shape: Shape of an image that a module takes: (channels, height, width).
        image_size: Another resolution than the checkpoint's, in pixels: one side, or (height, width). Position
            embeddings are interpolated.
        l2_normalize: Scale an embedding model's features to length 1.
        heads: Number of attention heads, for a checkpoint without a config.
        activation: How logits become probabilities: "softmax" (one class is right) or "sigmoid" (each label by itself).
            By default, what the config says, or softmax; sigmoid for a single logit.
        raw_weights: Use the weights of the last step if a file has averaged ones (EMA) too.
        unfinished: Use the averaged weights of a training run that is not finished.
        check_with: Also compare with the library that the model comes from: "timm", "timm:NAME" or "transformers".
        preprocess: Path of a preprocessor_config.json, processor_config.json, or timm's config.json. By default, the
            files beside the checkpoint say how images are prepared.
        mean: Mean of pixels in 0..1: one number, or one for each channel.
        std: Standard deviation of pixels in 0..1: one number, or one for each channel. With a mean of 0, 1 leaves
            pixels in 0..1, and 1 / 255 makes them 0..255.
        resize: Length of the short edge before the crop, in pixels; or "squash" (ignore the aspect ratio), "pad" (keep
            it, and pad at the bottom and right), or "letterbox" (keep it, and pad on both sides).
        crop: Size of the crop as a fraction of the resized edge, such as 0.875.
        interpolation: Filter of the resize: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming".
        colours: Order of the channels that the model takes: "rgb" or "bgr". ``mean`` and ``std`` are in this order.
        labels: Names of the classes, or the path of a file: one name a line, or JSON. For a CLIP or SigLIP with a text
            tower, they make a zero-shot classifier.
        template: Sentence that the text tower reads for each label; by default, "a photo of a {}". With several, their
            embeddings are averaged.
        embedding: The module or ONNX file gives features, not logits.
        license: License of the weights: its SPDX identifier, or any name. By default, the one named beside them.
        license_url: URL of the license's text.
        outputs: What a checkpoint gives instead of its logits or features: "tokens", "blocks=2,5,8,11", "embedding",
            "logits", or a list of these.
        onnx_output: The outputs of an ONNX file or a module to use, as NAME or NAME=KIND, where KIND is "logits",
            "embedding", "tokens", "features", "depth", "segmentation", "boxes", "corners", "scores" or "any". By
            default, the logits, or all.
        root: Folder that relative paths in a CSV file start from; by default, the folder of the CSV file.
        strict: Stop at the first image that cannot be read; by default, such images are left out.
        overwrite: Replace the bundle that is there.
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or contains something that EdgeViT does not know.
        GraphError: if no bundle can be made of the ONNX file or module.
        VerificationError: if the answers of the exported file differ from the source's; no bundle is made.
        BundleError: if something is at ``output`` already.
        DataError: if images or labels cannot be used.
        InputError: if an argument has the wrong type, or arguments do not go together.

    """
    own = license_said(text("license", license), text("license_url", license_url))
    to = Path(path_given("output", output))
    existing: Existing = "replace" if flag("overwrite", overwrite) else "refuse"
    Bundle.check_place(to, existing)  # before a checkpoint is fetched and read
    if not isinstance(source, (str, os.PathLike, TorchModule)):
        raise InputError(
            f"source is a {type(source).__name__}", remedy="give a path, a built-in name, or a torch.nn.Module"
        )
    report, strict = progress_to(progress), flag("strict", strict)
    overrides = MetadataOverrides(
        preprocess=optional_path("preprocess", preprocess),
        mean=numbers_given("mean", mean),
        std=numbers_given("std", std),
        resize=resize_given(resize),
        crop=number("crop", crop, least=1e-3, most=1),
        interpolation=None if interpolation is None else one_of("interpolation", interpolation, Interpolation),
        colours=None if colours is None else one_of("colours", colours, Colours),
        labels=labels_given(labels),
        image_size=image_size_given(image_size),
        outputs=onnx_outputs_in(strings_given("onnx_output", onnx_output)),
        embedding=flag("embedding", embedding),
        activation=None if activation is None else one_of("activation", activation, OutputActivation),
    )
    requests = requests_in(strings_given("outputs", outputs))
    check_with, heads = text("check_with", check_with), heads_given(heads)
    l2_normalize, raw_weights = flag("l2_normalize", l2_normalize), flag("raw_weights", raw_weights)
    unfinished, shape = flag("unfinished", unfinished), shape_given(input_shape)
    templates = strings_given("template", template)
    images_at = partial(
        images_of,
        split="test",
        root=optional_path("root", root),
        samples=stage.CHECKED,
        strict=strict,
        progress=report,
    )
    images = None if data is None else images_at(data).checked()
    if requests and check_with is not None:
        raise InputError(
            "check_with compares logits or features, not outputs of other kinds",
            remedy="leave check_with out, or export without outputs to compare",
        )
    with ExitStack() as stack:
        peer: Peer | None = None
        if isinstance(source, (str, os.PathLike)):
            if shape is not None:
                raise InputError("input_shape goes with a module", remedy="leave it out, or give image_size")
            name = path_given("source", source)
            model = load_source(
                name,
                overrides,
                l2_normalize=l2_normalize,
                heads=heads,
                raw_weights=raw_weights,
                unfinished=unfinished,
                requests=requests,
                templates=templates,
                progress=report,
            )
            equal = [name if isinstance(model, OnnxModel) else "torch"]
            if check_with is not None:
                alone = cast("Checkpoint | OnnxModel", model)  # no requests were made of it
                peer = peer_called(check_with, name, alone, raw_weights=raw_weights)
                equal.append(check_with.partition(":")[0])
        else:
            _refuse(
                l2_normalize=l2_normalize,
                heads=heads,
                raw_weights=raw_weights,
                unfinished=unfinished,
                check_with=check_with,
                outputs=requests,
                image_size=image_size,
                template=templates,
            )
            model, peer = _of_module(source, shape, overrides, stack, report)
            equal = [peer.library]
        if own is not None:
            model = under_license(model, own)
        for note in model.notes:
            report.note(note)
        if images is None:
            images = images_at(stage.default_images(model.spec.channels))
        bundle = stage.export(model, to, images, existing=existing, peer=peer, progress=report)
    return ExportResult(
        bundle=bundle,
        equal_to=tuple(equal),
        images=images.name,
        notes=model.notes,
        unreadable=images.unreadable.names,
    )


def _of_module(
    module: TorchModule,
    input_shape: tuple[int, int, int] | None,
    overrides: MetadataOverrides,
    stack: ExitStack,
    report: Progress,
) -> tuple[OnnxModel, Peer]:
    from edgevit.graph.module import ModuleFile, module_file

    folder, wanted = stack.enter_context(scratch_folder()), [each.name for each in overrides.outputs]
    file: ModuleFile = module_file(module, input_shape, folder, wanted, report)
    stack.enter_context(file.named_in_errors())
    model, origin = file.model(overrides), WeightsOrigin(license=_license_of(module))
    model = replace(model, origin=origin, notes=(*model.notes, *origin.notes()))
    infer = partial(file.infer, names=model.interface.names)
    return model, Peer(file.name, infer, remedy=file.REMEDY, activation=model.cut, outputs=model.outputs)


def _license_of(module: TorchModule) -> License | None:
    """Return the license that timm notes with a model's weights."""
    cfg = getattr(module, "pretrained_cfg", None)
    name = cfg.get("license") if isinstance(cfg, Mapping) else None
    return license_called(name, "pretrained_cfg") if isinstance(name, str) else None


def _refuse(**said: object) -> None:
    for name, value in said.items():
        if value:
            raise InputError(f"{name} does not go with a module", remedy=f"leave {name} out, and change the module")
