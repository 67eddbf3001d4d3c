"""Version ranges of engines, as Python packages write them (PEP 440): ``>=10.3,<10.12``."""

from __future__ import annotations

import re

from edgevit.errors import MissingDependencyError

# `packaging` is imported inside functions: a device that only loads a bundle starts faster without it.

_NUMBERS = re.compile(r"\d+(\.\d+)*")


def range_reason(specifier: str) -> str | None:
    """Return what is wrong with a version range; None if it is one."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        empty = not len(SpecifierSet(specifier))
    except InvalidSpecifier:
        return f"'{specifier}' is no range of versions: write it as '>=10.3,<10.12'"
    return "an empty range of versions says nothing: leave it out" if empty else None


def in_range(version: str, specifier: str) -> bool:
    """Say whether an engine's ``version`` is in a range; what follows its numbers, such as a build, does not count."""
    from packaging.specifiers import SpecifierSet

    numbers = _NUMBERS.match(version)
    return numbers is not None and SpecifierSet(specifier).contains(numbers[0], prereleases=True)


def narrowed(specifier: str | None, first: str) -> str:
    """Return the range ``specifier`` (None is any version) without what comes before ``first``."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    kept = [
        str(each)
        for each in SpecifierSet(specifier or "")
        if each.operator != ">=" or Version(each.version) > Version(first)
    ]
    lower = [] if any(each.startswith(">=") for each in kept) else [f">={first}"]
    return ",".join((*lower, *sorted(kept)))


def check_version(what: str, engine: str, found: str, specifier: str | None, *, remedy: str) -> None:
    """Check that the version ``found`` of an engine is one that ``what`` is for.

    Raises:
        MissingDependencyError: if it is not; the message says both.

    """
    if specifier is not None and not in_range(found, specifier):
        raise MissingDependencyError(f"{what} is for {engine} {specifier}, and this is {found}", remedy=remedy)
