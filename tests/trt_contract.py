"""Reads code that uses TensorRT's bindings, and says what of it is not in the bindings of some version.

Objects of the bindings are known by the names of their variables (``VARIABLES``), which the code must keep to. What is
used behind ``if bindings.has("Class.member")``, ``if bindings.strongly_typed`` or a test of ``bindings.flavour`` need
only be in the versions for which that holds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgevit.backends.tensorrt.bindings import is_strongly_typed

API = Path(__file__).parent / "backends" / "tensorrt" / "api"

#: Class of the bindings' object that a variable or attribute of this name holds.
VARIABLES = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "host_memory": "IHostMemory",
    "inspector": "EngineInspector",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "runtime_config": "IRuntimeConfig",
    "tensor": "ITensor",
}
#: What calls return that give an object of the bindings.
RETURNS = {
    "Builder.build_serialized_network": "IHostMemory",
    "Builder.create_builder_config": "IBuilderConfig",
    "Builder.create_network": "INetworkDefinition",
    "Builder.create_optimization_profile": "IOptimizationProfile",
    "IBuilderConfig.create_timing_cache": "ITimingCache",
    "IBuilderConfig.get_timing_cache": "ITimingCache",
    "ICudaEngine.create_engine_inspector": "EngineInspector",
    "ICudaEngine.create_execution_context": "IExecutionContext",
    "ICudaEngine.create_runtime_config": "IRuntimeConfig",
    "INetworkDefinition.get_input": "ITensor",
    "ITimingCache.serialize": "IHostMemory",
    "OnnxParser.get_error": "ParserError",
    "Runtime.deserialize_cuda_engine": "ICudaEngine",
}
#: Calls that give none.
_PLAIN = ("get_tensor_", "get_engine_information", "get_memory_pool_limit")


class Listing(msgspec.Struct, frozen=True):
    """What is in the bindings of one version: members by class, and values by enum and name."""

    version: str
    classes: dict[str, list[str]]
    enums: dict[str, dict[str, int]]

    def has(self, name: str) -> bool:
        kind, _, member = name.partition(".")
        return (kind in self.classes or kind in self.enums) and (
            not member or member in self.classes.get(kind, self.enums.get(kind, ()))
        )


def listings() -> dict[str, Listing]:
    """Return the listings by name, such as 10.3.0 and rtx-1.7.1."""
    return {
        path.stem.removeprefix("api-"): msgspec.json.decode(path.read_bytes(), type=Listing)
        for path in sorted(API.glob("*.json"))
    }


def flavour_of(name: str) -> str:
    return "tensorrt-rtx" if name.startswith("rtx") else "tensorrt"


@dataclass
class Contract:
    """Goes through a module's syntax tree; ``problems`` are what it finds, ``used`` all that the module uses."""

    listings: dict[str, Listing]
    problems: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def check(self, source: str) -> list[str]:
        self._block(ast.parse(source).body, set(self.listings))
        return self.problems

    # Statements, with the versions that reach them.

    def _block(self, statements: Iterable[ast.stmt], versions: set[str]) -> None:
        for statement in statements:
            self._statement(statement, versions)
            if isinstance(statement, ast.If) and _leaves(statement.body):
                versions = {one for one in versions if self._holds(statement.test, one) is not True}

    def _statement(self, statement: ast.stmt, versions: set[str]) -> None:
        if isinstance(statement, ast.If):
            self._expression(statement.test, versions)
            self._block(statement.body, self._where(statement.test, versions, False))
            self._block(statement.orelse, self._where(statement.test, versions, True))
            return
        if isinstance(statement, ast.ClassDef):
            self._class(statement, versions)
        if isinstance(statement, ast.Assign):
            self._assignment(statement, versions)
        for _, value in ast.iter_fields(statement):
            values = value if isinstance(value, list) else [value]
            if all(isinstance(each, ast.stmt) for each in values):
                self._block(values, versions)
            else:
                for each in values:
                    if isinstance(each, ast.AST):
                        self._any(each, versions)

    def _any(self, node: ast.AST, versions: set[str]) -> None:
        if isinstance(node, ast.expr):
            self._expression(node, versions)
        elif isinstance(node, ast.ExceptHandler):
            self._block(node.body, versions)
        else:
            for child in ast.iter_child_nodes(node):
                self._any(child, versions)

    def _class(self, node: ast.ClassDef, versions: set[str]) -> None:
        for base in node.bases:
            if (kind := self._module_member(base)) is not None:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("__"):
                        self._use(f"{kind}.{method.name}", versions, method)

    def _assignment(self, node: ast.Assign, versions: set[str]) -> None:
        kind = self._kind(node.value)
        if kind is None:
            return
        for target in node.targets:
            if VARIABLES.get(_name(target)) != kind and isinstance(target, ast.Name | ast.Attribute):
                self.problems.append(f"line {node.lineno}: {ast.unparse(target)} holds a {kind}: see VARIABLES")

    # Expressions.

    def _expression(self, node: ast.expr, versions: set[str]) -> None:
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for value in node.values:
                self._expression(value, versions)
                versions = self._where(value, versions, False)
            return
        if isinstance(node, ast.IfExp):
            self._expression(node.test, versions)
            self._expression(node.body, self._where(node.test, versions, False))
            self._expression(node.orelse, self._where(node.test, versions, True))
            return
        if isinstance(node, ast.Attribute):
            self._attribute(node, versions)
        if isinstance(node, ast.Call):
            self._call(node)
        for child in ast.iter_child_nodes(node):
            self._any(child, versions)

    def _attribute(self, node: ast.Attribute, versions: set[str]) -> None:
        if (kind := self._module_member(node)) is not None:
            self._use(kind, versions, node)
        elif (kind := self._kind(node.value)) is not None or (kind := self._module_member(node.value)) is not None:
            self._use(f"{kind}.{node.attr}", versions, node)

    def _call(self, node: ast.Call) -> None:
        function = node.func
        hides = isinstance(function, ast.Name) and function.id in ("getattr", "hasattr", "setattr")
        if hides and (self._kind(node.args[0]) or _is_module(node.args[0]) or self._module_member(node.args[0])):
            self.problems.append(f"line {node.lineno}: {function.id} hides what is used: use bindings.has or find")
        if isinstance(function, ast.Attribute) and function.attr in ("has", "find", "values"):
            self._check_string(node)
        if isinstance(function, ast.Attribute) and (kind := self._kind(function.value)) is not None:
            name = f"{kind}.{function.attr}"
            given = function.attr.startswith(("create_", "get_", "deserialize"))
            if given and name not in RETURNS and not function.attr.startswith(_PLAIN):
                self.problems.append(f"line {node.lineno}: say in RETURNS what {name} gives")

    def _check_string(self, node: ast.Call) -> None:
        text = node.args[0]
        if isinstance(text, ast.JoinedStr):  # the enum must be named, if not the value
            text = ast.Constant(str(getattr(text.values[0], "value", "")).rstrip("."))
        if not isinstance(text, ast.Constant):
            return  # handed on: where it is written down it is checked
        name = text.value
        if not any(listing.has(name) for listing in self.listings.values()):
            self.problems.append(f"line {node.lineno}: no version has {name or ast.unparse(node)}")

    def _use(self, name: str, versions: set[str], node: Any) -> None:
        if name.rpartition(".")[2].startswith("__"):
            return
        self.used.add(name)
        missing = sorted(one for one in versions if not self.listings[one].has(name))
        if missing:
            self.problems.append(f"line {node.lineno}: {name} is not in {', '.join(missing)}")

    # What things are.

    def _kind(self, node: ast.expr) -> str | None:
        """Return the class of the object of the bindings that ``node`` is."""
        if isinstance(node, ast.Call):
            function = node.func
            if (made := self._module_member(function)) is not None:
                return made
            if isinstance(function, ast.Attribute) and (kind := self._kind(function.value)) is not None:
                return RETURNS.get(f"{kind}.{function.attr}")
            return None
        return VARIABLES.get(_name(node)) if isinstance(node, ast.Name | ast.Attribute) else None

    def _module_member(self, node: ast.expr) -> str | None:
        """Return X of ``trt.X``."""
        return node.attr if isinstance(node, ast.Attribute) and _is_module(node.value) else None

    # Guards.

    def _where(self, test: ast.expr, versions: set[str], negated: bool) -> set[str]:
        return {one for one in versions if self._holds(test, one) is not negated}

    def _holds(self, test: ast.expr, version: str) -> bool | None:
        """Say whether a condition holds in a version; None where it depends on something else."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self._holds(test.operand, version)
            return None if inner is None else not inner
        if isinstance(test, ast.BoolOp):
            values = [self._holds(value, version) for value in test.values]
            decisive = isinstance(test.op, ast.Or)
            if decisive in values:
                return decisive
            return None if None in values else not decisive
        text = ast.unparse(test)
        if text.endswith("bindings.strongly_typed"):
            return is_strongly_typed(flavour_of(version), self.listings[version].version)
        if isinstance(test, ast.Compare) and ast.unparse(test.left).endswith("bindings.flavour"):
            return ast.literal_eval(test.comparators[0]) == flavour_of(version)
        if isinstance(test, ast.Call) and ast.unparse(test.func).endswith("bindings.has"):
            return self.listings[version].has(ast.literal_eval(test.args[0]))
        return None


def _leaves(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], ast.Return | ast.Raise | ast.Continue)


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and _name(node) == "trt"


def _name(node: ast.expr) -> str:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.lstrip("_")


def modules(folder: Path) -> Iterator[Path]:
    """Yield the modules that use the bindings themselves."""
    for path in sorted(folder.glob("*.py")):
        if any(
            isinstance(node, ast.Name | ast.Attribute) and _is_module(node)
            for node in ast.walk(ast.parse(path.read_text()))
        ):
            yield path
