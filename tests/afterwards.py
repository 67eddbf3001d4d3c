"""What is done to a module once it is loaded: by whichever test needs it first, and by none that does not."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def afterwards(then: dict[str, Callable[[ModuleType], None]]) -> Iterator[None]:
    """Do what ``then`` says to modules: now to what is loaded, and to the others when they are, while this lasts."""
    for name in then.keys() & sys.modules.keys():
        then[name](sys.modules[name])
    finder = _Finder({name: do for name, do in then.items() if name not in sys.modules})
    sys.meta_path.insert(0, finder)
    yield
    sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the modules that it knows as others do, and has something done to each after it was run."""

    def __init__(self, then: dict[str, Callable[[ModuleType], None]]) -> None:
        self._then = then

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        then = self._then.pop(name, None)  # it asks only others now
        spec = importlib.util.find_spec(name) if then else None
        if spec is None or spec.loader is None or then is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            then(module)

        spec.loader.exec_module = exec_module
        return spec
