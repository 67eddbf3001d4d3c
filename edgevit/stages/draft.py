"""What passes over the images have seen, in the hidden folder ``.calibrating`` of a bundle, which is no part of it.

A run that was killed is gone on with from there. Whatever is not whole, or is of another model or other images, is not
believed. All of it goes when ``edgevit quantize`` is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit import __version__
from edgevit.data.batches import Unreadable
from edgevit.errors import ImageError, StorageError
from edgevit.files import atomic_folder, storage_errors
from edgevit.progress import Progress
from edgevit.quantization.calibration.arrays import DAMAGE, load_arrays, save_arrays
from edgevit.quantization.calibration.calibrate import Observation
from edgevit.quantization.calibration.observers import Resumable

LEAST_S = 10.0  # a second pass that took less is not kept

_STATE = "state.npz"
_ABOUT = "about.npz"
_MARGIN = 1 << 20  # bytes that a file may have beside its arrays
_ROOM = 2  # times what is kept must be free on the disk: the models that follow need room, too


@dataclass(frozen=True, slots=True)
class Draft:
    """What the first pass over the images, of the bundle in the folder ``bundle``, has seen so far.

    It is believed only if it is whole, and has the ``key`` of this model and these images.
    """

    bundle: Path
    key: str = ""

    @property
    def folder(self) -> Path:
        """Where all drafts of the bundle lie."""
        return self.bundle / ".calibrating"

    def exists(self) -> bool:
        """Say whether there is one, whatever is in it."""
        return self.folder.is_dir() and not self.folder.is_symlink()

    def keep(self, observation: Observation, position: int) -> None:
        """Keep what was seen of the first ``position`` images.

        Raises:
            StorageError: if the disk is full or not writable.
        """
        if not self.exists():
            self.remove()
        if (self.folder / _STATE).is_dir():
            _remove(self.folder / _STATE)
        about = {"key": np.array(self.key), "position": np.array(position)}
        with suppress(FileNotFoundError):  # another process was done with this bundle and removed the folder meanwhile
            save_arrays(self.folder / _STATE, {**observation.state(), **about})

    def restored(self, start: Callable[[], Observation], images: int) -> tuple[Observation, int]:
        """Return a pass over ``images`` that goes on from what was kept, if anything, and how many were passed.

        ``start`` gives a pass that has seen nothing.
        """
        return self._restored(start, images) or (start(), 0)

    def _restored(self, start: Callable[[], Observation], images: int) -> tuple[Observation, int] | None:
        """Do so if it can be believed; what was restored in part only is let go."""
        try:
            state = _load(self.folder / _STATE)
            if str(state.pop("key")) != self.key:
                return None
            position = int(state.pop("position"))
            observation = start()
            observation.restore(state)
        except DAMAGE:
            return None
        # Images that could not be read were passed, and not seen.
        return (observation, position) if observation.seen.images <= position <= images else None

    def remove(self) -> None:
        """Remove what was kept."""
        _remove(self.folder)


@dataclass(frozen=True, slots=True)
class SecondPass:
    """A ``Keeper`` of what second passes saw of the images with the hash ``selection_sha256``, each in a folder.

    It is kept once the pass is done, a file for each layer, so that memory does not grow: for K inputs K*K floats. The
    images that could not be read are kept with it, and go to ``unreadable`` again.
    """

    draft: Draft
    selection_sha256: str
    unreadable: Unreadable
    progress: Progress

    def restore(self, name: str, key: str, parts: Mapping[str, Resumable]) -> bool:
        """Give ``parts`` what was kept as ``name`` with that ``key``, if it can be believed; say whether it could.

        Raises:
            ImageError: if an image could not be read, and each must be.
        """
        folder = self._place(name)
        if not self.draft.exists() or folder.is_symlink():
            return False
        try:
            about = _load(folder / _ABOUT)
            if str(about["key"]) != self._whole(key):
                return False
            for index, part in enumerate(parts.values()):
                part.restore(_load(folder / f"{index}.npz", _bytes(part) + _MARGIN))
            left_out = [(str(image), str(message), str(remedy)) for image, message, remedy in about["unreadable"]]
        except DAMAGE:
            return False
        for image, message, remedy in left_out:
            self.unreadable.add(image, ImageError(message, remedy=remedy))
        return True

    def keep(self, name: str, key: str, parts: Mapping[str, Resumable], seconds: float) -> None:
        """Keep what ``parts`` saw in a pass that took ``seconds``, unless it is soon done again or there is no room.

        Without it the run goes on: it has all that it needs.
        """
        if seconds < LEAST_S:
            return
        if not self.draft.exists():
            self.draft.remove()
        place = self._place(name)
        _remove(place)
        needed = sum(map(_bytes, parts.values()))
        if shutil.disk_usage(self.draft.bundle).free < _ROOM * needed:
            self._regret(f"the {needed / 1e6:.0f} MB would leave the disk full")
            return
        try:
            with atomic_folder(place) as folder:
                self._write(folder, key, parts)
        except StorageError as error:
            self._regret(error.message)
        except FileNotFoundError:
            self._regret("another process has removed the folder")

    def _write(self, folder: Path, key: str, parts: Mapping[str, Resumable]) -> None:
        numbered = enumerate(self.progress.track(parts.values(), total=len(parts), label="Saving GPTQ statistics"))
        for index, part in numbered:
            with (folder / f"{index}.npz").open("wb") as stream:
                np.savez(stream, allow_pickle=False, **part.state())
        left_out = [(image, error.message, error.remedy) for image, error in self.unreadable.images.items()]
        about = {"key": np.array(self._whole(key)), "unreadable": np.array(left_out, dtype=np.str_).reshape(-1, 3)}
        save_arrays(folder / _ABOUT, about)

    def _regret(self, reason: str) -> None:
        self.progress.note(f"GPTQ statistics are not saved, so a run that is killed starts them again: {reason}")

    def _place(self, name: str) -> Path:
        return self.draft.folder / f"second-{name}"

    def _whole(self, key: str) -> str:
        return f"{__version__} {self.selection_sha256} {key}"


def _bytes(part: Resumable) -> int:
    return sum(array.nbytes for array in part.state().values())


def _load(path: Path, most: int | None = None) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of ``path``, at most so many bytes; any of ``DAMAGE`` if it is no file of ours."""
    if path.is_symlink() or not path.is_file():  # what waits for a writer would never be read
        raise FileNotFoundError(path)
    return load_arrays(path) if most is None else load_arrays(path, most)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_symlink() or path.exists():  # a disk that cannot be written refuses what is not there, too
        with storage_errors(path):
            path.unlink(missing_ok=True)
