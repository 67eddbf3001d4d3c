"""What TensorRT-RTX's compiler makes of each model: kernels, products in integers or FP8, fused attentions.

    python benchmarks/tensorrt_kernels.py [--write]

For the built-in model, and the sizes of DeiT-tiny and ViT-S with random weights (kernels depend on sizes), in FP16,
INT8 and FP8, with attention in float16 and quantized, as recipe `default` plans them, and for DeiT-tiny with merged
tokens; for three generations of GPUs, of which none has to be there. Prints a Markdown table, or writes it to
results/tensorrt-kernels.md. Batch 1.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from edgevit.backends.base import BatchProfile
from edgevit.backends.kernel_report import KernelReport
from edgevit.backends.tensorrt.bindings import Bindings, load_bindings
from edgevit.backends.tensorrt.builder import EngineBuild, build_engine
from edgevit.backends.tensorrt.engine_report import report_of_log
from edgevit.backends.tensorrt.fusion_limits import has_fp8
from edgevit.backends.tensorrt.log import DetailedLog
from edgevit.bundle.model_files import metadata_of_onnx
from edgevit.data.preprocess import Preprocess
from edgevit.files import sha256_of
from edgevit.graph.linears import load_graph
from edgevit.graph.node_facts import PRODUCTS, noted_products
from edgevit.graph.torch_export import export_onnx
from edgevit.models.loading import load_checkpoint
from edgevit.models.spec import BUILTIN, ModelSpec, preset
from edgevit.models.vit import VisionTransformer
from edgevit.quantization.calibration.calibrate import calibrate
from edgevit.quantization.emit import AttentionForm, emit, emit_float8
from edgevit.quantization.float16.convert import Float16Plan, emit_float16
from edgevit.quantization.plan import AttentionPlan
from edgevit.quantization.ptq import FloatModel, PtqModel, rewrite_and_plan
from edgevit.quantization.rewrites.passes import Options
from edgevit.recipes import load_recipe

MODELS = {"built-in": "fashion-micro", "DeiT-tiny": "vit-tiny", "ViT-S": "vit-small"}
#: What it is called, a size whose tokens are merged, and how many in each block.
MERGED = ("DeiT-tiny, 16 tokens merged in seven blocks", "vit-tiny", (0, 0, 0, 0, 16, 16, 16, 16, 16, 16, 16, 0))
GPUS = ("8.6", "8.9", "12.0")
RESULTS = Path(__file__).parent / "results" / "tensorrt-kernels.md"


class Model(NamedTuple):
    """A model as it was exported, and optimized for INT8."""

    exported: Path
    ptq: PtqModel


#: Writes a form of a model to a path.
Emit = Callable[[Model, Path], object]


def _fp16(model: Model, path: Path) -> None:
    plan = Float16Plan(model_sha256=sha256_of(model.exported), images=1, images_sha256="0" * 64, float32_nodes={})
    emit_float16(load_graph(model.exported), plan.model_sha256, plan, path)


def _int8(model: Model, path: Path, attention: AttentionForm = "float") -> None:
    emit(model.ptq, "tensorrt", path, attention=attention)


def _fp8(model: Model, path: Path, attention: AttentionForm = "float") -> None:
    emit_float8(model.ptq, "tensorrt", path, attention=attention)


FORMS: dict[str, Emit] = {
    "FP16": _fp16,
    "INT8": _int8,
    "INT8, attention too": partial(_int8, attention="quantized"),
    "FP8": _fp8,
    "FP8, attention too": partial(_fp8, attention="quantized"),
}


def plan_model(name: str, folder: Path) -> Model:
    """Return a built-in model, or a preset with random weights, and its plan."""
    if name in BUILTIN:
        checkpoint = load_checkpoint(name)
        return _planned(checkpoint.model(), checkpoint.preprocess, folder)
    return plan_random(preset(name), folder)


def plan_random(spec: ModelSpec, folder: Path, token_schedule: Sequence[int] = ()) -> Model:
    """Return a model with random weights, whose tokens are merged by ``token_schedule``, and its plan."""
    torch.manual_seed(0)
    wants = Preprocess(size=spec.image_size, resize=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return _planned(VisionTransformer(spec).eval(), wants, folder, token_schedule)


def _planned(vit: VisionTransformer, wants: Preprocess, folder: Path, token_schedule: Sequence[int] = ()) -> Model:
    """Return a model and its plan, with files in the new ``folder``, as recipe `default` makes them of a random image.

    Weights are not rounded to suit the image, which changes no kernel.
    """
    folder.mkdir()
    spec, exported = vit.spec, folder / "exported.onnx"
    export_onnx(vit, exported, preprocess=wants, labels=tuple(f"class {index}" for index in range(spec.classes)))
    image = np.random.default_rng(0).normal(size=(1, spec.channels, *spec.image_size)).astype(np.float32)
    recipe = load_recipe("default")
    assert recipe.observer != "auto"  # which takes trials
    source = FloatModel.read(exported, sha256_of(exported), token_schedule=token_schedule)
    table = calibrate(source.model, [image], total=1, model_sha256=source.sha256, rotated=source.rotated)
    options = Options("symmetric", table.images, recipe.observer, recipe.rewrites)
    rewritten, plan = rewrite_and_plan(source.model, table, options)
    attentions = tuple(
        AttentionPlan(name=f"blocks.{block}.attn", query_scale=0.02, key_scale=0.02, value_scale=0.02)
        for block in range(spec.depth)
    )
    return Model(exported, PtqModel(rewritten, msgspec.structs.replace(plan, attentions=attentions)))


def compile_form(bindings: Bindings, model: Model, form: str, compute_capability: str) -> KernelReport:
    """Return the report of the kernels that ``form`` of ``model`` becomes; what was emitted once is used again."""
    path, log = model.exported.with_name(f"{form}.onnx"), DetailedLog()
    if not path.exists():
        FORMS[form](model, path)
    build_engine(
        bindings, EngineBuild(model=path, compute_capability=compute_capability, batch=BatchProfile()), log=log
    )
    products = noted_products(metadata_of_onnx(path).get(PRODUCTS))
    return report_of_log(log.lines, products)


def rows(folder: Path) -> Iterator[Sequence[object]]:
    """Yield the rows of the table."""
    bindings = load_bindings("tensorrt-rtx")
    models = {shown: plan_model(name, folder / name) for shown, name in MODELS.items()}
    merged, name, schedule = MERGED
    models[merged] = plan_random(preset(name), folder / "merged", schedule)
    for shown, model in models.items():
        for form in FORMS:
            if shown == merged and form == "FP16":
                continue  # which merges none
            for gpu in GPUS:
                if form.startswith("FP8") and not has_fp8(gpu):
                    continue
                report = compile_form(bindings, model, form, gpu)
                wanted = {"INT8": "int8", "FP8": "float8"}.get(form[:4].strip(" ,"), "float16")
                linears = sum(linear.kernel.endswith(f" {wanted}") for linear in report.linears)
                fused = ", ".join(f"{count} {kind}" for kind, count in report.counts.fused_attentions.items())
                yield (
                    *(shown, form, gpu, report.counts.kernels, f"{linears} of {len(report.linears)} {wanted}"),
                    *(f"{fused} of {len(report.attentions)}", report.counts.reformats),
                )


def table() -> Iterator[str]:
    """Yield the lines of the table, each when it is known."""
    head = ("model", "form", "compute capability", "kernels", "Linear layers", "fused attentions", "only move or cast")
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder)):
            yield f"| {' | '.join(map(str, row))} |"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} instead")
    if not parser.parse_args().write:
        for line in table():
            print(line, flush=True)
        return
    version = load_bindings("tensorrt-rtx").version
    head = (
        "# Kernels in TensorRT engines\n\nWritten by `python benchmarks/tensorrt_kernels.py --write` with TensorRT-RTX "
        f"{version}, which needs no GPU, {datetime.now(timezone.utc):%Y-%m-%d}. Batch 1.\n\n"
    )
    RESULTS.write_text(head + "\n".join(table()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
