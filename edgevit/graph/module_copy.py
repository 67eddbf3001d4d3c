"""Copy a ``torch.nn.Module`` with the functions that it holds, so that the copy refers to nothing of the module."""

from __future__ import annotations

import copy
import dis
import gc
import logging
import weakref
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import BuiltinMethodType, CellType, CodeType, FrameType, FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgevit.errors import GraphError

_SHARED = (type, ModuleType, CodeType, FrameType, TracebackType, logging.Logger)  # each copy has the same of these
_CHANGELESS = (str, bytes, int, float, complex, tuple, frozenset, torch.dtype, torch.device, type(None))
_NOT_COPIED = (*_SHARED, *_CHANGELESS, FunctionType, BuiltinMethodType)
_LOADED = ("LOAD_GLOBAL", "LOAD_NAME")
_STORED = ("STORE_GLOBAL", "DELETE_GLOBAL")


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` as ``copy.deepcopy`` makes it, but with copies of the functions that it holds.

    A hook, a lambda or a replaced ``forward`` that refers to the module, by its closure, its defaults or a global name,
    refers to the copy then, and what it keeps of images is not kept in the module. Tensors are copied without what
    autograd knows of them.

    Raises:
        GraphError: if a function uses the module by a global name, and sets a global variable.
        Exception: what a part of the module raises that cannot be copied.
    """
    return _Copy(module).made


class Untouched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses that this thread computes with ``tensors`` of the module called ``name``, when its copy is run."""

    def __init__(self, tensors: Iterable[torch.Tensor], name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors, self.called = {id(each): each for each in tensors}, name

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - as torch has it
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Return what ``func`` does."""
        if any(id(each) in self.tensors for each in tree_leaves((args, kwargs))):
            raise GraphError(
                f"{self.called} reaches itself in other ways than by self, and is in training mode",
                remedy="call module.eval() before the export, or have it use self instead of global variables",
            )
        return func(*args, **(kwargs or {}))


class _Globals(dict[str, Any]):
    """Some global variables of a function's own, in front of all others."""

    def __init__(self, others: dict[str, Any]) -> None:
        super().__init__()
        self.others = others

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.others

    def __missing__(self, name: str) -> object:
        return self.others[name]


class _Copy:
    """Has ``deepcopy`` put stand-ins for functions, and fills those when it has ``made`` what they refer to."""

    def __init__(self, module: nn.Module) -> None:
        held, known = _reachable(module, _held_by), _reachable(module, _known_to)
        self.parts = _changing(_reachable(module, _held_by_data))
        self.leading = _leading_to(_changing(held), known.values())
        computed = [each for each in held.values() if isinstance(each, torch.Tensor) and not each.is_leaf]
        self.memo: dict[int, Any] = {id(each): each.detach().clone() for each in computed}
        self.cells: dict[int, CellType] = {}
        self.unfilled: dict[int, Callable[[], None]] = {}
        for each in known.values():
            if isinstance(each, FunctionType) and id(each) in self.leading:
                self._stand_in(each)
        for each in known.values():
            if isinstance(each, MethodType) and id(each.__func__) in self.memo:
                self._stand_in_for_bound(each, each.__self__, self._method)
            elif isinstance(each, BuiltinMethodType) and id(each.__self__) in self.leading:
                self._stand_in_for_bound(each, each.__self__, lambda each, owner: getattr(owner, each.__name__))
            elif isinstance(each, weakref.ref) and id(each()) in self.leading:
                self._stand_in_for_bound(each, each(), lambda _, target: weakref.ref(target))
        self.made: nn.Module = copy.deepcopy(module, self.memo)
        while found := [key for key in _reachable(self.made, _known_to) if key in self.unfilled]:
            for key in found:  # others may be none of the copy: a class can leave out what it makes again
                self.unfilled.pop(key)()

    def _stand_in(self, function: FunctionType) -> None:
        others, named = function.__globals__, self._named(function)
        given = _Globals(others) if named else others
        cells = function.__closure__ or ()
        own = tuple(self.cells.setdefault(id(cell), CellType()) for cell in cells)
        made = FunctionType(function.__code__, given, function.__name__, None, own)
        made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__

        def fill() -> None:
            for cell, empty in zip(cells, own, strict=True):
                self._fill_cell(cell, empty)
            made.__defaults__ = self._copied(function.__defaults__)
            made.__kwdefaults__ = self._copied(function.__kwdefaults__)
            made.__dict__.update(self._copied(function.__dict__))
            for name in named:
                given[name] = self._copied(others[name])

        self.memo[id(function)] = made
        self.unfilled[id(made)] = fill

    def _stand_in_for_bound(self, bound: Any, owner: object, bind: Callable[[Any, Any], Callable[..., Any]]) -> None:  # noqa: ANN401
        targets: list[Callable[..., Any]] = []

        def made(*args: object, **kwargs: object) -> object:
            return targets[0](*args, **kwargs)

        self.memo[id(bound)] = made
        self.unfilled[id(made)] = lambda: targets.append(bind(bound, self._copied(owner)))

    def _method(self, method: MethodType, owner: object) -> MethodType:
        return MethodType(self.memo[id(method.__func__)], owner)

    def _named(self, function: FunctionType) -> list[str]:
        """Return the global names by which ``function`` refers to what is the module's."""
        named = [name for name, value in _globals_of(function).items() if id(value) in self.leading]
        stored = sorted(_names_in(function.__code__, _STORED))
        if named and stored:
            raise GraphError(
                f"the function {function.__qualname__} uses the module by the global name {named[0]} and sets the "
                f"global variable {stored[0]}, which its copy cannot do",
                remedy="have it keep that in the module, or in a dictionary",
            )
        return named

    def _fill_cell(self, cell: CellType, empty: CellType) -> None:
        if _contents(empty) or not (contents := _contents(cell)):  # filled by another function, or nothing is in it yet
            return
        before = dict(self.memo)
        try:
            empty.cell_contents = self._copied(contents[0])
        except Exception:  # such as of a file, which is the function's alone
            if not self.parts.isdisjoint(_reachable(contents[0], _known_to)):
                raise
            self.memo = before  # without what was copied in part
            empty.cell_contents = contents[0]

    def _copied(self, value: Any) -> Any:  # noqa: ANN401 - as it is
        return copy.deepcopy(value, self.memo)


def _reachable(start: object, followed: Callable[[Any], Iterable[object]]) -> dict[int, object]:
    """Return all objects that ``start`` leads to, by their identity."""
    found, left = {id(start): start}, [start]
    while left:
        for each in followed(left.pop()):
            if id(each) not in found:
                found[id(each)] = each
                left.append(each)
    return found


def _held_by_data(each: object) -> Iterable[object]:
    """Return what an object holds; what is shared by all of its kind and functions hold nothing."""
    return () if isinstance(each, (*_SHARED, FunctionType)) else gc.get_referents(each)


def _held_by(each: object) -> Iterable[object]:
    """Return what an object holds, a function by its closure or its defaults."""
    if isinstance(each, FunctionType):
        defaults = (each.__defaults__ or (), (each.__kwdefaults__ or {}).values())
        return [*(each.__closure__ or ()), *defaults[0], *defaults[1], *vars(each).values()]
    return _held_by_data(each)


def _known_to(each: object) -> Iterable[object]:
    """Return what an object holds, and what a function refers to by global names."""
    return [*_held_by(each), *_globals_of(each).values()] if isinstance(each, FunctionType) else _held_by(each)


def _globals_of(function: FunctionType) -> dict[str, object]:
    """Return the global variables that ``function`` reads; none of torch's functions knows of a user's module."""
    if (function.__module__ or "").split(".")[0] == "torch":
        return {}
    variables = function.__globals__
    return {name: variables[name] for name in _names_in(function.__code__, _LOADED) if name in variables}


def _names_in(code: CodeType, operations: Collection[str]) -> set[str]:
    names = {each.argval for each in dis.get_instructions(code) if each.opname in operations}
    return names.union(*(_names_in(each, operations) for each in code.co_consts if isinstance(each, CodeType)))


def _changing(objects: dict[int, object]) -> set[int]:
    """Return the identities of those that a copy has other ones of."""
    return {key for key, each in objects.items() if not isinstance(each, _NOT_COPIED)}


def _leading_to(targets: set[int], known: Iterable[object]) -> set[int]:
    """Return ``targets``, and the identities of all objects that lead to one."""
    holders = defaultdict(list)
    for each in known:
        for other in _known_to(each):
            holders[id(other)].append(id(each))
    found, left = set(targets), list(targets)
    while left:
        for holder in holders[left.pop()]:
            if holder not in found:
                found.add(holder)
                left.append(holder)
    return found


def _contents(cell: CellType) -> tuple[object] | tuple[()]:
    """Return what is in ``cell``, if anything is."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()
