"""``edgevit verify``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

import edgevit
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Variants
from edgevit.errors import MissingDependencyError
from edgevit.report.formats import percent
from edgevit.stages.verify import VariantVerification, VerificationResult


def verify(
    bundle: BundlePath,
    *,
    variant: Variants = None,
    trusted_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="Ask for a signature by this public Ed25519 key (PEM or OpenSSH); can be given again."
        ),
    ] = None,
) -> Result:
    """Say whether this machine gives the answers that were checked where the bundle was made; exit 1 if not."""
    with progress() as bars:
        found = edgevit.verify(bundle, variants=variant or (), trusted_keys=trusted_key or None, progress=bars)
    if found.none_runs:
        reasons = "; ".join(dict.fromkeys(each.reason or "" for each in found.variants))
        raise MissingDependencyError(f"no variant can be run here: {reasons}", remedy="edgevit doctor")
    table = Table("variant", "engine", "settings", "answers", "measured", "tolerance")
    for each in found.variants:
        table.add_row(*map(Text, _row(each)))
    return Result(
        data=found.to_dict(),
        text=Group(table, *(Text(line) for line in _lines(found))),
        exit_code=0 if found.passed else 1,
    )


def _row(each: VariantVerification) -> tuple[str, ...]:
    settings = ", ".join(f"{name}={value}" for name, value in each.settings.items())
    engine = f"{each.backend} {each.version or ''}".strip()
    return each.name, engine, settings, each.status, ", ".join(_figures(each)), each.tolerance or ""


def _figures(each: VariantVerification) -> Iterator[str]:
    if each.cosine is not None:
        yield f"cosine {each.cosine:.5f}"
    if each.agreement is not None:
        yield f"{percent(each.agreement)} agree"
    if each.difference is not None:
        yield f"largest difference {each.difference:.2g}"


def _lines(found: VerificationResult) -> Iterator[str]:
    """Yield what the table does not tell: reasons, damage, who signed, and the verdict."""
    yield from (f"{each.name}: {each.reason}" for each in found.variants if each.reason)
    yield from found.damaged
    if found.signed_by is not None:
        yield f"signed by the trusted key {found.signed_by}"
    if not found.passed:
        yield "this machine does not give the answers that were checked where the bundle was made"
        return
    left = [each.name for each in found.variants if each.status == "not run here"]
    rest = f", but for {', '.join(left)}, which it does not run" if left else ""
    on = f"on {found.images} golden images{rest}"
    yield f"this machine gives the validated answers, within the tolerances above, {on}"
