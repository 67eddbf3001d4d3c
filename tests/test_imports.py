"""Who may import whom; read off the syntax tree, so that imports inside functions count too.

docs/architecture.md draws this. Whoever needs another arrow adds it to ROOMS, and to the drawing.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections import defaultdict

import pytest
from own_code import MODULES, PACKAGE, called, each_room, tree

BASE = {
    "errors",
    "brief",
    "decoding",
    "dependencies",
    "files",
    "futures",
    "json",
    "json_file",
    "likeness",
    "limits",
    "machine",
    "memory",
    "numerals",
    "paths",
    "processor",
    "progress",
    "resources",
    "shell",
    "statistics",
    "system",
    "toml",
    "versions",
}
DEVICE = BASE | {"data", "models", "bundle", "backends"}
WORKSHOP = DEVICE | {"targets", "recipes", "graph", "quantization", "evaluation"}

#: Room -> the rooms that it may import. A room is a sub-package of edgevit, or a module beside them.
ROOMS = {
    "errors": set(),
    "brief": set(),
    "limits": {"errors", "memory"},
    "machine": {"errors", "shell", "system"},
    "memory": {"errors", "processor", "system"},
    "processor": set(),
    "progress": {"brief", "errors"},
    "dependencies": {"errors"},
    "files": {"errors"},
    "futures": set(),
    "decoding": set(),
    "json": {"decoding", "errors"},
    "json_file": {"errors", "files", "json"},
    "likeness": set(),
    "numerals": set(),
    "paths": {"brief", "errors"},
    "resources": {"errors"},
    "shell": set(),
    "statistics": set(),
    "system": set(),
    "toml": {"decoding", "errors", "likeness", "resources"},
    "versions": {"errors"},
    "_resources": set(),
    "data": BASE,
    "models": BASE | {"data"},
    "bundle": BASE | {"data", "models"},
    "targets": BASE | {"bundle", "backends"},
    "recipes": BASE,
    "backends": BASE | {"data", "bundle", "graph"},
    "plots": set(),
    "runtime": DEVICE,
    "server": DEVICE | {"runtime", "edgevit"},
    "tritonserver": DEVICE | {"runtime"},
    "video": DEVICE | {"graph"},
    "training": BASE | {"data", "models", "plots"},
    "graph": BASE | {"data", "models"},
    "quantization": DEVICE | {"targets", "recipes", "graph"},
    "mobile": DEVICE | {"graph"},
    "evaluation": DEVICE | {"targets", "quantization", "graph"},
    "report": WORKSHOP | {"plots"},
    "stages": WORKSHOP | {"mobile", "report", "runtime", "training", "tritonserver", "video"},
    "hosts": WORKSHOP | {"report", "stages"},
    "api": WORKSHOP | {"hosts", "mobile", "report", "runtime", "stages", "video"},
    "cli": WORKSHOP | {"hosts", "mobile", "report", "runtime", "server", "training", "tritonserver", "stages", "api"},
    "__main__": {"cli"},
    "edgevit": {"api", "bundle", "errors", "progress", "runtime"},  # its public names, looked up when they are used
}

#: Heavy library -> the rooms that may import it.
LIBRARIES = {
    "torch": {"models", "training", "graph", "mobile", "api"},  # api: for types alone
    "safetensors": {"models", "training"},
    "huggingface_hub": {"models"},
    "matplotlib": set(),
    "onnx": {"graph", "quantization", "evaluation", "backends"},
    "onnx_ir": {"graph", "quantization", "evaluation", "backends"},
    "onnxscript": {"graph", "quantization"},
    "onnxruntime": {"graph", "quantization", "backends"},
    "openvino": {"backends"},
    "tensorrt": {"backends"},
    "tensorrt_rtx": {"backends"},
    "jinja2": {"report"},
    "fastapi": {"server", "cli"},  # cli: to name what is missing
    "uvicorn": {"server", "cli"},
    "prometheus_client": {"server", "cli"},
    "pynvml": {"machine"},
    # Tools of phones' engines.
    "executorch": {"mobile"},
    "torchao": {"mobile"},
    "litert_torch": {"mobile"},
    "ai_edge_litert": {"mobile"},
    "ai_edge_quantizer": {"mobile"},
    "ncnn": {"mobile"},
    "pnnx": {"mobile"},
    "coremltools": {"mobile"},
    # Peers and references belong to tests and benchmarks alone, but for what --check-with compares with.
    "timm": {"models"},
    "transformers": {"models"},
    "torchvision": set(),
    "nncf": set(),
    "scipy": set(),
}

#: What `pip install edgevit` brings: all that the rooms of a device may import when they are imported.
DEVICE_LIBRARIES = {"numpy", "PIL", "msgspec", "packaging", "typer", "rich"}


def room_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "edgevit" if parts == ("__init__",) else parts[0]


def _imports(function):
    last = getattr(
        function, "attr", getattr(function, "id", None)
    )  # what is called differently need not be written out
    return last in ("require", "import_module") and ast.unparse(function) in ("require", "importlib.import_module")


def imported(nodes):
    """Yield the full names that import statements, and calls that import, name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _imports(node.func):
            yield from (name.value for name in node.args if isinstance(name, ast.Constant))


def runs_at_import(body):
    """Yield the statements that run when a module is imported: not those in functions or under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "handlers", "finalbody"):
                yield from runs_at_import(getattr(node, field, []))


@each_room
def test_a_module_imports_only_what_its_room_may(paths):
    room = room_of(paths[0])
    assert room == "edgevit" or room in ROOMS, f"{room} is new: add it to ROOMS and to docs/architecture.md"
    known = {"edgevit", *ROOMS}
    for path in paths:
        for name in imported(ast.walk(tree(path))):
            top, *rest = name.split(".")
            if top == "edgevit" and rest and rest[0] in known - {room}:
                assert rest[0] in ROOMS.get(room, set()), f"{called(path)} may not import {name}"
            assert room in LIBRARIES.get(top, {room}), f"{called(path)} may not import {name}"


ON_A_DEVICE = BASE | {"data", "bundle", "backends", "runtime", "targets", "recipes", "edgevit", "__main__"}
DEVICE_MODULES = [
    path for path in MODULES if room_of(path) in ON_A_DEVICE or path.name in ("app.py", "console.py", "spec.py")
]


@pytest.mark.parametrize("path", DEVICE_MODULES, ids=called)
def test_a_device_needs_the_base_install_only(path):
    own = {"fastapi", "prometheus_client"} if room_of(path) == "server" else set()  # nothing imports it but `serve`
    for name in imported(runs_at_import(tree(path).body)):
        top = name.split(".")[0]
        assert top in DEVICE_LIBRARIES | {"edgevit"} | own | sys.stdlib_module_names, f"{name} when imported"


def test_rooms_import_one_another_in_one_direction():
    list(graphlib.TopologicalSorter(ROOMS).static_order())  # raises CycleError


def test_quantization_is_twenty_rooms_on_eight_floors():
    """A room is a folder, or a module beside them; it stands on the floor above the highest room that it imports."""
    folder = PACKAGE / "quantization"
    rooms = defaultdict(set)
    for path in (path for path in MODULES if path.is_relative_to(folder) and path != folder / "__init__.py"):
        room = path.relative_to(folder).with_suffix("").parts[0]
        names = (name.split(".") for name in imported(ast.walk(tree(path))))
        rooms[room] |= {name[2] for name in names if name[:2] == ["edgevit", "quantization"]} - {room}
    floors = {}
    for room in graphlib.TopologicalSorter(rooms).static_order():  # raises CycleError
        floors[room] = 1 + max((floors[other] for other in rooms[room]), default=0)
    assert len(floors) <= 20, floors
    assert max(floors.values()) <= 8, floors


HEAVY = set(LIBRARIES)

#: Names of types and type aliases: neither constants nor functions.
CAP_WORDS = re.compile(r"_?[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")


@pytest.mark.parametrize(
    "statement",
    [
        "import edgevit.runtime",
        "from edgevit.cli.app import run; run(['--help'])",
        "from edgevit.cli.app import run; run(['models'])",
        "from edgevit.cli.app import run; run(['targets', '--json'])",
        "from edgevit.cli.app import run; run(['modles'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement):
    code = f"{statement}\nimport sys\nprint('loaded', *(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def types_in(path):
    """Yield the name of each class and type alias of a module, and what tells it from another of that name.

    An alias is whatever is assigned to a name in CapWords, in any way: ``X = ...``, ``X: TypeAlias``, ``type X``,
    ``NamedTuple("X", ...)``. Type variables with the same bounds are one thing, wherever they are declared.
    """
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            yield node.name, (path, node.lineno)
        elif isinstance(node, ast.Assign | ast.AnnAssign) or type(node).__name__ == "TypeAlias":
            name = (
                node.targets[0]
                if isinstance(node, ast.Assign)
                else getattr(node, "target", getattr(node, "name", None))
            )
            variable = isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("TypeVar")
            if isinstance(name, ast.Name) and (variable or CAP_WORDS.fullmatch(name.id)):
                yield name.id, ast.unparse(node.value) if variable else (path, node.lineno)


def test_no_two_types_have_one_name():
    meant = defaultdict(set)
    for path in MODULES:
        for name, thing in types_in(path):
            meant[name.lstrip("_")].add(str(thing).replace("'_", "'"))
    assert {name: things for name, things in meant.items() if len(things) > 1} == {}


@pytest.mark.parametrize(
    "alias",
    [
        "Device = Literal['cpu']",
        "_Device: TypeAlias = int | str",
        "Device = NamedTuple('Device', [])",
        "if TYPE_CHECKING:\n    Device = Any",
        "Device = TypeVar('Device', bound=int)",
    ],
)
def test_an_alias_is_seen_however_it_is_written(alias, tmp_path):
    module = tmp_path / "module.py"
    module.write_text(f"class Device: ...\n{alias}\n")
    names, things = zip(*types_in(module), strict=True)
    assert {name.lstrip("_") for name in names} == {"Device"}
    assert len(set(things)) == 2


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_functions(path):
    """Return the public functions of a module, and where it is a command of the command line all but that."""
    command = path.stem if path.parent.name == "cli" else None
    functions = {
        node.name: node for node in tree(path).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {
        name: node for name, node in functions.items() if not name.startswith("_") and name not in ("main", command)
    }


def do_the_same(one, other):
    """Say whether two functions (module, its tree) of one name may be called alike.

    They may if one is built on the other, as a step in ``api/`` on that in ``stages/``; if they are forms of one thing
    in one package, one for each dialect or family of models; or if one chooses among these, in the package itself.
    """
    (path, function), (other_path, other_function) = one, other
    names = set(imported(ast.walk(tree(path))))
    if {module_name(other_path), f"{module_name(other_path)}.{other_function.name}"} & names:
        return True
    in_one_package = path.parent == other_path.parent
    alike = ast.unparse(function.args) == ast.unparse(other_function.args)
    return in_one_package and (alike or path.stem == "__init__")


def different(functions):
    """Return how many different things ``functions`` of one name do."""
    groups = []
    for each in functions:
        its = [group for group in groups if any(do_the_same(each, one) or do_the_same(one, each) for one in group)]
        groups = [group for group in groups if group not in its] + [sum(its, [each])]
    return len(groups)


def test_no_two_public_functions_of_one_name_do_different_things():
    found = defaultdict(list)
    for path in MODULES:
        for name, function in public_functions(path).items():
            found[name].append((path, function))
    wrong = {name: [called(path) for path, _ in each] for name, each in found.items() if different(each) > 1}
    assert wrong == {}, "call one of them by what it does, and to what"
