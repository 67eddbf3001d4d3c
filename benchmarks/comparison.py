"""EdgeViT's variants and its peers' files for one model, made from the same checkpoint and calibration images."""

from __future__ import annotations

import itertools
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from peers import PEERS, Material, Peer

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict
from edgevit.evaluation.environment import environment
from edgevit.files import write_atomically
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.spec import PRESETS
from edgevit.models.vit import VisionTransformer
from edgevit.recipes import Recipe
from edgevit.stages.export import export
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.stages.quantize_merged import quantize_merged
from edgevit.stages.rules import Rules
from edgevit.targets import load_target

TARGETS = ("x86-onnxruntime", "x86-openvino")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to measure, or why there is none; ``seconds`` is what making it took."""

    name: str
    description: str
    backend: str
    model: Path | None
    settings: Mapping[str, str]
    seconds: float | None = None
    missing: str | None = None


def checkpoint_of(source: str) -> Checkpoint:
    """Load ``source``; the name of a preset gives random weights, which are as fast as any others."""
    if source not in PRESETS:
        return load_checkpoint(source)
    import torch

    from edgevit.data.preprocess import Preprocess

    torch.manual_seed(0)
    spec = PRESETS[source]
    preprocess = Preprocess(size=spec.image_size, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    labels = tuple(str(number) for number in range(spec.classes))
    return Checkpoint(spec, VisionTransformer(spec).state_dict(), preprocess, labels, source)


def prepare(
    source: str,
    calibration: DataSource,
    folder: Path,
    *,
    recipe: Recipe,
    threads: int,
    only: Sequence[str] = (),
    budgets: Sequence[float] = (),
) -> tuple[Bundle, list[Entry]]:
    """Make EdgeViT's variants by ``recipe`` and the peers' files; ``only`` names peers, all if it names none.

    For each of ``budgets`` there are variants with tokens merged, too.
    """
    checkpoint = checkpoint_of(source)
    bundle = export(checkpoint, folder / "ours.edgevit", DataSource(calibration.name, "train", Strict(), samples=8))
    targets = {name: load_target(name) for name in TARGETS}
    started = time.monotonic()
    rules = Rules(observer=recipe.observer, rewrites=recipe.rewrites)
    bundle = quantize(bundle, calibration, targets, rules=rules).bundle
    seconds = time.monotonic() - started
    for budget, (name, target) in itertools.product(budgets, targets.items()):  # a schedule for each engine
        bundle = quantize_merged(bundle, calibration, {name: target}, budget, rules=rules).bundle
    entries = [
        Entry(
            f"EdgeViT {variant.name}",
            "",
            variant.backend,
            bundle.verify_files(variant.name),
            variant.settings,
            seconds if variant.precision == "int8" else None,
        )
        for variant in bundle.manifest.variants
    ]
    material = Material(checkpoint, bundle.verify_files("float32"), calibration.load(), threads)
    chosen = [peer for peer in PEERS if not only or peer.name in only]
    for peer in chosen:
        entries += _opened(_made(peer, material, folder))
    return bundle, entries


def _made(peer: Peer, material: Material, folder: Path) -> Entry:
    entry = Entry(peer.name, peer.description, peer.backend, None, _settings(peer.backend)[0])
    missing = peer.missing()
    if missing is not None:
        return replace(entry, missing=f"{missing} is not installed")
    own = folder / peer.name.replace(" ", "-").replace(",", "")
    own.mkdir()
    print(f"making {peer.name}", file=sys.stderr)
    started = time.monotonic()
    try:
        model = peer.make(material, own)
    except Exception as error:  # noqa: BLE001  # a peer may fail in any way, and the table says so
        traceback.print_exc()
        return replace(entry, missing=f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
    return replace(entry, model=model, seconds=time.monotonic() - started)


def _settings(backend: str) -> Sequence[Mapping[str, str]]:
    """Return what EdgeViT may open its own INT8 with, for a fair comparison; inductor has no settings."""
    own = {load_target(name).backend: load_target(name).choices_for("int8") for name in TARGETS}
    return own.get(backend, [{}])  # type: ignore[call-overload, no-any-return]


def _opened(entry: Entry) -> list[Entry]:
    """Return ``entry`` once for each way to open it: where EdgeViT may take what is fastest, its peers may too."""
    first, *others = _settings(entry.backend)
    if entry.model is None:
        return [entry]
    more = [(", ".join(value for key, value in each.items() if first[key] != value), each) for each in others]
    return [entry, *(replace(entry, name=f"{entry.name}, {different}", settings=each) for different, each in more)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def missing_lines(entries: Sequence[Entry]) -> list[str]:
    """Say which peers are not in the table, and why."""
    return [f"- {entry.name}: {entry.missing}" for entry in entries if entry.missing is not None]


def machine(threads: int) -> str:
    """Return where this runs."""
    here = environment()
    names = ("onnxruntime", "openvino", "nncf", "torch", "torchao", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names if version(name))
    return (
        f"{here.measured_at}: {here.cpu}, {here.cores} cores, {' '.join(here.cpu_features)}; {here.os}, "
        f"Python {here.python}, {versions}; batch 1, {threads} threads."
    )


def version(name: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def write_section(path: Path, heading: str, section: Sequence[str]) -> None:
    """Write the lines of ``section``, whose first is its title, to the Markdown file ``path``, called ``heading``.

    Other sections stay there; an older one of the same title goes.
    """
    title, *_ = section
    found = path.read_text(encoding="utf-8") if path.exists() else f"# {heading}\n"
    first, *parts = found.split("\n## ")
    kept = [first, *(f"## {part}" for part in parts if not f"## {part}".startswith(f"{title}\n"))]
    text = "\n\n".join([*(part.strip("\n") for part in kept), "\n".join(section).strip("\n")])
    write_atomically(path, f"{text}\n".encode())
