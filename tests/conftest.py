"""Fixtures that all tests share."""

import gc
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cores
import kept_shapes
import pytest
from afterwards import afterwards
from chromium_host import Chromium, executable
from fork_server import Forked, ForkServer
from forked_workers import ForkedWorkers
from hypothesis import settings
from memory_folder import memory_folder
from once import once, traces
from oracles import import_timm
from tiny import SHAPES, VARIANTS, CommandLine, fork, must_run, write_checkpoint, write_headless

if TYPE_CHECKING:
    from deit import Deit
    from external_vits import ExternalVits

    from edgevit.models.spec import ModelSpec

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The same examples in each run, and no time limits: a slow machine is no defect.
settings.register_profile("edgevit", deadline=None, derandomize=True)
settings.load_profile("edgevit")

_AFTER_MULTIPROCESSING = -200  # which removes what it has in that folder with -100


def pytest_configure(config: pytest.Config) -> None:
    """Have temporary files in memory, unless it is said where; pytest-xdist tells its workers."""
    if config.option.basetemp is None and (folder := memory_folder()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
        if "TMPDIR" not in os.environ:  # what commands write for a while is synced, too
            os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="edgevit-tests-", dir=folder)
            remove = partial(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
            Finalize(None, remove, exitpriority=_AFTER_MULTIPROCESSING)
    # Workers of training's loaders are forked by one server for all tests: it loads torch, which each would else.
    multiprocessing.set_forkserver_preload(["__main__", "edgevit.training.loaders"])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run modules with tests that take long first: at the end one worker would wait while another runs such a one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not in what was imported: that is so much that it takes a while."""
    gc.set_threshold(20_000, 20, 20)
    gc.freeze()
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        cores.share(worker, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """Let a module's tests, and what they start, run on all cores of this machine, not on those of pytest's worker."""
    with cores.all_of_them():
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-docs", action="store_true", help="write the parts of docs/ that tests generate")
    parser.addoption("--fuzz-cases", type=int, default=40, help="damaged files of each kind that are read")
    parser.addoption("--every-export", action="store_true", help="export each model that loads, not one of each kind")
    parser.addoption("--measure-families", action="store_true", help="measure INT8 of each family for docs/models.md")
    parser.addoption("--every-kernel", action="store_true", help="compile every form of every model for each GPU")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """Return a browser; the tests skip where there is none."""
    if (path := executable()) is None:
        pytest.skip("needs Chromium: sudo apt install chromium, or make test-web")
    browser = Chromium(path)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with real weights and photos that lies beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the weights and photos in {SHARED}, which is not there")
    return SHARED


@pytest.fixture(scope="session")
def deit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> "Deit":
    """Return the pretrained DeiT-tiny, quantized and not, and photos; see deit.py."""
    from deit import Deit

    return Deit(shared, tmp_path_factory)


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """Return timm, the reference for a ViT's weights and logits; it needs no torchvision here."""
    return import_timm()


@pytest.fixture(scope="session")
def external_vits(tmp_path_factory: pytest.TempPathFactory) -> "ExternalVits":
    """Return third-party ONNX files by what is special about each; see external_vits.py."""
    from external_vits import ExternalVits

    return ExternalVits(tmp_path_factory)


@pytest.fixture(scope="session")
def exported_vit(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[ModelSpec], Path]":
    """Return a function that gives the file of a random ViT by its spec; tests do not change it."""
    from random_vit import exported

    return partial(exported, tmp_path_factory)


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out how wide the terminal is that the tests run in, which pytest's workers tell in COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def loaded_for_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Change what is loaded, for fixtures of all scopes, too: exports and shapes are kept, threads that wait sleep.

    Workers of benchmarks are forked, but for those of tests/evaluation. Settings are raced for in test_end_to_end.py,
    and where commands run in processes of their own.
    """

    def keep_exports(_: ModuleType) -> None:
        from traces import keep

        keep(traces(tmp_path_factory))

    workers = ForkedWorkers()
    then = {
        "edgevit.graph.torch_export": keep_exports,
        "edgevit.data.shapes": kept_shapes.keep,
        "edgevit.evaluation.worker_process": workers.serve,
        "edgevit.stages.precisions": do_not_race,
        "onnxruntime": do_not_spin,
    }
    with closing(workers), afterwards(then):
        yield


def do_not_race(precisions: ModuleType) -> None:
    """Open INT8 on OpenVINO with the first of the settings that are raced: which is fastest here is for few tests."""

    @contextmanager
    def first(backend, model, choices, *_):
        with backend.open(model, threads=0, settings=choices[0]) as session:
            yield choices[0], session

    precisions.fastest_settings = first


def do_not_spin(onnxruntime: ModuleType) -> None:
    """Let onnxruntime's threads sleep while they wait: they would take the cores from another worker's tests."""
    opened, spinning = onnxruntime.InferenceSession.__init__, "session.intra_op.allow_spinning"

    def init(self, model, sess_options=None, *args, **options):
        sess_options = sess_options or onnxruntime.SessionOptions()
        try:
            sess_options.get_session_config_entry(spinning)
        except RuntimeError:  # it is not set, and onnxruntime warns of what is set twice
            sess_options.add_session_config_entry(spinning, "0")
        opened(self, model, sess_options, *args, **options)

    onnxruntime.InferenceSession.__init__ = init


@pytest.fixture(autouse=True)
def no_limit_is_left() -> Iterator[None]:
    """See to it that a limit on memory goes with what it was for: what comes later would die of it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    yield
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.fixture
def edgevit(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Return a function that runs the command line with its arguments."""
    return CommandLine(capsys)


@pytest.fixture(scope="session")
def forked() -> Iterator[Callable[..., Forked]]:
    """Return what starts the command line as ``tiny.start`` does, in processes that have the engines loaded."""
    names = ("quantize", "build", "validate", "benchmark", "pack")
    commands = [f"edgevit.{of}.{name}" for of in ("cli", "stages") for name in names]
    with closing(ForkServer(*commands, "edgevit.stages.report", "onnxruntime", "openvino", "drawn_shapes")) as server:
        yield partial(fork, server)


@pytest.fixture(scope="session")
def torch_server() -> Iterator[ForkServer]:
    """Return what forks processes that have loaded what exports and trains."""
    modules = ("edgevit.cli.export", "edgevit.stages.export", "edgevit.graph.torch_export", "edgevit.training.start")
    late = ("torch._dynamo", "torch.export._trace", "numpy.ma")  # what torch and NumPy load when they are first used
    with closing(ForkServer(*modules, "edgevit.cli.train", "edgevit.graph.torch_module", *late)) as server:
        yield server


@pytest.fixture(scope="session")
def forked_with_torch(torch_server: ForkServer) -> Callable[..., Forked]:
    """Return what starts the command line as ``forked`` does, in processes that have loaded what exports and trains."""
    return partial(fork, torch_server)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the smallest model, trained on shapes for a moment."""
    name = "tiny.safetensors"
    return once(tmp_path_factory, "checkpoint", lambda folder: write_checkpoint(folder / name)) / name


@pytest.fixture(scope="session")
def tiny_exported(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Return the bundle that ``edgevit export`` made of the checkpoint; tests work on copies of it."""

    def make(folder: Path) -> None:
        must_run("export", tiny_checkpoint, "-o", folder / "tiny.edgevit", "--data", SHAPES)

    return once(tmp_path_factory, "exported", make) / "tiny.edgevit"


@pytest.fixture(scope="session")
def tiny_quantized(tmp_path_factory: pytest.TempPathFactory, tiny_exported: Path) -> Path:
    """Return a bundle that ``edgevit quantize`` has added variants for both backends to; tests work on copies."""
    from edgevit.bundle.store import Bundle

    def make(folder: Path) -> None:
        path = shutil.copytree(tiny_exported, folder / "tiny.edgevit")
        must_run("quantize", path, "--data", SHAPES)
        assert tuple(variant.name for variant in Bundle.open(path).manifest.variants) == VARIANTS

    return once(tmp_path_factory, "quantized", make) / "tiny.edgevit"


@pytest.fixture(scope="session")
def tiny_merged(tmp_path_factory: pytest.TempPathFactory, tiny_quantized: Path) -> Path:
    """Return a bundle with variants whose tokens are merged, too, by two budgets; tests work on copies."""
    from tiny import MERGED, merge_tokens

    from edgevit.bundle.store import Bundle

    def make(folder: Path) -> None:
        path = shutil.copytree(tiny_quantized, folder / "tiny.edgevit")
        merge_tokens(path)
        assert tuple(variant.name for variant in Bundle.open(path).manifest.variants) == MERGED

    return once(tmp_path_factory, "merged", make) / "tiny.edgevit"


@pytest.fixture(scope="session")
def tiny_embedding_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Return the checkpoint without its head: an embedding model."""

    def make(folder: Path) -> None:
        write_headless(tiny_checkpoint, folder / "tiny.safetensors")

    return once(tmp_path_factory, "headless", make) / "tiny.safetensors"


@pytest.fixture(scope="session")
def tiny_embedding(tmp_path_factory: pytest.TempPathFactory, tiny_embedding_checkpoint: Path) -> Path:
    """Return a bundle of the embedding model with variants for both backends; tests work on copies."""

    def make(folder: Path) -> None:
        path = folder / "tiny.edgevit"
        must_run("export", tiny_embedding_checkpoint, "-o", path, "--data", SHAPES, "--l2-normalize")
        must_run("quantize", path, "--data", SHAPES)

    return once(tmp_path_factory, "embedding", make) / "tiny.edgevit"


@pytest.fixture(scope="session")
def tiny_dense(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Return a bundle that gives tokens, the features of a block and logits, with variants for both backends."""

    def make(folder: Path) -> None:
        path = folder / "tiny.edgevit"
        wanted = [word for text in ("tokens", "blocks=0", "logits") for word in ("--output", text)]
        must_run("export", tiny_checkpoint, "-o", path, "--data", SHAPES, *wanted)
        must_run("quantize", path, "--data", SHAPES)

    return once(tmp_path_factory, "dense", make) / "tiny.edgevit"


@pytest.fixture
def dense(tmp_path: Path, tiny_dense: Path) -> Path:
    """Return a bundle that gives several outputs, to be changed at will."""
    return shutil.copytree(tiny_dense, tmp_path / "tiny.edgevit")


@pytest.fixture
def embedding(tmp_path: Path, tiny_embedding: Path) -> Path:
    """Return a bundle of an embedding model, to be changed at will."""
    return shutil.copytree(tiny_embedding, tmp_path / "tiny.edgevit")


@pytest.fixture
def exported(tmp_path: Path, tiny_exported: Path) -> Path:
    """Return a bundle with float32 alone, to be changed at will."""
    return shutil.copytree(tiny_exported, tmp_path / "tiny.edgevit")


@pytest.fixture
def quantized(tmp_path: Path, tiny_quantized: Path) -> Path:
    """Return a bundle with float32 and INT8 for both backends, to be changed at will."""
    return shutil.copytree(tiny_quantized, tmp_path / "tiny.edgevit")


@pytest.fixture
def merged(tmp_path: Path, tiny_merged: Path) -> Path:
    """Return a bundle with variants whose tokens are merged, to be changed at will."""
    return shutil.copytree(tiny_merged, tmp_path / "tiny.edgevit")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Return two pictures of shapes as PNG files."""
    from edgevit.data.shapes import load_shapes

    shapes = load_shapes("test", "size=40,count=2")
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        shapes.image(index).save(path)
    return paths


@pytest.fixture(scope="session")
def write_graph(tmp_path_factory):
    """Return a function that writes the ONNX text of a graph, with its constants, to a file."""

    import onnx

    def write(text, constants, opset=20, domains=()):
        imports = ", ".join(f'"{domain}": {version}' for domain, version in [("", opset), *((d, 1) for d in domains)])
        model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> {text}")
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
        path = tmp_path_factory.mktemp("graph") / "model.onnx"
        onnx.save(model, path)
        return path

    return write
