"""What people type and what they mean: names close to a mistyped one, and what other tools call the same thing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_NOTHING: Mapping[str, Sequence[str]] = {}
_SHOWN = 6

#: What other tools call precisions, and what those are called here.
PRECISIONS_ELSEWHERE: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("fp32", "f32", "float", "single", "full", "tf32", "none"), ("float32",)),
    **dict.fromkeys(("float16", "f16", "half", "mixed"), ("fp16",)),
    **dict.fromkeys(("bf16", "bfloat16"), ("fp16", "float32")),
    **dict.fromkeys(("float8", "f8", "fp8-e4m3", "e4m3"), ("fp8",)),
    **dict.fromkeys(("i8", "s8", "u8", "uint8", "qint8", "w8a8", "static", "int8-static", "int-8", "ptq"), ("int8",)),
    **dict.fromkeys(("dynamic", "int8-dyn"), ("int8-dynamic",)),
    **dict.fromkeys(("w8", "w8a16", "w8a32", "int8-weight-only", "weight-only"), ("int8-weights",)),
    **dict.fromkeys(("int4", "i4", "uint4", "w4", "w4a16", "int4-weight-only", "nf4"), ("int4-weights",)),
}

#: What other tools call options, and what those are called here, where the command has one of them.
OPTIONS_ELSEWHERE: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(("lr", "learn-rate"), ("learning-rate",)),
    **dict.fromkeys(("bs", "batch-size", "batchsize", "batch"), ("batch-size", "batch")),
    **dict.fromkeys(("wd",), ("weight-decay",)),
    **dict.fromkeys(("num-epochs", "n-epochs", "epoch"), ("epochs",)),
    **dict.fromkeys(("warmup",), ("warmup-epochs",)),
    **dict.fromkeys(("smoothing",), ("label-smoothing",)),
    **dict.fromkeys(("num-workers", "jobs", "n-jobs"), ("workers",)),
    **dict.fromkeys(("num-threads", "cores"), ("threads",)),
    **dict.fromkeys(("img-size", "imgsz", "input-size", "resolution", "size", "img"), ("image-size",)),
    **dict.fromkeys(("checkpoint", "weights", "pretrained", "ckpt", "finetune"), ("from",)),
    **dict.fromkeys(("dataset", "images", "data-dir", "data-path", "input"), ("data",)),
    **dict.fromkeys(("calib-data", "calibration", "calibration-images"), ("calibration-data", "data")),
    **dict.fromkeys(("out", "output-dir", "out-dir", "save-dir"), ("output",)),
    **dict.fromkeys(("force", "replace"), ("overwrite",)),
    **dict.fromkeys(("arch", "architecture"), ("model",)),
    **dict.fromkeys(("topk", "top-k", "k"), ("top",)),
    **dict.fromkeys(("dtype", "type", "quant", "bits", "variant"), ("precision",)),
    **dict.fromkeys(("backend", "engine", "device", "platform", "target"), ("target", "dialect")),
    **dict.fromkeys(("num-samples", "n-samples", "calibration-samples"), ("samples",)),
    **dict.fromkeys(("time", "seconds"), ("duration",)),
    **dict.fromkeys(("crop-pct", "crop"), ("crop", "center-crop")),
    **dict.fromkeys(("drop-path",), ("stochastic-depth",)),
    **dict.fromkeys(("continue",), ("resume",)),
}


def alike(name: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]] = _NOTHING) -> list[str]:
    """Return those of the ``known`` names that ``name`` may stand for, the likeliest first; maybe none.

    ``elsewhere`` says what others call some of them: a name there stands for itself, or for what begins so. Case, and
    what is between words, do not count.
    """
    wanted = _plain(name)
    if not wanted:
        return []
    plain = {each: _plain(each) for each in known}
    found: list[str] = []
    for meant in elsewhere.get(wanted, ()):
        found += [meant] if meant in known else [each for each in known if each.startswith(meant)]
    found = list(dict.fromkeys(found)) or [each for each in known if plain[each] == wanted]
    found = found or [each for each in known if plain[each].startswith(wanted)]
    found = found or [each for each in known if len(wanted) > 2 and wanted in plain[each]]
    if not found:
        from difflib import get_close_matches  # only where something was mistyped

        close = get_close_matches(wanted, plain.values())
        found = [each for match in dict.fromkeys(close) for each in known if plain[each] == match]
    return found or [each for each in known if len(plain[each]) > 2 and wanted.startswith(plain[each])]


def nearest(name: str, known: Sequence[str], elsewhere: Mapping[str, Sequence[str]] = _NOTHING) -> str:
    """Return a remedy for the mistyped ``name``: those of the ``known`` ones that are like it, or all of them."""
    close = alike(name, known, elsewhere)[:_SHOWN]
    return f"use {' or '.join(close)}" if close else f"use one of {', '.join(known)}"


#: What people call devices, as the descriptions of targets do.
_DEVICES = {
    "rpi": "raspberrypi",
    "raspi": "raspberrypi",
    "pi": "raspberrypi",
    **dict.fromkeys(("x64", "x86", "amd", "amd64", "ryzen", "xeon", "core"), "x8664"),
    "cpu": "processor",
    **dict.fromkeys(("aarch", "apple", "mac", "macbook", "m"), "arm"),
    "cuda": "anynvidiagpu",
    "igpu": "intelgpu",
    "adalovelace": "ada",
}
_GEFORCE = re.compile(r"(?:nvidia|geforce)*(rtx|gtx)(\d\d)\d\d(?:ti|super|laptop|mobile|d)*")


def devices_like(name: str, described: Mapping[str, str], nicknames: Mapping[str, str]) -> list[str]:
    """Return the targets that ``name`` may mean: a device, a board, or a GPU that a description tells of.

    ``described`` says of each target, and of each of its editions, its names and what it is for; ``nicknames`` what
    people call engines, and what those are called there.
    """
    wanted = _squashed(name)
    if not wanted:
        return []
    if match := _GEFORCE.fullmatch(wanted):
        wanted = f"{match[1]}{match[2]}"
    texts = {each: _squashed(text) for each, text in described.items()}
    letters = re.sub(r"\d+", "", wanted)
    known = {**_DEVICES, **nicknames}
    for word in (known.get(wanted), wanted, known.get(letters), letters):
        if word and len(word) > 1:
            mentioned = re.compile(rf"{word}(?!\d)" if word[-1].isdigit() else word)  # an A10 is no A100
            if found := [each for each, text in texts.items() if mentioned.search(text)]:
                return found
    words = [word for word in re.findall(r"[a-z]+", name.lower()) if len(word) > 1]
    found = [each for each, text in texts.items() if words and all(word in text for word in words)]
    if found := found or alike(name, list(described)):
        return found
    from difflib import get_close_matches

    close = get_close_matches(letters, sorted({*known.values()}), n=1, cutoff=0.8)
    return [each for each, text in texts.items() if close and close[0] in text]


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "-", name.strip().casefold()).strip("-")


def _squashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.casefold())
