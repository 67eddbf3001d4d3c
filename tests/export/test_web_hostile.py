"""export/web against packs that come from anywhere, and apps that make mistakes: our errors, or Python's answers."""

import hashlib
import json
import struct
import zipfile

import msgspec
import node_host
import onnx
import pytest
from export_cases import picture, preprocess_fields
from hypothesis import HealthCheck, example, given, settings
from pack_files import files_of, written

import edgevit as public
from edgevit.bundle.store import Bundle
from edgevit.data.preprocess import Preprocess
from edgevit.errors import EdgeViTError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return node_host.built(tmp_path_factory)


@pytest.fixture(scope="module")
def node(built):
    process = node_host.Node(built)
    yield process
    process.close()


@pytest.fixture(scope="module")
def files(tiny_quantized, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "tiny.edgevit.zip"
    return files_of(public.pack(tiny_quantized, path, variants=["float32", "int8-onnxruntime"]).path)


@pytest.fixture
def refused(node, tmp_path):
    """Return a function that looks at what Node says of an archive, and that Python takes it no more than Node does."""

    def look(problem, content, python=True, variant="float32"):
        path = tmp_path / "hostile.zip"
        path.write_bytes(content)
        if python:
            with pytest.raises(EdgeViTError):
                Bundle.open(path)
        found = node(picture(), pack=str(path), top=1, variant=variant, fresh=True)
        assert found.get("type") == "EdgeViTError", found
        assert problem in found["error"]

    return look


def archive(tmp_path, files):
    return written(tmp_path / "written.zip", files).read_bytes()


def test_archives_that_edgevit_did_not_write(refused, files, tmp_path):
    good = archive(tmp_path, files)
    start = struct.unpack("<I", good[-6:-2])[0]
    local, central = 0, start

    def changed(place, form, value, content=good):
        data = bytearray(content)
        struct.pack_into(form, data, place, value)
        return bytes(data)

    refused("cut short", good[:-1])
    refused("cut short", good + b"\0")
    refused("cut short", b"")
    refused("otherwise", changed(len(good) - 14, "<H", 1))  # of the files on this disk
    refused("otherwise", changed(len(good) - 2, "<H", 0xFFFF))  # a comment behind the end
    refused("otherwise", changed(central + 8, "<H", 1))  # encrypted
    refused("otherwise", changed(central + 10, "<H", 8))  # deflated
    refused("otherwise", changed(central + 20, "<I", 0xFFFFFFFF))  # zip64
    refused("otherwise", changed(central + 24, "<I", 0xFFFFFFFF))
    refused("otherwise", changed(central + 38, "<I", 0o120777 << 16))  # a link
    refused("otherwise", changed(central + 42, "<I", 4))
    refused("otherwise", changed(local + 22, "<I", 7))  # another size in its header
    refused("otherwise", changed(local + 8, "<H", 8))
    refused("checksum", changed(good.index(b'"name"') + 1, "<c", b"N"))
    # Names that lead out of the folder, or that JavaScript knows.
    for name in ("../manifest.json", "/etc/passwd", "a\\b", ".hidden", "a//b", "C:x", "a/../b", "con\n"):
        content = archive(tmp_path, {**files, name: b"x"})
        refused("the name", content, python=False)
    twice = dict(files) | {"manifesT.json": files["manifest.json"]}
    refused("twice", archive(tmp_path, twice).replace(b"manifesT.json", b"manifest.json"))
    # Two entries with the same content, and one within another.
    entry = good[central : central + 46 + len("manifest.json")]
    double = good[:start] + entry + good[start:-22]
    count = len(files) + 1
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(double) - start, start, 0)
    refused("otherwise", double + end)
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w", zipfile.ZIP_DEFLATED) as foreign:
        for name, content in files.items():
            foreign.writestr(name, content)
    refused("otherwise", (tmp_path / "foreign.zip").read_bytes())


def test_manifests_that_contradict_what_they_should_be(refused, files, tmp_path):
    manifest = json.loads(files["manifest.json"])

    def with_text(text):
        return archive(tmp_path, files | {"manifest.json": text if isinstance(text, bytes) else text.encode()})

    def with_changes(**changes):
        return with_text(json.dumps(manifest | changes))

    def with_variant(**changes):
        return with_changes(variants=[manifest["variants"][0] | changes])

    def with_preprocess(**changes):
        return with_changes(preprocess=manifest["preprocess"] | changes)

    for text in (b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b"\xef\xbb\xbf" + files["manifest.json"]):
        refused("the manifest", with_text(text))
    refused("the manifest is too large", with_text(files["manifest.json"] + b" " * (17 << 20)))
    refused("schema_version", with_changes(schema_version=0))
    refused("schema_version", with_changes(schema_version="2"))
    refused(
        "schema_version", with_text(json.dumps(manifest).replace('"schema_version": 3', '"schema_version": 1e400', 1))
    )
    refused("schema version", with_changes(schema_version=4))
    refused("preprocess", with_changes(preprocess=None))
    refused("variants", with_changes(variants={"length": 1}))
    refused("variants", with_changes(variants=[None]))
    refused("same name", with_changes(variants=manifest["variants"] * 2))
    refused("labels", with_changes(labels=[1] * 8))
    refused("labels", with_changes(labels=["a"]))
    refused("path", with_variant(files=[{"path": ["a"], "sha256": "0" * 64, "bytes": 1}]))
    refused("sha256", with_variant(files=[{"path": "a", "sha256": "", "bytes": 1}]))
    refused("files", with_variant(files=None))
    refused("name", with_variant(name="../float32"))
    refused("larger than any", with_preprocess(size=[8192, 8192]))
    refused("size", with_preprocess(size=[1e308, 16]))
    refused("size", with_preprocess(size="16"))
    refused("mean", with_preprocess(mean="abc"))
    refused("mean", with_text(json.dumps(manifest).replace('"mean": [0.5', '"mean": [1e999', 1)))
    refused("interpolation", with_preprocess(interpolation="constructor"))
    refused("interpolation", with_preprocess(interpolation="__proto__"))
    refused("fit", with_preprocess(fit="toString"))
    refused("outputs[0]", with_changes(outputs=[{"name": "__proto__ ", "kind": "any", "shape": [1]}]))
    # Names that objects of JavaScript have by themselves are no fields of the manifest.
    bare = {name: value for name, value in manifest.items() if name != "preprocess"}
    inherited = json.dumps(bare | {"__proto__": {"preprocess": manifest["preprocess"]}})
    refused("preprocess", with_text(inherited))


def test_files_that_are_not_what_the_manifest_says(refused, files, tmp_path):
    manifest = json.loads(files["manifest.json"])
    name = "float32/model.onnx"
    without = {other: content for other, content in files.items() if other != name}
    refused("missing", archive(tmp_path, without))
    damaged = bytearray(files[name])
    damaged[5000] ^= 1
    refused("not what the manifest says", archive(tmp_path, files | {name: bytes(damaged)}), python=False)
    for file in manifest["variants"][0]["files"]:
        file["bytes"] += 1
    refused("size", archive(tmp_path, files | {"manifest.json": json.dumps(manifest).encode()}), python=False)


@pytest.fixture
def with_model(files, tmp_path):
    """Return a function that makes a pack whose float32 model is another, and that says so in its manifest."""

    def make(content, **changes):
        manifest = json.loads(files["manifest.json"])
        variant = manifest["variants"][0]
        variant["files"][0] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return archive(
            tmp_path,
            files | {"manifest.json": json.dumps(manifest | changes).encode(), "float32/model.onnx": content},
        )

    return make


def test_models_that_open_files_or_never_end(refused, with_model, files):
    name = "float32/model.onnx"
    model = onnx.load_from_string(files[name])
    for tensor in (model.graph.initializer[0], model.graph.initializer[-1]):
        outside = onnx.ModelProto.FromString(files[name])
        moved = next(each for each in outside.graph.initializer if each.name == tensor.name)
        moved.ClearField("raw_data")
        moved.data_location = onnx.TensorProto.EXTERNAL
        moved.external_data.add(key="location", value="../../../../etc/passwd")
        refused("in another file", with_model(outside.SerializeToString()), python=False)
    body = onnx.helper.make_graph([], "body", [], [])
    loop = onnx.ModelProto.FromString(files[name])
    loop.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["never"], body=body))
    refused("branches or loops: Loop", with_model(loop.SerializeToString()), python=False)
    refused("cut short", with_model(files[name][:-100]), python=False)
    refused("no readable ONNX file", with_model(b"\xff" * 99), python=False)
    refused("cannot load variant float32", with_model(b""), python=False)


def test_a_model_that_is_not_the_manifests(refused, with_model, files):
    manifest = json.loads(files["manifest.json"])
    # Another size of images, and other numbers of classes, than the model has.
    size = manifest["preprocess"] | {"size": [32, 32], "resize": 32}
    refused("onnxruntime failed", with_model(files["float32/model.onnx"], preprocess=size), python=False)
    labels = [str(number) for number in range(9)]
    spec = manifest["spec"] | {"classes": 9}
    refused("8 numbers", with_model(files["float32/model.onnx"], spec=spec, labels=labels), python=False)
    versions = [manifest["variants"][0] | {"versions": each} for each in (">=99", "<1", "~=1.0", "new", "")]
    for variant, problem in zip(versions, ("is for", "is for", "no range", "no range", "no range"), strict=True):
        refused(problem, with_model(files["float32/model.onnx"], variants=[variant]), python=False)


@given(fields=preprocess_fields())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(fields={"size": (16, 16), "resize": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3})
def test_what_contradicts_itself_is_refused_where_python_refuses_it(node, fields):
    found = node(picture(), preprocess=fields)
    try:
        preprocess = msgspec.convert(fields, Preprocess, strict=False)
    except (EdgeViTError, msgspec.ValidationError):
        assert found.get("type") == "EdgeViTError", found
        return
    try:
        preprocess(picture())
    except EdgeViTError:
        assert found.get("type") == "EdgeViTError", found
        return
    assert "input" in found, found


IMAGES = """
import { load } from "./dist/node.js";
const model = await load(process.argv[1], { variant: "float32" });
const good = { data: new Uint8Array(30 * 41 * 3), width: 41, height: 30, format: "rgb" };
const wrong = {
    floats: { ...good, data: new Float32Array(30 * 41 * 3).fill(NaN) },
    list: { ...good, data: Array(30 * 41 * 3).fill(0) },
    nothing: undefined,
    empty: {},
    width: { ...good, width: NaN },
    infinite: { ...good, height: Infinity },
    negative: { ...good, width: -41 },
    fraction: { ...good, width: 40.5 },
    text: { ...good, width: "41" },
    large: { ...good, width: 2 ** 31, height: 2 ** 31 },
    channels: { ...good, format: "rgba" },
    format: { ...good, format: "constructor" },
    stride: { ...good, stride: 41 },
    endless: { ...good, stride: Infinity },
    far: { ...good, stride: 2 ** 53 },
    back: { ...good, stride: -123 },
    huge: { ...good, stride: 2 ** 40 },
};
const found = {};
for (const [name, image] of Object.entries(wrong))
    found[name] = await model.predict(image).then(() => "answered", (error) => error.name);
for (const top of [0, -1, NaN, 1.5, "3", null])
    found[`top ${top}`] = await model.predict(good, { top }).then(() => "answered", (error) => error.name);
const inputs = { short: new Float32Array(5), none: undefined, doubles: new Float64Array(768) };
for (const [name, input] of Object.entries(inputs))
    found[name] = await model.infer(input).then(() => "answered", (error) => error.name);
found.detached = await (async () => {
    const data = new Uint8Array(30 * 41 * 3);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    return model.predict({ ...good, data }).then(() => "answered", (error) => error.name);
})();
found.notNumbers = await model.infer(new Float32Array(768).fill(NaN)).then(() => "answered", (error) => error.name);
const decided = { none: {}, other: { other: new Float32Array(8) }, short: { logits: new Float32Array(3) } };
for (const [name, outputs] of Object.entries(decided))
    found[`decide ${name}`] = await (async () => model.decide(outputs))().then(() => "answered", (error) => error.name);
const many = await model.predict(good, { top: 1e9 });
console.log(JSON.stringify({ found, many: many.length, labels: model.labels.length }));
await model.close();
"""


def test_images_that_cannot_be_are_refused(built, files, tmp_path):
    path = written(tmp_path / "good.zip", files)
    said = node_host.script(built, IMAGES, path)
    assert set(said["found"].values()) == {"EdgeViTError"}, said["found"]
    assert said["many"] == said["labels"]


CLOSED = """
import { load } from "./dist/node.js";
const data = Uint8Array.from({ length: 30 * 41 * 3 }, (_, at) => at * 7);
const image = { data, width: 41, height: 30, format: "rgb" };
const named = (promise) => promise.then((found) => JSON.stringify(found), (error) => `${error.name}: ${error.problem}`);
const model = await load(process.argv[1], { variant: "float32" });
const expected = JSON.stringify(await model.predict(image));
const running = Array.from({ length: 20 }, () => named(model.predict(image)));
const wrong = named(model.infer(new Float32Array(1)));
const closing = [model.close(), model.close()];
const late = named(model.predict(image));
await Promise.all(closing);
const after = named(model.predict(image));
await model.close();
const answers = await Promise.all(running);
const several = await Promise.all(Array.from({ length: 4 }, () => load(process.argv[1], { variant: "float32" })));
const all = await Promise.all(several.map((each) => named(each.predict(image))));
await Promise.all(several.map((each) => each.close()));
console.log(JSON.stringify({
    same: answers.every((each) => each === expected), all: all.every((each) => each === expected),
    wrong: await wrong, late: await late, after: await after,
}));
"""


def test_a_model_may_be_closed_while_it_runs(built, files, tmp_path):
    path = written(tmp_path / "good.zip", files)
    said = node_host.script(built, CLOSED, path)
    assert said["same"]
    assert said["all"]
    assert said["wrong"].startswith("EdgeViTError")
    assert said["late"] == said["after"] == "EdgeViTError: the model was closed"


def test_paths_that_are_no_files(node, tmp_path):
    for path in (tmp_path, tmp_path / "absent", "/dev/zero"):
        found = node(picture(), pack=str(path), top=1)
        assert found["type"] == "EdgeViTError"
        assert "cannot be read" in found["error"]
