"""The fenced commands of README and docs, and what stands in for a user's files when they are run.

A fence is run, command by command, unless a comment in front of it says why not: ``<!-- not run: reason -->``, or
``<!-- not run (scp, build): reason -->`` for some of its programs or of EdgeViT's commands alone.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES += tuple(path for path in sorted((ROOT / "export").glob("**/*.md")) if "node_modules" not in path.parts)

#: What a fence may hold: commands, Python, files, or what is only to be looked at.
LANGUAGES = {"console", "python", "js", "toml", "text", "mermaid"}

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"<!-- not run(?: \(([\w/., -]+)\))?: (\S.*?) -->\s*\Z")
#: Options that make a command brief; what is measured is nothing that a test looks at.
_BRIEFLY = {
    "benchmark": ("--duration", "0.1", "--variant", "float32"),
    "pipeline": ("--duration", "0.1"),
    "train": ("--epochs", "1"),
}


class Command(NamedTuple):
    """One command of a fence, as a shell reads it."""

    words: tuple[str, ...]
    stdout: str | None  # the file after ">"

    @property
    def edgevit(self) -> tuple[str, ...] | None:
        """Return the arguments that EdgeViT's command line gets, if it is what is started."""
        if self.words[0] == "edgevit":
            return self.words[1:]
        for index, pair in enumerate(zip(self.words, self.words[1:], strict=False)):
            if pair == ("-m", "edgevit"):
                return self.words[index + 2 :]
        return None

    @property
    def name(self) -> str:
        """Return what a marker calls it."""
        return self.words[1] if self.words[0] == "edgevit" else self.words[0]


class Fence(NamedTuple):
    language: str
    text: str
    skipped: frozenset[str] | None  # the programs that are not run; None: nothing is
    before: str  # the prose in front of it

    def runs(self, name: str) -> bool:
        return self.skipped is not None and name not in self.skipped

    def commands(self) -> Iterator[Command]:
        """Yield the commands; whoever writes one that is not understood here is told."""
        for line in re.sub(r"\\\n\s*", "", self.text).splitlines():
            assert line.lstrip().startswith("$ "), f"a command begins with '$ ': {line}"
            words = shlex.split(line.lstrip()[2:], comments=True)
            stdout = None
            if ">" in words[:-1]:
                *words, _, stdout = words
            assert not {"|", "&&", ";", ">", "<"} & set(words), line
            yield Command(tuple(words), stdout)


def fences(text: str) -> list[Fence]:
    """Return the fenced blocks of a page in order."""
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip()
        marker = _MARKER.search(before)
        names = frozenset(re.split(r",\s*", marker[1])) if marker and marker[1] else frozenset()
        found.append(Fence(match[1], match[2], None if marker and not marker[1] else names, before))
    assert text.count("```") == 2 * len(found)
    return found


def toml_names(blocks: list[Fence]) -> dict[Fence, str]:
    """Return under which name each TOML file of a page is given: that in front of it, or that of the next command."""
    files = [fence for fence in blocks if fence.language == "toml"]
    names = {}
    for fence in files:
        said = re.findall(r"`([\w-]+\.toml)`", fence.before.splitlines()[-1])
        if said:
            names[fence] = said[-1]
    shell = [fence for fence in blocks if fence.language == "console"]
    used = [word for fence in shell for command in fence.commands() for word in command.words]
    free = iter(dict.fromkeys(w for w in used if re.fullmatch(r"[\w-]+\.toml", w) and w not in names.values()))
    for fence in files:
        if fence not in names and (name := next(free, None)):
            names[fence] = name
    return names


class Desk:
    """A folder in which the commands of a page are run, with small things in the place of a user's."""

    def __init__(self, folder: Path, *, words: dict[str, str], things: dict[str, Path]) -> None:
        """``words`` stand in for words of a page, ``things`` for files by name or suffix, and for a folder by "/"."""
        self._folder, self._words, self._things = folder, words, things

    def arguments(self, given: tuple[str, ...]) -> list[str]:
        """Return the arguments with what stands in for words, after putting what they name."""
        words = [self._words.get(word, word) for word in given]
        for before, word in zip(("", *words), words, strict=False):
            if before in ("-o", "--output"):
                self._take_away(word)
            elif not word.startswith("-"):
                self.put(word, folder=before == "--data")
        return [*words, *_BRIEFLY.get(words[0], ())]

    def put(self, name: str, *, folder: bool = False) -> None:
        """Put what stands in for the file called ``name``, unless something is there or nothing should be."""
        path = self._folder / name
        thing = self._things.get(path.name) or self._things.get(path.suffix or "/" * folder)
        if thing is None or path.exists() or path.name.startswith("missing"):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if thing.is_dir() else shutil.copy)(thing, path)

    def _take_away(self, name: str) -> None:
        """Remove what is to be written, so that it is made anew."""
        path = self._folder / name
        if path.is_dir():
            shutil.rmtree(path)

    def python(self, text: str, names: dict[str, object]) -> None:
        """Run Python as it stands, with what stands in for its literals."""
        tree = ast.parse(text)
        outputs = {
            each.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "export"
            for each in node.args[1:2]
            if isinstance(each, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "duration":
                node.value = ast.copy_location(ast.Constant(0.1), node.value)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node.value in outputs:
                    self._take_away(node.value)
                elif re.fullmatch(r"[\w/-]+\.\w+", node.value):
                    self.put(node.value)
                node.value = self._words.get(node.value, node.value)
        exec(compile(tree, "<docs>", "exec"), names)  # noqa: S102 - that is what the pages are for


def is_there(command: Command) -> bool:
    """Tell whether what the repository itself is asked for by a command is there."""
    program, *rest = command.words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return all(word in targets for word in rest if "=" not in word)
    if program in ("python", "python3") and rest[0].endswith(".py"):
        return (ROOT / rest[0]).is_file()
    if "/" in program and not program.startswith((".venv/", "~")):
        return os.access(ROOT / program, os.X_OK)
    return True
