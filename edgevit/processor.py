"""What this machine's processor has that decides how fast and exact INT8, FP16 and BF16 are."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection

#: Instructions, as Linux calls them.
FEATURES = (
    *("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2"),
)

#: With any of these, products of 8-bit integers are added up in 32 bits at once, and do not overflow on the way.
INTEGER_DOT_PRODUCT = frozenset(("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"))
#: With any of these, BF16 is computed and not imitated.
BF16 = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def most_threads() -> int:
    """Return how many threads an engine may be asked for: with hundreds more than cores, some hang or crash."""
    return max(64, 4 * (os.cpu_count() or 1))


def field(info: str, name: str) -> str:
    """Return the first core's value of a field of ``system.cpuinfo``."""
    for line in info.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def features_in(info: str) -> tuple[str, ...]:
    """Return which of ``FEATURES`` the processor has that ``system.cpuinfo`` is of."""
    present = set(f"{field(info, 'flags')} {field(info, 'Features')}".split())
    return tuple(feature for feature in FEATURES if feature in present)


def same_kind(machine: str, features: Collection[str], here: Collection[str]) -> bool:
    """Say whether what was measured on ``machine`` with ``features`` holds on this one, which has those of ``here``.

    ``machine`` is as in ``Environment``: its last word is the architecture, in brackets if a board's name is before it.
    """
    return machine.rpartition("(")[2].rstrip(")") == platform.machine() and set(features) == set(here)
