"""Every recipe that a message or a document names is one that comes with EdgeViT."""

import re
from pathlib import Path

from edgevit.recipes import load_recipe, recipe_names

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "calibration/**/*.toml", "edgevit/**/*.py", "benchmarks/*.py",
          "benchmarks/results/*.md", "scripts/*", "Makefile")  # fmt: skip
#: Of trainings, whose recipes are files.
TRAINING = ("edgevit/training", "edgevit/cli/train.py", "docs/training.md")
NAMED = re.compile(r"""--recipe[ =]["'`]?([\w.-]*\w)|\brecipe=["']([\w.-]+)["']|recipes? `([\w.-]+)`""")


def named():
    """Yield each file with the recipes that it names, but for files of a user's own, and stand-ins for names."""
    for path in sorted({path for place in PLACES for path in ROOT.glob(place) if path.is_file()}):
        place = str(path.relative_to(ROOT))
        if not place.startswith(TRAINING):
            for match in NAMED.finditer(path.read_text(encoding="utf-8")):
                name = next(filter(None, match.groups()))
                if not name.endswith(".toml") and not name.isupper():
                    yield place, name


def test_a_recipe_that_is_named_exists():
    found = list(named())
    assert {"default", "search"} <= {name for _, name in found}
    assert [(place, name) for place, name in found if name not in recipe_names()] == []


def test_recipes_that_come_with_edgevit_are_read():
    assert set(recipe_names()) >= {"default", "fast", "search"}
    assert all(load_recipe(name).samples for name in recipe_names())
