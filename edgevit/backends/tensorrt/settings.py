"""What a user, a target's profile or a bundle may set of TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args, get_type_hints

import msgspec

from edgevit.backends.base import NO_DLA, merge_settings
from edgevit.backends.tensorrt.bindings import NAMES, Flavour
from edgevit.decoding import LOCK
from edgevit.errors import BundleError

YesNo = Literal["no", "yes"]


class TensorRTSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine is built and run.

    ``device`` is the GPU. ``hardware_compatibility`` lets an engine run on later GPUs too, ``version_compatible`` in
    later versions of TensorRT, both a little slower; ``optimization_level`` is how long the build searches. When it is
    loaded: ``rebuild`` an engine that another version or GPU asks for; ``host_code`` lets an engine of an earlier
    version run its own code on the processor; ``contexts`` is how many parts of a batch go through at once;
    ``cuda_graph`` off launches each kernel by itself.
    """

    device: Literal["gpu"] = "gpu"
    hardware_compatibility: Literal["none", "ampere+", "same-compute-capability"] = "none"
    version_compatible: YesNo = "no"
    optimization_level: Literal["default", "0", "1", "2", "3", "4", "5"] = "default"
    rebuild: YesNo = "no"
    host_code: YesNo = "no"
    contexts: Literal["1", "2", "3", "4"] = "1"
    cuda_graph: Literal["auto", "off"] = "auto"


#: Those that an engine is built with; the others are for when it is loaded.
_OF_BUILD = ("hardware_compatibility", "version_compatible", "optimization_level")

DEFAULTS: Mapping[str, str] = msgspec.to_builtins(TensorRTSettings())


def build_settings(settings: TensorRTSettings) -> dict[str, str]:
    """Return what of ``settings`` an engine is built with."""
    return {name: getattr(settings, name) for name in _OF_BUILD}


def parse_settings(flavour: Flavour, given: Mapping[str, str]) -> TensorRTSettings:
    """Return the settings ``given``, with what is taken where they are silent.

    Raises:
        BundleError: if one is unknown, or has a value that it cannot have.

    """
    merged = merge_settings(flavour, DEFAULTS, given)
    if merged["device"].lower().startswith("dla"):
        raise BundleError(NO_DLA, remedy="leave the setting 'device' at gpu")
    try:
        with LOCK:
            return msgspec.convert(merged, type=TensorRTSettings)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("$.")[2].rstrip("`")
        choices = get_args(get_type_hints(TensorRTSettings).get(name))
        raise BundleError(
            f"{NAMES[flavour]} has no '{merged.get(name)}' for the setting '{name}'",
            remedy=f"use one of {', '.join(choices)}",
        ) from error
