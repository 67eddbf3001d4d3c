"""Whether each host of a pack decides as Python does, and how fast one image goes through it.

    python benchmarks/hosts.py PACK --data DATA [--images N]

Images are decoded by Pillow here and given to each host as pixels: Python, the C library on both engines, Node, and
Chromium where there is one, in WebAssembly. What is not there is left out.
Times are of whole calls, from pixels to logits, one image at a time on one thread, the hosts in turns on the same
image; what is shown is the median and the quartiles of all images. Writes benchmarks/results/hosts.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from command_line import command_line
from comparison import machine
from numpy.typing import NDArray
from rich.progress import track

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import cpp_library
import node_host
from chromium_host import Chromium, executable, served

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict
from edgevit.data.images import decode_image
from edgevit.data.labels import map_labels
from edgevit.files import write_atomically
from edgevit.runtime import load
from edgevit.stages.images import DataSource

OUTPUT = Path("benchmarks/results/hosts.md")
Answer = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], float]]


_OPEN_IN_PAGE = """async (variant) => {
    const { load } = await import("/src/web.js");
    self.model = await load("/model.edgevit.zip", { variant });
    return model.engineName;
}"""
_RUN_IN_PAGE = """async (width, height, encoded) => {
    const data = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
    const start = performance.now();
    const outputs = await model.run({ data, width, height, format: "rgb" });
    return [Array.from(Object.values(outputs)[0]), (performance.now() - start) / 1000];
}"""


class Host(NamedTuple):
    """What runs a variant: it gives logits and the seconds that it took."""

    name: str
    variant: str
    answer: Answer


class Node:
    """Node's process, which times itself: what goes through the pipe is none of the host's."""

    def __init__(self, folder: Path, pack: Path, variant: str) -> None:
        self._process = subprocess.Popen(
            ["node", "tools/answer.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._asked = {"pack": str(pack.resolve()), "variant": variant, "time": True}

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Return the logits and the seconds."""
        height, width = pixels.shape[:2]
        data = base64.b64encode(pixels.tobytes()).decode()
        image = {"width": width, "height": height, "format": "rgb", "data": data}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**self._asked, "image": image}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return np.asarray(next(iter(found["outputs"].values())), np.float32), found["seconds"]


class Browser:
    """A page in Chromium, which times itself."""

    def __init__(self, chromium: Chromium, address: str, variant: str) -> None:
        self._page = chromium.open(f"{address}/blank.html")
        self.engine = self._page(_OPEN_IN_PAGE, variant)

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Return the logits and the seconds."""
        height, width = pixels.shape[:2]
        logits, seconds = self._page(_RUN_IN_PAGE, width, height, base64.b64encode(pixels.tobytes()).decode())
        return np.asarray(logits, np.float32), seconds


def timed(infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> Answer:
    """Return a host in this process."""

    def answer(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        start = time.perf_counter()
        logits = infer(pixels)
        return logits, time.perf_counter() - start

    return answer


def hosts_of(pack: Path, folder: Path, stack: ExitStack) -> list[Host]:
    """Return each host with each variant that it runs."""
    cpp_library.build(folder / "cpp")
    library = cpp_library.Library(folder / "cpp/libedgevit.so")
    (folder / "web").mkdir()
    node_host.build(folder / "web")
    built = not (folder / "web/failed").exists()
    browser = browser_of(pack, folder / "web/dist-page", stack) if built else None
    found = []
    for variant in Bundle.open(pack).manifest.variants:
        model = load(pack, variant=variant.name, threads=1, check="files")
        found.append(Host("Python", variant.name, timed(lambda pixels, model=model: model.infer_images([pixels])[0])))
        native = library.open(pack, variant.name)
        found.append(Host("C", variant.name, timed(native.infer)))
        if variant.backend == "onnxruntime" and built:
            found.append(Host("Node", variant.name, Node(folder / "web", pack, variant.name)))
        if variant.backend == "onnxruntime" and browser is not None:
            found.append(Host("Chromium", variant.name, Browser(*browser, variant.name)))
    return found


def browser_of(pack: Path, site: Path, stack: ExitStack) -> tuple[Chromium, str] | None:
    """Return a browser, and the address where the page's files are with the pack; None where there is no browser."""
    if (path := executable()) is None:
        return None
    shutil.copyfile(pack, site / "model.edgevit.zip")
    (site / "blank.html").write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    address, _ = stack.enter_context(served(site))
    chromium = Chromium(path)
    stack.callback(chromium.close)
    return chromium, address


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    dataset = DataSource(options.data, "test", Strict()).load()
    count = min(options.images, len(dataset))
    labels = map_labels(dataset, Bundle.open(options.pack).manifest.labels)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        hosts = hosts_of(options.pack, folder, stack)
        logits: dict[Host, list[NDArray[np.float32]]] = {host: [] for host in hosts}
        seconds: dict[Host, list[float]] = {host: [] for host in hosts}
        for index in track(range(count), description="images"):
            pixels = np.asarray(decode_image(dataset.image(index)).convert("RGB"))
            for host in hosts:
                answer, took = host.answer(pixels)
                logits[host].append(answer)
                seconds[host].append(took)
    lines = [
        "# Hosts of a pack",
        "",
        f"`{command_line()}`. {machine(1)}",
        "",
        f"{count} images. Decisions and distances are from Python's with the same variant; right is by the labels.",
        "",
        "| variant | host | same decision | right | largest difference of a logit | median | quartiles |",
        "| --- " * 7 + "|",
    ]
    for host in hosts:
        own, python = np.stack(logits[host]), np.stack(logits[next(h for h in hosts if h.variant == host.variant)])
        same = int((own.argmax(1) == python.argmax(1)).sum())
        right = int((own.argmax(1) == labels[:count]).sum())
        low, middle, high = 1000 * np.quantile(seconds[host], (0.25, 0.5, 0.75))
        lines.append(
            f"| {host.variant} | {host.name} | {same} of {count} | {right} | {np.abs(own - python).max():.2g} "
            f"| {middle:.2f} ms | {low:.2f} to {high:.2f} ms |"
        )
    write_atomically(OUTPUT, "\n".join([*lines, ""]).encode())
    print(OUTPUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
