import inspect
import re
import sys
import traceback

import pytest

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
