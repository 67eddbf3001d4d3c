"""Name what a GStreamer pipeline shows: frames go from an ``appsink`` to EdgeViT's runtime.

    python gstreamer_appsink.py PACK "v4l2src ! videoconvert"
    python gstreamer_appsink.py PACK "filesrc location=film.mp4 ! decodebin ! videoconvert"

It needs GStreamer's Python bindings (``apt install python3-gi gir1.2-gst-plugins-base-1.0`` on Debian and Ubuntu) and a
virtual environment with ``--system-site-packages``. The runtime resizes as it does everywhere, so that the answers are
those that were validated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import gi
import numpy as np

from edgevit.runtime import load

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstApp, GstVideo  # noqa: E402, F401 - GstApp gives appsink its methods

#: One frame waits; older ones are dropped, so that a camera never falls behind. A file is shown frame by frame.
SINK = "video/x-raw,format=RGB ! appsink name=frames max-buffers=1 drop={drop} sync=false"

#: Between looks at whether the pipeline has failed, in nanoseconds: an appsink waits for ever for one that has.
WAIT = Gst.SECOND // 10


def frames(source: str, *, drop: bool) -> Iterator[np.ndarray]:
    """Yield the frames (height, width, 3) of the pipeline ``source``, R, G, B.

    Raises:
        RuntimeError: with GStreamer's message, if the pipeline fails.

    """
    Gst.init(None)
    pipeline = Gst.parse_launch(f"{source} ! {SINK.format(drop=str(drop).lower())}")
    sink = pipeline.get_by_name("frames")
    pipeline.set_state(Gst.State.PLAYING)
    try:
        while not sink.is_eos():
            sample = sink.try_pull_sample(WAIT)
            if sample is not None:
                yield pixels(sample)
            message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
            if message is not None:
                error, _ = message.parse_error()
                raise RuntimeError(error.message)
    finally:
        pipeline.set_state(Gst.State.NULL)


def pixels(sample: Gst.Sample) -> np.ndarray:
    """Return a copy of a frame's pixels: rows may have a stride, and the buffer goes back to its pool."""
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    meta = GstVideo.buffer_get_video_meta(buffer)
    stride = meta.stride[0] if meta is not None else info.stride[0]
    shape, strides = (info.height, info.width, 3), (stride, 3, 1)
    readable, mapped = buffer.map(Gst.MapFlags.READ)
    if not readable:
        raise RuntimeError("GStreamer does not let a frame be read")
    try:
        return np.ndarray(shape, np.uint8, mapped.data, strides=strides).copy()
    finally:
        buffer.unmap(mapped)


def main() -> None:
    """Print the label of each frame."""
    pack, source = sys.argv[1:3]
    with load(pack) as model:
        for answer in model.stream(frames(source, drop="v4l2src" in source)):
            best = answer.predictions[0]
            print(f"{answer.index}: {best.label} {best.probability:.1%}", flush=True)


if __name__ == "__main__":
    main()
