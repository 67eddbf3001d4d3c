"""Runs commands on a board, one after the other, whatever becomes of the connection by which they were started.

It is sent as text, as ``board.py`` is, and stands alone: the standard library of Python 3.10, and nothing of EdgeViT.
It reads ``run.json`` and notes in ``state.json`` how far it is. While it or a process of its commands goes on, ``lock``
is locked.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def supervise(folder: Path) -> None:
    """Run the commands of ``run.json`` one after the other, until one ends with a code that it may not end with."""
    run = json.loads((folder / "run.json").read_text())
    state: dict[str, Any] = {"token": run["token"], "codes": [], "done": False, "group": os.getpid()}
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _note(folder, state)
        for command in run["commands"]:
            code = _run(folder, command, run["environment"], lock.fileno())
            state["codes"].append(code)
            _note(folder, state)
            if code not in command["allowed"]:
                break
        state["done"] = True
        _note(folder, state)


def _run(folder: Path, command: dict[str, Any], environment: dict[str, str], lock: int) -> int:
    with (folder / command["out"]).open("wb") as out:
        try:
            return subprocess.run(
                command["arguments"],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=out,
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder / "tmp"), **environment},
                pass_fds=[lock],
            ).returncode
        except OSError as error:
            sys.stderr.write(f"{command['arguments'][0]}: {error.strerror}\n")
            return 127


def _note(folder: Path, state: dict[str, Any]) -> None:
    draft = folder / "state.json.new"
    draft.write_text(json.dumps(state))
    draft.replace(folder / "state.json")


if __name__ == "__main__":
    os.umask(0o077)
    supervise(Path(sys.argv[1]))
