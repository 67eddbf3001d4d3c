"""INT8 of hybrids against our own float32, at batch 1: time, share of multiply-adds in integers, nearness to float32.

    python benchmarks/hybrids.py --calibration CSV --evaluation CSV [mobilevit_s tiny_vit_5m_224 fastvit_t8] [--peers]

timm's models with seeded weights: BatchNorm's and LayerScale's are drawn, too, as timm begins some with 0, and
BatchNorm's statistics are those of the calibration photos. Each goes the whole way: export by torch, then EdgeViT's
export and quantize. Times are medians over interleaved blocks, with a bootstrap interval of the ratio. Writes a
Markdown table for each model. With ``--peers`` the files of onnxruntime's quantize_static and of NNCF
(``benchmarks/requirements-peers.txt``) are beside them. Needs timm (tests/requirements-nodeps.txt).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from command_line import command_line
from comparison import machine, markdown
from numpy.typing import NDArray
from peers import PEERS, Material
from torch import nn

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Latency, Variant
from edgevit.data.batches import Strict, batches
from edgevit.evaluation.candidates import Candidate
from edgevit.evaluation.latency import measure_latency
from edgevit.evaluation.load import Load
from edgevit.files import write_atomically
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.recipes import load_recipe
from edgevit.report.arithmetic import in_integers
from edgevit.report.formats import NOTHING, decibels, milliseconds, percent, ratio_interval, speed_up
from edgevit.report.table import float_layers
from edgevit.stages.export import export
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.stages.rules import Rules
from edgevit.statistics import agreement, sqnr_db
from edgevit.targets import load_target

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from oracles import import_timm
from seeding import seed_as_trained

MODELS = ("mobilevit_s", "tiny_vit_5m_224", "fastvit_t8")
TARGETS = ("x86-onnxruntime", "x86-openvino")
HEADER = ("what", "p50", "float32's time over its", "95 % interval", "agreement", "SQNR", "in integers", "")
COMPARED = ("ort static", "nncf")  # peers, by name
STATISTICS = 48  # photos that BatchNorm sees


@dataclass(frozen=True, slots=True)
class Measured:
    """A file, what it is opened with, and its outputs for the photos to judge by; what runs in integers, if known."""

    candidate: Candidate
    outputs: NDArray[np.float32]
    integers: str = ""


def seeded(name: str, photos: torch.Tensor) -> nn.Module:
    """Return timm's model with weights of seed 0, as if it were trained: no branch of it is switched off."""
    torch.manual_seed(0)
    model: nn.Module = import_timm().create_model(name, pretrained=False)
    return seed_as_trained(model, photos)


def exported(name: str, calibration: DataSource, folder: Path) -> OnnxModel:
    """Return the ONNX file that torch makes of the model."""
    timm = import_timm()
    side = timm.get_pretrained_cfg(name).input_size[-1]
    file = folder / f"{name}.onnx"

    def write(model: nn.Module) -> OnnxModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                torch.zeros(1, 3, side, side),
                file,
                dynamo=False,
                opset_version=17,
                input_names=["images"],
                output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}},
            )
        return open_onnx(file, name, MetadataOverrides())

    torch.manual_seed(0)
    preprocess = write(timm.create_model(name, pretrained=False).eval()).preprocess
    read = batches(calibration.load(), preprocess, batch_size=STATISTICS, unreadable=Strict())
    return write(seeded(name, torch.from_numpy(next(iter(read)).images)))


def outputs_of(candidate: Candidate, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a file gives for ``images``, one at a time."""
    with get_backend(candidate.backend).open(candidate.model, threads=0, settings=candidate.settings) as session:
        return np.concatenate([session.infer(image[None]) for image in images])


def peers(model: OnnxModel, float32: Path, calibration: DataSource, folder: Path, threads: int) -> list[Candidate]:
    """Return what the peers that are installed make of the same file and photos."""
    material = Material(model, float32, calibration.load(), threads)  # type: ignore[arg-type]  # has the same fields
    found = []
    for peer in PEERS:
        if peer.name in COMPARED and peer.missing() is None:
            own = folder / peer.name.replace(" ", "-")
            own.mkdir()
            settings = {} if peer.backend == "onnxruntime" else {"INFERENCE_PRECISION_HINT": "f32"}
            made = peer.make(material, own)
            found.append(
                Candidate(
                    name=peer.name,
                    backend=peer.backend,
                    model=made,
                    settings=settings,
                    baseline=f"float32-{peer.backend}",
                )
            )
    return found


def row(measured: Measured, latency: Latency, reference: NDArray[np.float32]) -> list[str]:
    """Return the cells of one file."""
    noise, interval = sqnr_db(reference, measured.outputs), latency.speedup_ci95
    return [
        measured.candidate.name,
        milliseconds(latency.p50_ms),
        NOTHING if latency.speedup_vs_float32 is None else speed_up(latency.speedup_vs_float32),
        NOTHING if interval is None else ratio_interval(interval),
        percent(agreement(reference, measured.outputs)),
        NOTHING if noise is None else decibels(noise),
        measured.integers,
        "" if latency.valid else f"? {latency.invalid_reason}",
    ]


def measure(name: str, options: argparse.Namespace) -> list[str]:
    """Return the section of one model."""
    calibration = DataSource(options.calibration, "train", Strict(), samples=options.samples)
    evaluation = DataSource(options.evaluation, "validation", Strict(), samples=options.images)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, recipe = exported(name, calibration, folder), load_recipe("default")
        bundle = export(
            model, folder / f"{name}.edgevit", DataSource(options.calibration, "train", Strict(), samples=8)
        )
        targets = {target: load_target(target) for target in TARGETS}
        bundle = quantize(
            bundle, calibration, targets, rules=Rules.of(recipe, "int8", classes=bundle.manifest.classes)
        ).bundle
        variants = [variant for variant in bundle.manifest.variants if variant.name != "float32"]

        def candidate(variant: Variant) -> Candidate:
            file = bundle.verify_files(variant.name)
            return Candidate(
                name=variant.name,
                backend=variant.backend,
                model=file,
                settings=variant.settings,
                baseline=f"float32-{variant.backend}",
            )

        candidates = [candidate(variant) for variant in variants]
        said = {each.name: in_integers(each.kernels) for each in variants if each.kernels and each.precision == "int8"}
        if options.peers:
            candidates += peers(model, bundle.verify_files("float32"), calibration, folder, options.threads)
        read = batches(evaluation.load(), bundle.manifest.preprocess, batch_size=16, unreadable=Strict())
        images = np.concatenate([batch.images for batch in read])
        found = [Measured(each, outputs_of(each, images), said.get(each.name, "")) for each in candidates]
        times = measure_latency(
            candidates,
            Load(threads=options.threads, duration_s=options.duration),
            spec=bundle.manifest.model,
        )
        rows = [row(each, latency, found[0].outputs) for each, latency in zip(found, times, strict=True)]
        remarks = [f"- {line}" for line in float_layers(variants)]
    return [f"## {name}", "", markdown(HEADER, rows), "", *remarks, ""]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--samples", type=int, default=64, help="calibration images (%(default)s)")
    parser.add_argument("--images", type=int, default=200, help="to judge by (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--duration", type=float, default=10, help="seconds per file, about (%(default)s)")
    parser.add_argument("--peers", action="store_true", help="beside onnxruntime's and NNCF's files")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/hybrids.md"))
    options = parser.parse_args()
    text = [
        "# INT8 of hybrids",
        "",
        f"Written by `{command_line()}`; seeded weights, recipe `default`.",
        "",
        machine(options.threads),
        "",
    ]
    for name in options.models:
        text += measure(name, options)
    write_atomically(options.output, ("\n".join(text).rstrip() + "\n").encode())
    print("\n".join(text))


if __name__ == "__main__":
    main()
