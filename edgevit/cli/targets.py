"""``edgevit targets``."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevit.cli import completion
from edgevit.cli.console import Result
from edgevit.targets import Profile, Target, load_profile, load_target, split_name, target_names


def targets(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="Show this one: a name, NAME@EDITION, or a TOML file.",
            show_default=False,
            autocompletion=completion.targets,
        ),
    ] = None,
) -> Result:
    """List the devices that EdgeViT builds for, or show one and its reasons."""
    return _list() if name is None else _show(name)


def _list() -> Result:
    found = {name: load_profile(name) for name in target_names()}
    groups: dict[str, dict[str, Profile]] = {}
    for name, profile in found.items():
        groups.setdefault(f"{profile.backend} on the {profile.device}", {})[name] = profile
    table = Table("target", "editions", "precisions, in order", "description")
    for group, profiles in sorted(groups.items()):
        table.add_section()
        table.add_row(Text(group, style="bold"))
        for name, profile in profiles.items():
            editions = " ".join(f"@{edition}" for edition in profile.edition_names())
            table.add_row(*map(Text, (f"  {name}", editions, ", ".join(profile.precisions), profile.description)))
    following = "Of several editions the first is meant by the name alone. One of them: edgevit targets NAME[@EDITION]"
    return Result({"targets": {name: _data(profile) for name, profile in found.items()}}, Group(table, following))


def _data(profile: Profile) -> dict[str, object]:
    """Return what the target's name alone means, and its editions."""
    target: dict[str, object] = msgspec.to_builtins(profile.target(profile.edition(None)))
    return target | {"description": profile.description, "editions": msgspec.to_builtins(profile.editions)}


def _show(name: str) -> Result:
    target = load_target(name)
    profile = load_profile(split_name(name)[0])
    table = Table(show_header=False)
    for key, value in _rows(target):
        table.add_row(Text(key), Text(value))
    editions = [f"{'@' + ', @'.join(edition.names)}: {edition.description}" for edition in profile.editions]
    parts: list[RenderableType] = [Text(f"{name}: {target.description}"), table, Text(target.why.strip())]
    if editions:
        parts.append(Text("\n".join(["", "Editions, the first of which is meant by the name alone:", *editions])))
    return Result({"name": name, "target": target, "editions": profile.editions}, Group(*parts))


def _rows(target: Target) -> list[tuple[str, str]]:
    """Return what a target says, in words; what it leaves to the engine is left out."""
    batch = "any number of images"
    if target.batch is not None:
        batch = f"{target.batch.min} to {target.batch.max} images, tuned for {target.batch.opt}"
    rows = [
        ("backend", f"{target.backend} {target.versions or ''}".strip()),
        ("device", f"{target.device}; {' or '.join(target.machines)}"),
        ("compute capability", target.compute_capability),
        ("precisions, in order", ", ".join(target.precisions)),
        ("dialect", target.dialect),
        (
            "bits of INT8 weights",
            "7 or 8, as this processor asks" if target.weight_bits == "auto" else str(target.weight_bits),
        ),
        ("batch", batch),
        ("memory for a build", target.workspace_mb and f"{target.workspace_mb:,} MiB"),
        ("settings", _settings(target.settings)),
        *((f"settings for {precision}", _settings(settings)) for precision, settings in target.settings_of.items()),
    ]
    return [(key, value) for key, value in rows if value]


def _settings(settings: dict[str, str]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in settings.items())
