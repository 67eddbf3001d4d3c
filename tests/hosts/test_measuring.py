"""Whole measurements on boards: the command line here, a real sshd, and EdgeViT there."""

import json
import os
import shutil
import signal
import time
import zipfile

import pytest
from ssh_board import PYTHON, processes_in
from tiny import SHAPES, content, finish

import edgevit as public
from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.errors import HostError
from edgevit.hosts.link import Patience

#: Stands in for EdgeViT on the board where a test is about what is around it: it prints what it is told to.
FAKE = """
import json, pathlib, sys, time
step = sys.argv[1] if len(sys.argv) > 1 else ""
with open("calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
manifest = pathlib.Path("bundle.edgevit/manifest.json")
environment = {
    "machine": "board", "cpu": "chip", "cpu_features": [], "cores": 4, "os": "linux", "python": "3.12", "packages": {},
    "measured_at": "2026-01-01T00:00:00Z",
}
answers = "as exported"
LATENCY = {
    "batch": 1, "threads": 1, "p50_ms": 5.0, "p90_ms": 6.0, "p99_ms": 7.0, "throughput_ips": 200.0,
    "speedup_vs_float32": 1.0, "speedup_ci95": [1.0, 1.0], "rss_mb": 9.0, "cold_start_ms": 9.0, "valid": True,
    "invalid_reason": None, "environment": environment,
}
def note(**changes):
    found = json.loads(manifest.read_text())
    found["variants"][0]["latency"] = LATENCY | changes
    manifest.unlink()
    manifest.write_text(json.dumps(found))
#CHANGE
if step == "doctor":
    print(json.dumps({"machine": {"environment": environment}, "engines": [{"name": "onnxruntime"}]}))
elif step == "verify":
    print(json.dumps({"variants": [{"name": "float32", "status": answers}]}))
elif step:
    note()
    raced = {"verdict": "passed", "reason": "it is float32"}
    print(json.dumps({"variants": [{"name": "float32"} | raced], "winner": "float32"}))
"""


@pytest.fixture
def fake(monkeypatch):
    """Return a function that has boards run a program in the place of EdgeViT, with a change of the test's."""

    def use(change="", package=""):
        def write(folder):
            path = folder / "edgevit-0-py3-none-any.whl"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(zipfile.ZipInfo("edgevit/__init__.py"), package)
                archive.writestr(zipfile.ZipInfo("edgevit/__main__.py"), FAKE.replace("#CHANGE", change))
            return path

        monkeypatch.setattr("edgevit.api.hosts.write_wheel", write)

    use()
    return use


@pytest.fixture
def photos(tmp_path):
    """Return a CSV of images in several folders, and what the bundle says of them here."""
    data = load_shapes("test", "size=20,count=40")
    lines = ["path,label"]
    for index in range(40):
        name = f"{'ab'[index % 2]}/{index % 30}-{index}.png"
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        data.image(index).save(tmp_path / "photos" / name)
        lines.append(f"{name},{data.class_names[data.labels[index]]}")
    (tmp_path / "photos/list.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "photos/list.csv"


def test_two_hosts_measure_at_once_what_this_one_measures(quantized, boards, proxies, photos, edgevit, tmp_path):
    pi, orin, off = boards("pi"), boards("orin"), boards("off")
    off.stop()
    proxy = proxies(orin, 250_000)
    variant = "int8-onnxruntime"
    assert edgevit("devices", "add", "jetson", "orin", "--python", PYTHON, "--json").code == 0
    before = Bundle.open(quantized).manifest
    done = edgevit(
        "validate", quantized, "--data", photos, "--variant", variant, "--python", PYTHON,
        "--host", "pi", "--host", "jetson", "--host", "off", "--json",
    )  # fmt: skip
    assert done.code == 1
    assert "pi: Validating int8-onnxruntime on 40 images of list.csv" in done.err
    assert "jetson: the connection is there again" in done.err
    assert proxy.connections >= 2
    first, second, third = done.data()["hosts"]
    assert (first["host"], second["host"], third["host"]) == ("pi", "jetson", "off")
    assert third["error"]["message"] == "off does not take connections"
    here = public.validate(shutil.copytree(quantized, tmp_path / "here.edgevit"), data=photos, variants=[variant])
    wanted = here.bundle.variant(variant).accuracy
    after = Bundle.open(quantized).manifest
    assert after.variants == before.variants
    assert [device.name for device in after.devices] == ["pi", "jetson"]
    for device in after.devices:
        (found,) = [each for each in device.variants if each.name == variant]
        assert (found.accuracy, found.answers) == (wanted, "as exported")
        assert found.sha256 == before.variants[2].files[0].sha256
        assert device.environment.python
    assert [pi.left(), orin.left(), off.left()] == [[], [], []]
    shown = edgevit("inspect", quantized)
    assert "on jetson: " in shown.out


def test_times_of_a_board_are_not_this_machines(exported, board, edgevit):
    done = edgevit("benchmark", exported, "--host", "pi", "--python", PYTHON, "--threads", "1", "--duration", "0.02")
    assert done.code in (0, 1), done.err
    assert "pi" in done.out
    (device,) = Bundle.open(exported).manifest.devices
    assert device.variants[0].latency.p50_ms > 0
    assert Bundle.open(exported).variant("float32").latency is None
    assert board.left() == []


def test_what_is_kept_is_not_sent_again(exported, board, edgevit, fake):
    assert edgevit("benchmark", exported, "--host", "pi", "--python", PYTHON, "--keep").code == 0
    (folder,) = board.runs.iterdir()
    times = {path.name: path.stat().st_ctime_ns for path in (folder / "files").iterdir()}
    assert len(times) > 3
    done = edgevit("benchmark", exported, "--host", "pi", "--python", PYTHON, "--threads", "3", "--keep")
    assert done.code == 0
    assert "Sending: 0/0" in done.err
    doctor, verify, benchmark = (folder / "calls").read_text().splitlines()[3:]
    assert doctor == "doctor --engine onnxruntime --json"
    assert verify == "verify bundle.edgevit --json"
    assert benchmark.startswith("benchmark bundle.edgevit --batch 1 --threads 3 --duration 10 ")
    assert edgevit("benchmark", exported, "--host", "pi", "--python", PYTHON).code == 0
    assert board.left() == []


def test_the_command_there_gets_what_was_given_here(exported, board, fake, photos, tmp_path):
    (tmp_path / "own.toml").write_text(public_target())
    public.race(
        exported, data=photos, target=tmp_path / "own.toml", precisions=["int8"], max_drop=2, min_speedup=0.5,
        samples=8, strict=True, hosts=["pi"], python=PYTHON, keep=True,
    )  # fmt: skip
    (folder,) = board.runs.iterdir()
    line = next(each for each in (folder / "calls").read_text().splitlines() if each.startswith("race"))
    words = line.split()
    given = {name: words[words.index(name) + 1] for name in words if name.startswith("--") and name != words[-1]}
    assert given["--target"] == "inputs/target.toml"
    assert (given["--max-drop"], given["--min-speedup"], given["--precision"]) == ("2", "0.5", "int8")
    assert given["--data"] == "images/data.images.json"
    assert given["--calibration-data"] == "calibration/data.images.json"
    assert "--strict" in words
    listing = json.loads((folder / "images/data.images.json").read_text())
    assert len(listing["labels"]) == 8
    assert (folder / "inputs/target.toml").read_text() == public_target()


def public_target():
    from edgevit import resources

    return (resources.folder("export") / "targets/x86-onnxruntime.toml").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "if step == 'doctor': print(json.dumps({'engines': [{'name': 'onnxruntime', 'problem': 'not there'}]})); "
            "sys.exit(3)",
            "no engine runs on pi: onnxruntime: not there",
        ),
        (
            "if step == 'benchmark': print(json.dumps({'error': {'type': 'X', 'message': 'a\\n\\x1b[2Jb', "
            "'remedy': 'c'}})); sys.exit(2)",
            "pi: a  .2Jb",
        ),
        ("if step == 'verify': print('Traceback', file=sys.stderr); sys.exit(1 + 1)", "pi: Traceback"),
        (
            "if step == 'benchmark': manifest.unlink(); manifest.write_text('x' * (17 << 20)); sys.exit(0)",
            "more than 16",
        ),
    ],
)
def test_nonsense_from_a_board_leaves_both_sides_whole(exported, board, fake, change, message):
    fake(change)
    before = content(exported)
    with pytest.raises(HostError, match=message) as caught:
        public.benchmark(exported, hosts=["pi"], python=PYTHON)
    assert (caught.value.message + caught.value.remedy).isprintable()
    assert content(exported) == before
    assert board.left() == []


def test_texts_of_a_board_are_made_printable_and_short(exported, board, fake):
    fake(
        "environment['os'] = '\\x1b[2J' + 'x' * 100_000; "
        "environment['packages'] = dict.fromkeys(map(str, range(9999)), 'y')"
    )
    found = public.benchmark(exported, hosts=["pi"], python=PYTHON)
    (device,) = found.bundle.manifest.devices
    assert device.environment.os.isprintable()
    assert len(device.environment.os) == 1024
    assert len(device.environment.packages) == 4096


def test_answers_that_differ_there_are_no_pass(exported, board, edgevit, fake):
    fake("answers = 'differs'")
    done = edgevit("benchmark", exported, "--host", "pi", "--python", PYTHON)
    assert done.code == 1
    assert "pi: float32: answers to the golden images: differs" in done.out
    assert Bundle.open(exported).manifest.devices[0].variants[0].answers == "differs"


def test_what_validate_says_beside_the_figures_is_told(exported, board, edgevit, fake, photos, tmp_path):
    fake(
        "if step == 'validate': note(); print(json.dumps({'variants': [{'name': 'float32'}], "
        "'unreadable': ['a/1.png'], 'shares_missed': {'float32': 'too few'}})); sys.exit(1)"
    )
    circles = tmp_path / "classes/circle"
    circles.mkdir(parents=True)
    shutil.copy(next(photos.parent.glob("a/*.png")), circles)
    (circles / "lost.png").symlink_to(circles / "not there")
    done = edgevit("validate", exported, "--data", circles.parent, "--host", "pi", "--python", PYTHON)
    assert done.code == 1
    assert f"pi: left out 2 images that cannot be read: {circles}/lost.png, a/1.png" in done.out
    assert "pi: float32: share missed: too few" in done.out


def test_a_pack_is_measured_and_stays_as_it_is(exported, board, edgevit, fake, tmp_path):
    assert edgevit("pack", exported, "-o", tmp_path / "tiny.edgevit.zip").code == 0
    before = (tmp_path / "tiny.edgevit.zip").read_bytes()
    done = edgevit("benchmark", tmp_path / "tiny.edgevit.zip", "--host", "pi", "--python", PYTHON)
    assert done.code == 0
    assert "these figures are in no bundle" in done.out
    assert (tmp_path / "tiny.edgevit.zip").read_bytes() == before


@pytest.mark.parametrize(
    ("machine", "options", "message"),
    [
        ("armv7l", [], "a processor of the kind armv7l, for which there are no engines"),
        ("", [], "a processor of the kind that it does not tell"),
        ("aarch64", ["--target", "x86-onnxruntime"], "the target x86-onnxruntime is for x86_64, and pi is aarch64"),
    ],
)
def test_another_processor_is_one_line(exported, board, edgevit, fake, machine, options, message):
    board.tool("uname", f"echo {machine}")
    step = ["race", "--data", SHAPES, *options] if options else ["benchmark"]
    done = edgevit(step[0], exported, *step[1:], "--host", "pi", "--python", PYTHON)
    assert done.code == 3
    assert message in done.failure()[0]
    assert board.left() == []


def test_packages_that_are_missing_there_are_one_line(exported, board, edgevit, fake):
    fake(package="raise ModuleNotFoundError('No module named msgspec')")
    done = edgevit("benchmark", exported, "--host", "pi", "--python", PYTHON)
    assert done.code == 3
    assert "lacks what EdgeViT needs: ModuleNotFoundError: No module named msgspec" in done.failure()[0]
    assert board.left() == []


def test_a_board_that_dies_in_the_middle_leaves_the_bundle_whole(exported, board, fake, monkeypatch):
    fake("if step == 'benchmark': print('measuring', file=sys.stderr, flush=True); time.sleep(60)")
    monkeypatch.setattr("edgevit.hosts.several.PATIENCE", Patience(20.0, 0.5))
    before = content(exported)
    notes = []

    def progress(event):
        notes.append(event.message)
        if event.message == "pi: measuring":
            board.stop()

    with pytest.raises(HostError, match="the connection to pi is lost"):
        public.benchmark(exported, hosts=["pi"], python=PYTHON, progress=progress)
    assert content(exported) == before
    assert any("is left there" in note for note in notes)
    (state,) = board.runs.glob("*/state.json")  # what nobody can end any more but on the board itself
    os.killpg(json.loads(state.read_text())["group"], signal.SIGKILL)


def test_ctrl_c_and_another_that_follows_end_the_run_there_and_clean_up(forked, exported, board, tmp_path):
    before = content(exported)
    options = ["--host", "pi", "--python", PYTHON, "--duration", "60", "--threads", "1"]
    process = forked("benchmark", exported, *options, scratch=tmp_path / "scratch")
    deadline = time.monotonic() + 60
    while not processes_in(board.runs) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130, done.err
    assert content(exported) == before
    assert board.left() == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_options_of_hosts_go_with_hosts(exported, edgevit):
    for option in (["--keep"], ["--python", "python3"]):
        done = edgevit("benchmark", exported, *option)
        assert done.code == 2
        assert "goes with --host" in done.failure()[0]
    done = edgevit("benchmark", exported, "--host", "-oProxyCommand=x")
    assert (done.code, "is no host" in done.failure()[0]) == (2, True)


@pytest.mark.slow
def test_a_race_there_makes_what_is_missing(exported, board, edgevit, photos, tmp_path):
    done = edgevit(
        "race", exported, "--data", photos, "--calibration-data", photos, "--target", "x86-onnxruntime",
        "--precision", "int8", "--max-drop", "100", "--duration", "0.05", "--threads", "1",
        "--host", "pi", "--python", PYTHON, "--junit", tmp_path / "verdicts.xml", "--json",
    )  # fmt: skip
    (found,) = done.data()["hosts"]
    assert {each["name"] for each in found["variants"]} == {"float32-onnxruntime", "int8-onnxruntime"}
    assert all(each["answers"] == "as exported" for each in found["variants"])
    assert {each["limit"] for each in found["evidence"]["int8-onnxruntime"]} >= {"accuracy"}
    assert "pi/int8-onnxruntime" in (tmp_path / "verdicts.xml").read_text()
    opened = Bundle.open(exported)
    assert [each.name for each in opened.manifest.variants] == ["float32"]
    (made,) = [each for each in opened.manifest.devices[0].variants if each.name == "int8-onnxruntime"]
    assert made.kernels.integer_linears == made.kernels.linears
    assert made.accuracy.data == "list.csv"
    assert board.left() == []


@pytest.mark.slow
def test_an_environment_is_made_where_none_is_named(exported, board, edgevit):
    done = edgevit("benchmark", exported, "--host", "pi", "--threads", "1", "--duration", "0.02", "--keep")
    if done.code == 3 and "package index" in done.failure()[0]:
        pytest.skip("no package index is reached here")
    assert done.code in (0, 1), done.err
    (device,) = Bundle.open(exported).manifest.devices
    assert "torch" not in device.environment.packages, "it is not the environment of the tests"
    again = edgevit("benchmark", exported, "--host", "pi", "--threads", "1", "--duration", "0.02")
    assert "making a Python environment" not in again.err
    assert board.left() == []
