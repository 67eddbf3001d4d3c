"""Run a bundle under emulation of ARM64, and compare its answers with this machine's.

``python scripts/check_arm64.py`` makes a root for ARM64 (see ``arm64_root.py``; 400 MB, kept in the user's cache or in
``--root``), a bundle of the built-in model, and runs ``bundle_answers.py`` on it here and there; once more there with
the dynamic batch that EdgeViT does not give OpenVINO on ARM64, to see whether that is still needed. ``--write`` writes
benchmarks/results/arm64.md. Exit code 1: an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from arm64_root import CHECKOUT, PROCESSOR, Failed, Root, prepare

from edgevit.files import cache_folder

MODEL, DATA = "fashion-micro", "fashion-mnist-sample"
RESULT = CHECKOUT / "benchmarks/results/arm64.md"
#: Other precisions that are made for onnxruntime, beside INT8 for all dialects.
PRECISIONS = ("fp16", "int8-dynamic", "int8-weights", "int4-weights")
#: How far logits may lie apart: float32 adds up in another order, and INT8 rounds to the next integer now and then.
BOUNDS = {"float32": 1e-4, "fp16": 0.05, "int8": 0.05, "int4": 0.05}


class Row(NamedTuple):
    """A variant for so many images at once, and how far emulated ARM64's logits lie from this machine's."""

    variant: str
    batch: str
    images: int
    difference: float
    bound: float
    classes: int
    golden: str | None

    @property
    def right(self) -> bool:
        """Whether they are near enough, and the golden images agree."""
        return self.difference <= self.bound and self.classes == self.images and self.golden is None


def make_bundle(folder: Path) -> Path:
    """Make a bundle of the built-in model, in float32 and INT8 for both engines."""
    made = folder / "model.edgevit"
    edgevit = [sys.executable, "-m", "edgevit"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    for arguments in (
        ["export", MODEL, "-o", made, "--data", DATA],
        *(["quantize", made, "--dialect", each, "--data", DATA] for each in ("openvino", "onnxruntime", "portable")),
        *(
            ["quantize", made, "--dialect", "onnxruntime", "--precision", each, *(["--data", DATA] * (each == "fp16"))]
            for each in PRECISIONS
        ),
    ):
        done = subprocess.run([*edgevit, *map(str, arguments)], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr)
    return made


def answers(root: Root | None, bundle: Path, *options: str) -> tuple[dict[str, np.ndarray], dict[str, str | None]]:
    """Return the logits on the emulated machine of ``root``, or on this one, and what golden images said there."""
    script, out = CHECKOUT / "scripts/bundle_answers.py", bundle.with_name("answers.npz")
    if root:
        done = root.run(script, bundle, out, *options)
    else:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        command = [sys.executable, str(script), str(bundle), str(out), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{'under emulation' if root else 'here'}, the bundle does not run: {done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    if root and said["machine"] != "aarch64":
        raise Failed(f"what is emulated calls itself {said['machine']}, not aarch64")
    with np.load(out) as logits:
        return dict(logits), said["problems"]


def compare(
    here: dict[str, np.ndarray], there: dict[str, np.ndarray], golden: dict[str, str | None], batch: str
) -> list[Row]:
    """Return a row for each variant and number of images."""
    rows = []
    for name, logits in there.items():
        variant, _, count = name.partition("/")
        if count and (batch == "as EdgeViT" or variant.endswith("-openvino")):
            same = int((logits.argmax(axis=1) == here[name].argmax(axis=1)).sum())
            bound = BOUNDS[variant.partition("-")[0]]
            difference = float(np.abs(logits - here[name]).max())
            rows.append(Row(variant, batch, int(count), difference, bound, same, golden[variant]))
    return rows


def report(rows: list[Row], emulator: str) -> list[str]:
    """Return the lines of the Markdown file."""
    engines = " and ".join(f"{name} {version(name)}" for name in ("openvino", "onnxruntime"))
    lines = [
        "# ARM64, emulated",
        "",
        f"Written by `python scripts/check_arm64.py --write`, {datetime.now(timezone.utc):%Y-%m-%d}: {engines}, run by",
        f"qemu {emulator} as a {PROCESSOR}, compared with this machine, {platform.machine()}, on the built-in model",
        f"{MODEL} and its golden images:",
        "the largest difference of a logit, and how many images get the same class. OpenVINO's rows with a dynamic",
        "batch are what EdgeViT does not do on ARM64. Emulation says nothing about speed.",
        "",
        "| variant | batch | images | largest difference | may be | same class | golden images | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row.variant} | {row.batch} | {row.images} | {row.difference:.2g} | {row.bound:g} "
        f"| {row.classes} of {row.images} | {'disagree' if row.golden else 'agree'} "
        f"| {'right' if row.right else 'wrong'} |"
        for row in rows
    ]


def check(root: Root) -> tuple[list[Row], list[Row]]:
    """Return the rows as EdgeViT runs a bundle on ARM64, and those with a dynamic batch for OpenVINO."""
    with tempfile.TemporaryDirectory() as temporary:
        bundle = make_bundle(Path(temporary))
        here, _ = answers(None, bundle)
        return (
            compare(here, *answers(root, bundle), "as EdgeViT"),
            compare(here, *answers(root, bundle, "--dynamic"), "dynamic"),
        )


def main() -> int:
    """Prepare, run, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--root", type=Path, default=cache_folder() / "arm64", help="folder for the emulated machine")
    parser.add_argument("--qemu", type=Path, help="qemu-aarch64 of another version than this machine's apt has")
    parser.add_argument("--prepare", action="store_true", help="make the root and nothing else")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(CHECKOUT)}")
    given = parser.parse_args()
    try:
        prepare(given.root.resolve(), emulator=given.qemu)
        if given.prepare:
            return 0
        root = Root.at(given.root.resolve(), given.qemu)
        rows, control = check(root)
    except Failed as error:
        sys.stderr.write(f"error: {error}\n")
        return 3
    lines = report([*rows, *control], root.version())
    if given.write:
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if given.json:
        found = {"rows": [row._asdict() for row in rows], "dynamic": [row._asdict() for row in control]}
        sys.stdout.write(json.dumps({"qemu": root.version(), **found}) + "\n")
    else:
        sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(row.right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
