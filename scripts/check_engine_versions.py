"""Run the files that EdgeViT writes for onnxruntime and OpenVINO on every minor version from the oldest promised one.

``python scripts/check_engine_versions.py [FOLDER]`` installs the versions by pip, each into a folder of its own in
FOLDER (a temporary one if none is given), makes bundles, and writes benchmarks/results/engine-versions.md.
``EDGEVIT_ENGINES=FOLDER pytest tests/backends/test_engine_versions.py`` holds the same afterwards. It needs a package
index, and 3 GB. With ``--oldest`` it installs those alone that ``make test-old-engines`` takes, 520 MB, and ends.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

VERSIONS = {
    "onnxruntime": (
        *("1.20.0", "1.21.0", "1.22.0", "1.23.0", "1.24.1", "1.25.0", "1.26.0"),
        *("1.27.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0"),
    ),
    "openvino": (
        *("2024.6.0", "2025.0.0", "2025.1.0", "2025.2.0", "2025.3.0", "2025.4.0"),
        *("2026.0.0", "2026.1.0", "2026.2.0", "2026.3.0", "2026.4.1"),
    ),
}
#: Each version that a file may name as its first, and the one before, which is to be refused.
OLDEST = {
    "onnxruntime": {"1.20": ("1.20.0", "1.19.2"), "1.23": ("1.23.0", "1.22.0"), "1.24": ("1.24.1", "1.23.0")},
    "openvino": {"2024.6": ("2024.6.0", "2024.5.0")},
}
#: Those that it is built with too: the oldest, and the first that builds everything.
BUILDERS = {"onnxruntime": ("1.20.0",), "openvino": ("2024.6.0", "2025.3.0")}
ROOT = Path(__file__).resolve().parents[1]
DATA = "shapes:size=32,count=64"
#: Heads: of an even number, onnxruntime's float32 has ONNX's Attention; of an odd one it does not.
HEADS = (2, 3)
ON_IMAGES = ("int8", "fp16")  # int8 brings float32 for the engine along
WITHOUT = ("int8-dynamic", "int8-weights", "int4-weights")
#: Prints an engine's version, and the logits that EdgeViT gets from each file, or why it does not.
RUN = """
import json, sys, numpy
from edgevit.backends import get_backend
engine, size, files = json.loads(sys.argv[1])
images = numpy.random.default_rng(0).normal(size=(3, 3, size, size)).astype("float32")
backend, answers = get_backend(engine), {}
from pathlib import Path
for name, (path, settings) in files.items():
    try:
        with backend.open(Path(path), threads=1, settings=settings) as session:
            answers[name] = [session.infer(images[:1]).tolist(), session.infer(images).tolist()]
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps([backend.version(), answers]))
"""


class Made(NamedTuple):
    """A file for an engine: where it lies, which versions it says it is for, and what it is opened with."""

    path: Path
    versions: str | None
    settings: dict[str, str]


def install(engine: str, version: str, folder: Path) -> Path:
    """Install a version of ``engine`` into a folder of its own in ``folder``, unless it is there; return that."""
    place = folder / f"{engine}-{version}"
    if not place.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-deps"]
        subprocess.run([*pip, "--target", str(place), f"{engine}=={version}"], check=True)
    return place


def run(engine: str, place: Path | None, files: dict[str, Made]) -> tuple[str, dict[str, list | str]]:
    """Return the version of ``engine`` in ``place`` (None: what is installed), and what it answers for each file."""
    given = json.dumps([engine, 32, {name: [str(made.path), made.settings] for name, made in files.items()}])
    done = subprocess.run([sys.executable, "-c", RUN, given], env=_with(place), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{engine} in {place} does not start: {done.stderr}")
    version, answers = json.loads(done.stdout.splitlines()[-1])
    return version, answers


def bundle(
    folder: Path, engine: str, heads: int, place: Path | None = None, leave_out: Collection[str] = ()
) -> dict[str, Made]:
    """Make a bundle of a small ViT with the ``engine`` in ``place``; return its files for that, by their names."""
    import torch

    from edgevit.bundle.store import Bundle
    from edgevit.data.preprocess import Preprocess
    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.spec import ModelSpec
    from edgevit.models.vit import VisionTransformer

    spec = ModelSpec(image_size=(32, 32), patch_size=(8, 8), width=64 * heads, depth=3, heads=heads, classes=8)
    torch.manual_seed(0)
    weights = {
        name: value + 0.2 * torch.randn_like(value) for name, value in VisionTransformer(spec).state_dict().items()
    }
    preprocess = Preprocess(size=(32, 32), resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    Checkpoint(spec, weights, preprocess, tuple("abcdefgh"), source="random").save(folder / "random.safetensors")
    made, recipe = folder / "random.edgevit", folder / "all-int8.toml"
    # Of random weights INT8 is far from float32: with a limit to keep, too few layers would be left in integers.
    default = (ROOT / "calibration/recipes/default.toml").read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"\n\[fallback\]\n[^\[]*", "\n", default), encoding="utf-8")
    _edgevit(place, "export", folder / "random.safetensors", "-o", made, "--data", DATA)
    if engine == "onnxruntime":
        _edgevit(place, "quantize", made, "--dialect", "portable", "--data", DATA, "--recipe", recipe)
    for precision, data in {
        **dict.fromkeys(ON_IMAGES, ("--data", DATA, "--recipe", recipe)),
        **dict.fromkeys(WITHOUT, ()),
    }.items():
        if precision not in leave_out:
            _edgevit(place, "quantize", made, "--dialect", engine, "--precision", precision, *data)
    return {
        variant.name: Made(made / variant.files[0].path, variant.versions, dict(variant.settings))
        for variant in Bundle.open(made).manifest.variants
        if variant.backend == engine
    }


def difference(one: list, other: list) -> float:
    """Return the largest difference between two answers to the same images, at one image and at three."""
    import numpy as np

    return max(float(abs(np.subtract(each, its)).max()) for each, its in zip(one, other, strict=True))


def _edgevit(place: Path | None, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "edgevit", *map(str, arguments)]
    done = subprocess.run(command, env=_with(place), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}, with {place or 'what is installed'}:\n{done.stderr}")


def _with(place: Path | None) -> dict[str, str]:
    """Return an environment in which this checkout runs with the engine in ``place``."""
    paths = [str(each) for each in (ROOT, place) if each]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _table(engine: str, heads: int, folder: Path, wrong: list[str]) -> list[str]:
    """Return the lines of a model's table, and add to ``wrong`` what was promised and does not hold."""
    from edgevit.versions import in_range

    files = bundle(Path(tempfile.mkdtemp(dir=folder)), engine, heads)
    here, expected = run(engine, None, files)
    exact = expected["float32" if engine == "onnxruntime" else "float32-openvino"]
    rows = {name: [made.versions or "any", f"{difference(expected[name], exact):.2g}"] for name, made in files.items()}
    for version in VERSIONS[engine]:
        place = install(engine, version, folder)
        found, answers = run(engine, place, files)
        if found != version:
            sys.exit(f"{place} holds {found}, not {version}: remove it")
        for name, answer in answers.items():
            runs = not isinstance(answer, str)
            rows[name].append(f"{difference(answer, expected[name]):.1g}" if runs else "no")
            if not runs and (files[name].versions is None or in_range(found, files[name].versions)):
                wrong.append(f"{name} is promised for {files[name].versions}, and {found} says: {answer}")
    return [
        f"## {engine}, {heads} heads",
        "",
        f"| variant | says | from float32 | {' | '.join(VERSIONS[engine])} |",
        f"| --- | --- | --- |{' --- |' * len(VERSIONS[engine])}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
        "",
        f"Differences are from {here}.",
        "",
    ]


def _built(engine: str, version: str, folder: Path, wrong: list[str]) -> str:
    """Return what came of building with a ``version`` of ``engine`` that is promised, and running that there."""
    from edgevit.stages.engines import builds

    left_out = [each for each in (*ON_IMAGES, *WITHOUT) if not builds(engine, version, each)]
    place = install(engine, version, folder)
    files = bundle(Path(tempfile.mkdtemp(dir=folder)), engine, HEADS[0], place, left_out)
    found, answers = run(engine, place, files)
    refused = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    wrong += [f"{name}, built with {found}, does not run there: {answer}" for name, answer in refused.items()]
    line = f"- {engine} {found}: {', '.join(name for name in answers if name not in refused)}"
    return f"{line}; it does not build {', '.join(left_out)}" if left_out else line


def main(folder: Path) -> None:
    """Install, make, run, and write the tables."""
    wrong: list[str] = []
    tables = [line for engine in VERSIONS for heads in HEADS for line in _table(engine, heads, folder, wrong)]
    built = [_built(engine, version, folder, wrong) for engine, versions in BUILDERS.items() for version in versions]
    lines = [
        "# Which versions of onnxruntime and OpenVINO run which file",
        "",
        f"Written by `python scripts/check_engine_versions.py`, {datetime.now(timezone.utc):%Y-%m-%d}:",
        "ViTs of width 128 with 2 heads and of width 192 with 3,",
        "and random weights; the largest difference of each version's logits from those of the version that is",
        "installed, for one image and for three, or `no` where EdgeViT does not open the file with it. Beside that,",
        "the file's own distance from float32 on the installed version.",
        "",
        *tables,
        "## Built with older ones, and run there",
        "",
        *built,
    ]
    (ROOT / "benchmarks/results/engine-versions.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join((*lines, *wrong)) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--oldest"]:
        for engine, pairs in OLDEST.items():
            for version in sorted({each for pair in pairs.values() for each in pair}):
                install(engine, version, Path(sys.argv[2]))
    elif len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
