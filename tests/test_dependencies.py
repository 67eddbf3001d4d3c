import sys

import pytest

from edgevit.dependencies import require
from edgevit.errors import MissingDependencyError


def test_a_module_is_imported():
    assert require("json.decoder", extra="anything").__name__ == "json.decoder"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_is_named_with_its_remedy(module):
    with pytest.raises(MissingDependencyError, match="'no_such_package' is not installed") as caught:
        require(module, extra="train")
    assert caught.value.remedy == "pip install -e '.[train]'"


def test_what_a_package_itself_lacks_is_not_blamed_on_it(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        require("broken_package", extra="train")
    assert "broken_package" not in sys.modules
