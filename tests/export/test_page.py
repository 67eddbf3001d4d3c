"""export/web in a real Chromium: the package's answers, and the page that a person uses."""

import base64
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import node_host
import numpy as np
import pytest
from chromium_host import served
from export_cases import picture
from pack_files import files_of, written
from PIL import Image, ImageCms, PngImagePlugin

import edgevit as public
from edgevit.data.images import decode_image
from edgevit.errors import ImageError
from edgevit.runtime import load

OPENED = "document.querySelector('#loaded').textContent !== 'none'"
ANSWERED = "Number(document.body.dataset.answers) > 0"
REFUSED = "!document.querySelector('#error').hidden && document.querySelector('#error').textContent"
STATUS = "document.querySelector('#status').textContent"


@pytest.fixture(scope="module")
def built(chromium, tmp_path_factory):
    return node_host.built(tmp_path_factory) / "dist-page"


@pytest.fixture(scope="module")
def pack(tiny_quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    bundle = shutil.copytree(tiny_quantized, folder / "tiny.edgevit")
    public.validate(bundle, data="shapes:size=16,count=64")
    return public.pack(bundle, folder / "tiny.edgevit.zip").path


def _link_or_copy(source, target):
    """Link a file, or copy it where the folders of tests lie on another disk than what is kept between runs."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@pytest.fixture
def site(built, pack, tmp_path):
    """Return the page's folder with a pack in it, which the test may change."""
    folder = shutil.copytree(built, tmp_path / "site", copy_function=_link_or_copy)
    (folder / "blank.html").write_text("<!doctype html><title>blank</title>")
    shutil.copyfile(pack, folder / "model.edgevit.zip")
    return folder


@pytest.fixture
def visit(chromium, site):
    """Return a function that opens an address of the site."""
    pages = []
    with served(site) as (address, _):

        def go(path=""):
            pages.append(chromium.open(f"{address}/{path}"))
            return pages[-1]

        yield go
        for page in pages:
            page.close()


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


PIXELS = """async (file) => {
    const { pixelsOf } = await import("/src/web.js");
    const bytes = Uint8Array.from(atob(file), (each) => each.charCodeAt(0));
    try {
        const { data, width, height } = await pixelsOf(new Blob([bytes]));
        return { width, height, data: Array.from(data) };
    } catch (error) {
        return { name: error.name, problem: error.problem ?? error.message };
    }
}"""


def pixels_of(page, content):
    found = page(PIXELS, base64.b64encode(content).decode())
    if "data" not in found:
        return found
    return np.asarray(found["data"], np.uint8).reshape(found["height"], found["width"], 4)[..., :3]


def swapped_profile():
    """Return a profile in which red is green, and green red: who heeds it gets other colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"none").replace(b"gXYZ", b"rXYZ").replace(b"none", b"gXYZ")


def image_files():
    image = Image.fromarray(picture(64, 91))
    turned, gamma = Image.Exif(), PngImagePlugin.PngInfo()
    turned[0x0112] = 6
    gamma.add(b"gAMA", (100_000).to_bytes(4, "big"))
    return {
        "png": encoded(image, format="PNG"),
        "png-palette": encoded(image.convert("P"), format="PNG"),
        "png-grey": encoded(image.convert("L"), format="PNG"),
        "png-gamma": encoded(image, format="PNG", pnginfo=gamma),
        "png-profile": encoded(image, format="PNG", icc_profile=swapped_profile()),
        "jpeg-profile": encoded(image, format="JPEG", icc_profile=swapped_profile()),
        "jpeg-turned": encoded(image, format="JPEG", exif=turned),
        "jpeg-444": encoded(image, format="JPEG", subsampling=0, quality=95),
        "jpeg-422": encoded(image, format="JPEG", subsampling=1),
        "jpeg-progressive": encoded(image, format="JPEG", progressive=True),
        "jpeg-grey": encoded(image.convert("L"), format="JPEG"),
        "webp": encoded(image, format="WEBP"),
        "bmp": encoded(image, format="BMP"),
        "gif": encoded(image, format="GIF"),
        "opaque": encoded(image.convert("RGBA"), format="PNG"),
    }


def test_files_are_decoded_as_python_does(visit):
    page = visit("blank.html")
    files = image_files()
    for name, content in files.items():
        np.testing.assert_array_equal(
            pixels_of(page, content), np.asarray(decode_image(content).convert("RGB")), err_msg=name
        )
    # What the profile says would show.
    heeded = ImageCms.profileToProfile(
        Image.open(io.BytesIO(files["png-profile"])), ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile())),
        ImageCms.createProfile("sRGB"),
    )  # fmt: skip
    assert np.abs(np.asarray(heeded).astype(int) - picture(64, 91)).max() > 50


def test_files_that_a_browser_cannot_say_exactly_are_refused(visit):
    page = visit("blank.html")
    files = image_files()
    clear = Image.fromarray(picture()).convert("RGBA")
    clear.putpixel((3, 3), (1, 2, 3, 254))
    png = files["png"]
    bomb = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    avif = encoded(Image.fromarray(picture()), format="AVIF")
    for problem, content in {
        "transparent": encoded(clear, format="PNG"),
        "16 bits": encoded(Image.fromarray(np.full((9, 9), 30_000, np.uint16)), format="PNG"),
        "million pixels": bomb,
        "no JPEG, PNG": avif,
        "no JPEG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "no JPEG, ": b"",
    }.items():
        found = pixels_of(page, content)
        assert found["name"] == "EdgeViTError", problem
        assert problem in found["problem"]
    for name, content in files.items():
        found = pixels_of(page, content[: len(content) * 2 // 3])
        with pytest.raises(ImageError):
            decode_image(content[: len(content) * 2 // 3])
        assert "cannot decode" in found["problem"], name


LOGITS = """async (address, variant, files) => {
    const { load, pixelsOf } = await import("/src/web.js");
    const model = await load(address, { variant });
    const found = [];
    for (const file of files) {
        const bytes = Uint8Array.from(atob(file), (each) => each.charCodeAt(0));
        const several = await Promise.all([1, 2].map(async () => model.run(await pixelsOf(new Blob([bytes])))));
        if (JSON.stringify(several[0]) !== JSON.stringify(several[1])) throw new Error("two calls differ");
        found.push(Array.from(Object.values(several[0])[0]));
    }
    const said = { variant: model.variant, engine: model.engineName, labels: model.labels, logits: found };
    await model.close();
    await model.close();
    return said;
}"""


@pytest.mark.parametrize("variant", ["float32", "float32-onnxruntime", "int8-onnxruntime"])
def test_golden_logits_are_pythons(visit, pack, tiny_quantized, variant):
    images = [path.read_bytes() for path in sorted((tiny_quantized / "golden").glob("*.png"))]
    images += list(image_files().values())
    found = visit("blank.html")(
        LOGITS, "/model.edgevit.zip", variant, [base64.b64encode(content).decode() for content in images]
    )
    with load(pack, variant=variant, threads=1) as model:
        expected = model.infer_images(images)
        assert found["labels"] == list(model.labels)
    assert found["variant"] == variant
    assert ", wasm, 1 thread" in found["engine"]
    logits = np.asarray(found["logits"], np.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-5 if variant.startswith("float32") else 1e-2)
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_threads_answer_the_same_where_the_page_is_isolated(chromium, site, pack):
    threads = """async () => {
        const ort = await import("/ort/ort.wasm.min.mjs");
        ort.env.wasm.numThreads = 2;
        const { load } = await import("/src/web.js");
        const model = await load("/model.edgevit.zip", { variant: "float32" });
        const data = new Uint8Array(20 * 20).fill(99);
        const { logits } = await model.run({ data, width: 20, height: 20, format: "grey" });
        return [model.engineName, Array.from(logits)];
    }"""
    with served(site, isolated=True) as (address, _):
        page = chromium.open(address)  # under the page's own policy of what may be loaded
        page.wait(OPENED)
        engine, logits = page(threads)
        page.close()
    assert "2 threads" in engine
    with load(pack, variant="float32", threads=1) as model:
        expected = model.infer_images([np.full((20, 20), 99, np.uint8)])[0]
    np.testing.assert_allclose(np.asarray(logits, np.float32), expected, atol=1e-5)


def test_a_dropped_photo_gets_pythons_labels(visit, pack, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(image_files()["jpeg-turned"])
    page = visit()
    page.wait(OPENED)
    page.drop("#drop", photo)
    page.wait(ANSWERED)
    with load(pack, variant="int8-onnxruntime", threads=1) as model:
        expected = model.predict(photo, top=5)
    rows = page("() => [...document.querySelectorAll('#labels li')].map((row) => row.innerText.split(/\\s*\\n\\s*/))")
    assert [row[1] for row in rows] == [each.label for each in expected]
    for row, each in zip(rows, expected, strict=True):
        assert float(row[0].removesuffix(" %")) == pytest.approx(100 * each.probability, abs=0.1)
    text = page("() => document.body.innerText")
    assert "onnxruntime-web" in text
    assert page("() => document.querySelector('#loaded').textContent") == "int8-onnxruntime"
    for place in ("prepare", "model"):
        assert page(f"() => document.querySelector('#{place}').textContent").endswith(" ms")
    # By the dialogue, and with another variant.
    page("""() => { const variant = document.querySelector("#variant"); variant.value = "float32";
        variant.dispatchEvent(new Event("change")); }""")
    page.wait("document.querySelector('#loaded').textContent === 'float32'")
    page.choose("#file", photo)
    page.wait("document.body.dataset.answers === '2'")
    assert page("() => document.querySelector('#labels li').innerText").endswith(expected[0].label)


def test_the_page_goes_on_without_a_server(chromium, site, tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(image_files()["png"])
    with served(site, isolated=True) as (address, stop):
        page = chromium.open(f"{address}/?variant=float32")
        page.wait("document.body.dataset.offline && document.body.dataset.kept === 'true'")
        assert page("() => crossOriginIsolated")
        stop()
        page.go(f"{address}/?variant=float32")
        page.wait(OPENED)
        assert page("() => crossOriginIsolated")
        page.drop("#drop", photo)
        page.wait(ANSWERED)
        assert page("() => document.querySelector('#loaded').textContent") == "float32"
        page.close()


def replaced(path, content):
    """Put a file in the place of another; servers tell by the time that it is another."""
    seconds = path.stat().st_mtime + 10
    path.unlink()  # it is a link to the one of all tests
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))


def test_a_new_pack_takes_the_place_of_the_old_one_once_it_was_opened(chromium, site, tiny_quantized, tmp_path):
    model = site / "model.edgevit.zip"
    first = model.read_bytes()
    bundle = shutil.copytree(tiny_quantized, tmp_path / "other.edgevit")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"name": "other"}))
    second = public.pack(bundle, tmp_path / "other.edgevit.zip", variants=["float32"]).path.read_bytes()
    name = "document.querySelector('#name').textContent"
    with served(site) as (address, stop):
        page = chromium.open(address)
        page.wait("document.body.dataset.kept === 'true'")
        before = page(f"() => {name}")
        replaced(model, second[:-1000])
        page.go(address)
        assert "the new pack is refused, and the one before goes on" in page.wait(REFUSED)
        assert page(f"() => {name}") == before
        replaced(model, second)
        page.go(address)
        page.wait(f"{name} === 'other' && {STATUS}.includes('newer pack')")
        assert page("() => document.querySelector('#variant').options.length") == 1
        stop()
        page.go(address)
        page.wait(f"{name} === 'other'")
        page.close()
    assert first != second


def test_a_new_version_of_the_page_comes_as_a_whole(chromium, site):
    with served(site) as (address, _):
        page = chromium.open(address)
        page.wait("document.body.dataset.offline")
        caches = page("() => caches.keys()")
        # A file that is not what the version says, as in the middle of an upload: the old one goes on.
        index, worker = (site / "index.html").read_text(), (site / "sw.js").read_text()
        version = worker.split('"')[1]
        replaced(site / "sw.js", worker.replace(version, "0" * 16, 1).replace("sha256-", "sha256-AAAA", 1).encode())
        looked = """async (seen) => {
            const registration = await navigator.serviceWorker.getRegistration();
            let worker = null;
            registration.addEventListener("updatefound", () => (worker = registration.installing));
            while (worker === null) await registration.update().catch(() => undefined);
            while (worker.state === "installing") await new Promise((done) => setTimeout(done, 20));
            return worker.state;
        }"""
        assert page(looked) == "redundant"
        page.go(address)
        page.wait(OPENED)
        assert version in page("() => navigator.serviceWorker.ready.then(() => caches.keys())")[0]
        # A whole one: offered, and taken when the person asks for it.
        new = index.replace("<title>EdgeViT</title>", "<title>EdgeViT, newer</title>")
        replaced(site / "index.html", new.encode())
        was, now = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (index, new))
        assert was in worker
        replaced(site / "sw.js", worker.replace(version, "1" * 16, 1).replace(was, now).encode())
        assert page(looked) == "installed"
        page.wait("!document.querySelector('#update').hidden")
        assert page("() => document.title") == "EdgeViT"
        page("() => document.querySelector('#update').click()")
        page.wait("document.title === 'EdgeViT, newer'")
        page.wait("document.body.dataset.offline")
        assert sorted(page("() => caches.keys()")) == sorted(name.replace(version, "1" * 16) for name in caches)
        page.close()


def test_the_camera_is_answered_frame_by_frame_without_a_backlog(chromium, site):
    count = """
        const send = Worker.prototype.postMessage;
        self.asked = self.open = self.most = 0;
        Worker.prototype.postMessage = function (...given) {
            if (!self.asked++) this.addEventListener("message", () => self.open--);
            self.most = Math.max(self.most, ++self.open);
            return send.apply(this, given);
        };"""
    with served(site) as (address, _):
        page = chromium.open(f"{address}/blank.html")
        page.send("Page.addScriptToEvaluateOnNewDocument", source=count)
        page.go(address)
        page.wait(OPENED)
        page("() => { for (let each = 0; each < 3; each++) document.querySelector('#camera').click(); }")
        page.wait("Number(document.body.dataset.answers) > 10")
        assert page("() => document.querySelectorAll('#labels li').length") == 5
        assert page("() => [self.most, document.querySelector('#video').hidden]") == [1, False]
        page("() => document.querySelector('#camera').click()")
        page.wait("self.open === 0 && document.querySelector('#video').srcObject === null")
        asked = page("() => self.asked")
        assert page("() => new Promise((done) => setTimeout(() => done(self.asked), 300))") == asked
        page.close()


def test_what_cannot_be_opened_is_said(visit, site, pack, tiny_quantized, tmp_path):
    content = pack.read_bytes()
    files = files_of(pack)
    future = files | {"manifest.json": json.dumps(json.loads(files["manifest.json"]) | {"schema_version": 9}).encode()}
    newer = written(tmp_path / "newer.zip", future).read_bytes()
    only = public.pack(tiny_quantized, tmp_path / "openvino.zip", variants=["int8-openvino"]).path
    damaged = bytearray(content)
    damaged[content.index(files["float32/model.onnx"]) + 20_000] ^= 1
    for number, (problem, remedy, wrong, query) in enumerate((
        ("no pack", "again from where it came", b"GIF89a", ""),
        ("cut short", "again from where it came", content[:-100], ""),
        ("schema version 9", "newer version", newer, ""),
        ("for onnxruntime", "edgevit pack BUNDLE --variant int8-onnxruntime", only.read_bytes(), ""),
        ("not what the manifest says", "again", bytes(damaged), "&variant=float32"),
        ("404", "check its address", None, ""),
        ("no variant 'int9'", "int8-onnxruntime", content, "&variant=int9"),
    )):  # fmt: skip
        if wrong is not None:
            (site / f"{number}.zip").write_bytes(wrong)
        page = visit(f"?pack={number}.zip{query}")
        found = page.wait(REFUSED)
        assert problem in found
        assert remedy in found
    page = visit("?pack=https://example.com/model.edgevit.zip")
    assert "another server" in page.wait(REFUSED)
    for address in ("http://", "//", "blob:x", "javascript:0"):
        assert "put it beside this page" in visit(f"?pack={address}").wait(REFUSED)
    # And a good one that the person chooses then.
    page.choose("#pack", pack)
    page.wait(OPENED)
    assert not page(f"() => {REFUSED}")


def test_an_image_that_is_refused_leaves_no_answer_of_another(visit, tmp_path):
    page = visit()
    page.wait(OPENED)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(image_files()["png"])
    bad.write_bytes(image_files()["png"][:-200])
    page.drop("#drop", good)
    page.wait(ANSWERED)
    page.drop("#drop", bad)
    assert "cannot decode" in page.wait(REFUSED)
    assert page("() => document.querySelectorAll('#labels li').length") == 0
    page.drop("#drop", good)
    page.wait("document.body.dataset.answers === '2'")
    assert not page(f"() => {REFUSED}")


def test_a_page_asks_nobody_else(built):
    for path in Path(built).rglob("*"):
        if path.suffix in (".js", ".html", ".css") and path.is_file():
            assert "://" not in path.read_text().replace("http://www.w3.org/", ""), path
