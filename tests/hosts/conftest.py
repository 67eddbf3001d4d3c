"""Boards for the tests of hosts: each has an sshd of its own, and the client's ``ssh`` knows them all."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_board import PYTHON, Proxy, SshBoard, client

from edgevit.hosts.address import Address
from edgevit.hosts.link import Link, Patience


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], SshBoard]]:
    """Return a function that starts a board which ``ssh`` reaches by a name."""
    made: list[SshBoard] = []
    monkeypatch.setenv("PATH", str(tmp_path / "client"), prepend=":")
    monkeypatch.setenv("EDGEVIT_CONFIG", str(tmp_path / "config"))

    def start(name: str) -> SshBoard:
        made.append(SshBoard(tmp_path / name, name))
        client(tmp_path / "client", made)
        return made[-1]

    yield start
    for board in made:
        board.stop()


@pytest.fixture
def board(boards: Callable[[str], SshBoard]) -> SshBoard:
    return boards("pi")


@pytest.fixture
def proxies() -> Iterator[Callable[..., Proxy]]:
    """Return a function that puts a proxy before a board."""
    made: list[Proxy] = []

    def between(board: SshBoard, *limits: int) -> Proxy:
        made.append(Proxy(board.port, list(limits)))
        board.reach(made[-1].port)
        return made[-1]

    yield between
    for proxy in made:
        proxy.close()


class Connected:
    """Makes links to a board, and keeps what they say and whether they are to end."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.cancel = threading.Event()

    def __call__(self, name: str = "pi", *, again_s: float = 20.0, python: str = PYTHON) -> Link:
        return Link(
            name,
            Address(name),
            python,
            "0123",
            cancelled=self.cancel.is_set,
            note=self.notes.append,
            patience=Patience(answer_s=20.0, again_s=again_s),
        )


@pytest.fixture
def connected() -> Connected:
    return Connected()
