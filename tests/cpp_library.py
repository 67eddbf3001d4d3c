"""Builds the C library with the machine's own compiler, and calls it through ctypes as any language binds to it."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from once import kept, made
from typing_extensions import Self

SOURCES = Path(__file__).resolve().parents[1] / "export" / "cpp"
FORMATS = {"rgb": 0, "bgr": 1, "grey": 2, "rgba": 3, "bgra": 4}
OK, BAD_ARGUMENT, BAD_BUNDLE, MISSING, FAILED = range(5)


def built(
    factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object], more: Iterable[Path] = ()
) -> Path:
    """Return where ``build`` built the library, of the sources and of ``more`` files, with what is installed here."""
    missing = [tool for tool in ("cmake", "c++", "cc") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} to build the C library: sudo apt install cmake g++")
    sources = [path for path in sorted(SOURCES.rglob("*")) if path.is_file()]
    code = [Path(__file__), Path(build.__code__.co_filename), *sources, *more]
    tools = [subprocess.check_output([tool, "--version"], text=True) for tool in ("cmake", "c++", "cc")]
    packages = ("openvino",) if _openvino() else ()
    return made(kept(factory, name, code, packages, *tools, str(_openvino())), name, build)


def _openvino() -> Path | None:
    spec = importlib.util.find_spec("openvino")
    return None if spec is None else Path(str(spec.origin)).parent


def build(folder: Path) -> None:
    """Build the library and its tool in ``folder``, with OpenVINO from the wheel where that is installed."""
    places = [f"-DOpenVINO_DIR={place / 'cmake'}"] if (place := _openvino()) else []
    configure = ["cmake", "-S", SOURCES, "-B", folder, "-DEDGEVIT_TOOLS=ON", *places]
    install = ["cmake", "--install", folder, "--prefix", folder / "prefix"]
    for command in (configure, ["cmake", "--build", folder, "-j2"], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr


def onnxruntime_library() -> Path:
    """Return the library in onnxruntime's wheel."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    return next(Path(str(spec.origin)).parent.glob("capi/libonnxruntime.so.*"))


class Image(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("stride", ctypes.c_size_t),
        ("format", ctypes.c_int),
    )


class Options(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("variant", ctypes.c_char_p),
        ("onnxruntime", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
    )


class Prediction(ctypes.Structure):
    _fields_ = (("index", ctypes.c_int32), ("probability", ctypes.c_float))


class Output(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_size_t),
        ("values", ctypes.c_size_t),
    )


class Refused(Exception):
    """A status that is not OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Library:
    """The library, loaded into this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.c = ctypes.CDLL(str(path))
        for name in ("edgevit_last_error", "edgevit_label", "edgevit_variant", "edgevit_engine"):
            getattr(self.c, name).restype = ctypes.c_char_p
        for name in ("edgevit_values", "edgevit_input_values", "edgevit_labels", "edgevit_outputs"):
            getattr(self.c, name).restype = ctypes.c_size_t

    def must(self, status: int) -> None:
        if status != OK:
            raise Refused(status, self.c.edgevit_last_error().decode())

    def open(
        self, path: Path, variant: str | None = None, *, threads: int = 1, onnxruntime: Path | None = None
    ) -> Model:
        options = Options(
            ctypes.sizeof(Options),
            None if variant is None else variant.encode(),
            str(onnxruntime or onnxruntime_library()).encode(),
            threads,
        )
        handle = ctypes.c_void_p()
        self.must(self.c.edgevit_open(str(path).encode(), ctypes.byref(options), ctypes.byref(handle)))
        return Model(self, handle)


class Model:
    """An open model."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle
        self.variant = library.c.edgevit_variant(handle).decode()
        self.engine = library.c.edgevit_engine(handle).decode()
        self.labels = tuple(
            library.c.edgevit_label(handle, ctypes.c_size_t(index)).decode()
            for index in range(library.c.edgevit_labels(handle))
        )

    def image(self, pixels: NDArray[np.uint8], form: str, stride: int | None = None) -> Image:
        self._kept = pixels
        height, width = pixels.shape[:2]
        return Image(pixels.ctypes.data, width, height, pixels.strides[0] if stride is None else stride, FORMATS[form])

    def infer(self, pixels: NDArray[np.uint8], form: str = "rgb") -> NDArray[np.float32]:
        return self._numbers("edgevit_infer", "edgevit_values", self.image(pixels, form))

    def prepare(self, pixels: NDArray[np.uint8], form: str = "rgb") -> NDArray[np.float32]:
        return self._numbers("edgevit_prepare", "edgevit_input_values", self.image(pixels, form))

    def predict(self, pixels: NDArray[np.uint8], top: int = 5) -> list[tuple[int, float]]:
        found, count = (Prediction * top)(), ctypes.c_size_t()
        image = self.image(pixels, "rgb")
        call = self.library.c.edgevit_predict
        self.library.must(call(self.handle, ctypes.byref(image), found, ctypes.c_size_t(top), ctypes.byref(count)))
        return [(each.index, each.probability) for each in found[: count.value]]

    def outputs(self) -> dict[str, tuple[int, ...]]:
        found = {}
        for index in range(self.library.c.edgevit_outputs(self.handle)):
            output = Output()
            self.library.must(
                self.library.c.edgevit_output_at(self.handle, ctypes.c_size_t(index), ctypes.byref(output))
            )
            found[output.name.decode()] = tuple(output.shape[axis] for axis in range(output.rank))
        return found

    def _numbers(self, call: str, size: str, image: Image) -> NDArray[np.float32]:
        values = np.empty(getattr(self.library.c, size)(self.handle), np.float32)
        place, count = values.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(values.size)
        self.library.must(getattr(self.library.c, call)(self.handle, ctypes.byref(image), place, count))
        return values

    def close(self) -> None:
        self.library.c.edgevit_close(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_threads(count: int, call: Sequence[object] | object) -> None:
    """Run ``call`` in ``count`` threads at once, and raise what one of them raises."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure
