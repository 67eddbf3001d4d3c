"""What an application logs of the model that it runs."""

from __future__ import annotations

from typing import Any

import msgspec

from edgevit import __version__
from edgevit.bundle.manifest import Precision, Variant
from edgevit.bundle.store import Bundle


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was loaded, for a log: ``str(info)`` is one line, ``to_dict()`` plain data.

    ``sha256`` is the hash of the file that the engine opened. ``threads`` is 0 if the engine chose their number.
    ``batch`` is the largest batch that the engine takes, None for any. ``outputs`` are the names of the outputs, and
    ``classes`` is the number of labels. ``notes`` say why another variant was not loaded.
    """

    model: str
    source: str
    variant: str
    precision: Precision
    engine: str
    engine_version: str
    settings: dict[str, str]
    threads: int
    sha256: str
    input: tuple[int, int, int]
    batch: int | None
    outputs: tuple[str, ...]
    classes: int
    signed_by: str | None
    edgevit: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, such as for JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def __str__(self) -> str:
        """Return a line for a log."""
        shape = "x".join(map(str, self.input))
        return (
            f"{self.model} {self.variant} ({self.precision}, sha256 {self.sha256[:12]}) on {self.engine} "
            f"{self.engine_version}, input {shape}, outputs {', '.join(self.outputs)}, EdgeViT {self.edgevit}"
        )


def info_of(
    bundle: Bundle,
    variant: Variant,
    *,
    engine_version: str,
    settings: dict[str, str],
    threads: int,
    batch: int | None,
    outputs: tuple[str, ...],
    classes: int,
    notes: tuple[str, ...],
) -> RuntimeInfo:
    """Return what is known of ``variant``, which was loaded like this."""
    manifest = bundle.manifest
    return RuntimeInfo(
        model=manifest.name,
        source=manifest.provenance.source,
        variant=variant.name,
        precision=variant.precision,
        engine=variant.backend,
        engine_version=engine_version,
        settings=settings,
        threads=threads,
        sha256=variant.files[0].sha256,
        input=(manifest.preprocess.channels, *manifest.preprocess.size),
        batch=batch,
        outputs=outputs,
        classes=classes,
        signed_by=bundle.signed_by,
        edgevit=__version__,
        notes=notes,
    )
