"""Writes that a signal ends at any moment: what was there is there, and nothing else is."""

import sys
import tempfile
from pathlib import Path

import pytest

from edgevit.errors import StorageError
from edgevit.files import atomic_folder, scratch_folder, write_atomically


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
        (put_nothing, replace_folder),
        (put_nothing, use_scratch),
    ],
)
def test_a_signal_at_any_moment(before, work, tmp_path: Path, monkeypatch):
    found = []
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
