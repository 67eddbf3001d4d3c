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
        self._asking: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._then or name in self._asking:
            return None
        self._asking.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking.remove(name)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            if then := self._then.pop(name, None):  # not before: many only ask whether a module is there
                then(module)

        spec.loader.exec_module = exec_module
        return spec
