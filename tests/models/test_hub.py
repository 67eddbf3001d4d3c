"""hf:// against a server on loopback that speaks the part of the Hub's protocol that a download needs."""

import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save
from tiny import finish

from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"architecture": "vit_tiny_patch16_224", "num_classes": 3,
          "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
          "label_names": ["cat", "dog", "owl"]}  # fmt: skip


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a mapping of files; ``breaks`` counts how often a large file stops half-way."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.breaks = 0
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers["Range"]))
        if match := re.fullmatch(r"/api/models/(\w+/\w+)(?:/revision/[\w.-]+)?", path):
            self.describe(match[1])
        elif match := re.fullmatch(r"/api/models/(\w+/\w+)/tree/\w+", path):
            files = self.server.repositories[match[1]]
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()
            ]
            self.send(200, json.dumps(entries).encode())
        elif match := re.fullmatch(r"/(\w+/\w+)/resolve/[\w.-]+/(.+)", path):
            self.file(self.server.repositories.get(match[1], {}), match[2], body=body)
        else:
            self.send(404, b"")

    def describe(self, name: str) -> None:
        if name == "owner/gated":
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
        elif name == "owner/private":
            self.send(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif name not in self.server.repositories:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        else:
            siblings = [{"rfilename": file} for file in self.server.repositories[name]]
            self.send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())

    def file(self, files: dict[str, bytes], name: str, *, body: bool) -> None:
        if name not in files:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = files[name]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        if body and self.server.breaks and len(rest) > 10_000:
            self.server.breaks -= 1
            self.send(206 if start else 200, rest, headers, sent=len(rest) // 2)
            self.close_connection = True
        else:
            self.send(206 if start else 200, rest, headers, sent=len(rest) if body else 0)

    def send(self, code: int, content: bytes, headers: dict[str, str] | None = None, sent: int | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:sent] if self.command == "GET" else b"")


@pytest.fixture
def hub():
    torch.manual_seed(0)
    spec = ModelSpec(image_size=(32, 32), patch_size=(8, 8), width=64, depth=1, heads=1, classes=3)
    weights = save(VisionTransformer(spec).state_dict())
    server = Hub()
    server.repositories["owner/vit"] = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    server.repositories["owner/words"] = {"config.json": b"{}", "README.md": b"no weights"}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(hub, tmp_path, forked_with_torch, monkeypatch):
    """Return a function that runs a statement where huggingface-hub, which reads them once, sees these settings."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)

    def run(statement: str, **settings: str) -> tuple[str, str]:
        environment = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address, **settings}
        environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        (tmp_path / "script.py").write_text(
            "import sys\n"
            "assert 'huggingface_hub' not in sys.modules\n"
            "from edgevit.errors import EdgeViTError\n"
            "try:\n"
            f"    {statement}\n"
            "except EdgeViTError as error:\n"
            "    print(type(error).__name__, '|', error, '|', error.remedy)\n"
        )
        script, scratch = tmp_path / "script.py", tmp_path / "scratch"
        done = finish(forked_with_torch(what=script, scratch=scratch, variables=environment))
        assert done.code == 0, done.err
        return done.out, done.err

    return run


FETCH = "from edgevit.models.hub import fetch; print(fetch('hf://owner/{}'))"
LOAD = (
    "from edgevit.models.loading import load_checkpoint; c = load_checkpoint('hf://owner/vit'); "
    "print(c.labels, c.spec.width, c.preprocess.mean)"
)


def test_a_repository_is_downloaded_and_then_loads_offline(hub, client):
    downloaded, _ = client(LOAD)
    assert "('cat', 'dog', 'owl') 64 (0.5, 0.5, 0.5)" in downloaded
    asked = len(hub.requests)
    offline, _ = client(LOAD, HF_HUB_OFFLINE="1")
    assert offline == downloaded
    assert len(hub.requests) == asked


def test_a_broken_download_is_resumed_where_it_broke(hub, client):
    content = bytes(range(256)) * 100_000  # the Hub's library keeps what came in parts of 10 MiB
    hub.repositories["owner/large"] = {"model.safetensors": content}
    hub.breaks = 1
    folder, _ = client(FETCH.format("large"))
    ranges = [given for method, path, given in hub.requests if method == "GET" and path.endswith("safetensors")]
    assert ranges == [None, f"bytes={10 << 20}-"]
    with open(os.path.join(folder.strip(), "model.safetensors"), "rb") as stream:  # noqa: PTH118, PTH123
        assert stream.read() == content


@pytest.mark.parametrize(
    ("name", "kind", "message", "remedy"),
    [
        ("absent", "CheckpointError", "the Hub has no owner/absent", "check the spelling of owner/name"),
        ("private", "CheckpointError", "the Hub refuses hf://owner/private (401)", "hf auth login"),
        ("gated", "CheckpointError", "is gated", "accept the terms"),
        ("words", "CheckpointError", "has no weights", "model.safetensors"),
        ("a/b", "CheckpointError", "no address on the Hub", "hf://owner/name"),
    ],
)
def test_what_cannot_be_had_ends_in_a_remedy(client, name, kind, message, remedy):
    told, _ = client(FETCH.format(name))
    assert told.startswith(kind)
    assert message in told
    assert remedy in told


def test_offline_and_not_in_the_cache(hub, client):
    told, _ = client(FETCH.format("vit"), HF_HUB_OFFLINE="1")
    assert told.startswith("MissingDataError")
    assert "unset HF_HUB_OFFLINE" in told
    assert not hub.requests


def test_a_hub_that_does_not_answer(hub, client):
    told, _ = client(FETCH.format("vit"), HF_ENDPOINT="http://127.0.0.1:9")
    assert told.startswith("MissingDataError")
