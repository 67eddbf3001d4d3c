"""Writes that a signal ends at any moment: what was there is there, and nothing else is."""

import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgevit import files
from edgevit.errors import StorageError
from edgevit.files import (
    atomic_folder,
    atomic_path,
    cache_folder,
    copy_tree,
    expanded,
    scratch_folder,
    write_atomically,
)

pytestmark = pytest.mark.usefixtures("all_cores")


class Ended(BaseException):
    """Stands for KeyboardInterrupt, without pytest's heed of it."""


def caused_by_signal(error):
    return isinstance(error, Ended) or (error is not None and caused_by_signal(error.__context__))


def ends_at(point, work):
    """Return whether ``work`` ends at a signal, where Python hears of one the ``point``-th time.

    It does so where a function begins, and after a call of one that is written in C.
    """
    heard = 0

    def hear(frame, event, _):
        nonlocal heard
        if event in ("call", "c_return") and frame.f_code is not ends_at.__code__:
            heard += 1
            if heard == point:
                sys.setprofile(None)
                raise Ended

    sys.setprofile(hear)
    try:
        work()
    except BaseException as error:
        if not caused_by_signal(error):  # shutil.rmtree closes a file twice after one, which is an OSError
            raise
        return True
    finally:
        sys.setprofile(None)
    return False


def replace_file(folder):
    write_atomically(folder / "kept", b"new")


def replace_folder(folder):
    with atomic_folder(folder / "kept") as draft:
        (draft / "file").write_bytes(b"new")


def use_scratch(_):
    with scratch_folder() as scratch:
        (scratch / "file").write_bytes(b"new")


def replace_folder_in_two_steps(folder):
    """Do so where the system exchanges no folders; the test sees to that."""
    replace_folder(folder)


def put_file(folder):
    (folder / "kept").write_bytes(b"old")


def put_folder(folder):
    (folder / "kept").mkdir()
    (folder / "kept/file").write_bytes(b"old")


def put_nothing(_):
    pass


def content(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files that were open at the end
@pytest.mark.parametrize(
    ("before", "work"),
    [
        (put_file, replace_file),
        (put_nothing, replace_file),
        (put_folder, replace_folder),
        (put_folder, replace_folder_in_two_steps),
        (put_nothing, replace_folder),
        (put_nothing, use_scratch),
    ],
)
def test_a_signal_at_any_moment(before, work, tmp_path: Path, monkeypatch):
    found = []
    if work is replace_folder_in_two_steps:
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    for point in range(1, 1000):
        folder = tmp_path / str(point)
        folder.mkdir()
        before(folder)
        old = content(folder)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        ended = ends_at(point, lambda folder=folder: work(folder))
        found.append(content(folder))
        if not ended:
            break
    assert 20 < point < 999
    assert all(state in (old, found[-1]) for state in found), "neither what was there nor what was to be"
    assert found[0] == old


def test_a_folder_in_which_scratch_has_no_room(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="temporary folder"), scratch_folder():
        pass


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from edgevit.files import atomic_path, scratch_folder
tempfile.tempdir = sys.argv[1]
with scratch_folder() as scratch, atomic_path(Path(sys.argv[1]) / "kept") as draft:
    (scratch / "model").write_bytes(b"x")
    draft.write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_the_next_removes_but_not_what_is_in_use(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "edgevit-scratch-notes").mkdir()
    (tmp_path / "edgevit-scratch-0123456789abcdef.txt").write_text("mine")
    kept = {"edgevit-scratch-notes", "edgevit-scratch-0123456789abcdef.txt"}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=Path(__file__).parents[1])
    assert len({path.name for path in tmp_path.iterdir()} - kept) == 2
    with scratch_folder() as one, scratch_folder() as other:
        write_atomically(tmp_path / "kept", b"new")
        assert {path.name for path in tmp_path.iterdir()} == {one.name, other.name, "kept", *kept}
    assert {path.name for path in tmp_path.iterdir()} == {"kept", *kept}


def test_a_folder_that_another_process_takes_for_abandoned_is_made_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locked, happens = files._locked, ["removed before", "removed behind", "being removed"]

    def race(folder):
        what = happens.pop(0) if happens else None
        if what == "being removed":
            raise BlockingIOError
        if what == "removed before":
            folder.rmdir()
        lock = locked(folder)
        if what == "removed behind":
            folder.rmdir()
        return lock

    monkeypatch.setattr(files, "_locked", race)
    monkeypatch.setattr(files, "_remove_abandoned", lambda parent, prefix: None)
    with scratch_folder() as scratch:
        (scratch / "file").write_bytes(b"x")
        assert not happens
    (left,) = tmp_path.iterdir()  # which the process that was about to remove it does
    left.rmdir()


def test_a_folder_of_a_process_that_lives_stays(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(scratch, flush=True); input()")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as other:
        used = Path(other.stdout.readline().strip())
        with scratch_folder(), atomic_path(tmp_path / "kept") as draft:
            draft.write_bytes(b"")
            assert (used / "model").exists()
        other.communicate("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_without_a_home_the_remedy_sets_one(monkeypatch):
    for name in ("HOME", "EDGEVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    import pwd

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for ask in (cache_folder, lambda: expanded("~/photos")):
        with pytest.raises(StorageError, match="there is no home") as caught:
            ask()
        assert "HOME" in caught.value.remedy
    assert expanded("photos") == Path("photos")
    monkeypatch.setenv("EDGEVIT_CACHE", "/cache")
    assert cache_folder() == Path("/cache")


def test_a_copied_tree_is_whole_and_its_errors_are_the_systems(tmp_path: Path):
    (tmp_path / "from/in").mkdir(parents=True)
    (tmp_path / "from/in/file").write_bytes(b"1")
    (tmp_path / "from/file").write_bytes(b"2")
    (tmp_path / "to").mkdir()
    copy_tree(tmp_path / "from", tmp_path / "to")
    assert content(tmp_path / "to") == content(tmp_path / "from")
    (tmp_path / "to/file").unlink()
    (tmp_path / "to/file").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        copy_tree(tmp_path / "from", tmp_path / "to")
    assert caught.value.errno


@pytest.mark.skipif(sys.platform != "linux", reason="folders are exchanged by Linux's renameat2")
def test_a_folder_that_is_replaced_is_there_at_each_moment(tmp_path):
    put_folder(tmp_path)
    missing, done = [], threading.Event()

    def watch():
        while not done.is_set():
            if not (tmp_path / "kept").exists():
                missing.append(1)

    watching = threading.Thread(target=watch)
    watching.start()
    for _ in range(200):
        replace_folder(tmp_path)
    done.set()
    watching.join()
    assert not missing
    assert content(tmp_path) == {"kept": False, "kept/file": b"new"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_two_that_make_the_same_folder_both_succeed(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    both_have_a_draft = threading.Barrier(2)

    def make(number):
        with atomic_folder(tmp_path / "kept") as draft:
            (draft / "file").write_bytes(b"%d" % number)
            both_have_a_draft.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            for done in [pool.submit(make, number) for number in range(2)]:
                done.result(20)
            assert content(tmp_path) in ({"kept": False, "kept/file": b"0"}, {"kept": False, "kept/file": b"1"})
