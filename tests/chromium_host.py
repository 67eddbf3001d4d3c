"""Drives a headless Chromium over the DevTools protocol, through a pipe: there is no port, and no library is needed."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

#: Debian's name, and those of others.
NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 90.0
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests often run as root; nothing is opened but pages of our own
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a page that asks anyone else gets nothing
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--disable-renderer-backgrounding",  # no tab is slower because another was opened after it
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--js-flags=--expose-gc",
    "--remote-debugging-pipe",
)


def executable() -> str | None:
    """Return the Chromium of this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class PageError(Exception):
    """What a page threw, or that it does not answer."""


class Chromium:
    """A browser with a profile of its own, which goes with it."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        (theirs, ours), (mine, told) = os.pipe(), os.pipe()
        # DevTools' messages come on 3 and go on 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{told}', "bash"]
        command = [*shell, path, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            command,
            pass_fds=(theirs, told),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs)
        os.close(told)
        self._to, self._from = os.fdopen(ours, "wb"), os.fdopen(mine, "rb")
        self._number = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        while part := os.read(self._from.fileno(), 1 << 20):
            *messages, rest = (rest + part).split(b"\0")
            for message in messages:
                said = json.loads(message)
                if (waiting := self._answers.get(said.get("id", 0))) is not None:
                    waiting.put(said)
                else:
                    self.events.append(said)

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Return the answer to a command of DevTools."""
        self._number += 1
        number = self._number
        said: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            said["sessionId"] = session
        waiting = self._answers[number] = queue.Queue()
        self._to.write(json.dumps(said).encode() + b"\0")
        self._to.flush()
        try:
            answer = waiting.get(timeout=_SECONDS)
        except queue.Empty:
            raise PageError(f"no answer to {method}") from None
        finally:
            del self._answers[number]
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, address: str) -> Page:
        """Open a page, and wait until it was loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, target)
        page.go(address)
        return page

    def close(self) -> None:
        """End the browser, and remove its profile."""
        self._to.write(json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        self._to.flush()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(timeout=20)
        self._to.close()
        self._from.close()
        shutil.rmtree(self._profile, ignore_errors=True)


class Page:
    """A tab."""

    def __init__(self, browser: Chromium, target: str) -> None:
        self._browser, self._target = browser, target
        self._session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Runtime.enable")
        self.send("Page.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a command of DevTools for this page."""
        return self._browser.send(method, self._session, **params)

    def go(self, address: str) -> None:
        """Go to an address."""
        found = self.send("Page.navigate", url=address)
        if "errorText" in found:
            raise PageError(f"{address}: {found['errorText']}")
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def __call__(self, code: str, *arguments: Any) -> Any:
        """Return what the function ``code`` gives, or its promise, for ``arguments``."""
        said = f"({code})(...{json.dumps(arguments)})"
        found = self.send("Runtime.evaluate", expression=said, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = _SECONDS) -> Any:
        """Wait until an expression is true, and return it."""
        until = time.monotonic() + seconds
        while True:
            try:
                if found := self(f"() => {condition}"):
                    return found
            except PageError as error:
                if "context was destroyed" not in str(error):  # the page is on its way to another address
                    raise
            if time.monotonic() > until:
                raise PageError(f"never: {condition}; the page says: {self('() => document.body?.innerText')}")
            time.sleep(0.02)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files as a person does in the browser's dialogue."""
        found = self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.send("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=found["result"]["objectId"])

    def drop(self, selector: str, *files: Path) -> None:
        """Drag files from the desktop onto an element, and drop them."""
        x, y = self(
            "(selector) => { const box = document.querySelector(selector).getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2]; }",
            selector,
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def close(self) -> None:
        """Close the tab."""
        self._browser.send("Target.closeTarget", targetId=self._target)


class _Handler(SimpleHTTPRequestHandler):
    """Serves files as any static server does, or with the headers that let a page have threads."""

    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".wasm": "application/wasm",
        ".mjs": "text/javascript",
    }
    isolated = False

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, *, isolated: bool = False, port: int = 0) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve a folder on the loopback; give its address, and what stops the server before the end."""
    kind = type("Handler", (_Handler,), {"isolated": isolated})
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(kind, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", stop
    finally:
        if thread.is_alive():
            stop()
