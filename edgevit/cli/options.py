"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgevit.bundle.manifest import PRECISIONS
from edgevit.bundle.store import Existing
from edgevit.cli import completion
from edgevit.data.batches import Strict, Unreadable
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE
from edgevit.evaluation.output_limits import MIN_BOX_AGREEMENT, MIN_DELTA1, MIN_MIOU
from edgevit.machine.power import NAMES as ENERGY_NAMES
from edgevit.models.outputs import OUTPUT_KINDS

#: Groups of options in the help.
MODEL = "The model"
TIMING = "Timing"
READING = "Reading images"
ELSEWHERE = "On other devices"
LIMITS = "What passes"
OF_ONNX = "What an ONNX file does not say itself"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder that 'edgevit export' made, or a pack.")]
OneVariant = Annotated[
    str | None,
    typer.Option(
        "--variant",
        help="Which variant runs.",
        show_default="the fastest that passed",
        autocompletion=completion.variants,
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A RUN, a file of weights, a Hugging Face folder, hf://owner/name, a built-in name, or an .onnx file.",
        autocompletion=completion.sources,
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The bundle to make: a folder, usually NAME.edgevit.")
]
OutputsOption = Annotated[
    list[str],
    typer.Option(
        "--output",
        "-o",
        help="The bundle to make: a folder, usually NAME.edgevit. Given again, what a checkpoint is to give in place "
        "of its logits or features: tokens, blocks=2,5,8,11, embedding, logits.",
    ),
]
OnnxOutputs = Annotated[
    list[str] | None,
    typer.Option(
        "--onnx-output",
        help=f"An output to use, as NAME or NAME=KIND; can be given again. Kinds: {', '.join(OUTPUT_KINDS)}.",
        show_default="logits, or all",
        rich_help_panel=OF_ONNX,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE|HxW",
        help="Use another resolution: positions are interpolated.",
        show_default="the checkpoint's",
        rich_help_panel=MODEL,
    ),
]
HeadsOption = Annotated[
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
    _of_images("Their standard deviation. With --mean 0, 1 leaves pixels in 0..1, 1/255 in 0..255.", "as files say"),
]
_RESIZE = "Short edge before the crop, in pixels; or squash, or pad or letterbox: the ratio is kept."
ResizeOption = Annotated[str | None, _of_images(_RESIZE, "as files say")]
ColoursOption = Annotated[str | None, _of_images("Order in which the model takes channels: rgb or bgr.", "rgb")]
Filter = Annotated[str | None, _of_images("bicubic, bilinear, nearest, lanczos, ...", "as files say")]
_CROP = "Or the crop as a fraction of the resized edge, such as 0.875 (timm's crop_pct)."
Crop = Annotated[str | None, _of_images(_CROP, "as files say", "--crop", "--center-crop")]
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
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="USER@HOST[:PORT]",
        help="Do it there, over ssh, or on a device of 'edgevit devices'; can be given again.",
        show_default="on this machine",
        autocompletion=completion.devices,
        rich_help_panel=ELSEWHERE,
    ),
]
HostPython = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="The Python there that has an engine.",
        show_default="an environment is made",
        rich_help_panel=ELSEWHERE,
    ),
]
Keep = Annotated[
    bool,
    typer.Option("--keep", help="Leave there what was sent, for the next run.", rich_help_panel=ELSEWHERE),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="Build for this target; can be given again.", autocompletion=completion.targets),
]
TokenBudgets = Annotated[
    list[str] | None,
    typer.Option(
        "--token-budget",
        metavar="SHARE",
        help="INT8 with tokens merged by this budget, too: 0.8, say, or auto; can be given again.",
    ),
]
PrecisionName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"What to compute, or to store weights, in: {', '.join(PRECISIONS)}.",
        autocompletion=completion.precisions,
    ),
]
CalibrationData = Annotated[
    str | None, typer.Option(help="Calibration images.", show_default="the training part of --data")
]
RecipeName = Annotated[
    str,
    typer.Option(help="How to calibrate: a name (edgevit recipes) or a TOML file.", autocompletion=completion.recipes),
]
TimedBatch = Annotated[int, typer.Option(help="Images per timed inference.", rich_help_panel=TIMING)]
TimedThreads = Annotated[int, typer.Option(help="Threads of a timed inference; 0: all cores.", rich_help_panel=TIMING)]
TimedDuration = Annotated[float, typer.Option(help="Seconds of timing, per variant.", rich_help_panel=TIMING)]
EnergyFrom = Annotated[
    str,
    typer.Option(
        metavar="NAME|PATH",
        help=f"Where energy is read from: {', '.join(ENERGY_NAMES)}, a hwmon chip, or a sensor's file.",
        rich_help_panel=TIMING,
    ),
]
MaxEnergy = Annotated[
    float | None,
    typer.Option(
        min=0, help="Most energy of an inference, above idle, in mJ.", show_default="none", rich_help_panel=LIMITS
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
        help="Smallest mean cosine with float32's that passes: of an embedding model's features, of tokens and maps.",
        show_default=f"{MIN_COSINE}",
        rich_help_panel=LIMITS,
    ),
]
MinMiou = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Smallest mean IoU of masks with float32's that passes.",
        show_default=f"{MIN_MIOU}",
        rich_help_panel=LIMITS,
    ),
]
MinDelta1 = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Smallest share of depths within a factor of 1.25 of float32's that passes.",
        show_default=f"{MIN_DELTA1}",
        rich_help_panel=LIMITS,
    ),
]
MinBoxAgreement = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Smallest F1 of boxes that match one of float32's (IoU of 0.5, same class) that passes.",
        show_default=f"{MIN_BOX_AGREEMENT}",
        rich_help_panel=LIMITS,
    ),
]
MaxAbsRel = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Largest mean relative difference of depths from float32's (AbsRel) that passes.",
        show_default="none",
        rich_help_panel=LIMITS,
    ),
]


def _integer_share(default: str) -> Any:  # noqa: ANN401 - as Typer declares it
    return typer.Option(
        min=0,
        max=1,
        help="Smallest share of the multiply-adds, in 0..1, that INT8 must run in integers to pass.",
        show_default=default,
        rich_help_panel=LIMITS,
    )


MinIntegerShare = Annotated[float | None, _integer_share("none")]
RecipeIntegerShare = Annotated[float | None, _integer_share("the recipe's")]
L2Normalize = Annotated[
    bool, typer.Option("--l2-normalize", help="Scale an embedding model's features to length 1.", rich_help_panel=MODEL)
]

ActivationOption = Annotated[
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


def collector(*, strict: bool) -> Unreadable:
    """Return what happens with an image that cannot be read: it stops the command, or it is named and counted."""
    return Strict() if strict else Unreadable()


def existing(*, overwrite: bool) -> Existing:
    """Return what happens to a bundle that is in the place of the new one."""
    return "replace" if overwrite else "refuse"
