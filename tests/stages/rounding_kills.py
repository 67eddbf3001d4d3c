"""Kills ``edgevit quantize`` with SIGKILL while weights are rounded, or what that takes is kept; run as a script.

Usage: rounding_kills.py BUNDLE IMAGES MOMENT. MOMENT says when a forked child is killed: "rounding", at the second
layer of the second scheme; "keeping", when a part of what was observed is written. Prints how many of the two second
passes over the images the run after it made. It must end in the same files as one of an untouched copy.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from tiny import content

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.progress import Silent
from edgevit.stages import draft
from edgevit.stages.images import DataSource
from edgevit.stages.quantize import quantize
from edgevit.targets import load_target

TARGETS = {name: load_target(name) for name in ("x86-onnxruntime", "portable")}  # both schemes
ROUNDING, KEEPING, OBSERVING = "Rounding weights, layer by layer", "Saving GPTQ statistics", "Collecting statistics"


class Killer(Silent):
    """Kills this process at item ``at`` of what has the label ``label``, the ``times``-th time that it comes."""

    def __init__(self, label="", times=0, at=0):
        self.label, self.times, self.at = label, times, at
        self.observed = 0

    def track(self, items, *, total, label):
        self.observed += label.startswith(OBSERVING)
        self.times -= label == self.label
        for index, item in enumerate(items):
            if label == self.label and self.times == 0 and index == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


KILLERS = {"rounding": (ROUNDING, 2, 1), "keeping": (KEEPING, 1, 5)}


def run(bundle, images, *when):
    """Quantize in a child; return the signal that ended it, or 0, and how many second passes it made."""
    pid = os.fork()
    if pid == 0:
        try:
            progress, unreadable = Killer(*when), Unreadable()
            quantize(Bundle.open(bundle), DataSource(images, "train", unreadable), TARGETS, progress=progress)
            assert len(unreadable) == 1, "an image that cannot be read is not said"
            os._exit(10 + progress.observed)
        except BaseException:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status), 0
    assert os.WEXITSTATUS(status) >= 10, "quantize failed"
    return 0, os.WEXITSTATUS(status) - 10


def main(bundle, images, moment):
    draft.LEAST_S = 0
    whole = shutil.copytree(bundle, bundle.with_name("whole") / bundle.name)
    before = content(bundle)
    assert run(bundle, images, *KILLERS[moment]) == (signal.SIGKILL, 0)
    after = content(bundle)
    assert {name: sha for name, sha in after.items() if not name.startswith(".calibrating/")} == before
    assert len(after) > len(before)
    ended, observed = run(bundle, images)
    assert ended == 0
    assert run(whole, images) == (0, 2)
    assert not (bundle / ".calibrating").exists()
    assert content(bundle) == content(whole)
    sys.stdout.write(f"{observed}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
