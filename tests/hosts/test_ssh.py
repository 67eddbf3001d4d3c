import json
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from edgevit.errors import HostError, MissingDependencyError
from edgevit.hosts import ssh
from edgevit.hosts.address import Address
from edgevit.hosts.environment import check_board
from edgevit.hosts.link import BoardFacts
from edgevit.hosts.reasons import ConnectionLostError, reason
from edgevit.json import JSONError, decode

BOOT = 'import sys; print(f"it\'s {sys.stdin.read()}")'


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "tcsh", "fish", "zsh", "busybox sh"])
def test_whatever_the_login_shell_is_a_path_stays_a_path(shell, tmp_path):
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"{shell} is not installed")
    odd = f"{tmp_path}/no 'such' $(touch {tmp_path}/made) \"python\";`touch {tmp_path}/made`"
    command = shlex.join(["sh", "-c", ssh._FIND_PYTHON, "sh", BOOT, odd, sys.executable])
    command = f"printf Welcome; {command}"  # as a file of the shell's may, and without an end of the line
    done = subprocess.run([*shell.split(), "-c", command], input="booted", capture_output=True, text=True)
    welcome, machine, said = done.stdout.splitlines()
    assert welcome == "Welcome"
    assert machine.startswith("EDGEVIT-MACHINE ")
    assert said == "it's booted"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("said", "message", "lasting"),
    [
        ("ssh: Could not resolve hostname pi: Name or service not known", "there is no host pi", False),
        (
            "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.",
            "the host key",
            True,
        ),
        ("No ED25519 host key is known for pi and you have requested strict checking.", "the host key", True),
        ("me@pi: Permission denied (publickey).", "pi refuses the key", True),
        ("Could not chdir to home directory /home/me: Permission denied", "the connection to pi has ended", False),
        ("ssh: connect to host pi port 22: Connection refused", "pi does not take connections", False),
        ("ssh: connect to host pi port 22: No route to host", "there is no way to pi", False),
        ("ssh: connect to host pi port 22: Connection timed out", "pi does not answer", False),
        ("Warning: x\n\nkex_exchange_identification: \x1b[2Jodd\n", "the connection to pi has ended: kex", False),
        ("", "the connection to pi has ended", False),
    ],
)
def test_what_ssh_says_is_told_in_one_line(said, message, lasting):
    error = reason(said, "pi", "ssh pi")
    assert error.message.startswith(message)
    assert (error.message + error.remedy).isprintable()
    assert isinstance(error, ConnectionLostError) is not lasting


def test_no_ssh_here_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="no ssh on this machine"):
        ssh.Connection("pi", Address("pi"), None, cancelled=lambda: False, patience_s=1.0)


def test_what_is_said_beside_the_answers_fills_no_disk_and_the_last_of_it_counts(monkeypatch, tmp_path):
    script = "head -c 3000000 /dev/zero >&2; echo 'me@pi: Permission denied (publickey).' >&2; exit 255"
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    kept = []
    monkeypatch.setattr(ssh, "reason", lambda said, *names: kept.append(said) or reason(said, *names))
    with pytest.raises(HostError, match="pi refuses the key"):
        ssh.Connection("pi", Address("pi"), None, cancelled=lambda: False, patience_s=20.0)
    assert len(kept[0]) <= 1 << 16


def test_figures_of_a_board_that_no_disk_has_are_refused():
    facts = json.dumps(FACTS | {"free": 10**400}).encode()
    with pytest.raises(JSONError, match="free"):
        decode(facts, BoardFacts)


FACTS = {"folder": "/f", "executable": "/p", "python": "3.11.2", "bits": 64, "libc": "glibc 2.36", "free": 1}


@pytest.mark.parametrize(
    ("machine", "facts", "own_python", "message"),
    [
        ("riscv64", {}, False, "a processor of the kind riscv64"),
        ("aarch64", {"bits": 32}, False, "the system of pi has 32 bits"),
        ("x86_64", {}, False, "it is for aarch64, and pi is x86_64"),
        ("aarch64", {"folder": "/home/a:b/x"}, False, "has a colon in its path"),
        ("aarch64", {"libc": ""}, True, "pi has no glibc"),
        ("aarch64", {"libc": ""}, False, None),
        ("arm64", {}, True, None),
    ],
)
def test_boards_that_cannot_serve_are_refused(machine, facts, own_python, message):
    link = SimpleNamespace(name="pi", machine=machine, facts=BoardFacts(**FACTS | facts))
    if message is None:
        check_board(link, ("aarch64",), "it", own_python=own_python)
        return
    with pytest.raises(HostError, match=message):
        check_board(link, ("aarch64",), "it", own_python=own_python)
