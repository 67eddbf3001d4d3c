"""Options and arguments that several commands take, and what they stand for."""

from __future__ import annotations

import platform
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from edgevit.backends import available_backends
from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Existing
from edgevit.cli import completion
from edgevit.data.batches import Strict, Unreadable
from edgevit.data.preprocess import Interpolation
from edgevit.errors import InputError, MissingDependencyError
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE
from edgevit.likeness import PRECISIONS_ELSEWHERE, nearest
from edgevit.models.overrides import Overrides
from edgevit.models.spec import OutputActivation
from edgevit.targets import Target, load_target, own_targets

#: Groups of options in the help.
MODEL = "The model"
TIMING = "Timing"
READING = "Reading images"
LIMITS = "What passes"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that 'edgevit export' made.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A RUN, a file of weights, a Hugging Face folder, hf://owner/name, a built-in name, or an .onnx file.",
        autocompletion=completion.sources,
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The bundle to make: a folder, usually NAME.edgevit.")]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE|HxW",
        help="Use another resolution: positions are interpolated.",
        show_default="the checkpoint's",
        rich_help_panel=MODEL,
    ),
]
Heads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Attention heads, of a checkpoint without a config.",
        show_default="as is usual",
        rich_help_panel=MODEL,
    ),
]
_IMAGES = "How images are prepared, where files beside it do not say it rightly"


def _of_images(text: str, default: str, *names: str) -> Any:  # noqa: ANN401 - as Typer declares it
    return typer.Option(*names, help=text, show_default=default, rich_help_panel=_IMAGES)


PreprocessFile = Annotated[
    Path | None,
    _of_images("A preprocessor_config.json, processor_config.json, or timm's config.json.", "what lies beside it"),
]
Mean = Annotated[str | None, _of_images("Mean of pixels in 0..1: one number, or R,G,B.", "as files say")]
Std = Annotated[
    str | None,
    _of_images("Their deviation. With --mean 0, 1 leaves pixels in 0..1, 1/255 in 0..255.", "as files say"),
]
Resize = Annotated[str | None, _of_images("Short edge before the crop, in pixels, or squash.", "as files say")]
Filter = Annotated[str | None, _of_images("bicubic, bilinear, nearest, lanczos, ...", "as files say")]
_CROP = "Or the crop in parts of that edge, such as 0.875."
Crop = Annotated[str | None, _of_images(_CROP, "as files say", "--crop", "--center-crop")]
CenterCrop = Annotated[str | None, _of_images(_CROP, "as files say", "--center-crop")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the bundle that is there.")]
Data = Annotated[
    str,
    typer.Option(help="Images: a folder, a CSV file, or a built-in name.", autocompletion=completion.data_sets),
]
Root = Annotated[Path | None, typer.Option(help="Folder that the paths in a CSV start from.", rich_help_panel=READING)]
StrictImages = Annotated[
    bool, typer.Option("--strict", help="Stop at the first image that cannot be read.", rich_help_panel=READING)
]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", help="Only this variant; can be given again.", autocompletion=completion.variants),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="Build for this target; can be given again.", autocompletion=completion.targets),
]
_LONGEST_NUMBERS = 100
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PrecisionName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"What to compute, or to store weights, in: {', '.join(PRECISIONS)}.",
        autocompletion=completion.precisions,
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        help="Largest loss of a classifier's top-1, in points, that passes.",
        show_default=f"{MAX_DROP}",
        rich_help_panel=LIMITS,
    ),
]
MinCosine = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Smallest mean cosine of an embedding model's features with float32's that passes.",
        show_default=f"{MIN_COSINE}",
        rich_help_panel=LIMITS,
    ),
]
L2Normalize = Annotated[
    bool, typer.Option("--l2-normalize", help="Scale an embedding model's features to length 1.", rich_help_panel=MODEL)
]

Activation = Annotated[
    str | None,
    typer.Option(
        metavar="softmax|sigmoid",
        help="Probabilities of classes of which one is right, or of each label by itself.",
        show_default="the config's, or softmax; sigmoid for one logit",
        rich_help_panel=MODEL,
    ),
]
RawWeights = Annotated[
    bool,
    typer.Option(
        "--raw-weights",
        help="Take the weights of the last step, where a file has averaged ones (EMA).",
        rich_help_panel=MODEL,
    ),
]


def image_size(text: str | None) -> tuple[int, int] | None:
    """Return height and width of an image size as users write it: 384, or 256x512.

    Raises:
        InputError: if it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if match is None:
        raise InputError(f"'{text}' is no image size", remedy="write one number, or HEIGHTxWIDTH, such as 256x512")
    return int(match[1]), int(match[2] or match[1])


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers that a user gave to ``option``: some with commas between them, fractions as 1/255 too.

    Raises:
        InputError: if they are none.
    """
    if text is None:
        return None
    try:
        return tuple(float(Fraction(part.strip())) for part in text[:_LONGEST_NUMBERS].split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise InputError(
            f"'{text[:_LONGEST_NUMBERS]}' is no number, and no numbers with commas between them",
            remedy=f"write {option} 0.5, or {option} 0.485,0.456,0.406",
        ) from None


def resizing(text: str | None) -> int | Literal["squash"] | None:
    """Return what a user wants of the size before the crop: the short edge, in pixels, or ``squash``.

    Raises:
        InputError: if it is neither.
    """
    if text is None:
        return None
    if text == "squash":
        return "squash"
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise InputError(f"'{text}' is no size", remedy="write --resize 256, or --resize squash")
    return int(text)


def crop_share(text: str | None) -> float | None:
    """Return the crop that a user wants, in parts of the short edge before it.

    Raises:
        InputError: if it is no number above 0 and up to 1.
    """
    if text is None:
        return None
    (share, *more) = numbers("--crop", text) or (0.0,)
    if more or not 0 < share <= 1:
        raise InputError(
            f"'{text[:_LONGEST_NUMBERS]}' is no part of the short edge",
            remedy="write --crop 0.875; the size of the crop itself is --image-size",
        )
    return share


def overrides(
    preprocess: Path | None,
    mean: str | None,
    std: str | None,
    resize: str | None,
    crop: str | None,
    interpolation: str | None,
) -> Overrides:
    """Return what a user says of how images are prepared.

    Raises:
        InputError: if something is not understood, or --resize and --crop are both given.
    """
    if resize is not None and crop is not None:
        raise InputError("--resize and --crop both say what is cut out", remedy="give one of them")
    return Overrides(
        preprocess=preprocess,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        resize=resizing(resize),
        crop=crop_share(crop),
        interpolation=filter_called(interpolation),
    )


def filter_called(text: str | None) -> Interpolation | None:
    """Return the interpolation that a user has named.

    Raises:
        InputError: if there is none.
    """
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    for name in known:
        if name == text:
            return name
    if text is not None:
        raise InputError(f"there is no interpolation '{text}'", remedy=nearest(text, known))
    return None


def activation_called(text: str | None) -> OutputActivation | None:
    """Return what makes probabilities of logits, as a user has named it.

    Raises:
        InputError: if there is no such thing.
    """
    known: tuple[OutputActivation, ...] = get_args(OutputActivation)
    for name in known:
        if name == text:
            return name
    if text is not None:
        raise InputError(f"--activation knows no '{text}'", remedy=nearest(text, known))
    return None


def precision_called(text: str) -> Precision:
    """Return the precision that a user has named.

    Raises:
        InputError: if there is none; the remedy names the closest.
    """
    for precision in PRECISIONS:
        if precision == text:
            return precision
    raise InputError(f"there is no precision '{text}'", remedy=nearest(text, PRECISIONS, PRECISIONS_ELSEWHERE))


def collector(*, strict: bool) -> Unreadable:
    """Return what happens with an image that cannot be read: it stops the command, or it is named and counted."""
    return Strict() if strict else Unreadable()


def existing(*, overwrite: bool) -> Existing:
    """Return what happens to a bundle that is in the place of the new one."""
    return "replace" if overwrite else "refuse"


def chosen_targets(names: list[str] | None) -> dict[str, Target]:
    """Return the targets called ``names``; if there are none, those for this machine's processor and its backends.

    Raises:
        InputError: if there is no such target, or none is for this machine.
        MissingDependencyError: if no backend is installed.
    """
    if names:
        return {name: load_target(name) for name in names}
    own = _own_targets()
    found = {name: target for name, target in own.items() if target.backend in available_backends()}
    if not found:
        engines = ",".join(sorted({target.backend for target in own.values()}))
        raise MissingDependencyError("no backend is installed", remedy=f'pip install "edgevit[{engines}]"')
    return found


def targets_for_dialect(dialect: str) -> dict[str, Target]:
    """Return the target for a dialect; where several have it, this machine's; for "auto", all that run here.

    Raises:
        InputError: if none is for this machine.
        MissingDependencyError: if no backend is installed.
    """
    if dialect == "auto":
        return chosen_targets(None)
    own: dict[str, str] = {target.dialect: name for name, target in _own_targets().items()}
    elsewhere = {"onnxruntime": "x86-onnxruntime", "openvino": "x86-openvino"}
    return chosen_targets([own.get(dialect) or elsewhere.get(dialect, dialect)])


def _own_targets() -> dict[str, Target]:
    own = own_targets(platform.machine())
    if not own:
        raise InputError(
            f"no target is for a processor called {platform.machine()}",
            remedy="edgevit targets lists all; name one with --target",
        )
    return own
