"""Holds the code to the bindings of each version that it claims to work with: all that it uses is there, or guarded."""

import importlib.util
import json
from pathlib import Path

import pytest
from trt_contract import API, Contract, flavour_of, listings, modules

import edgevit.backends.tensorrt
from edgevit.backends.tensorrt import bindings

LISTINGS = listings()
MODULES = list(modules(Path(edgevit.backends.tensorrt.__file__).parent))


def problems(source):
    return Contract(LISTINGS).check(source)


def test_the_listings_are_of_the_versions_that_are_claimed():
    assert set(LISTINGS) == {"8.6.1", "10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1"}
    for flavour, oldest in bindings._OLDEST.items():
        versions = [
            bindings.version_numbers(one.version) for name, one in LISTINGS.items() if flavour_of(name) == flavour
        ]
        assert min(versions)[:2] == oldest


def test_the_copies_are_those_of_the_real_bindings(shared):
    spec = importlib.util.spec_from_file_location("copy_api", API.parent / "copy_api.py")
    copy_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy_api)
    for path in API.glob("*.json"):
        original = json.loads((shared / "tensorrt-api" / path.name).read_text())
        assert json.loads(path.read_text()) == copy_api.used(original)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_all_that_is_used_is_there_or_guarded(path):
    assert problems(path.read_text()) == []


def test_the_modules_are_found_and_read():
    assert {path.stem for path in MODULES} == {"bindings", "builder", "log", "monitor", "session"}
    used = set()
    for path in MODULES:
        contract = Contract(LISTINGS)
        contract.check(path.read_text())
        used |= contract.used
    # Some of each kind: a class, a method, an attribute that is set, a value of an enum, a method that is overridden.
    assert used >= {
        "OnnxParser",
        "IExecutionContext.execute_async_v3",
        "IBuilderConfig.progress_monitor",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "IProgressMonitor.step_complete",
        "IRuntimeConfig.cuda_graph_strategy",
        "ParserError.node_name",
    }
    assert len(used) > 70


def guarded_lines(path):
    lines = [line.strip() for line in path.read_text().splitlines()]
    guards = ("bindings.has(", "bindings.strongly_typed")
    return [
        number for number, line in enumerate(lines) if line.startswith("if ") and any(each in line for each in guards)
    ]


@pytest.mark.parametrize(
    ("module", "guard"),
    [(path, number) for path in MODULES for number in guarded_lines(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_without_any_one_guard_it_fails(module, guard):
    lines = module.read_text().splitlines()
    line = lines[guard]
    condition = line[line.index("if ") + 3 : line.rindex(":")]
    lines[guard] = line.replace(condition, "unknown")
    assert problems("\n".join(lines)) != [], f"line {guard + 1} guards nothing: {line}"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16 is not in 11.4.0, rtx-1.7.1"),
        ("config.max_workspace_size = 1", "IBuilderConfig.max_workspace_size is not in 10.16.1, 10.3.0, 11.4.0"),
        ("self._context.execute_async_v2()", "IExecutionContext.execute_async_v2 is not in"),
        ("trt.nothing", "nothing is not in"),
        ("if bindings.has('BuilderFlag.FP16'):\n    pass\nelse:\n    trt.BuilderFlag.FP16", "FP16 is not in 11.4.0"),
        ("if not bindings.has('BuilderFlag.FP16'):\n    trt.BuilderFlag.FP16", "FP16 is not in 11.4.0"),
        ("if bindings.has('BuilderFlag.FP16') or x:\n    trt.BuilderFlag.FP16", "FP16 is not in 11.4.0"),
        ("if bindings.strongly_typed:\n    trt.BuilderFlag.FP16", "FP16 is not in 11.4.0, rtx-1.7.1"),
        ("if bindings.flavour == 'tensorrt':\n    trt.BuilderFlag.FP16", "FP16 is not in 11.4.0"),
        ("if bindings.has('BuilderFlag.FP61'): pass", "no version has BuilderFlag.FP61"),
        ("bindings.find(f'ComputeCapabilities.{name}')", "no version has ComputeCapabilities"),
        ("getattr(trt.BuilderFlag, name)", "getattr hides what is used"),
        ("class M(trt.IProgressMonitor): pass", "IProgressMonitor is not in 8.6.1"),
        ("class L(trt.ILogger):\n    def write(self): pass", "ILogger.write is not in"),
        ("thing = trt.Builder(logger)", "thing holds a Builder"),
        ("thing = builder.create_network(0)", "thing holds a INetworkDefinition"),
        ("config.get_timing_cache().queryKeys()", "ITimingCache.queryKeys is not in 10.3.0, 8.6.1"),
        ("x = engine.create_serialization_config()", "say in RETURNS"),
    ],
)
def test_what_a_version_lacks_is_found(source, problem):
    assert any(problem in found for found in problems(source)), problems(source)


@pytest.mark.parametrize(
    "source",
    [
        "if bindings.has('BuilderFlag.FP16'):\n    config.set_flag(trt.BuilderFlag.FP16)",
        "if not bindings.strongly_typed:\n    config.set_flag(trt.BuilderFlag.INT8)",
        "def f():\n    if not bindings.has('IProgressMonitor'):\n        return\n    return trt.IProgressMonitor",
        "x = trt.BuilderFlag.FP16 if bindings.has('BuilderFlag.FP16') else None",
        "y = bindings.has('ParserError.node_name') and parser_error.node_name()",
        "if bindings.flavour == 'tensorrt-rtx':\n    trt.ComputeCapability.SM86",
    ],
)
def test_what_is_guarded_passes(source):
    assert problems(source) == []
