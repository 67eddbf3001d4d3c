"""Fashion-MNIST: the sample in the package, and the full set from wherever it is."""

import gzip
import hashlib
import http.server
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgevit.data import fashion_mnist
from edgevit.data.download import download
from edgevit.data.fashion_mnist import load_fashion_mnist, load_fashion_mnist_sample
from edgevit.errors import DataError, MissingDataError, StorageError
from edgevit.progress import SILENT

SAMPLE = Path(fashion_mnist.__file__).parent / "fashion_mnist_sample"
NOWHERE = "http://127.0.0.1:9/"  # nothing listens there


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class BreaksOff(Quiet):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Make this machine one without Fashion-MNIST and without a way to get it; return the cache folder."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DISTRIBUTION_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(fashion_mnist, "ADDRESS", NOWHERE)
    return tmp_path / "cache" / "fashion-mnist"


@pytest.mark.parametrize(("split", "count"), [("train", 500), ("test", 2000)])
def test_sample(split, count):
    sample = load_fashion_mnist_sample(split)
    assert sample.pixels.shape == (count, 28, 28, 1)
    assert np.bincount(sample.labels).tolist() == [count // 10] * 10
    assert sample.image(0).mode == "L"


def test_sample_is_small_and_has_its_notice():
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 1_500_000
    notice = (SAMPLE / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright © 2017 Zalando SE, https://tech.zalando.com" in notice
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in notice


@pytest.mark.skipif(not fashion_mnist.available(), reason="the full Fashion-MNIST is not on this machine")
def test_full_set_holds_the_sample_where_it_says():
    for split, count in (("train", 60_000), ("test", 10_000)):
        full, sample = load_fashion_mnist(split), load_fashion_mnist_sample(split)
        assert full.pixels.shape == (count, 28, 28, 1)
        indices = fashion_mnist.sample_indices(split)
        assert np.array_equal(full.pixels[indices], sample.pixels)
        assert np.array_equal(full.labels[indices], sample.labels)


def test_offline_and_absent(bare):
    with pytest.raises(MissingDataError, match="not on this machine") as caught:
        load_fashion_mnist("test")
    assert caught.value.exit_code == 3
    for remedy in ("apt install dataset-fashion-mnist", "fashion-mnist-sample", str(bare)):
        assert remedy in caught.value.remedy
    assert not fashion_mnist.available()
    assert list(bare.iterdir()) == []


def test_cache_follows_the_environment(monkeypatch):
    monkeypatch.delenv("EDGEVIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert fashion_mnist.fashion_mnist_folder() == Path("/x/edgevit/fashion-mnist")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert fashion_mnist.fashion_mnist_folder() == Path("/home/me/.cache/edgevit/fashion-mnist")
    monkeypatch.setenv("EDGEVIT_CACHE", "/y")
    assert fashion_mnist.fashion_mnist_folder() == Path("/y/fashion-mnist")


def publish(folder, monkeypatch):
    """Make a tiny set, publish it in ``folder``, and let the module know its hashes; return images and labels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8) % 10
    files = []
    for file, values in zip(fashion_mnist._FILES["test"], (images, labels), strict=True):
        header = bytes([0, 0, 8, values.ndim]) + np.asarray(values.shape, ">u4").tobytes()
        content = gzip.compress(header + values.tobytes())
        (folder / file.name).write_bytes(content)
        hashes = hashlib.sha256(content).hexdigest(), hashlib.sha256(values.tobytes()).hexdigest()
        files.append(fashion_mnist._Download(file.name, len(content), *hashes))
    monkeypatch.setitem(fashion_mnist._FILES, "test", tuple(files))
    return images, labels


def test_download_goes_into_the_cache_and_is_read_from_there(bare, monkeypatch, serve, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    images, labels = publish(site, monkeypatch)
    monkeypatch.setattr(fashion_mnist, "ADDRESS", serve(partial(Quiet, directory=str(site))))
    dataset = load_fashion_mnist("test")
    assert np.array_equal(dataset.pixels[..., 0], images)
    assert np.array_equal(dataset.labels, labels)
    assert sorted(path.name for path in bare.iterdir()) == sorted(path.name for path in site.iterdir())
    monkeypatch.setattr(fashion_mnist, "ADDRESS", NOWHERE)
    assert load_fashion_mnist("test").fingerprint() == dataset.fingerprint()


def test_distribution_package_is_used_without_download(bare, monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    publish(package, monkeypatch)
    monkeypatch.setattr(fashion_mnist, "DISTRIBUTION_FOLDER", package)
    assert len(load_fashion_mnist("test")) == 20
    assert not bare.exists()


def test_another_file_in_the_cache_is_refused(bare, monkeypatch):
    bare.mkdir(parents=True)
    publish(bare, monkeypatch)
    name = fashion_mnist._FILES["test"][1].name
    (bare / name).write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1])))
    with pytest.raises(DataError, match="not Fashion-MNIST as published") as caught:
        load_fashion_mnist("test")
    assert name in caught.value.remedy


def test_cache_that_cannot_be_written_to(bare, monkeypatch, serve, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(fashion_mnist, "ADDRESS", serve(Quiet))
    with pytest.raises(StorageError) as caught:
        load_fashion_mnist("test")
    assert "EDGEVIT_CACHE" in caught.value.remedy


@pytest.mark.parametrize("change", ["altered", "longer"])
def test_download_of_another_file_leaves_what_was_there(change, bare, serve, tmp_path):
    content = b"published" * 10_000
    served = {"altered": b"P" + content[1:], "longer": content + b"!"}[change]
    (tmp_path / "file").write_bytes(served)
    target = tmp_path / "target"
    target.write_text("before")
    address = serve(partial(Quiet, directory=str(tmp_path))) + "file"
    with pytest.raises(DataError, match="not the file that was published"):
        download(address, target, sha256=hashlib.sha256(content).hexdigest(), size=len(content), progress=SILENT)
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "target"]


def test_connection_that_breaks_off_or_finds_nothing(bare, serve, tmp_path):
    for handler, size in ((BreaksOff, 1000), (partial(Quiet, directory=str(tmp_path)), 1000)):
        with pytest.raises(MissingDataError, match=r"10 of 1000 bytes|cannot download"):
            download(serve(handler) + "file", tmp_path / "target", sha256="0" * 64, size=size, progress=SILENT)
    assert list(tmp_path.iterdir()) == []


def test_only_web_addresses(tmp_path):
    with pytest.raises(DataError, match="web address"):
        download("file:///etc/passwd", tmp_path / "x", sha256="0" * 64, size=1, progress=SILENT)
