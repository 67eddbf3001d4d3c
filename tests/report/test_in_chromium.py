"""The report in a real Chromium, at the widths of a phone, a tablet and a screen, light and dark, and on paper."""

import base64
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from once import once
from tiny import SHAPES, must_run

from edgevit.bundle.store import Bundle
from edgevit.report.html import write_comparison, write_report
from edgevit.stages.insights import look_into

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "screenshots.py"
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def script():
    """Return the script that takes the pictures of the docs."""
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def axe(chromium, script, tmp_path_factory):
    """Return the text of axe-core, which npm brings."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which brings axe-core")

    def make(folder):
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", AXE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        (folder / "said").write_text(done.stderr)

    folder = once(tmp_path_factory, "axe", make)
    place = folder / script.AXE
    if not place.is_file():
        pytest.skip(f"npm cannot install {AXE} here: {(folder / 'said').read_text()[-200:]}")
    return place.read_text("utf-8")


@pytest.fixture(scope="module")
def pages(sample, tiny_merged, tmp_path_factory):
    """Return pages with much on them: of a real bundle, of made-up figures in trouble, and of two side by side."""

    def make(folder):
        path = shutil.copytree(tiny_merged, folder / "tiny.edgevit")
        must_run("validate", path, "--data", SHAPES, "--max-drop", "100")
        bundle = Bundle.open(path)
        figures = sample.MERGED.variants[-1].latency
        timed = [msgspec.structs.replace(each, latency=figures) for each in bundle.manifest.variants]
        manifest = msgspec.structs.replace(bundle.manifest, variants=tuple(timed))
        page, _ = write_report(manifest, folder / "whole", look_into(bundle))
        text = page.read_text("utf-8")
        assert all(part in text for part in ("Which patches were merged", 'class="budgets int8"', "The error of each"))
        write_report(sample.TROUBLED, folder / "troubled")
        write_comparison([("one", sample.FULL), ("other", bundle.manifest)], ["one", "other"], folder / "both")

    folder = once(tmp_path_factory, "report-pages", make)
    return {name: folder / name / "index.html" for name in ("whole", "troubled", "both")}


@pytest.mark.parametrize("name", ["whole", "troubled", "both"])
def test_a_page_is_whole_at_every_width_and_axe_finds_nothing_serious(chromium, script, axe, pages, name):
    looks = [(width, theme) for width in script.WIDTHS for theme in script.THEMES]
    for width, theme in looks if name == "whole" else (looks[0], looks[-1]):
        page, wrong = script.look_at(chromium, pages[name].as_uri(), width, theme, axe)
        paper = page("() => getComputedStyle(document.body).backgroundColor")
        page.close()
        assert wrong == [], (width, theme)
        assert (paper == "rgb(255, 255, 255)") == (theme == "light")


def test_what_is_wrong_with_a_page_is_found(chromium, script, axe, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<html lang=en><title>x</title><body style='width:2000px;background:#fff'><main><h1>x</h1>"
        "<p style='color:#eee'>words</p><script>console.error('no'); throw new Error('boom')</script></main>"
    )
    _, wrong = script.look_at(chromium, path.as_uri(), 390, "light", axe)
    words = "\n".join(wrong)
    for part in ("console", "exception", "pixels wide", "color-contrast"):
        assert part in words


def test_a_page_is_printed_and_pictured(chromium, script, pages, tmp_path):
    page, _ = script.look_at(chromium, pages["whole"].as_uri(), 768, "light", None)
    paper = base64.b64decode(page.send("Page.printToPDF", printBackground=False)["data"])
    assert paper.startswith(b"%PDF")
    assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") + paper.count(b"/Type/Page") > 1
    script.take(page, tmp_path / "page.webp")
    assert (tmp_path / "page.webp").read_bytes()[8:12] == b"WEBP"
    page.close()
