"""Things in a bundle's folder that EdgeViT did not put there."""

import json
import os
import shutil
from pathlib import Path

import pytest

from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError


def fill(folder):
    (folder / "notes.txt").write_text("x")
    return [folder / "notes.txt"]


def folder(path):
    path.mkdir()
    (path / "mine").write_text("kept")


def link(path):
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("make", [folder, link, os.mkfifo])
def test_a_lock_that_is_no_file_is_named_and_left(exported, make):
    (exported / ".lock").unlink(missing_ok=True)
    make(exported / ".lock")
    with pytest.raises(BundleError, match=r"\.lock is not a file") as caught:
        Bundle.open(exported).add_extra("notes", fill)
    assert str(exported / ".lock") in caught.value.remedy
    assert os.path.lexists(exported / ".lock")


@pytest.mark.parametrize("make", [folder, link, os.mkfifo])
def test_a_draft_that_is_no_folder_of_ours_gives_way(exported, make):
    make(exported / ".draft")
    assert len(Bundle.open(exported).add_extra("notes", fill).manifest.extra) == 1
    assert not os.path.lexists(exported / ".draft")
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("written", ["names", "inodes", "own"])
def test_a_journal_from_elsewhere_removes_nothing(exported, written):
    folder(exported / "photos")
    (exported / ".draft").mkdir()
    inode = (exported / "photos").stat().st_ino
    journal = {"names": ["photos"], "inodes": {"photos": inode + 1}, "own": {"photos": inode}}[written]
    (exported / ".draft/journal.json").write_text(json.dumps(journal))
    Bundle.open(exported).add_extra("notes", fill)
    assert (exported / "photos").exists() == (written != "own"), "its own leavings it removes"
    if written != "own":
        assert (exported / "photos/mine").read_text() == "kept"


@pytest.mark.parametrize("name", ["manifest.json", "float32/model.onnx"])
def test_what_the_system_refuses_to_read_is_named(exported, name, monkeypatch):
    """As root, too, for whom permissions do not count."""
    real = Path.open

    def refuse(self, *arguments, **options):
        if self == exported / name:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BundleError, match=name) as caught:
        Bundle.open(exported).verify_files("float32")
    assert "chmod" in caught.value.remedy


def test_a_bundle_that_is_copied_with_what_a_kill_left_is_changed_all_the_same(exported, tmp_path):
    (exported / ".draft/folders/notes").mkdir(parents=True)
    copy = shutil.copytree(exported, tmp_path / "copy.edgevit")
    assert len(Bundle.open(copy).add_extra("notes", fill).manifest.extra) == 1
    assert not (copy / ".draft").exists()
