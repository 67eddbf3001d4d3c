"""Take the pictures of a report that docs/images has, and look for what is wrong with the page on the way.

    python scripts/screenshots.py REPORT/index.html -o docs/images

Chromium opens the page at the widths of a phone, a tablet and a screen, light and dark. It ends with 1 if the console
has an error, if anything is wider than the screen, or if axe-core has serious findings: ``npm install axe-core`` in
some folder, and ``--axe`` names that folder.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from chromium_host import Chromium, Page, executable

WIDTHS = (390, 768, 1280)
THEMES = ("light", "dark")
#: As axe-core ranks them.
SERIOUS = ("serious", "critical")
AXE = "node_modules/axe-core/axe.min.js"
_HEIGHT = 900
_QUALITY = 30
_WIDEST = 900  # pixels of a picture: wider pages are scaled down
#: Chromium draws no picture that is higher.
_HIGHEST = 16_000

_RUN_AXE = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const first = (nodes) => nodes.slice(0, 3).map((node) => node.html);
  return found.violations.map((each) => [each.impact, each.id, each.help, first(each.nodes)]);
}"""


def look_at(browser: Chromium, address: str, width: int, theme: str, axe: str | None) -> tuple[Page, list[str]]:
    """Open a page at ``width`` pixels in a colour scheme; return it, and what is wrong with it."""
    page = browser.open("about:blank#")
    page.send("Log.enable")
    mobile = width < WIDTHS[1]
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=_HEIGHT, deviceScaleFactor=1, mobile=mobile)
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    before = len(browser.events)
    page.go(address)
    wrong = list(_errors(browser, before))
    if (found := page("() => document.documentElement.scrollWidth")) > width:
        wrong.append(f"the page is {found} pixels wide")
    if axe is not None:
        page.send("Runtime.evaluate", expression=axe)
        for impact, rule, words, nodes in page(_RUN_AXE):
            if impact in SERIOUS:
                wrong.append(f"axe-core, {impact}: {rule}: {words}: {' '.join(nodes)[:300]}")
    return page, wrong


def _errors(browser: Chromium, since: int) -> Iterator[str]:
    """Yield what the console has said of errors."""
    for event in browser.events[since:]:
        said = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            yield f"exception: {said['exceptionDetails'].get('text')}"
        elif event.get("method") == "Runtime.consoleAPICalled" and said.get("type") == "error":
            yield f"console: {said.get('args')}"
        elif event.get("method") == "Log.entryAdded" and said["entry"]["level"] == "error":
            yield f"console: {said['entry']['text']}"


def take(page: Page, path: Path, quality: int = _QUALITY) -> None:
    """Write a picture of the whole page to ``path``."""
    height = min(int(page("() => document.documentElement.scrollHeight")), _HIGHEST)
    width = int(page("() => document.documentElement.clientWidth"))
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": min(1.0, _WIDEST / width)}
    found = page.send("Page.captureScreenshot", format="webp", quality=quality, clip=clip, captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(found["data"]))


def main() -> int:
    """Take the pictures; return 1 if something is wrong with the page."""
    parser = argparse.ArgumentParser(description="Take pictures of a report, and check the page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="folder for the pictures; none without it")
    parser.add_argument("--name", default="report", help="what their names begin with")
    parser.add_argument("--axe", type=Path, help="folder in which npm has installed axe-core")
    options = parser.parse_args()
    chromium = executable()
    if chromium is None:
        sys.stderr.write("needs Chromium: sudo apt install chromium\n")
        return 3
    axe = None if options.axe is None else (options.axe / AXE).read_text("utf-8")
    browser, failed = Chromium(chromium), False
    try:
        for width in WIDTHS:
            for theme in THEMES:
                page, wrong = look_at(browser, options.page.resolve().as_uri(), width, theme, axe)
                for line in wrong:
                    sys.stderr.write(f"{width} {theme}: {line}\n")
                failed = failed or bool(wrong)
                if options.output is not None:
                    options.output.mkdir(parents=True, exist_ok=True)
                    path = options.output / f"{options.name}-{width}-{theme}.webp"
                    take(page, path)
                    sys.stdout.write(f"{path}: {path.stat().st_size / 1000:.0f} kB\n")
                page.close()
    finally:
        browser.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
