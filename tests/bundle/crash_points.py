"""Interrupts a change of a bundle at each of its system calls in turn and checks what is left; run as a script.

For k = 1, 2, ... a forked child makes the change and, at its k-th call to the operating system that concerns files, is
killed (``kill``) or told that the disk is full (``full``). Prints, as JSON, how often the old and the new bundle were
found afterwards. That the calls are counted by an audit hook is why this runs in a process of its own: a hook stays.
"""

import errno
import json
import os
import shutil
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path

from conftest import ACCURACY, add_int8, add_report, make_bundle

from edgevit.bundle.reading import all_files, logical_path, verified_paths
from edgevit.bundle.store import Bundle
from edgevit.bundle.transaction import rebuilding
from edgevit.errors import StorageError

NOT_REACHED, REFUSED, DONE_ANYWAY = 0, 10, 20
CALLS = ("open", "os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "fcntl.flock")
WRITES = ("os.rename", "os.mkdir", "os.link")


def create(path):
    return make_bundle(path, b"first" * 200)


def replace_whole(path):
    return make_bundle(path, b"another" * 300, existing="replace")


UNCOUNTED = [False]


def rebuild(path):
    with rebuilding(path) as place:
        UNCOUNTED[0] = True  # the work itself is interrupted by tests/stages/pipeline_kills.py
        add_int8(make_bundle(place, b"another" * 300, beside=path), b"another")
        UNCOUNTED[0] = False


SCENARIOS = {
    "create": (None, create),
    "replace_whole": (lambda path: add_report(add_int8(create(path), b"old"), b"old"), replace_whole),
    "rebuild": (lambda path: add_report(add_int8(create(path), b"old"), b"old"), rebuild),
    "add": (create, lambda path: add_int8(Bundle.open(path), b"new")),
    "replace": (lambda path: add_int8(create(path), b"old"), lambda path: add_int8(Bundle.open(path), b"newer")),
    "update": (create, lambda path: Bundle.open(path).update_variant("float32", accuracy=ACCURACY)),
    "extra": (lambda path: add_report(create(path), b"old"), lambda path: add_report(Bundle.open(path), b"newer")),
}


def state(path):
    """What the bundle at ``path`` is, with the content of its files checked; None where there is none."""
    if not (path / "manifest.json").exists():
        return None
    bundle = Bundle.open(path)
    verified_paths(path, all_files(bundle.manifest))
    measured = [(variant.name, variant.accuracy) for variant in bundle.manifest.variants]
    return sorted((logical_path(file), file.sha256) for file in all_files(bundle.manifest)), measured


def is_write(event, arguments):
    return event in WRITES or (event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)))


def child(change, path, point, mode):
    reached = [0]

    def at_call(event, arguments):
        if UNCOUNTED[0] or (mode == "full" and not is_write(event, arguments)):
            return
        reached[0] += 1
        if reached[0] == point:
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = lambda descriptor: at_call("fsync", ())
    sys.addaudithook(lambda event, arguments: at_call(event, arguments) if event in CALLS else None)
    try:
        change(path)
    except StorageError:
        os._exit(REFUSED)
    os._exit(DONE_ANYWAY if reached[0] >= point else NOT_REACHED)


def attempt(change, path, point, mode):
    """Make the change in a child that is interrupted at ``point``; return how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            child(change, path, point, mode)
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) != 1, f"{mode} at call {point}: not a StorageError"
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def nothing_left_over(path):
    files = all_files(Bundle.open(path).manifest)
    present = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert present == {".lock", "manifest.json", *(file.path for file in files)}, present
    folders = {str(folder.relative_to(path)) for folder in path.iterdir() if folder.is_dir()}
    assert folders == {file.path.partition("/")[0] for file in files}, folders


def main(scenario, mode, place):
    before, change = SCENARIOS[scenario]
    os.fsync = lambda descriptor: None  # a kill loses nothing that was written; only the loss of power does
    template, path, expected = place / "template", place / "t.edgevit", place / "expected"
    if before:
        before(template)
        shutil.copytree(template, expected)
    old = state(template)
    change(expected)
    new = state(expected)
    counts = Counter()
    for point in range(1, 1000):
        shutil.rmtree(path, ignore_errors=True)
        if before:
            shutil.copytree(template, path)
        end = attempt(change, path, point, mode)
        state_after = state(path)
        assert state_after in (old, new), f"{mode} at call {point} left neither the old bundle nor the new one"
        if end == NOT_REACHED:
            assert state_after == new
            break
        if end == REFUSED:
            assert state_after == old, f"full disk at call {point}: refused, and changed all the same"
            assert before or not path.exists(), f"full disk at call {point}: a part of the new bundle is left"
        counts["old" if state_after == old else "new"] += 1
        if state_after is None:
            create(path)
        else:
            Bundle.open(path).update_variant("float32", accuracy=None)
            assert state(path) == state_after
        nothing_left_over(path)
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
