"""Kills ``quantize``, ``build`` and ``pack`` with SIGKILL at random moments, and lets two run at once; run as a script.

Usage: random_kills.py EXPORTED QUANTIZED FOLDER KILLS SEED. What was there before must be whole and the same after each
kill, no process may be left, and the same command must then do its work and leave nothing of the one that was killed.
Prints, as JSON, for each command how often it was killed, and how often it had ended before.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import onnx_ir  # noqa: F401  # once, for all children, as what follows
import onnxruntime  # noqa: F401
import openvino  # noqa: F401
from tiny import SHAPES

from edgevit.bundle.reading import all_files, verified_paths
from edgevit.bundle.store import Bundle
from edgevit.cli.app import run
from edgevit.files import sha256_of

COMMANDS = {
    "quantize": ("quantize", "t.edgevit", "--data", SHAPES, "--dialect", "onnxruntime"),
    "quantize again": ("quantize", "t.edgevit", "--data", SHAPES, "--samples", "32", "--dialect", "openvino"),
    "build": ("build", "t.edgevit", "--target", "x86-openvino", "--precision", "float32"),
    "pack": ("pack", "t.edgevit", "-o", "t.zip", "--overwrite"),
    "pack for Triton": ("pack", "t.edgevit", "--format", "triton", "-o", "t.triton", "--overwrite"),
}
PACKED = ("t.zip", "t.triton")
MOST_S = 60


class Place:
    """A folder with a bundle that a command changes, and what was packed of it before."""

    def __init__(self, folder, bundle):
        self.folder, self.path, self.template = folder, folder / "t.edgevit", bundle
        self.packed = []
        folder.mkdir(parents=True)
        os.chdir(folder)
        self.renew()

    def pack_less(self, command):
        """Have an old pack there, of one variant."""
        assert ended(self.start((*command, "--variant", "float32"))) == 0, self.said()
        found = [each for each in map(self.folder.joinpath, PACKED) if each.exists()]
        self.packed = [each.rename(self.folder.parent / each.name) for each in found]
        self.renew()

    def renew(self):
        """Put the folder back as it was, with what was packed."""
        for each in self.folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        shutil.copytree(self.template, self.path)
        for each in self.packed:
            (shutil.copytree if each.is_dir() else shutil.copyfile)(each, self.folder / each.name)
        self.before = self.state()

    def said(self):
        """Return what the last command wrote to its standard error."""
        return (self.folder.parent / "stderr.txt").read_text()

    def start(self, command):
        """Run a command in a session of its own; return its process."""
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(os.open(self.folder.parent / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = 1
        try:
            code = run(command)
        finally:
            os._exit(code)

    def state(self):
        """Return the SHA-256 of all that is there and whole: the bundle's files, by variant, and what was packed."""
        manifest = Bundle.open(self.path).manifest
        verified_paths(self.path, all_files(manifest))
        found = {variant.name: [file.sha256 for file in variant.files] for variant in manifest.variants}
        for packed in map(self.folder.joinpath, PACKED):
            if packed.is_dir():
                found[packed.name] = [sha256_of(each) for each in sorted(packed.rglob("*")) if each.is_file()]
            elif packed.exists():
                Bundle.open(packed)
                found[packed.name] = [sha256_of(packed)]
        return found

    def leftovers(self):
        """Return what is in the folder, and in the bundle, that nothing lists."""
        listed = {file.path for file in all_files(Bundle.open(self.path).manifest)} | {"manifest.json", ".lock"}
        inside = {str(each.relative_to(self.path)) for each in self.path.rglob("*") if each.is_file()} - listed
        return inside | {each.name for each in self.folder.iterdir()} - {"t.edgevit", *PACKED}


def ended(pid):
    """Wait for a process, and return the signal or the status that it ended with."""
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def nobody_left(session):
    """Wait until no process of a session is there."""
    deadline = time.monotonic() + MOST_S
    while any(session == owner for owner in sessions()):
        assert time.monotonic() < deadline, "a process of the command that was killed goes on"
        time.sleep(0.01)


def sessions():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except OSError:
                continue


def kills(name, place, count, chance):
    """Kill a command ``count`` times; return how it ended each time."""
    command = COMMANDS[name]
    begun = time.monotonic()
    assert ended(place.start(command)) == 0, place.said()
    takes = time.monotonic() - begun
    done = place.state()
    counts = Counter()
    for index in range(count):
        place.renew()
        pid = place.start(command)
        time.sleep(chance.uniform(0, takes))
        os.kill(pid, signal.SIGKILL)
        counts["killed" if ended(pid) == -signal.SIGKILL else "had ended"] += 1
        nobody_left(pid)
        after = place.state()
        for each, hashes in place.before.items():
            # A new variant may differ from the last: settings are raced. That it is whole, state() has checked.
            kept = after.get(each) == hashes or (each in after and done[each] != hashes)
            assert kept, f"{name}, kill {index}: {each} is not as it was, and not new"
        assert set(after) <= set(done), f"{name}, kill {index}: {set(after) - set(done)} is there"
        if index % 10 == 0:
            assert ended(place.start(command)) == 0, place.said()
            assert set(place.state()) == set(done)
            assert not place.leftovers(), place.leftovers()
    return counts


PAIRS = (("quantize", "build"), ("quantize", "quantize again"), ("pack", "pack"), ("build", "build"))


def two_at_once(place, pairs, chance):
    """Let two commands write at once; both do their work, or one says why not, and all is whole."""
    counts = Counter()
    for first, second in pairs:
        place.renew()
        pids = [place.start(COMMANDS[first])]
        time.sleep(chance.uniform(0, 0.2))
        pids.append(place.start(COMMANDS[second]))
        codes = [ended(pid) for pid in pids]
        after = place.state()
        assert all(after[each] == hashes for each, hashes in place.before.items())
        assert 0 in codes, codes
        assert set(codes) <= {0, 2, 3}, codes
        assert not place.leftovers(), place.leftovers()
        counts["both" if codes == [0, 0] else "one"] += 1
    return counts


def main(exported, quantized, folder, count, seed):
    chance = random.Random(seed)
    counts = {}
    each = count // len(COMMANDS)
    for index, (name, command) in enumerate(COMMANDS.items()):
        place = Place(folder / str(index) / "place", exported if name in ("quantize", "build") else quantized)
        if "pack" in name:
            place.pack_less(command)
        counts[name] = dict(kills(name, place, each, chance))
        if index == 0:
            counts["two at once"] = dict(two_at_once(place, PAIRS[: max(1, each // 5)], chance))
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5]))
