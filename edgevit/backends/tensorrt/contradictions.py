"""What TensorRT has against the keys of a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgevit import versions
from edgevit.backends.backend import TargetFields
from edgevit.backends.tensorrt.fusion_limits import FP8_COMPUTE_CAPABILITY, has_fp8

#: The dialect of releases that are strongly typed, the only one that has FP8; and that of those before.
STRONGLY_TYPED, LEGACY = "tensorrt", "tensorrt-legacy"

#: Releases that each of the two is not for: float16 scales are read since 10.12.
_NOT_FOR: Mapping[str, tuple[str, ...]] = {
    STRONGLY_TYPED: ("8.5", "8.6", "9.0", "10.0", "10.3", "10.7", "10.11"),
    LEGACY: ("8.5", "10.12", "10.13", "10.16", "11.0", "12.0"),
}
_RELEASES: Mapping[str, str] = {STRONGLY_TYPED: "10.12 and later", LEGACY: "8.6 to 10.11"}


def float8_contradictions(target: TargetFields) -> Iterator[tuple[str, str]]:
    """Yield why ``target`` cannot have FP8, if it asks for it."""
    if "fp8" not in target.precisions:
        return
    if target.dialect != STRONGLY_TYPED:
        yield "precisions", f"fp8 is for the dialect {STRONGLY_TYPED}, not {target.dialect}"
    capability = target.compute_capability
    if capability is not None and not has_fp8(capability):
        yield "precisions", f"fp8 needs compute capability {FP8_COMPUTE_CAPABILITY} or later, not {capability}"


def version_contradictions(target: TargetFields) -> Iterator[tuple[str, str]]:
    """Yield the releases of TensorRT among the versions of ``target`` that do not read its dialect."""
    for release in _NOT_FOR.get(target.dialect, ()):
        if target.versions is not None and versions.in_range(release, target.versions):
            limit = _RELEASES[target.dialect]
            yield "versions", f"dialect '{target.dialect}' is for TensorRT {limit}, and this has {release} in it"
