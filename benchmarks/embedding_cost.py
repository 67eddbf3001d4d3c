"""What EdgeViT costs an application: disk, start, the way around the engine, and memory over many predictions.

    python benchmarks/embedding_cost.py PACK IMAGE [--predictions N]

A virtual environment is made with ``edgevit[onnxruntime]`` alone, and everything runs in it. Times are medians with
their quartiles: starts of 21 processes in turns with others that import numpy and Pillow, and 500 calls in turns with
those of the engine's own session. Writes benchmarks/results/embedding-cost.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from comparison import machine

from edgevit.files import write_atomically

OUTPUT = Path("benchmarks/results/embedding-cost.md")
ROOT = Path(__file__).resolve().parents[1]
STARTS = 21

_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_LOADED = "from edgevit.runtime import load; model = load({!r}, threads=1); model.predict({!r})"

#: Runs in the new environment: the cost of `infer` beside the session's own run, and memory over many predictions.
_INSIDE = """
import json, sys, time
import numpy as np
from edgevit.runtime import load

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) * 1024

model = load(sys.argv[1], threads=1)
engine = model._session._session
images = model.prepare([sys.argv[2]])
feed = {engine._input: images}
own, raw = [], []
for turn in range(520):
    for times, call in ((own, lambda: model.infer(images)), (raw, lambda: engine._session.run(engine._outputs, feed))):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
pixels = np.asarray(model.preprocess.geometry(__import__("PIL.Image").Image.open(sys.argv[2]))).copy()
pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
count, sizes = int(sys.argv[3]), []
for number in range(count + 1):
    if number % (count // 10) == 0:
        sizes.append(resident())
    model.predict(pixels)
print(json.dumps({"variant": model.variant.name, "own": own[20:], "raw": raw[20:], "resident": sizes}))
"""


def run(python: Path, code: str, *arguments: str) -> str:
    """Run ``code`` away from the checkout, and return what it prints."""
    command = [python, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


def installed(folder: Path) -> tuple[Path, int]:
    """Return the Python of a new environment, and the bytes of its packages without pip and setuptools."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, f"{ROOT}[onnxruntime]"], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", "setuptools", "pip"], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    return python, sum(path.stat().st_size for path in site.rglob("*") if path.is_file())


def quartiles(values: Any, unit: float = 1e3, digits: int = 1) -> str:  # noqa: ANN401
    """Return the median and the quartiles."""
    low, middle, high = np.quantile(np.asarray(values) * unit, (0.25, 0.5, 0.75))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--predictions", type=int, default=100_000)
    options = parser.parse_args()
    pack, image = str(options.pack.resolve()), str(options.image.resolve())
    with tempfile.TemporaryDirectory() as name:
        python, size = installed(Path(name) / "venv")
        codes = {
            "numpy and Pillow": "import numpy, PIL.Image",
            "edgevit.runtime": "import edgevit.runtime",
            "load and the first prediction": _LOADED.format(pack, image),
        }
        starts: dict[str, list[float]] = {label: [] for label in codes}
        for _ in range(STARTS):
            for label, code in codes.items():
                starts[label].append(float(run(python, _TIMED.format(code))))
        inside = json.loads(run(python, _INSIDE, pack, image, str(options.predictions)))
    above = np.asarray(starts["edgevit.runtime"]) - np.asarray(starts["numpy and Pillow"])
    around = np.asarray(inside["own"]) / np.asarray(inside["raw"]) - 1
    grown = [(each - inside["resident"][1]) / 1e6 for each in inside["resident"][1:]]
    lines = [
        "# What EdgeViT costs an application",
        "",
        f"`python benchmarks/embedding_cost.py {shlex.join(sys.argv[1:])}`. {machine(1)}",
        "",
        f"Variant {inside['variant']}, one thread; medians, with quartiles.",
        "",
        "| | |",
        "| --- | --- |",
        f"| packages of `edgevit[onnxruntime]` without pip and setuptools | {size / 1e6:.0f} MB |",
        f"| import of `edgevit.runtime` beyond numpy's and Pillow's | {quartiles(above)} ms |",
        f"| import, load and first prediction | {quartiles(starts['load and the first prediction'])} ms |",
        f"| the engine's own run | {quartiles(inside['raw'], digits=2)} ms |",
        f"| `infer` beyond that | {quartiles(around, 100)} % |",
        f"| memory after {options.predictions:,} predictions, against a tenth of them | {grown[-1]:+.1f} MB |",
        f"| the most that it was in between | {max(grown):+.1f} MB |",
    ]
    write_atomically(OUTPUT, "\n".join([*lines, ""]).encode())
    print(OUTPUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
