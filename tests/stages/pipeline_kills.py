"""Kills ``edgevit pipeline --overwrite`` with SIGKILL at the given steps (1 to 5); run as a script.

Usage: pipeline_kills.py SHELF CHECKPOINT BUNDLE STEP... For each step a forked child runs the pipeline and is killed
when it says that it begins that step. The old bundle must then be whole and the same, and the next change must clear
away what the child left. With step "end" the child is let go to its end, and the new bundle must be whole. SHELF holds
what is made once, see once.py.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import onnxruntime  # noqa: F401  # as torch below: once, for all children
import torch
from tiny import SHAPES, content
from traces import keep

from edgevit.bundle.reading import all_files, verified_paths
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.evaluation.load import Load
from edgevit.graph import torch_export
from edgevit.models.loading import load_checkpoint
from edgevit.progress import Silent
from edgevit.recipes import GateLimits, load_recipe
from edgevit.stages.pipeline import PipelineJob, pipeline
from edgevit.targets import load_target


class Killer(Silent):
    def __init__(self, step):
        self.step = step

    def note(self, message):
        if message.startswith(f"{self.step}/6"):
            os.kill(os.getpid(), signal.SIGKILL)


def run(checkpoint, path, step):
    """Run the pipeline in a child; return the signal that ended it, or 0."""
    pid = os.fork()
    if pid == 0:
        try:
            job = PipelineJob(
                source=checkpoint,
                data=SHAPES,
                output=path,
                targets={"x86-onnxruntime": load_target("x86-onnxruntime")},
                recipe=load_recipe("default"),
                load=Load(threads=1, duration_s=0.1),
                unreadable=Unreadable(),
                gate=GateLimits(max_drop=100.0),
                existing="replace",
            )
            pipeline(job, progress=Killer(step))
            os._exit(0)
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the pipeline failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(shelf, checkpoint, bundle, *steps):
    torch.set_num_threads(1)  # others would not come along into a child
    keep(shelf)
    torch_export.trace(load_checkpoint(checkpoint).model())
    for step in steps:
        path = bundle.with_name(f"{step}.edgevit")
        shutil.copytree(bundle, path)
        before = content(path)
        ended = run(checkpoint, path, step)
        if step == "end":
            assert ended == 0
            made = [variant.name for variant in Bundle.open(path).manifest.variants]
            assert made == ["float32", "float32-onnxruntime", "int8-onnxruntime"]
            assert Bundle.open(path).manifest.name == "end"
            assert not (path / "int8-openvino").exists()
        else:
            assert ended == signal.SIGKILL
            after = {name: sha for name, sha in content(path).items() if not name.startswith(".draft/")}
            assert after == before, f"killed at step {step}: the old bundle is not as it was"
            verified_paths(path, all_files(Bundle.open(path).manifest))
            Bundle.open(path).update_variant("float32", accuracy=None)
        assert not (path / ".draft").exists()
        verified_paths(path, all_files(Bundle.open(path).manifest))
        sys.stdout.write(f"{step} ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
