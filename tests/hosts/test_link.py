"""Sending and running over a real sshd, with connections that are cut, full disks, and boards that die."""

import json
import os
import subprocess
import threading
import time

import msgspec
import pytest
from ssh_board import PYTHON, make_key, processes_in

from edgevit.errors import HostError, InputError
from edgevit.hosts.link import NoSpaceError, RunEndedError
from edgevit.hosts.running import RemoteCommand, read_remote, run_commands
from edgevit.hosts.sending import lay_out, parcel, send
from edgevit.progress import SILENT


def noise(size, seed=0):
    return b"".join(((seed + index) * 2654435761 % (1 << 32)).to_bytes(4, "little") for index in range(size // 4))


def content(board):
    files = board.runs / "0123" / "files"
    return {path.name: path.read_bytes() for path in files.iterdir()}


def test_files_are_sent_once_by_their_hash(board, connected, tmp_path):
    (tmp_path / "large").write_bytes(noise(3_000_001))
    parcels = [parcel("a/large.bin", tmp_path / "large"), parcel("small.txt", b"small"), parcel("empty", b"")]
    parcels.append(parcel("again.txt", b"small"))
    with connected() as link:
        send(link, parcels, SILENT)
        assert content(board) == {each.sha256: bytes(read_of(each)) for each in parcels}
        lay_out(link, "bundle", parcels)
        before = {path: path.stat().st_mtime_ns for path in (board.runs / "0123/files").iterdir()}
        send(link, parcels, SILENT)
        assert {path: path.stat().st_mtime_ns for path in (board.runs / "0123/files").iterdir()} == before
        place = board.runs / "0123" / "bundle"
        assert (place / "a/large.bin").read_bytes() == noise(3_000_001)
        assert [(place / name).read_bytes() for name in ("small.txt", "again.txt", "empty")] == [
            b"small",
            b"small",
            b"",
        ]
        lay_out(link, "bundle", parcels[1:2])
        assert [path.name for path in place.iterdir()] == ["small.txt"]
        assert (board.runs / "0123").stat().st_mode & 0o077 == 0
        assert link.clean() is None
    assert board.left() == []


def test_who_has_lost_the_folder_to_another_run_changes_nothing_in_it(board, connected):
    file = parcel("small.txt", b"small")
    with connected() as first:
        mark = board.runs / "0123/session"
        with pytest.raises(HostError, match="another run of this bundle"):
            connected()
        os.utime(mark, (0, time.time() - 600))  # it slept
        with connected() as second:
            send(second, [file], SILENT)
            with pytest.raises(HostError, match="another run of this bundle"):
                send(first, [file], SILENT)
            assert "another run of this bundle" in first.clean()
            assert content(board) == {file.sha256: b"small"}
            os.utime(mark, (0, time.time() + 6000))  # of a board whose clock has gone back since
            with connected() as third:
                assert third.clean() is None
    assert board.left() == []


def read_of(each):
    return each.content if isinstance(each.content, bytes) else each.content.read_bytes()


def test_a_file_that_was_cut_goes_on_where_it_was(board, connected, proxies):
    proxy = proxies(board, 700_000, 900_000)  # less than is sent at once: it gets on all the same
    whole = noise(4_000_000)
    with connected() as link:
        send(link, [parcel("model.onnx", whole)], SILENT)
        assert list(content(board).values()) == [whole]
        assert proxy.connections == 3
        assert connected.notes.count("the connection is there again") == 2
        assert proxy.passed < 1.7 * len(whole), "what had arrived was sent again"
        link.clean()
    assert board.left() == []


def test_a_later_run_goes_on_where_an_earlier_one_was_killed(board, connected):
    whole = noise(2_000_000)
    file = parcel("model.onnx", whole)
    with connected() as link:
        (board.runs / "0123/files" / f"{file.sha256}.part").write_bytes(whole[:1_500_000])
        other = parcel("other", noise(600_000, 7))
        (board.runs / "0123/files" / f"{other.sha256}.part").write_bytes(b"of a disk that lies")
        send(link, [file, other], SILENT)
        assert content(board) == {file.sha256: whole, other.sha256: other.content}
        (board.runs / "0123/files" / file.sha256).write_bytes(whole[:99])  # as after a power cut
        send(link, [file], SILENT)
        assert content(board)[file.sha256] == whole


def test_a_file_that_changes_meanwhile_is_refused(board, connected, tmp_path):
    (tmp_path / "file").write_bytes(noise(400_000))
    file = parcel("file", tmp_path / "file")
    (tmp_path / "file").write_bytes(noise(400_000, 5))
    with connected() as link:
        with pytest.raises(HostError, match="has changed meanwhile"):
            send(link, [file], SILENT)
        (tmp_path / "file").write_bytes(b"short")
        with pytest.raises(InputError, match="has changed"):
            send(link, [file], SILENT)
        assert content(board) == {} or all(name.endswith(".part") for name in content(board))


COUNT = "import sys, time\nfor i in range(12): print('line', i, file=sys.stderr, flush=True); time.sleep(0.15)"


def test_a_run_goes_on_while_the_connection_is_cut(board, connected, proxies):
    proxy = proxies(board)
    lines = []

    def say(line):
        lines.append(line)
        if line in ("line 2", "line 5"):
            proxy.cut()

    with connected() as link:
        ended = run_commands(
            link, [RemoteCommand((PYTHON, "-c", COUNT), "out"), RemoteCommand(("sh", "-c", "exit 7"), "out")], {}, say
        )
        assert ended.codes == (0, 7)
        assert lines == [f"line {index}" for index in range(12)]
        assert proxy.connections == 3


def test_commands_end_where_one_fails_and_their_output_is_read(board, connected):
    commands = [
        RemoteCommand(("sh", "-c", 'echo "$HELLO"; exit 1'), "one", (0, 1)),
        RemoteCommand(("sh", "-c", "echo oops >&2; exit 3"), "two", (0,)),
        RemoteCommand(("sh", "-c", "touch never"), "three"),
    ]
    lines = []
    with connected() as link:
        ended = run_commands(link, commands, {"HELLO": "a 'b' $c"}, lines.append)
        assert (ended.codes, ended.said, lines) == ((1, 3), ("oops",), ["oops"])
        assert read_remote(link, "one", 100) == b"a 'b' $c\n"
        with pytest.raises(HostError, match="more than 3 bytes"):
            read_remote(link, "one", 3)
        with pytest.raises(HostError, match="No such file"):
            read_remote(link, "three", 3)
        assert not (board.runs / "0123/never").exists()
        assert run_commands(link, [RemoteCommand(("/no/such/program",), "out")], {}, lines.append).codes == (127,)


def test_what_a_board_says_obeys_nobody(board, connected):
    lines = []
    script = r"printf '\033[2Jgone\007\rA\n\xff\xfe\n%01000d\n' 0 >&2"
    with connected() as link:
        run_commands(link, [RemoteCommand(("sh", "-c", script), "out")], {}, lines.append)
    assert all(line.isprintable() for line in lines)
    assert lines[:2] == [" [2Jgone ", "A"]
    assert max(map(len, lines)) == 300


def test_what_a_shell_prints_at_login_is_passed_over(board, connected):
    board.tool("uname", 'echo "Welcome to the board"; echo; echo x86_64')
    with connected() as link:
        assert link.machine == "Welcome to the board"
    board.tool("uname", "echo aarch64")
    with connected() as link:
        assert link.machine == "aarch64"


def test_a_board_that_dies_for_good_is_given_up(board, connected):
    with connected(again_s=1.0) as link:
        board.stop()
        with pytest.raises(HostError, match="the connection to pi is lost: pi does not take connections"):
            run_commands(link, [RemoteCommand((PYTHON, "-c", COUNT), "out")], {}, lambda _: None)
        assert link.clean() is not None


def test_a_run_that_a_reboot_has_ended_is_noticed(board, connected):
    def say(line):
        if line == "line 1":
            state = json.loads((board.runs / "0123/state.json").read_text())
            os.killpg(state["group"], 9)

    with connected() as link, pytest.raises(RunEndedError, match="before it was through"):
        run_commands(link, [RemoteCommand((PYTHON, "-c", COUNT), "out")], {}, say)


def test_an_interruption_ends_what_runs_there(board, connected):
    def say(line):
        if line == "line 0":
            connected.cancel.set()

    with connected() as link:
        with pytest.raises(HostError, match="interrupted"):
            run_commands(link, [RemoteCommand((PYTHON, "-c", COUNT.replace("0.15", "99")), "out")], {}, say)
        assert processes_in(board.runs)
        assert link.clean() is None
    assert board.left() == []


def test_two_runs_do_not_share_a_folder(board, connected):
    with connected() as link:
        with pytest.raises(HostError, match="another run of this bundle"):
            connected()
        os.utime(board.runs / "0123/session", (0, 0))  # the other has not been heard of for long
        with connected() as later:
            assert later.clean() is None
        assert link.facts.folder


def test_a_full_disk_is_said_and_cleaned_up(board, connected):
    board.tool("small", f'ulimit -f 1000; exec {PYTHON} "$@"')  # 1000 blocks of 512 bytes, or of 1024
    with connected(python=str(board.tools / "small")) as link:
        with pytest.raises(NoSpaceError, match="the disk of pi is full"):
            send(link, [parcel("model.onnx", noise(4_000_000))], SILENT)
        assert link.clean() is None
    assert board.left() == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small disk")
def test_a_small_disk_is_measured_before_and_met_on_the_way(board, connected):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(board.home)], check=True)
    try:
        with connected() as link:
            with pytest.raises(NoSpaceError, match=r"2\.1 MB free, and 4\.0 MB are needed"):
                send(link, [parcel("model.onnx", noise(4_000_000))], SILENT)
            link.facts = msgspec.structs.replace(link.facts, free=1 << 40)  # others fill it meanwhile
            with pytest.raises(NoSpaceError, match="the disk of pi is full"):
                send(link, [parcel("model.onnx", noise(4_000_000))], SILENT)
            fill = (PYTHON, "-c", "file = open('tmp/x', 'wb', 0)\nwhile True: file.write(b'x')")
            with pytest.raises(NoSpaceError, match="the disk of pi is full"):
                run_commands(link, [RemoteCommand(fill, "out")], {}, connected.notes.append)
            assert link.clean() is None
        assert board.left() == []
    finally:
        subprocess.run(["umount", "-l", str(board.home)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_takes_no_more_files_is_full_and_nothing_is_left(board, connected):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=6", "tmpfs", str(board.home)], check=True)
    try:
        with pytest.raises(NoSpaceError, match="the disk of pi is full"):
            connected()
        assert list(board.home.iterdir()) in ([], [board.home / ".cache"])
        assert board.left() == []
    finally:
        subprocess.run(["umount", "-l", str(board.home)], check=True)


def no_python(board):
    for name in ("python3", *(f"python3.{minor}" for minor in range(10, 15))):
        board.tool(name, "exit 127")


def old_python(board):
    for name in ("python3", *(f"python3.{minor}" for minor in range(10, 15))):
        board.tool(name, 'case "$1" in --version) echo Python 3.8.10;; *) exit 1;; esac')


def other_key(board):
    make_key(board.folder / "other")
    board.know(board.folder / "other.pub")


def no_key(board):
    (board.folder / "known").write_text("")


def refused_key(board):
    (board.folder / "authorized").write_text("")


@pytest.mark.parametrize(
    ("disturb", "python", "message", "remedy"),
    [
        (other_key, None, "the host key of pi is not the one that is known", "ssh-keygen -R"),
        (no_key, None, "the host key of pi is not known yet", "fingerprint"),
        (refused_key, None, "pi refuses the key", "ssh-copy-id"),
        (lambda board: board.stop(), None, "pi does not take connections", "SSH server"),
        (lambda board: board.reach(1, HostName="no-such-host.invalid"), None, "there is no host pi", "name"),
        (no_python, None, "there is no Python on pi", "sudo apt install python3"),
        (old_python, None, "the Python on pi is Python 3.8.10, and EdgeViT needs Python 3.10", "--python PATH"),
        (no_python, "/opt/none", "there is no Python /opt/none on pi", "--python"),
    ],
)
def test_what_keeps_a_host_away_is_one_line(board, connected, disturb, python, message, remedy):
    disturb(board)
    with pytest.raises(HostError) as caught:
        connected(python=python)
    assert caught.value.message.startswith(message)
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.message + caught.value.remedy
    assert board.left() == []


def test_host_keys_are_checked_whatever_the_configuration_says(board, connected):
    other_key(board)
    board.reach(board.port, StrictHostKeyChecking="no")
    with pytest.raises(HostError, match="not the one that is known"):
        connected()


NONSENSE = (
    b"", b"[]", b"{}", b'{"payload": -1}', b'{"payload": 1e99}', b'{"payload": 9999999999}', b"\xff", b'{"payload": 0}',
    b'{"payload": 0, "error": "odd", "message": "\\u001b[2J"}', b'{"payload": 0, "free": "much"}',
)  # fmt: skip
LIE = """
import sys
print("EDGEVIT-BOARD-1 3", flush=True)
sys.stdin.buffer.readline()
sys.stdout.buffer.write(ANSWER + bytes([10]))
"""


@pytest.mark.parametrize("answer", NONSENSE)
def test_a_board_that_answers_nonsense_is_refused(board, connected, answer):
    (board.folder / "lie.py").write_text(LIE.replace("ANSWER", repr(answer)))
    script = f'case "$*" in *version_info*) exit 0;; *) exec {PYTHON} {board.folder}/lie.py;; esac'
    board.tool("liar", script)
    with pytest.raises(HostError) as caught:
        connected(python=str(board.tools / "liar"), again_s=0.1)
    assert caught.value.message.isprintable()


def test_a_board_that_floods_is_left(board, connected):
    board.tool("flood", 'case "$*" in *version_info*) exit 0;; *) yes;; esac')
    started = threading.active_count()
    with pytest.raises(HostError, match="says more before it answers"):
        connected(python=str(board.tools / "flood"))
    assert threading.active_count() == started
    deadline = time.monotonic() + 10
    while processes_in(board.tools) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_in(board.tools) == []
