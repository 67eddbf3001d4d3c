"""Each fenced command of README and docs: it parses, and it runs, or a comment says why it does not."""

import ast
import csv
import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from documented import LANGUAGES, PAGES, ROOT, Command, Desk, fences, is_there, toml_names
from tiny import SHAPES, must_run

from edgevit.bundle.store import Bundle
from edgevit.cli import app
from edgevit.data.fashion_mnist import CLASS_NAMES
from edgevit.data.shapes import load_shapes
from edgevit.errors import EdgeViTError
from edgevit.recipes import load_recipe
from edgevit.targets import load_target
from edgevit.training.recipe_file import read_recipe


def name_of(path):
    return str(path.relative_to(ROOT))


page = pytest.mark.parametrize("path", PAGES, ids=name_of)


@pytest.fixture(scope="session")
def things(tmp_path_factory, tiny_checkpoint, tiny_quantized, tiny_embedding):
    """Return what stands in for a user's files: the tiny model, with the classes that README's has, and shapes."""
    import torch

    from edgevit.models.loading import load_checkpoint

    folder = tmp_path_factory.mktemp("things")
    whole = load_checkpoint(str(tiny_checkpoint))
    weights = dict(whole.weights)
    missing = len(CLASS_NAMES) - len(weights["head.bias"])
    weights["head.weight"] = torch.nn.functional.pad(weights["head.weight"], (0, 0, 0, missing))
    weights["head.bias"] = torch.nn.functional.pad(weights["head.bias"], (0, missing), value=-9.0)
    spec = msgspec.structs.replace(whole.spec, classes=len(CLASS_NAMES))
    replace(whole, spec=spec, weights=weights, labels=CLASS_NAMES).save(folder / "model.safetensors")

    shapes = load_shapes("test", "size=16,count=40")
    rows = []
    for index in range(len(shapes)):
        name = CLASS_NAMES[shapes.labels[index]]
        path = folder / "photos" / name.replace("/", "-") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shapes.image(index).save(path)
        rows.append((path.relative_to(folder), name))
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return {
        ".safetensors": folder / "model.safetensors",
        ".csv": folder / "photos.csv",
        "/": folder / "photos",
        ".png": path,
        ".jpg": path,
        ".edgevit": validated(tiny_quantized, tmp_path_factory, "--max-drop", "100"),
        "clip.edgevit": validated(tiny_embedding, tmp_path_factory, "--min-cosine", "0"),
    }


def validated(bundle, tmp_path_factory, *limit):
    """Return a copy of ``bundle`` of which INT8 is loaded without a word: it has been validated, as on the pages."""
    copy = shutil.copytree(bundle, tmp_path_factory.mktemp("validated") / bundle.name)
    must_run("validate", copy, "--data", SHAPES, *limit)
    return copy


@pytest.fixture
def desk(tmp_path, monkeypatch, things):
    folder = tmp_path / "desk"
    shutil.copytree(things["/"], folder / "photos")
    shutil.copy(things[".csv"], folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDGEVIT_CONFIG", str(tmp_path / "config"))
    words = {
        "fashion-micro": str(things[".safetensors"]),
        **dict.fromkeys(("fashion-mnist", "fashion-mnist-sample", "IMAGES"), "photos.csv"),
        "BUNDLE": "bundle.edgevit",
        "TARGET": "x86-onnxruntime",
    }
    return Desk(folder, words=words, things=things)


@page
def test_every_fence_is_one_that_is_run_or_looked_at(path):
    for fence in fences(path.read_text()):
        assert fence.language in LANGUAGES, f"```{fence.language} in front of\n{fence.text}"


@page
def test_every_command_parses(path, desk):
    """Those that are not run here, too: an option that is gone is gone from them."""
    for fence in fences(path.read_text()):
        if fence.language == "python":
            ast.parse(fence.text.lstrip())
        for command in fence.commands() if fence.language == "console" else ():
            assert is_there(command), command
            if command.edgevit:
                name, *arguments = desk.arguments(command.edgevit)
                app.load_command(name).make_context(name, arguments)


@pytest.fixture
def run_page(desk, tmp_path, edgevit):
    """Return a function that runs all that a page's text has in its fences."""

    def run(text):
        blocks, folder = fences(text), tmp_path / "desk"
        files = toml_names(blocks)
        for number, fence in enumerate(fence for fence in blocks if fence.language == "toml"):
            file = folder / files.get(fence, f"{number}.toml")
            file.write_text(fence.text)
            if "backend =" in fence.text:
                load_target(str(file))
            elif "observer =" in fence.text:
                load_recipe(str(file))
            else:
                read_recipe(file)
        names = {"frame": np.zeros((16, 16, 3), np.uint8)}
        for fence in blocks:
            if fence.language == "python" and fence.runs("python"):
                desk.python(fence.text, names)
            for command in fence.commands() if fence.language == "console" else ():
                if fence.runs(command.name):
                    assert command.words[0] == "edgevit", f"what is not EdgeViT's is not run here: say why of {command}"
                    done = edgevit(*desk.arguments(command.words[1:]))
                    assert done.code == 0, (command, done.err)
                    if command.stdout:
                        (folder / command.stdout).write_text(done.out)

    return run


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "python.md"], ids=name_of)
def test_every_command_runs(path, run_page):
    run_page(path.read_text())


def test_the_page_on_python_runs(run_page, capsys):
    run_page((ROOT / "docs/python.md").read_text())
    assert "int8-openvino" in capsys.readouterr().out
    assert Bundle.open("own.edgevit").manifest.labels[9] == "class 9"


#: What a target must have beside its backend.
TARGET = "dialect = 'portable'\nprecisions = ['int8']\ndescription = 'd'\nwhy = 'w'\n"


@pytest.mark.parametrize(
    ("fence", "said"),
    [
        ("```console\n$ edgevit models --no-such-option\n```", "no-such-option"),
        ("```console\n$ edgevit inspect b.edgevit --variant int9\n```", "int9"),
        ("```console\n$ scp -r b.edgevit jetson:\n```", "say why"),
        ("<!-- not run (pip): needs a network -->\n```console\n$ scp -r b.edgevit jetson:\n```", "say why"),
        ("<!-- not run: -->\n```console\n$ scp -r b.edgevit jetson:\n```", "say why"),
        ("```console\n$ edgevit models | less\n```", "less"),
        ("```console\nedgevit models\n```", "begins with"),
        ("```toml\nobserver = 'median'\n```", "observer"),
        (f"```toml\nbackend = 'tensorfloat'\n{TARGET}```", "tensorfloat"),
        ("```toml\nepoch = 4\n```", "epoch"),
        ("```python\nraise ValueError('a page')\n```", "a page"),
        ("```python\nload('b.edgevit')\n```", "not defined"),
    ],
)
def test_what_does_not_run_is_seen(run_page, fence, said):
    with pytest.raises((AssertionError, EdgeViTError, ValueError, NameError), match=said):
        run_page(f"A page.\n\n{fence}\n")


def test_what_a_comment_gives_a_reason_for_is_not_run(run_page, tmp_path):
    run_page("<!-- not run: no network -->\n```console\n$ scp b jetson:\n$ edgevit models > models\n```\n")
    assert not (tmp_path / "desk/models").exists()
    run_page("<!-- not run (scp): no network -->\n```console\n$ scp b jetson:\n$ edgevit models > models\n```\n")
    assert "vit-tiny" in (tmp_path / "desk/models").read_text()


@pytest.mark.parametrize(
    "line", ["make no-such-target", "python scripts/no_such.py", ".ci/no-such", "export/README.md"]
)
def test_what_the_repository_has_not_is_seen(line):
    assert not is_there(Command(tuple(line.split()), None))
