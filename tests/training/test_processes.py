"""Whole runs in processes of their own: several that train together, and one that is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from tiny import finish
from train_tasks import assert_same_but_for_rounding, fill_folder, save_checkpoint

from edgevit.models.loading import load_checkpoint
from edgevit.training.run import RunFolder

pytestmark = pytest.mark.usefixtures("all_cores")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
COMMAND = ("train", "--device", "cpu")
TRAIN = ("-m", "edgevit", *COMMAND)
RECIPE = """
workers = 1
autocast = "float32"
warmup_epochs = 1
mixup = 0.5
cutmix = 0.5
stochastic_depth = 0.3
randaugment = 1
crop = 0.5
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def torchrun(*command, processes=2):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1")
    return [sys.executable, *launcher, "--master-port", str(free_port()), *command]


def run(command):
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    data = fill_folder(folder / "images", count=12)
    source = save_checkpoint(folder / "old.safetensors")
    (folder / "train.toml").write_text(RECIPE)
    few = ("--epochs", 4, "--batch-size", 8, "--learning-rate", 0.003, "--recipe", folder / "train.toml")
    return tuple(map(str, ("--data", data, "--from", source, *few)))


@pytest.fixture(scope="module")
def train(forked_with_torch, options, tmp_path_factory):
    """Return a function that starts a training which writes to a path."""
    scratch = tmp_path_factory.mktemp("scratch")
    return lambda path, *more, **how: forked_with_torch(*COMMAND, *options, "-o", path, *more, scratch=scratch, **how)


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """Return the run of one process that nothing interrupts."""
    path = tmp_path_factory.mktemp("whole") / "run"
    done = finish(train(path))
    assert done.code == 0, done.err
    return path


def weights_of(path):
    return load_checkpoint(str(path)).weights


@pytest.mark.slow
def test_two_processes_do_what_one_does(options, whole, tmp_path):
    two = tmp_path / "two"
    together = run(torchrun(*TRAIN, *options, "-o", str(two)))
    assert together.returncode == 0, together.stderr
    assert_same_but_for_rounding(weights_of(two), weights_of(whole))
    assert together.stdout.count("Top-1") == 1, "one of them speaks for all"
    assert together.stderr.count("epoch 4/4: loss") == 1, "there is one log"
    ours, theirs = (RunFolder(path).metrics() for path in (whole, two))
    for single, shared in zip(ours, theirs, strict=True):
        assert shared.train_loss == pytest.approx(single.train_loss, rel=1e-4)
        assert shared.validation_accuracy == single.validation_accuracy


@pytest.mark.slow
def test_what_one_process_refuses_all_refuse(train, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    variables = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    ranks = [{**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]  # as torchrun does
    started = [train(tmp_path / "full", variables=rank) for rank in ranks]
    for done in map(finish, started):
        assert done.code == 2
        assert "exists already" in done.failure()[0]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(train, whole, tmp_path):
    broken = tmp_path / "broken"
    metrics = broken / "metrics.jsonl"
    moments = (
        lambda: (broken / "job.json").exists(),
        lambda: (broken / "state.pt").exists(),
        lambda: metrics.exists() and len(metrics.read_bytes().splitlines()) >= 1,
        lambda: len(metrics.read_bytes().splitlines()) >= 3,
    )
    for moment in moments:
        resume = ["--resume"] if (broken / "job.json").exists() else []
        kill_when(moment, train(broken, *resume))
    done = finish(train(broken, "--resume"))
    assert done.code == 0, done.err
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(weights_of(broken)[name], tensor, rtol=0, atol=1e-6)
    assert [row.epoch for row in RunFolder(broken).metrics()] == [1, 2, 3, 4]


def kill_when(moment, process):
    """Kill a process and its workers at once when ``moment`` has come."""
    deadline = time.monotonic() + 120
    while not moment() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert moment()
    with contextlib.suppress(ProcessLookupError):  # it may be done
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
