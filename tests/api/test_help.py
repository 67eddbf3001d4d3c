"""What help() shows of the public functions: types that can be read, and what the command line's help says."""

import ast
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgevit as public
from edgevit import runtime
from edgevit.cli.app import load_command
from edgevit.machine.power import NAMES as ENERGY
from edgevit.models.outputs import OUTPUT_KINDS
from edgevit.quantization.emit import DIALECTS

FUNCTIONS = [name for name in public.__all__ if inspect.isfunction(getattr(public, name))]
#: The command line's names of arguments, where they are others.
LISTS = ("variant", "precision", "token_budget", "trusted_key", "host")
RENAMED = {"license_": "license"}
#: Options in messages that are no arguments of a public function, and what they are of.
OF_OTHERS = {
    "from": "edgevit train, which is no function of the API",
    "resume": "edgevit train",
    "gpus": "docker run",
    "force-reinstall": "pip install",
}


def documented(function) -> dict[str, str]:
    """Return what the docstring says of each argument, on one line."""
    text = inspect.getdoc(function).split("Args:\n")[1].split("\n\nRaises:")[0]
    parts = re.split(r"^ {4}(\w+): ", text, flags=re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in zip(parts[1::2], parts[2::2], strict=True)}


def callables() -> Iterator[object]:
    """Yield the public functions, and the public classes with their methods."""
    for module in (public, runtime):
        for name in module.__all__:
            each = getattr(module, name)
            if inspect.isclass(each):
                yield from (method for key, method in inspect.getmembers(each, callable) if not key.startswith("_"))
            if inspect.isclass(each) or inspect.isfunction(each):
                yield each


def numbers(text: str) -> set[float]:
    """Return the numbers in a text, but for those that are parts of words, such as int8."""
    return {float(number) for number in re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)(?!\w)", text)}


def literals(kind: object) -> list[str]:
    """Return the words that an annotation allows."""
    if typing.get_origin(kind) is typing.Literal:
        return [word for word in typing.get_args(kind) if isinstance(word, str)]
    return [word for part in typing.get_args(kind) for word in literals(part)]


@pytest.mark.parametrize("each", list(callables()), ids=lambda each: each.__qualname__)
def test_types_are_known_to_those_who_ask(each):
    typing.get_type_hints(each)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_shows_types_and_no_names_of_ours(name):
    signature = inspect.signature(getattr(public, name))
    kinds = [one.annotation for one in signature.parameters.values()]
    assert not any(isinstance(kind, str) for kind in [*kinds, signature.return_annotation])
    shown = re.sub(r"'[^']*'", "", str(signature))
    assert not {"BundleLike", "Images", "Source", "Precision"} & set(re.findall(r"\w+", shown))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_word_that_an_argument_takes_is_named(name):
    function = getattr(public, name)
    said = documented(function)
    assert list(said) == list(inspect.signature(function).parameters)
    for argument, kind in typing.get_type_hints(function).items():
        if argument not in ("return", "precisions", "token_budgets"):  # lists of what another function names
            assert [word for word in literals(kind) if f'"{word}"' not in said[argument]] == [], argument


def test_words_that_no_type_has_are_named():
    assert [word for word in ("auto", *DIALECTS) if f'"{word}"' not in documented(public.quantize)["dialect"]] == []
    assert [word for word in ENERGY if f'"{word}"' not in documented(public.benchmark)["energy_from"]] == []
    assert [word for word in OUTPUT_KINDS if f'"{word}"' not in documented(public.export)["onnx_output"]] == []


def test_only_what_a_call_goes_from_and_to_stands_without_a_name():
    """As docs/python.md says; whatever else had a place could never get another."""
    given = {name: inspect.signature(getattr(public, name)).parameters.values() for name in FUNCTIONS}
    placed = {name: tuple(one.name for one in all_ if one.kind is not one.KEYWORD_ONLY) for name, all_ in given.items()}
    assert placed == dict.fromkeys(FUNCTIONS, ("bundle",)) | {
        "export": ("source", "output"),
        "pack": ("bundle", "output"),
        "pack_mobile": ("bundle", "output"),
        "predict": ("bundle", "images"),
    }


@pytest.mark.parametrize("name", [each for each in FUNCTIONS if each != "load"])  # which no command is
def test_defaults_and_units_are_those_of_the_command_line(name):
    """Numbers in an option's help, or of its default, stand in the docstring or in the signature, and units do."""
    function = getattr(public, name)
    signature, said = inspect.signature(function).parameters, documented(function)
    for option in load_command({"pack_mobile": "pack"}.get(name, name)).params:
        argument = RENAMED.get(option.name, option.name)
        argument = f"{argument}s" if argument in LISTS and argument not in signature else argument
        if argument not in signature:
            continue
        own = f"{said[argument]} {signature[argument].default}"
        own += said["outputs"] if (name, argument) == ("export", "output") else ""  # one option has both
        shown = option.show_default if isinstance(option.show_default, str) else ""
        assert numbers(f"{option.help} {shown}".replace("2%", "2 %")) <= numbers(own), argument
        for unit in ("F1", "IoU", "AbsRel", "in ms", "in MB", "in mJ", "nats", "points", "fraction", "multiply-adds"):
            assert unit not in (option.help or "") or unit in own, argument
        if shown in ("none", "the recipe's", "all"):
            assert {"none": "no limit", "all": "all"}.get(shown, "the recipe's") in own, argument


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield the texts that errors are made of, in calls of their classes and in constants that those calls use."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(tree):
        called = call.func if isinstance(call, ast.Call) else None
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        for part in ast.walk(call) if name.endswith("Error") else ():
            whole = constants.get(part.id) if isinstance(part, ast.Name) else part
            for text in ast.walk(whole) if whole is not None else ():
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.value


def test_options_in_messages_are_arguments():
    """Messages name options of the command line; docs/python.md says how they are read, which must hold of each."""
    arguments = {name for each in FUNCTIONS for name in inspect.signature(getattr(public, each)).parameters}
    root, seen = Path(public.__file__).parent, set()
    for path in root.rglob("*.py"):
        if path.relative_to(root).parts[0] in ("cli", "server", "training"):  # which no public function calls
            continue
        for text in messages(ast.parse(path.read_text(encoding="utf-8"))):
            for option in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", text):
                name = option.replace("-", "_")
                if name not in arguments and not (name in LISTS and f"{name}s" in arguments):
                    assert option in OF_OTHERS, f"{path}: --{option}: {text}"
                seen.add(option)
    assert {"max-drop", "overwrite", "variant", "token-budget"} <= seen
    assert OF_OTHERS.keys() <= seen
