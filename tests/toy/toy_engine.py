"""An engine of a test's own: its files are compressed ONNX, in its own dialect, and onnxruntime runs them."""

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from edgevit.backends.backend import Backend
from edgevit.backends.base import ANY_DEVICE
from edgevit.backends.onnxruntime import OnnxRuntimeSession
from edgevit.dependencies import require
from edgevit.errors import GraphError
from edgevit.progress import SILENT


class Toy(Backend):
    name = "toy"
    extra = "onnxruntime"
    package = "onnxruntime"
    distributions = ("onnxruntime",)
    nicknames = ("plaything",)
    dialects = ("toy",)
    precisions = ("float32", "int8")
    formats = (".toy",)
    settings = {"level": "6"}  # noqa: RUF012

    def __init__(self):
        self._engine = require(self.package, extra=self.extra)

    def version(self):
        return "1.2.3"

    def build(self, model, folder, options=ANY_DEVICE, *, progress=SILENT):
        if onnx.load(model).producer_name != "toy":
            raise GraphError(f"{model} is not in the toy's dialect", remedy="use a target of dialect toy")
        folder.mkdir(exist_ok=True)
        path = folder / "model.toy"
        level = int({**self.settings, **options.settings}["level"])
        path.write_bytes(zlib.compress(model.read_bytes(), level))
        return [path]

    def open(self, model, *, threads, settings, batch=1, progress=SILENT):
        self.check_settings(settings)
        return ToySession(self._engine, model, threads)


class ToySession(OnnxRuntimeSession):
    def __init__(self, engine, model, threads):
        self._folder = TemporaryDirectory()
        unpacked = Path(self._folder.name) / "model.onnx"
        unpacked.write_bytes(zlib.decompress(model.read_bytes()))
        super().__init__(engine, unpacked, threads)

    def __exit__(self, *error):
        super().__exit__(*error)
        self._folder.cleanup()
