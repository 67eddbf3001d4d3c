"""What EdgeViT costs an application: disk, start, the way around the engine, and memory over many predictions.

    python benchmarks/embedding_cost.py PACK IMAGE [--small PACK] [--predictions N]

A virtual environment is made with ``edgevit[onnxruntime]`` alone, and Python runs in it; the C library, Node and
Chromium stand beside it where they are there. Times are medians with their quartiles: starts of 21 processes of each
host in turns, and 200 calls in turns with those of the engine's own session. Memory is that of ``--small``, a pack
whose model is quick enough for many predictions. Writes benchmarks/results/embedding-cost.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from app_hosts import Costs, hosts
from command_line import command_line
from comparison import machine
from numpy.typing import NDArray
from rich.progress import track

from edgevit.data.images import decode_image
from edgevit.files import write_atomically

OUTPUT = Path("benchmarks/results/embedding-cost.md")
ROOT = Path(__file__).resolve().parents[1]
STARTS = 21

CALLS, WARM_UP = 200, 20
EDGES = (64, 64)  # of what is predicted: resizing a large photo is not what is measured

_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_LOADED = "from edgevit.runtime import load; model = load({!r}, variant={!r}, threads=1); model.predict({!r})"

#: Runs in the new environment: the cost of `infer` beside the session's own run.
_TURNS = """
import json, sys, time
from edgevit.runtime import load

model = load(sys.argv[1], variant=sys.argv[3], threads=1)
engine = model._session._session
images = model.prepare([sys.argv[2]])
feed = {engine._input: images}
own, raw = [], []
for turn in range(int(sys.argv[4])):
    for times, call in ((own, lambda: model.infer(images)), (raw, lambda: engine._session.run(engine._outputs, feed))):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
print(json.dumps({"own": own, "raw": raw}))
"""

#: Runs there, too: memory over many predictions.
_MEMORY = """
import json, sys
import numpy as np
from edgevit.runtime import load

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) * 1024

model, pixels = load(sys.argv[1], variant=sys.argv[3], threads=1), np.load(sys.argv[2])
count, sizes = int(sys.argv[4]), []
for number in range(count + 1):
    if number % (count // 10) == 0:
        sizes.append(resident())
    model.predict(pixels)
print(json.dumps(sizes))
"""


def run(python: Path, code: str, *arguments: str) -> str:
    """Run ``code`` away from the checkout, and return what it prints."""
    command = [python, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


def installed(folder: Path) -> tuple[Path, int, int]:
    """Return the Python of a new environment, the bytes of its packages without pip and setuptools, and of bytecode."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, f"{ROOT}[onnxruntime]"], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", "setuptools", "pip"], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    return python, sum(sizes.values()), sum(size for path, size in sizes.items() if path.suffix == ".pyc")


def quartiles(values: Any, unit: float = 1e3, digits: int = 1) -> str:  # noqa: ANN401
    """Return the median and the quartiles."""
    low, middle, high = np.quantile(np.asarray(values) * unit, (0.25, 0.5, 0.75))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


class Row(NamedTuple):
    """What is printed of each host, a cell for each."""

    label: str
    cells: list[str]


def python_host(pack: Path, image: Path, variant: str, folder: Path) -> Costs:
    """Return Python, in an environment of its own."""
    python, size, bytecode = installed(folder / "venv")

    def start() -> list[float]:
        imported = float(run(python, _TIMED.format("import edgevit.runtime")))
        beyond = imported - float(run(python, _TIMED.format("import numpy, PIL.Image")))
        return [beyond, float(run(python, _TIMED.format(_LOADED.format(str(pack), variant, str(image)))))]

    def turns(count: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = json.loads(run(python, _TURNS, str(pack), str(image), variant, str(count)))
        return found

    def memory(pack: Path, count: int) -> list[int]:
        found: list[int] = json.loads(run(python, _MEMORY, str(pack), str(folder / "pixels.npy"), variant, str(count)))
        return found

    return Costs("Python", size, start, turns, memory, bytecode)


def rows_of(hosts: Sequence[Costs], small: Path, predictions: int) -> list[Row]:
    """Measure all of them."""
    starts: dict[str, list[list[float]]] = {host.name: [] for host in hosts}
    for _ in track(range(STARTS), description="starts"):
        for host in hosts:
            starts[host.name].append(host.start())
    calls = [None if host.turns is None else host.turns(CALLS + WARM_UP) for host in hosts]
    sizes = [host.memory(small, predictions) for host in track(hosts, description="predictions")]
    grown = [[(each - own[1]) / 1e6 for each in own[1:]] for own in sizes]

    def started(which: int) -> list[str]:
        return [f"{quartiles([each[which] for each in starts[host.name]])} ms" for host in hosts]

    def called(show: Callable[[NDArray[np.float64], NDArray[np.float64]], str]) -> list[str]:
        return [
            "-" if each is None else show(np.asarray(each["own"][WARM_UP:]), np.asarray(each["raw"][WARM_UP:]))
            for each in calls
        ]

    return [
        Row("packages, with the engine", [_size(host) for host in hosts]),
        Row("import", started(0)),
        Row("import, load, first prediction", started(1)),
        Row("the engine's own run", called(lambda _, raw: f"{quartiles(raw, digits=2)} ms")),
        Row("`infer` beyond that", called(lambda own, raw: f"{quartiles(own / raw - 1, 100)} %")),
        Row(f"memory after {predictions:,} calls, against a tenth of them", [f"{own[-1]:+.1f} MB" for own in grown]),
        Row("the most that it was in between", [f"{max(own):+.1f} MB" for own in grown]),
    ]


def _size(host: Costs) -> str:
    without = f", {(host.bytes - host.bytecode) / 1e6:.0f} without bytecode" if host.bytecode else ""
    return f"{host.bytes / 1e6:.0f} MB{without}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--variant", default="int8-onnxruntime")
    parser.add_argument("--small", type=Path, help="a pack with this variant for the many predictions")
    parser.add_argument("--predictions", type=int, default=100_000)
    options = parser.parse_args()
    pack, image = options.pack.resolve(), options.image.resolve()
    small = (options.small or pack).resolve()
    pixels = np.asarray(decode_image(image).convert("RGB").resize(EDGES))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        others = hosts(pack, options.variant, pixels, folder, stack)
        found = [python_host(pack, image, options.variant, folder), *others]
        rows = rows_of(found, small, options.predictions)
    lines = [
        "# What EdgeViT costs an application",
        "",
        f"`{command_line()}`. {machine(1)}",
        "",
        f"Variant {options.variant}, one thread; medians, with quartiles. Python's import is what it takes beyond "
        "numpy's and Pillow's, its packages are all that `edgevit[onnxruntime]` installs without pip and setuptools. "
        "C's are the library and onnxruntime's, called through ctypes. Node's are without node itself. Chromium's are "
        "what the page loads, from this machine, in a browser that runs already. Memory is of the resident process"
        + (f", with {options.small.name}." if options.small else "."),
        "",
        f"| | {' | '.join(host.name for host in found)} |",
        "| --- " * (len(found) + 1) + "|",
        *(f"| {row.label} | {' | '.join(row.cells)} |" for row in rows),
    ]
    write_atomically(OUTPUT, "\n".join([*lines, ""]).encode())
    print(OUTPUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
