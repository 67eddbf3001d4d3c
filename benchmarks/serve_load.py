"""``edgevit serve`` under twice the load that it can carry: answers, refusals, latency, memory, and its end.

    python benchmarks/serve_load.py PACK IMAGES [--seconds S]

What it can carry is measured first, by as many clients as keep it busy. Then requests come at random times, twice as
many a second, whether or not those before are answered (an open loop: a slow answer does not slow the next request),
and times count from when a request was due. Each answer is held against Python's. wrk, where it is installed, does the
same as fast as it gets answers, with 128 connections. At last SIGTERM comes in the middle of it. Server and clients
share the machine. Writes benchmarks/results/serve-load.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from command_line import command_line
from comparison import machine

from edgevit.files import write_atomically
from edgevit.runtime import load

OUTPUT = Path("benchmarks/results/serve-load.md")
BUSY, MOST = 8, 1000  # clients that keep it busy; requests on their way at once at the most
_LUA = """
local file = io.open(os.getenv("IMAGE"), "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
local expected, threads = os.getenv("EXPECTED"), {}
function setup(thread) table.insert(threads, thread) end
function init(_) ok, busy, other, wrong = 0, 0, 0, 0 end
function response(status, _, body)
  if status == 200 then
    ok = ok + 1
    if not body:find(expected, 1, true) then wrong = wrong + 1 end
  elseif status == 503 then busy = busy + 1 else other = other + 1 end
end
function done(summary, _, _)
  local sums = {ok = 0, busy = 0, other = 0, wrong = 0}
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  local errors = summary.errors
  io.write(string.format('{"ok":%d,"busy":%d,"other":%d,"wrong":%d,"errors":%d}', sums.ok, sums.busy, sums.other,
    sums.wrong, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass
class Seen:
    """What came of requests: statuses, seconds of those answered, and what should not be."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    silent: int = 0  # 503 that do not say when to come back
    broken: int = 0  # answers that ended in their middle
    closed: int = 0  # connections that ended before an answer
    refused: int = 0  # where nothing listens any more
    left_out: int = 0  # requests that were due while MOST were on their way


class Load:
    """Clients of one server, each with a connection that is kept."""

    def __init__(self, port: int, contents: list[bytes], expected: list[list[tuple[str, float]]]) -> None:
        self._port, self._contents, self._expected = port, contents, expected
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._random = np.random.default_rng(0)
        self.on_way = 0

    async def ask(self, seen: Seen, due: float) -> None:
        """Make one request that was ``due``, and note what comes of it."""
        self.on_way += 1
        which = int(self._random.integers(len(self._contents)))
        began = False
        try:
            reader, writer = await self._connection()
            content = self._contents[which]
            writer.write(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            head = await reader.readuntil(b"\r\n\r\n")
            began = True
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        except ConnectionRefusedError:
            seen.refused += 1
            return
        except (OSError, asyncio.IncompleteReadError) as error:
            partial = isinstance(error, asyncio.IncompleteReadError) and bool(error.partial)
            seen.broken += began or partial
            seen.closed += not (began or partial)
            return
        finally:
            self.on_way -= 1
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        self._note(seen, which, int(head.split()[1]), head, body, time.perf_counter() - due)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection that nobody uses: one that was kept, if the server has not ended it meanwhile."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _note(self, seen: Seen, which: int, status: int, head: bytes, body: bytes, seconds: float) -> None:
        seen.statuses[status] += 1
        if status == 200:
            seen.seconds.append(seconds)
            found = json.loads(body)["predictions"]
            seen.wrong += [each["label"] for each in found] != [label for label, _ in self._expected[which]] or any(
                abs(each["probability"] - wanted) > 1e-4
                for each, (_, wanted) in zip(found, self._expected[which], strict=True)
            )
        seen.silent += status == 503 and b"retry-after" not in head

    async def busy(self, seconds: float) -> float:
        """Return the answers in a second that it gives to clients that wait for each."""
        seen, end = Seen(), time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self.ask(seen, time.perf_counter())

        await asyncio.gather(*(client() for _ in range(BUSY)))
        assert set(seen.statuses) == {200}, seen
        return seen.statuses[200] / seconds

    async def open_loop(self, rate: float, seconds: float, each_second: list[Any]) -> Seen:
        """Make ``rate`` requests in a second at random times, and return what came of them all."""
        seen, running = Seen(), set()
        start = due = time.perf_counter()
        while due < start + seconds:
            due += float(self._random.exponential(1 / rate))
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            for call in each_second:
                call(time.perf_counter() - start)
            if self.on_way >= MOST:
                seen.left_out += 1
                continue
            task = asyncio.ensure_future(self.ask(seen, due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        return seen


def resident(pid: int) -> float:
    """Return the MiB of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def served(pack: Path, log: Any) -> tuple[subprocess.Popen[str], int]:  # noqa: ANN401
    """Start a server, and return it with its port."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgevit",
            "serve",
            pack,
            "--port",
            "0",
            "--threads",
            "1",
            "--variant",
            variant_of(pack),
        ],
        stderr=subprocess.PIPE,
        stdout=log,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1])
    raise SystemExit("the server did not start")


def variant_of(pack: Path) -> str:
    """Return the variant that is served."""
    with load(pack, threads=1) as model:
        return model.variant.name


async def under_load(pack: Path, paths: list[Path], seconds: float) -> dict[str, Any]:
    """Return all that was seen."""
    variant = variant_of(pack)
    contents = [path.read_bytes() for path in paths]
    with load(pack, variant=variant, threads=1) as model:
        expected = [[(each.label, each.probability) for each in model.predict(content)] for content in contents]
    with tempfile.TemporaryFile("w+") as log:
        process, port = served(pack, log)
        clients = Load(port, contents, expected)
        capacity = await clients.busy(min(10.0, seconds))
        sizes: list[tuple[float, float]] = []

        def sample(now: float) -> None:
            if not sizes or now - sizes[-1][0] >= 1:
                sizes.append((now, resident(process.pid)))

        before = os.getloadavg()[0]
        found = await clients.open_loop(2 * capacity, seconds, [sample])
        wrk = await asyncio.to_thread(with_wrk, port, paths[0], expected[0][0][0], seconds)
        after_wrk = resident(process.pid)
        ending: list[asyncio.Future[tuple[int, float]]] = []

        def end(now: float) -> None:
            if now > 3 and not ending:
                start = time.perf_counter()
                process.send_signal(signal.SIGTERM)
                ended = asyncio.to_thread(lambda: (process.wait(60), time.perf_counter() - start))
                ending.append(asyncio.ensure_future(ended))

        last = await clients.open_loop(2 * capacity, 6, [end])
        code, took = await ending[0]
    return {
        "variant": variant, "capacity": capacity, "load": before, "seen": found, "sizes": [size for _, size in sizes],
        "wrk": wrk, "after_wrk": after_wrk, "last": last, "code": code, "took": took,
    }  # fmt: skip


def with_wrk(port: int, image: Path, expected: str, seconds: float) -> dict[str, int] | None:
    """Return what wrk counts, None where it is not installed."""
    if shutil.which("wrk") is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_LUA)
        script.flush()
        done = subprocess.run(
            ["wrk", "-t1", "-c128", "--timeout", "30s", f"-d{seconds:g}s", "-s", script.name, f"http://127.0.0.1:{port}/v1/predict"],
            env={**os.environ, "IMAGE": str(image), "EXPECTED": json.dumps(expected)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    counts: dict[str, int] = json.loads(done.stdout[done.stdout.rindex("{") :])
    return counts


def page(found: dict[str, Any], seconds: float) -> str:
    """Return the page of results."""
    seen, last, wrk, sizes = found["seen"], found["last"], found["wrk"], found["sizes"]
    p50, p99 = (1000 * float(np.percentile(seen.seconds, share)) for share in (50, 99))
    others = sum(count for status, count in seen.statuses.items() if status not in (200, 503))
    asked = seen.statuses.total() + seen.closed + seen.refused + seen.broken
    rows = [
        ("requests that it answers in a second, with 8 clients", f"{found['capacity']:.1f}"),
        (f"requests in {seconds:g} s at twice as many", f"{asked:,}"),
        ("answered", f"{seen.statuses[200]:,}"),
        ("wrong answers", f"{seen.wrong}"),
        ("refused with 503; of these without Retry-After", f"{seen.statuses[503]:,}; {seen.silent}"),
        ("other statuses; connections closed; answers cut", f"{others}; {seen.closed + seen.refused}; {seen.broken}"),
        ("not sent, as 1,000 were on their way", f"{seen.left_out}"),
        ("p50 and p99 of what was answered, from when it was due", f"{p50:.0f} ms, {p99:.0f} ms"),
        ("memory of the server, every ten seconds", f"{', '.join(f'{size:.0f}' for size in sizes[::10])} MiB"),
        ("memory at the most, and at the end", f"{max(sizes):.1f}, {sizes[-1]:.1f} MiB"),
    ]
    if wrk is not None:
        counts = f"{wrk['ok']:,}; {wrk['busy']:,}; {wrk['other']}; {wrk['errors']}"
        rows += [
            (f"wrk, 128 connections, {seconds:g} s: answered; 503; other statuses; errors", counts),
            ("wrong answers to wrk; memory after it", f"{wrk['wrong']}; {found['after_wrk']:.1f} MiB"),
        ]
    ended = f"{last.statuses[200]:,}; {last.statuses[503]:,}; {last.closed:,}; {last.refused:,}"
    rows += [
        ("SIGTERM after 3 of 6 s of the same: answered; 503; closed before an answer; not connected", ended),
        ("then: wrong answers; answers cut; exit code", f"{last.wrong}; {last.broken}; {found['code']}"),
        ("seconds from the signal to the end", f"{found['took']:.2f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| | |\n| --- | --- |\n{table}\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    paths = sorted(path for path in given.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:32]
    found = asyncio.run(under_load(given.pack, paths, given.seconds))
    command = command_line()
    text = (
        f"# `edgevit serve` under twice its load\n\n`{command}`. {machine(1)}\n\n"
        f"Variant {found['variant']}, one thread, a queue of 64; server and clients share the machine, whose load was "
        f"{found['load']:.1f} when it began.\n\n{page(found, given.seconds)}"
    )
    write_atomically(OUTPUT, text.encode())
    print(text)


if __name__ == "__main__":
    main()
