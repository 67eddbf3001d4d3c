"""JUnit XML of a race, for CI: a case for each variant and limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree as ET

from edgevit.files import write_atomically


class JUnitCase(Protocol):
    """What a case is made of."""

    @property
    def limit(self) -> str:
        """What was to be kept."""

    @property
    def word(self) -> str:
        """Whether it is: passed, failed, or not shown."""

    @property
    def reason(self) -> str:
        """Why."""


def write_junit(
    path: Path, suite: str, cases: Mapping[str, tuple[JUnitCase, ...]], left_out: Mapping[str, str] | None = None
) -> None:
    """Write the limits of each variant to ``path``; what is not shown is an error: CI must not take it for well.

    ``left_out`` are what there are no verdicts on, with the reasons; they are skipped cases.

    Raises:
        StorageError: if it cannot be written.

    """
    root = ET.Element("testsuites")
    whole = ET.SubElement(root, "testsuite", name=_printable(suite))
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for variant, limits in cases.items():
        for limit in limits:
            case = ET.SubElement(whole, "testcase", classname=variant, name=limit.limit)
            counts["tests"] += 1
            if limit.word == "failed":
                counts["failures"] += 1
                ET.SubElement(case, "failure", message=_printable(limit.reason))
            elif limit.word == "not shown":
                counts["errors"] += 1
                ET.SubElement(case, "error", message=_printable(f"not shown: {limit.reason}"))
            else:
                ET.SubElement(case, "system-out").text = _printable(limit.reason)
    for name, reason in (left_out or {}).items():
        case = ET.SubElement(whole, "testcase", classname=_printable(name), name="made")
        ET.SubElement(case, "skipped", message=_printable(reason))
        counts["tests"] += 1
        counts["skipped"] += 1
    whole.attrib.update({name: str(count) for name, count in counts.items()})
    write_atomically(path, ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _printable(text: str) -> str:
    """Leave out what XML cannot hold: names in messages may be anything."""
    return "".join(each for each in text if each.isprintable() or each in "\n\t")
