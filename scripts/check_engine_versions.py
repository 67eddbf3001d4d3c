"""Run the files that EdgeViT writes for onnxruntime on the first versions that they are said to run on, and before.

``python scripts/check_engine_versions.py [FOLDER]`` installs onnxruntime 1.20, 1.22, 1.23 and 1.24 by pip into folders
of their own in FOLDER (a temporary one if none is given), makes a bundle, and writes
benchmarks/results/engine-versions.md. ``EDGEVIT_ENGINES=FOLDER pytest tests/backends/test_engine_versions.py`` holds
the same afterwards. It needs a package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("1.20.0", "1.22.0", "1.23.0", "1.24.1")
ROOT = Path(__file__).resolve().parents[1]
DATA = "shapes:size=32,count=64"
#: Prints for each ONNX file its largest difference from the float32 logits, or what the engine has against it.
RUN = """
import json, sys, numpy, onnxruntime
images = numpy.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
answers = {}
for name, path in json.loads(sys.argv[1]).items():
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers[name] = session.run(None, {session.get_inputs()[0].name: images})[0]
    except Exception as error:
        answers[name] = str(error)
exact = answers["float32"]
print(json.dumps([onnxruntime.__version__, {
    name: each if isinstance(each, str) else float(abs(each - exact).max()) for name, each in answers.items()
}]))
"""


def install(version: str, folder: Path) -> Path:
    """Install onnxruntime ``version`` into a folder of its own in ``folder``, unless it is there; return that."""
    place = folder / f"onnxruntime-{version}"
    if not place.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-deps"]
        subprocess.run([*pip, "--target", str(place), f"onnxruntime=={version}"], check=True)
    return place


def run(place: Path, files: dict[str, Path]) -> tuple[str, dict[str, float | str]]:
    """Return the version in ``place``, and for each of ``files`` its difference from float32 there, or the problem."""
    given = json.dumps({name: str(path) for name, path in files.items()})
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, given], env=environment, check=True, capture_output=True, text=True
    )
    version, answers = json.loads(done.stdout.splitlines()[-1])
    return version, answers


def bundle(folder: Path) -> dict[str, tuple[Path, str | None]]:
    """Make a bundle of a ViT with two heads in ``folder``; return its files for onnxruntime with their ranges."""
    import torch

    from edgevit.bundle.store import Bundle
    from edgevit.data.preprocess import Preprocess
    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.spec import ModelSpec
    from edgevit.models.vit import VisionTransformer

    spec = ModelSpec(image_size=(32, 32), patch_size=(8, 8), width=32, depth=3, heads=2, classes=8)
    torch.manual_seed(0)
    weights = {
        name: value + 0.2 * torch.randn_like(value) for name, value in VisionTransformer(spec).state_dict().items()
    }
    preprocess = Preprocess(size=(32, 32), resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    Checkpoint(spec, weights, preprocess, tuple("abcdefgh"), source="random").save(folder / "random.safetensors")
    made = folder / "random.edgevit"
    edgevit = [sys.executable, "-m", "edgevit"]
    subprocess.run(
        [*edgevit, "export", str(folder / "random.safetensors"), "-o", str(made), "--data", DATA], check=True
    )
    for options in (
        ["--dialect", "onnxruntime", "--data", DATA],
        ["--dialect", "portable", "--data", DATA],
        ["--dialect", "onnxruntime", "--precision", "fp16", "--data", DATA],
        *(
            ["--dialect", "onnxruntime", "--precision", name]
            for name in ("int8-dynamic", "int8-weights", "int4-weights")
        ),
    ):
        subprocess.run([*edgevit, "quantize", str(made), *options], check=True)
    opened = Bundle.open(made)
    return {
        variant.name: (made / variant.files[0].path, variant.versions)
        for variant in opened.manifest.variants
        if variant.backend == "onnxruntime"
    }


def main(folder: Path) -> None:
    """Install, make, run, and write the table."""
    from edgevit.versions import within

    files = bundle(Path(tempfile.mkdtemp(dir=folder)))
    rows, wrong = {name: [versions or "any"] for name, (_, versions) in files.items()}, []
    for version in VERSIONS:
        found, answers = run(install(version, folder), {name: path for name, (path, _) in files.items()})
        if not found.startswith(version.rpartition(".")[0]):
            sys.exit(f"{install(version, folder)} holds {found}, not {version}: remove it")
        for name, answer in answers.items():
            promised = files[name][1]
            rows[name].append("no" if isinstance(answer, str) else f"{answer:.2g}")
            if isinstance(answer, str) and (promised is None or within(found, promised)):
                wrong.append(f"{name} is promised for {promised}, and {found} says: {answer.splitlines()[0]}")
    lines = [
        "# Which versions of onnxruntime run which file",
        "",
        "Written by `python scripts/check_engine_versions.py`: a ViT of width 32 with 2 heads and random weights; the",
        "largest difference from float32's logits on the same version, or `no` where it does not open the file.",
        "",
        f"| variant | says | {' | '.join(VERSIONS)} |",
        f"| --- | --- |{' --- |' * len(VERSIONS)}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
    ]
    (ROOT / "benchmarks/results/engine-versions.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join((*lines, *wrong)) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
