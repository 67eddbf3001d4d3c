"""C, Node and Chromium as hosts of a pack: what they need on disk, how they start, and their memory over many calls."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import cpp_library
import node_host
from chromium_host import Chromium, Page, executable, served

TESTS = Path(cpp_library.__file__).parent
_CHUNK = 500  # calls that a page is asked for at once

# Each gives the seconds of its import, and those until the first prediction was there.
_C_START = """
import json, sys, time
sys.path.append(sys.argv[1])
import cpp_library, numpy
pixels = numpy.load(sys.argv[4])
start = time.perf_counter()
library = cpp_library.Library(sys.argv[2])
imported = time.perf_counter()
library.open(sys.argv[3], sys.argv[5]).predict(pixels)
print(json.dumps([imported - start, time.perf_counter() - start]))
"""
_JS_START = """
const start = performance.now();
const { load } = await import(MODULE);
const imported = performance.now();
const model = await load(pack, { variant, session: { intraOpNumThreads: 1 } });
await model.predict(image);
const started = [(imported - start) / 1000, (performance.now() - start) / 1000];
"""
#: The engine's own run, and `infer`, in turns.
_JS_TURNS = """
const turns = async (count) => {
    const input = model.prepare(image);
    const { channels, height, width } = model.preprocess;
    const [own, raw] = [[], []];
    for (let turn = 0; turn < count; turn++)
        for (const [times, call] of [
            [own, () => model.infer(input)],
            [raw, () => model.session.run({ [model.session.inputNames[0]]:
                new model.engine.Tensor("float32", input, [1, channels, height, width]) })],
        ]) {
            const begun = performance.now();
            await call();
            times.push((performance.now() - begun) / 1000);
        }
    return { own, raw };
};
"""
_NODE = """
import { readFileSync } from "node:fs";
const [pack, file, width, height, variant, count] = process.argv.slice(1);
const image = { data: new Uint8Array(readFileSync(file)), width: Number(width), height: Number(height), format: "rgb" };
const MODULE = "./dist/node.js";
START TURNS
const found = { started, variant: model.variant, resident: [] };
if (Number(count) > 0) {
    for (let number = 0; number <= count; number++) {
        if (number % Math.floor(count / 10) === 0) { gc(); found.resident.push(process.memoryUsage.rss()); }
        await model.predict(image);
    }
} else Object.assign(found, await turns(-count));
console.log(JSON.stringify(found));
await model.close();
"""
_PAGE = """async (pack, variant, encoded, width, height) => {
    const data = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
    const image = { data, width, height, format: "rgb" };
    const MODULE = "/src/web.js";
    START TURNS
    Object.assign(self, { model, image, turns });
    return started;
}"""
_CALLS = "async (count) => { for (let each = 0; each < count; each++) await model.predict(image); gc(); }"


class Costs(NamedTuple):
    """What a host costs: bytes on disk, a function that starts it, and one that gives memory in bytes over calls.

    ``start`` gives the seconds of the import, and those until the first prediction; ``turns`` the seconds of `infer`
    and of the engine's own run, None where they cannot be told apart. ``bytecode`` are those of the bytes that Python
    makes of sources as it installs them, which ``pip install --no-compile`` leaves out.
    """

    name: str
    bytes: int
    start: Callable[[], list[float]]
    turns: Callable[[int], dict[str, list[float]]] | None
    memory: Callable[[Path, int], list[int]]
    bytecode: int = 0


def hosts(pack: Path, variant: str, pixels: NDArray[np.uint8], folder: Path, stack: ExitStack) -> list[Costs]:
    """Return C, Node and Chromium, those that are there; ``pixels`` (H, W, 3) are what they predict."""
    (folder / "pixels.bin").write_bytes(pixels.tobytes())
    np.save(folder / "pixels.npy", pixels)
    cpp_library.build(folder / "cpp")
    found = [_c(pack, variant, pixels, folder)]
    (folder / "web").mkdir()
    node_host.build(folder / "web")
    if (folder / "web/failed").exists():
        return found
    found.append(_node(pack, variant, pixels, folder))
    if (path := executable()) is not None:
        chromium = Chromium(path)
        stack.callback(chromium.close)
        found.append(_chromium(chromium, pack, variant, pixels, folder, stack))
    return found


def _c(pack: Path, variant: str, pixels: NDArray[np.uint8], folder: Path) -> Costs:
    library = folder / "cpp/libedgevit.so"
    command = [sys.executable, "-c", _C_START, TESTS, library, pack, folder / "pixels.npy", variant]

    def start() -> list[float]:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return _floats(json.loads(done.stdout))

    def memory(pack: Path, count: int) -> list[int]:
        model = cpp_library.Library(library).open(pack, variant)
        sizes = []
        for number in range(count + 1):
            if number % (count // 10) == 0:
                sizes.append(resident("self"))
            model.predict(pixels)
        return sizes

    engine = cpp_library.onnxruntime_library().stat().st_size
    return Costs("C", library.stat().st_size + engine, start, None, memory)


def _node(pack: Path, variant: str, pixels: NDArray[np.uint8], folder: Path) -> Costs:
    height, width = pixels.shape[:2]
    code = _NODE.replace("START", _JS_START).replace("TURNS", _JS_TURNS)

    def run(pack: Path, count: int) -> dict[str, Any]:
        command = ["node", "--expose-gc", "--input-type=module", "-e", code]
        arguments = [pack, folder / "pixels.bin", width, height, variant, count]
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=folder / "web", capture_output=True, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    engine = folder / "web/node_modules/onnxruntime-node/bin/napi-v6/linux/x64"
    return Costs(
        "Node",
        size_of(folder / "web/dist") + size_of(engine),
        lambda: _floats(run(pack, -1)["started"]),
        lambda count: run(pack, -count),
        lambda pack, count: [int(each) for each in run(pack, count)["resident"]],
    )


def _chromium(
    chromium: Chromium, pack: Path, variant: str, pixels: NDArray[np.uint8], folder: Path, stack: ExitStack
) -> Costs:
    site = folder / "web/dist-page"
    size = size_of(site)
    (site / "blank.html").write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    address, _ = stack.enter_context(served(site))
    code = _PAGE.replace("START", _JS_START).replace("TURNS", _JS_TURNS)
    height, width = pixels.shape[:2]

    def opened(pack: Path) -> tuple[Page, list[float]]:
        if not (site / pack.name).exists():  # by its own name: browsers keep what they fetched
            (site / pack.name).symlink_to(pack)
        page = chromium.open(f"{address}/blank.html")
        encoded = base64.b64encode(pixels.tobytes()).decode()
        return page, _floats(page(code, f"/{pack.name}", variant, encoded, width, height))

    def start() -> list[float]:
        page, seconds = opened(pack)
        page.close()
        return seconds

    def turns(count: int) -> dict[str, list[float]]:
        page, _ = opened(pack)
        found: dict[str, list[float]] = page("async (count) => turns(count)", count)
        page.close()
        return found

    def memory(pack: Path, count: int) -> list[int]:
        page, _ = opened(pack)
        sizes = [_largest_renderer(chromium)]
        for _tenth in range(10):
            for _chunk in range(count // 10 // _CHUNK):
                page(_CALLS, _CHUNK)
            page(_CALLS, count // 10 % _CHUNK)
            sizes.append(_largest_renderer(chromium))
        page.close()
        return sizes

    return Costs("Chromium", size, start, turns, memory)


def _largest_renderer(chromium: Chromium) -> int:
    processes = chromium.send("SystemInfo.getProcessInfo")["processInfo"]
    return max(resident(str(each["id"])) for each in processes if each["type"] == "renderer")


def resident(process: str) -> int:
    """Return the bytes of memory of a process that are in use."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _floats(values: Any) -> list[float]:  # noqa: ANN401 - of JSON
    return [float(each) for each in values]
