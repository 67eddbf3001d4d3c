"""docs/results.md: what was measured on each device, from the bundles that it was measured in.

    python benchmarks/devices.py add BUNDLE --command "edgevit race ..." [--device NAME]
    python benchmarks/devices.py

``add`` keeps the figures of a bundle in benchmarks/results/devices/: this machine's, or those that ``--host`` brought
from the device NAME. Both write the page again from what is kept there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgevit.bundle.manifest import DeviceVariant, Environment, LimitEvidence, Variant
from edgevit.bundle.store import Bundle
from edgevit.files import write_atomically
from edgevit.report.formats import NOTHING, milliseconds, percent, percent_interval, points, ratio_interval, speed_up
from edgevit.stages.race_result import word_of

FOLDER, PAGE = Path("benchmarks/results/devices"), Path("docs/results.md")
_ENGINES = ("onnxruntime", "openvino", "tensorrt")
HEADER = ("device", "variant", "top-1 (95 %)", "change", "p50", "speed-up (95 %)", "verdict")

ABOVE = """# Results by device

Each row is one variant of one model on one device, with the batch of the command. The verdict is that of
[the race](quantization.md#the-race-which-variant-ships). Runs marked `?` were disturbed. This page is written by
`python benchmarks/devices.py`; [on a board](boards.md) says how to add yours.
"""

BELOW = """## ARM64, emulated

Answers are verified under emulation; speed is not measured. `make test-arm64` runs ten variants on an emulated Neoverse
N1 and [compares them](../benchmarks/results/arm64.md) with x86-64. float32 agrees within 1e-4 of a logit and INT8
within 0.05.

## What others publish

These figures are not ours: calibration, images and settings differ, and we do not know all of them.

| device | model | variant | top-1 | latency | whose |
| --- | --- | --- | --- | --- | --- |
| Raspberry Pi 5 | DeiT-tiny | INT8, ExecuTorch with XNNPACK | 71.36 % | 26.4 ms | Arm, on the Hugging Face Hub |
| Jetson Orin Nano | ViT-B/16 | FP16, TensorRT 10.3 | 85.3 % | 5.7 ms | [onnxsim#1742][onnxsim], Imagenette |
| Jetson Orin Nano | ViT-B/16 | INT8 Linear layers, ModelOpt | 84.5 % | 4.9 ms | [onnxsim#1742][onnxsim], Imagenette |

[onnxsim]: https://github.com/onnxsim/onnxsim/pull/1742
"""


class Kept(msgspec.Struct, kw_only=True):
    """The figures of one bundle on one device."""

    device: str
    model: str
    command: str
    environment: Environment
    variants: list[list[str]]


def kept(bundle: Bundle, command: str, device: str | None) -> Kept:
    """Return what is to be kept of a bundle.

    Raises:
        SystemExit: if nothing was measured there.
    """
    manifest = bundle.manifest
    if device is None:
        variants: tuple[Variant | DeviceVariant, ...] = manifest.variants
    else:
        variants = next((each.variants for each in manifest.devices if each.name == device), ())
    timed = [each for each in variants if each.latency is not None and each.accuracy is not None]
    if not timed:
        raise SystemExit(f"{bundle.path} has no figures of {device or 'this machine'}: {command}")
    latency = timed[0].latency
    assert latency is not None
    rows = [_row(each, getattr(each, "evidence", ())) for each in timed]
    place = latency.environment
    return Kept(
        device=device or f"{place.cpu}, {place.cores} cores",
        model=f"{manifest.name}, {timed[0].accuracy.images if timed[0].accuracy else 0} images, batch {latency.batch}, "
        f"{latency.threads} threads",
        command=command,
        environment=place,
        variants=rows,
    )


def _row(variant: Variant | DeviceVariant, evidence: tuple[LimitEvidence, ...]) -> list[str]:
    accuracy, latency = variant.accuracy, variant.latency
    assert accuracy is not None
    assert latency is not None
    doubt = "" if latency.valid else " ?"
    interval = percent_interval(accuracy.top1_ci95, accuracy.images)
    speed = f"{speed_up(latency.speedup_vs_float32)} ({ratio_interval(latency.speedup_ci95)}){doubt}"
    reference = variant.precision == "float32"
    word = word_of(evidence) if evidence else "passed" if accuracy.passed else "failed"
    return [
        variant.name,
        NOTHING if accuracy.top1 is None else f"{percent(accuracy.top1, accuracy.images)} ({interval})",
        points(accuracy.delta_top1, accuracy.images),
        f"{milliseconds(latency.p50_ms)}{doubt}",
        NOTHING if reference or latency.speedup_vs_float32 is None else speed,
        "reference" if reference and word == "passed" else word,
    ]


def page() -> str:
    """Return docs/results.md."""
    files = sorted(FOLDER.glob("*.json"))
    sections = (_section(msgspec.json.decode(file.read_bytes(), type=Kept)) for file in files)
    return "\n".join([ABOVE, *(line for section in sections for line in section), BELOW])


def _section(found: Kept) -> Iterator[str]:
    place = found.environment
    engines = ", ".join(
        f"{name} {place.packages[name]}" for name in ("onnxruntime", "openvino") if name in place.packages
    )
    yield f"## {found.device}: {found.model}\n"
    where = f"{place.cpu}, {' '.join(place.cpu_features)}; {place.os}, Python {place.python}, {engines}"
    yield f"`{found.command}`, {place.measured_at[:10]}: {where}.\n"
    yield f"| {' | '.join(HEADER)} |"
    yield f"|{' --- |' * len(HEADER)}"
    for row in found.variants:
        yield f"| {found.device} | {' | '.join(row)} |"
    yield ""


def main() -> None:
    """Keep figures if asked to, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["add"])
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--command")
    parser.add_argument("--device")
    given: Any = parser.parse_args()
    if given.what:
        if given.bundle is None or not given.command:
            parser.error("add takes a BUNDLE and the --command that measured it")
        found = kept(Bundle.open(given.bundle), given.command, given.device)
        name = re.sub(r"[^a-z0-9]+", "-", f"{found.device} {found.model}".lower()).strip("-")
        content = json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False) + "\n"
        FOLDER.mkdir(exist_ok=True)
        write_atomically(FOLDER / f"{name}.json", content.encode())
    write_atomically(PAGE, page().encode())


if __name__ == "__main__":
    main()
