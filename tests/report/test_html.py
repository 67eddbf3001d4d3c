"""The page: whole, escaped, self-contained, and the same from report.json."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgevit.bundle.manifest import LimitEvidence
from edgevit.errors import InputError, MissingDependencyError, StorageError
from edgevit.evaluation.accuracy_details import (
    AccuracyDetails,
    ClassChange,
    ConfusionShift,
    EngineSteps,
    FlippedImage,
    OutputDistance,
)
from edgevit.quantization.accuracy.noise import LayerNoise
from edgevit.report.data import SCHEMA_VERSION, report_data
from edgevit.report.headline import missing
from edgevit.report.html import refuse_report, render_html, write_report
from edgevit.report.insights import AttentionSeen, Insights, LayersSeen, MapsSeen, MergedSeen

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = (
    """</code></style></script><script>alert(1)</script><img src=x onerror=alert(2)>"' onload="alert(3) {{ 7*7 }}"""
)


class Page(HTMLParser):
    """Reads a page as a browser would, and keeps its elements, attributes and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.attributes, self.text = [], set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self):
        """The text, with plain marks for those of fine print."""
        plain = str.maketrans("\N{EN DASH}\N{MINUS SIGN}\N{MULTIPLICATION SIGN}", "--x")
        return " ".join(" ".join(self.text).split()).translate(plain)


def hostile_manifest(sample):
    place = sample.msgspec.structs.replace(
        sample.PLACE, cpu=HOSTILE, os=HOSTILE, machine=HOSTILE, packages={HOSTILE: HOSTILE}
    )
    variants = [
        sample.variant(
            f"{HOSTILE}{index}",
            "int8",
            HOSTILE,
            target=HOSTILE,
            settings={HOSTILE: HOSTILE},
            files=(sample.File(path=HOSTILE, sha256=HOSTILE, bytes=1),),
            accuracy=sample.accuracy(data=HOSTILE, data_sha256=HOSTILE, reason=HOSTILE),
            latency=sample.latency(environment=place, invalid_reason=HOSTILE, valid=index == 0),
        )
        for index in range(2)
    ]
    bundle = sample.manifest(*variants, name=HOSTILE)
    provenance = sample.Provenance(
        source=HOSTILE, weights_sha256=HOSTILE, edgevit=HOSTILE, packages={HOSTILE: HOSTILE}, created_at=HOSTILE
    )
    return sample.msgspec.structs.replace(bundle, provenance=provenance, labels=(HOSTILE,) * 10)


def test_the_figures_are_on_the_page(sample):
    words = Page(render_html(report_data(sample.FULL))).words
    assert "int8-openvino runs 2.15x as fast as float32" in words
    for figure in (
        "91.93 %",
        "91.38-92.45",
        "-0.12",
        "p = 0.23",
        "KL 0.0031",
        "0.520 ms",
        "25 of 25",
        "passed",
        "412 ms",
    ):
        assert figure in words
    assert "edgevit benchmark fashion.edgevit --batch 1 --threads 2" in words
    assert "c" * 64 in words


@pytest.mark.parametrize("name", ["FULL", "TROUBLED"])
def test_the_page_is_well_formed_and_loads_nothing(sample, name):
    page = render_html(report_data(getattr(sample, name)))
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.elements.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base"})
    assert not any(key in {"src", "href", "xlink:href"} or key.startswith("on") for key, _ in parsed.attributes)
    assert not re.search(r"https?:|url\(|@import", page)
    assert "default-src 'none'" in page


def hostile_insights(manifest):
    flip = FlippedImage(
        image=HOSTILE, label=HOSTILE, float32=HOSTILE, variant=HOSTILE, float32_margin=1, variant_margin=0
    )
    change = ClassChange(
        label=HOSTILE, images=1, float32=1, variant=0, lost=1, gained=0, interval=(-1, 0), p=1, changed=True
    )
    none = OutputDistance(finite=False, sqnr_db=None, kl=None, agreement=None)
    details = AccuracyDetails(
        variant="v",
        file_sha256="a" * 64,
        data_sha256="a" * 64,
        images=1,
        labelled=True,
        classes=(change,),
        shifts=(ConfusionShift(label=HOSTILE, answer=HOSTILE, float32=0, variant=1),),
        flips=(flip,),
        flips_total=1,
        steps=EngineSteps(images=1, missing=HOSTILE, engine_to_float32=none, wrong=HOSTILE),
    )
    seen = MapsSeen(variant=HOSTILE, said=HOSTILE, last=(HOSTILE,), rollout=(HOSTILE,), overlap_last=0.5)
    noise = LayerNoise(layer=HOSTILE, sqnr_db=9, kept_float=HOSTILE)
    return Insights(
        details={each.name: details for each in manifest.variants},
        layers=(LayersSeen(variants=(HOSTILE,), images=1, layers=(noise,)),),
        attention=AttentionSeen(photos=(HOSTILE,), of_class_token=True, models=(seen, seen)),
        merged=MergedSeen(
            budget=0.5,
            variants=(HOSTILE,),
            trained=True,
            rows=1,
            columns=1,
            tokens_before=1,
            tokens_after=1,
            photos=(HOSTILE,),
            pictures=(HOSTILE,),
            said=(HOSTILE,),
            tokens=((1,),),
        ),
        missing=(HOSTILE,),
    )


def test_hostile_text_stays_text(sample):
    manifest = hostile_manifest(sample)
    data = report_data(manifest, hostile_insights(manifest))
    parsed = Page(render_html(data))
    assert parsed.open == []
    assert parsed.elements.isdisjoint({"script", "img"})
    assert not any(key.startswith("on") for key, _ in parsed.attributes)
    assert "<script>alert(1)</script>" in parsed.words
    assert "{{ 7*7 }}" in parsed.words
    quoted = next(line for line in data["commands"]["accuracy"])
    assert quoted.startswith("edgevit validate '<")


def test_a_bundle_without_figures_has_a_page(sample):
    words = Page(render_html(report_data(sample.manifest(sample.TROUBLED.variants[-1])))).words
    assert "Not measured yet" in words
    assert "edgevit validate fashion.edgevit --data IMAGES" in words
    assert "edgevit benchmark fashion.edgevit" in words
    assert "not validated" in words
    assert Page(render_html(report_data(sample.manifest()))).open == []


def test_troubles_are_told_in_words(sample):
    words = Page(render_html(report_data(sample.TROUBLED))).words
    for phrase in ("other processes took 31 %", "signal 9", "accurate, but slower", "int8-onnxruntime, failed"):
        assert phrase in words


def test_what_a_race_has_shown_is_the_verdict(sample):
    def shown(**words):
        found = (LimitEvidence(limit=limit, word=word, reason=f"why {limit}") for limit, word in words.items())
        figures = {"accuracy": sample.accuracy(), "latency": sample.latency(), "evidence": tuple(found)}
        int8 = sample.variant("int8", "int8", "onnxruntime", **figures)
        data = report_data(sample.manifest(sample.FULL.variants[0], int8))
        return data["variants"][1]["verdict"]["word"], data["headline"], Page(render_html(data)).words

    word, headline, words = shown(accuracy="passed", speed="passed")
    assert (word, headline) == ("passed", "int8")
    assert "Shown by the race: accuracy passed (why accuracy); speed passed (why speed)" in words
    word, headline, words = shown(accuracy="not shown", speed="passed")
    assert (word, headline) == ("not shown", None)
    assert "accuracy: why accuracy" in words
    word, headline, words = shown(accuracy="not shown", p99="failed")
    assert (word, headline) == ("failed", None)
    assert "p99: why p99" in words


def test_latencies_are_drawn_with_what_there_is_of_them(sample):
    quantiles = tuple(0.5 + 0.02 * step for step in range(21))
    fuller = sample.latency(0.7, p50_ci95=(0.69, 0.72), quantiles_ms=quantiles)
    int8 = sample.variant("int8", "int8", "onnxruntime", accuracy=sample.accuracy(), latency=fuller)
    page = render_html(report_data(sample.manifest(sample.FULL.variants[0], int8)))
    assert page.count('class="box"') == 1
    assert page.count('class="tail"') == 1  # of the one whose quarters are not known
    assert "interval 0.690-0.720" in Page(page).words


def test_unlabelled_images_have_a_headline_of_agreement(sample):
    unlabelled = sample.accuracy(top1=None, top1_ci95=None, top5=None, delta_top1=None, mcnemar_p=None, images=500)
    bundle = sample.manifest(sample.variant("int8", "int8", "o", accuracy=unlabelled, latency=sample.latency()))
    words = Page(render_html(report_data(bundle))).words
    assert "gives the same answer on 98.9 % of 500 images without labels" in words


def test_the_page_can_be_drawn_again_from_the_json(sample, tmp_path):
    page, data = write_report(sample.FULL, tmp_path / "report")
    assert (page.name, data.name) == ("index.html", "report.json")
    loaded = json.loads(data.read_text())
    assert loaded["schema_version"] == SCHEMA_VERSION
    assert loaded["headline"] == "int8-openvino"
    assert render_html(loaded) == page.read_text(encoding="utf-8")


def test_a_report_leaves_the_folder_s_other_files_alone(sample, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "index.html").write_text("old")
    page, _ = write_report(sample.FULL, tmp_path)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "notes.txt", "report.json"]


def test_a_folder_that_cannot_be_written_keeps_what_it_has(sample, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder")
    with pytest.raises(StorageError, match="cannot write"):
        write_report(sample.FULL, blocked)
    assert blocked.read_text() == "a file, not a folder"


def test_without_jinja2_the_remedy_is_named(sample, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError) as caught:
        render_html(report_data(sample.FULL))
    assert "'.[report]'" in caught.value.remedy


def test_the_page_of_an_embedding_model(sample):
    data = report_data(sample.EMBEDDING)
    assert (data["accuracy_axis"], data["headline"]) == ("agreement", "int8-onnxruntime")
    words = Page(render_html(data)).words
    assert "its features have a mean cosine of 0.9956 with float32\u2019s on 10,000 images" in words
    assert "Recall@1" in words
    assert "84.21 % 83.48-84.91 -0.31 points" in words.replace("\u00a0", " ")
    assert "different images have a mean cosine of 0.3141" in words
    assert "an embedding instead of classes" in words
    for absent in ("Top-1", "McNemar", "0 classes"):
        assert absent not in words


def test_the_page_of_an_embedding_model_that_was_not_measured(sample):
    bare = [
        sample.msgspec.structs.replace(variant, accuracy=None, latency=None) for variant in sample.EMBEDDING.variants
    ]
    bundle = sample.msgspec.structs.replace(sample.EMBEDDING, variants=tuple(bare))
    assert "not validated" in Page(render_html(report_data(bundle))).words


def test_pages_that_are_there_are_refused(sample, tmp_path):
    refuse_report(tmp_path)
    write_report(sample.FULL, tmp_path)
    for name in ("index.html", "report.json"):
        with pytest.raises(InputError, match=f"{name} exists already") as caught:
            refuse_report(tmp_path)
        assert "--overwrite" in caught.value.remedy
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("accuracy", "latency", "said", "command"),
    [
        (False, {"valid": True}, "Accuracy is not measured yet", "edgevit validate"),
        (True, None, "Speed is not measured yet", "edgevit benchmark"),
        (True, {"valid": False, "invalid_reason": "it was busy"}, "is not known", "--duration 30"),
        (True, {"speedup": 0.9, "p50_ms": 1.45}, "No variant has been shown to be both accurate and faster", None),
    ],
)
def test_what_is_missing_is_not_called_slow(sample, accuracy, latency, said, command):
    int8 = sample.variant(
        "int8",
        "int8",
        "onnxruntime",
        accuracy=sample.accuracy() if accuracy else None,
        latency=None if latency is None else sample.latency(**latency),
    )
    data = report_data(sample.manifest(sample.FULL.variants[0], int8))
    assert said in Page(render_html(data)).words
    assert data["headline"] is None
    assert [command in line for line in data["missing"]["commands"]] == ([] if command is None else [True])
    slow = "No variant has been shown"
    assert (slow in Page(render_html(data)).words) == (slow in said)


def test_all_speeds_in_doubt_are_counted_and_commands_name_the_bundles_place(sample):
    doubt = {"valid": False, "invalid_reason": "it was busy"}
    float32 = replace(sample.FULL.variants[0], latency=sample.latency(**doubt))
    int8 = sample.variant("int8", "int8", "o", accuracy=sample.accuracy(), latency=sample.latency(**doubt))
    found = missing(sample.manifest(float32, int8), Path("my bundles/a.edgevit"))
    assert found["text"].endswith("the speeds of 2 variants are in doubt.")
    assert found["commands"] == ["edgevit benchmark 'my bundles/a.edgevit' --duration 30"]


def test_a_gate_that_nothing_passed_is_not_a_matter_of_speed(sample):
    accuracy = sample.accuracy(passed=False, reason="top-1 fell 0.80 points, 0.5 allowed")
    int8 = sample.variant("int8", "int8", "onnxruntime", accuracy=accuracy, latency=sample.latency())
    data = report_data(sample.manifest(sample.FULL.variants[0], int8))
    assert data["missing"]["text"].startswith("No variant keeps the limit on accuracy")
    assert [line.split()[1] for line in data["missing"]["commands"]] == ["validate", "quantize"]
    assert "--max-drop" in data["missing"]["commands"][1]


def test_no_folder_of_someones_machine_is_told(sample, tmp_path):
    place = f"{tmp_path}/private"
    old = sample.FULL.variants[1]
    variant = sample.msgspec.structs.replace(
        old, target=f"{place}/mine.toml", accuracy=sample.accuracy(data=f"{place}/photos")
    )
    provenance = sample.msgspec.structs.replace(sample.FULL.provenance, source=f"{place}/deit.safetensors")
    bundle = sample.msgspec.structs.replace(sample.manifest(variant), provenance=provenance)
    data = report_data(bundle)
    page = render_html(data)
    for told in (json.dumps(data), page):
        assert str(tmp_path) not in told
        assert "deit.safetensors" in told
        assert "mine.toml" in told
    assert data["commands"]["accuracy"] == ["edgevit validate fashion.edgevit --data photos"]


def test_a_speed_up_that_its_times_contradict_is_withheld(sample):
    float32 = sample.variant(
        "float32-openvino", "float32", "openvino", accuracy=sample.REFERENCE, latency=sample.latency(2.03, 1.0)
    )
    int8 = sample.variant(
        "int8-openvino", "int8", "openvino", accuracy=sample.accuracy(), latency=sample.latency(1.10, 12.68)
    )
    data = report_data(sample.manifest(float32, int8))
    page = render_html(data)
    assert data["headline"] is None
    assert data["variants"][1]["latency"]["speedup_vs_float32"] is None
    assert "speed-up is withheld: blocks side by side gave 12.68" in page
    assert "12.68\N{MULTIPLICATION SIGN}" not in page
