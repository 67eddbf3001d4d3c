import copy
import importlib
import inspect
import pickle
import re
import sys
import traceback

import pytest
from own_code import MODULES, PACKAGE

from edgevit import errors


def drawn_tree():
    """Read (name, parent, exit code) off the drawing in the module's docstring."""
    ancestors = []
    for line in errors.__doc__.splitlines():
        if found := re.fullmatch(r"    ((?:[│ ]   )*(?:[├└]── )?)(\w+) +(\d|exit code).*", line):
            depth = len(found[1]) // 4
            ancestors = [*ancestors[:depth], found[2]]
            code = 2 if found[3] == "exit code" else int(found[3])
            yield found[2], ancestors[-2] if depth else "Exception", code


def real_tree():
    for name, error in inspect.getmembers(errors, inspect.isclass):
        if issubclass(error, Exception):
            yield name, error.__base__.__name__, error.exit_code


def test_the_drawing_is_the_tree():
    assert sorted(drawn_tree()) == sorted(real_tree())


def test_all_errors_are_public():
    assert errors.__all__ == sorted(name for name, _, _ in real_tree())


def test_an_error_carries_message_and_remedy():
    error = errors.BundleError("shirts.edgevit exists", remedy="give another name")
    assert (str(error), error.message, error.remedy) == ("shirts.edgevit exists",) * 2 + ("give another name",)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tracebacks have notes from Python 3.11 on")
def test_a_traceback_shows_the_remedy_once():
    shown = "".join(traceback.format_exception(errors.BundleError("shirts.edgevit exists", remedy="give another name")))
    assert shown.endswith("BundleError: shirts.edgevit exists\ntry: give another name\n")
    assert shown.count("another name") == 1


def test_no_error_goes_without_a_remedy():
    with pytest.raises(TypeError, match="remedy"):
        errors.DataError("no images")


def all_errors():
    """Return every class of exceptions that EdgeViT has, here and in the module that raises it."""
    found = set()
    for path in MODULES:
        if names := re.findall(r"^class (\w+)\([\w, ]*(?:Exception|Error|Warning)\b", path.read_text(), re.MULTILINE):
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
            found |= {getattr(importlib.import_module(name), each) for each in names}
    return sorted(found, key=lambda each: each.__qualname__)


def an_error(kind):
    """Return one of the class, with something other in each of its fields."""
    if not inspect.isfunction(kind.__init__):
        return kind("a message")
    samples = {"code": 7, "number": 15, "status": 404, "layers": {"fc1": None}}
    parameters = list(inspect.signature(kind).parameters)
    return kind(**{name: samples.get(name, f"a {name}") for name in parameters})


def again(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301


@pytest.mark.parametrize("copied", [again, copy.copy, copy.deepcopy])
def test_a_copy_of_an_error_has_all_that_it_has(copied):
    kinds = all_errors()
    assert len(kinds) > 25
    for kind in kinds:
        error = an_error(kind)
        error.__cause__, error.stage = ValueError("why"), "export"
        same = copied(error)
        assert (type(same), same.args, str(same)) == (kind, error.args, str(error))
        assert same.__dict__ == error.__dict__
        if isinstance(error, errors.EdgeViTError):
            assert repr(same.__cause__) == "ValueError('why')"


class Picky(Exception):
    """Cannot be unpickled, as many that others write."""

    def __init__(self, first, second):
        super().__init__(first)


def test_causes_of_causes_come_along_up_to_what_cannot():
    error, middle = errors.DataError("a", remedy="b"), errors.ImageError("c", remedy="d")
    error.__cause__, middle.__cause__ = middle, OSError(2, "gone", "x.jpg")
    same = again(error)
    assert (str(same.__cause__), same.__cause__.remedy) == ("c", "d")
    assert same.__cause__.__cause__.filename == "x.jpg"
    middle.__cause__ = Picky("e", "f")
    assert again(error).__cause__.__cause__ is None
    middle.__cause__ = error  # without end
    assert again(error).__cause__.__cause__ is None
