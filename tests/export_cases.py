"""Images, and ways to prepare them, by which runtimes in other languages are held against Python."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError


def picture(height=30, width=41, channels=3, seed=0):
    """Return an image with edges and noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    planes = [Image.fromarray(small[..., at]).resize((width, height)) for at in range(channels)]
    whole = np.stack([np.asarray(plane) for plane in planes], -1)
    return np.ascontiguousarray(whole ^ random.integers(0, 16, whole.shape, dtype=np.uint8))


edges, inner = st.integers(1, 40), st.integers(1, 16)
boxes = st.tuples(edges, edges)


@st.composite
def preprocess_fields(draw):
    """Draw what may stand in a manifest of how images are prepared; not all of it goes together."""
    fit = draw(st.sampled_from(["short", "squash", "cover", "contain", "none"]))
    order = draw(st.sampled_from(["RGB", "RGB", "BGR", "L"]))
    channels = 1 if order == "L" else 3
    values = st.sampled_from([0.5, 0.225, 1.0, 0.0, -1.0])
    return {
        "size": (16, 16),
        "resize": draw(st.one_of(st.none(), st.integers(0, 40))),
        "interpolation": "bicubic",
        "mean": draw(st.lists(values, min_size=channels - draw(st.integers(0, 1)), max_size=channels)),
        "std": draw(st.lists(values, min_size=channels, max_size=channels)),
        "channel_order": order,
        "fit": fit,
        "box": draw(st.one_of(st.none(), boxes, edges.map(lambda edge: (edge, edge)))),
        "fill": draw(st.one_of(st.none(), st.lists(st.integers(-1, 256), min_size=channels, max_size=channels))),
        "longest": draw(st.one_of(st.none(), st.integers(0, 9000))),
        "pad": draw(st.sampled_from(["around", "square", "after"])),
        "crop": draw(st.one_of(st.none(), st.tuples(edges, edges))),
    }


@st.composite
def preprocesses(draw):
    fit = draw(st.sampled_from(["short", "squash", "cover", "contain", "none"]))
    box = draw(st.one_of(boxes, edges.map(lambda edge: (edge, edge)))) if fit not in ("short", "none") else None
    square = fit == "cover" and box is not None and box[0] == box[1]
    pad = draw(st.sampled_from(["around", "square"] if fit == "short" else ["around", "square", "after"]))
    try:
        return Preprocess(
            size=(16, 16),
            resize=draw(st.one_of(st.none(), st.integers(16, 40))) if fit == "short" else None,
            interpolation=draw(st.sampled_from(["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"])),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            channel_order=draw(st.sampled_from(["RGB", "BGR"])),
            fit=fit,
            box=box,
            fill=draw(st.one_of(st.none(), st.just((124, 116, 104)))),
            rounding=draw(st.sampled_from(["nearest", "down", "half up"])),
            longest=draw(st.one_of(st.none(), st.integers(1, 60))) if square else None,
            pad=pad,
            crop=draw(st.one_of(st.none(), st.tuples(inner, inner))) if pad == "after" else None,
        )
    except DataError:
        return None
