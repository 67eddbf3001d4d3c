"""The example in export/video, on a pipeline that GStreamer really runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevit.runtime import load

EXAMPLE = Path(__file__).resolve().parents[2] / "export" / "video" / "gstreamer_appsink.py"
#: Where Debian and Ubuntu put PyGObject, for the Python that comes with them.
SYSTEM = "/usr/lib/python3/dist-packages"
#: PyGObject is looked for last, so that nothing else there is taken for ours.
FIND = f"import sys; sys.path.append({SYSTEM!r}); "
RUN = f"{FIND}import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
PROBE = f"{FIND}import gi; gi.require_version('GstApp', '1.0'); from gi.repository import GstApp"


def python(*arguments):
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def gstreamer():
    if python(PROBE).returncode:
        pytest.skip("GStreamer's Python bindings are not there: apt install python3-gi gir1.2-gst-plugins-base-1.0")


def test_a_pipeline_gets_the_answers_of_the_runtime(exported, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (29, 37, 3), dtype=np.uint8)
    raw = tmp_path / "frames.rgb"
    rows = np.pad(picture.reshape(29, 37 * 3), ((0, 0), (0, 1)))  # GStreamer's rows are whole words, with gaps
    raw.write_bytes(rows.tobytes() * 3)
    source = f"filesrc location={raw} ! rawvideoparse width=37 height=29 format=rgb framerate=10/1 ! videoconvert"
    done = python(RUN, str(EXAMPLE), str(exported), source)
    assert done.returncode == 0, done.stderr
    with load(exported) as model:
        (best, *_) = model.predict(Image.fromarray(picture))
    expected = f"{best.label} {best.probability:.1%}"
    assert done.stdout.splitlines() == [f"{index}: {expected}" for index in range(3)]


def test_a_pipeline_that_fails_says_so(exported, tmp_path):
    done = python(
        RUN, str(EXAMPLE), str(exported), f"filesrc location={tmp_path / 'none.mp4'} ! decodebin ! videoconvert"
    )
    assert done.returncode == 1
    assert "Resource not found" in done.stderr
