"""Modules that are loaded once something of theirs is asked for: a command starts without them.

onnx-ir imports SymPy to reckon with sizes that have names. No model of ours makes it do so, and to load SymPy takes a
third of the time in which a command that reads graphs starts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

#: SymPy, and what takes functions out of it while it is loaded itself.
_LATER = frozenset({"sympy", "onnx_ir._symbolic_shapes"})


class _Later(MetaPathFinder):
    """Finds the modules above as others do; they are run when an attribute of theirs is first asked for."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return where one of them is, None for others."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_later() -> None:
    """Have them loaded later from now on, where they are not loaded yet."""
    sys.meta_path.insert(0, _Later())
