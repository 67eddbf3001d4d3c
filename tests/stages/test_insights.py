"""What the report shows beside the figures: layers, attention, flipped images, and what cannot be shown."""

import base64
import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from tiny import SHAPES

import edgevit as public
from edgevit import system
from edgevit.backends.variants import open_variant
from edgevit.bundle.reading import logical_path
from edgevit.bundle.store import Bundle
from edgevit.quantization.accuracy import layer_noise
from edgevit.quantization.float_fallback import note_float_in
from edgevit.quantization.ptq import PtqModel
from edgevit.report import data
from edgevit.report.html import render_html, write_report
from edgevit.stages import model_insights
from edgevit.stages.insights import look_into
from edgevit.statistics import sqnr_db


@pytest.fixture(scope="module")
def looked(tiny_quantized):
    """Return a bundle, and what is seen in it."""
    bundle = Bundle.open(tiny_quantized)
    return bundle, look_into(bundle)


def layers_of(path):
    """Return the layers of a bundle by their names; attention is not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_insights, "_VARIANTS", 0)
        return {each.layer: each for each in look_into(Bundle.open(path)).layers[0].layers}


def test_layers_and_maps_of_each_int8_variant(looked):
    bundle, found = looked
    assert found.missing == ()
    (layers,) = found.layers
    assert layers.variants == ("int8-onnxruntime", "int8-openvino")
    names = [each.layer for each in layers.layers]
    assert names[0] == "patch_embed.proj"
    assert names[-1] == "head"
    assert {
        f"blocks.{block}.{part}" for block in (0, 1) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    } < set(names)
    assert len(names) == len(set(names)) == 10
    # The last layer gives the logits: its noise is theirs.
    golden = bundle.golden()
    with open_variant(bundle, "int8-onnxruntime") as session:
        images = np.stack([bundle.manifest.preprocess(image) for image in golden.images])
        logits = session.infer(images)
    assert layers.layers[-1].sqnr_db == pytest.approx(sqnr_db(golden.logits, logits), abs=1.0)
    assert all(each.sqnr_db > 5 for each in layers.layers)
    attention = found.attention
    assert [each.variant for each in attention.models] == ["float32", "int8-onnxruntime", "int8-openvino"]
    assert "fuses it" in attention.models[1].said
    assert attention.of_class_token
    assert 0.8 < attention.models[1].overlap_last < 1
    assert 0.8 < attention.models[2].overlap_rollout < 1
    wanted = {*attention.photos, *(name for each in attention.models for name in (*each.last, *each.rollout))}
    assert wanted <= set(found.pictures)
    (calibration,) = found.calibrations
    assert (calibration.scheme, calibration.integer_layers, calibration.layers) == ("asymmetric", 10, 10)


def test_a_broken_layer_shows_where_the_noise_begins(looked, tiny_quantized, monkeypatch):
    before = {each.layer: each.sqnr_db for each in looked[1].layers[0].layers}
    emit = layer_noise.emit

    def with_a_wrong_weight(ptq, dialect, path, **options):
        found = emit(ptq, dialect, path, **options)
        if any(linear.quantization for linear in ptq.plan.linears):
            import onnx
            from onnx import numpy_helper

            model = onnx.load(path)
            (weight,) = [each for each in model.graph.initializer if each.name == "blocks.1.mlp.fc1.weight.scale"]
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), weight.name))
            onnx.save(model, path)
        return found

    monkeypatch.setattr(layer_noise, "emit", with_a_wrong_weight)
    broken = {name: each.sqnr_db for name, each in layers_of(tiny_quantized).items()}
    assert broken["blocks.1.mlp.fc1"] < 2 < before["blocks.1.mlp.fc1"]
    assert broken["blocks.1.attn.proj"] == pytest.approx(before["blocks.1.attn.proj"], abs=0.01)


def test_a_layer_that_went_back_to_float_is_marked(looked, tiny_quantized, monkeypatch):
    load = PtqModel.load

    def with_one_in_float(model, plan):
        found = load(model, plan)
        return replace(found, plan=note_float_in(found.plan, "onnxruntime", {"blocks.0.mlp.fc2": "it has no kernel"}))

    before = {each.layer: each for each in looked[1].layers[0].layers}
    monkeypatch.setattr(PtqModel, "load", with_one_in_float)
    after = layers_of(tiny_quantized)
    assert after["blocks.0.mlp.fc2"].kept_float == "it has no kernel"
    assert [each.layer for each in after.values() if each.kept_float] == ["blocks.0.mlp.fc2"]
    assert after["blocks.0.mlp.fc1"] == before["blocks.0.mlp.fc1"]
    assert after["blocks.0.mlp.fc2"].sqnr_db > before["blocks.0.mlp.fc2"].sqnr_db


def test_a_table_of_other_images_is_not_taken_for_the_plans(tiny_quantized, monkeypatch):
    load = PtqModel.load

    def of_others(model, plan):
        found = load(model, plan)
        return replace(found, plan=msgspec.structs.replace(found.plan, images_sha256="0" * 64))

    monkeypatch.setattr(PtqModel, "load", of_others)
    monkeypatch.setattr(model_insights, "_VARIANTS", 0)
    found = look_into(Bundle.open(tiny_quantized))
    assert found.layers == ()
    assert any("calibrated again since" in line for line in found.missing)


def test_a_recipe_that_is_not_known_leaves_layers_out_and_says_so(tiny_quantized, monkeypatch):
    monkeypatch.setattr(layer_noise, "recipe_names", lambda: ())
    monkeypatch.setattr(model_insights, "_VARIANTS", 0)
    found = look_into(Bundle.open(tiny_quantized))
    assert found.layers == ()
    assert found.attention is not None
    assert "the recipe of the calibration is none" in found.missing[0]


def test_what_takes_a_run_is_left_out_where_it_cannot_be_done(quantized, monkeypatch, tmp_path):
    bundle = Bundle.open(quantized)
    assert look_into(bundle, models=False).attention is None
    monkeypatch.setattr(system, "memory", lambda: system.Memory(4, 0))
    assert "MiB of memory" in look_into(bundle).missing[0]
    monkeypatch.undo()
    pack = public.pack(quantized, output=tmp_path / "small.evit").path
    found = look_into(Bundle.open(pack))
    assert "a pack has no calibration" in found.missing[0]
    golden = quantized / "golden" / "00.png"
    golden.write_bytes(golden.read_bytes()[:-8] + b"\0" * 8)
    assert "No model was looked into" in look_into(bundle).missing[0]


def test_the_page_shows_all_of_it_and_is_the_same_from_its_json(quantized, tmp_path):
    public.validate(quantized, data=SHAPES)
    bundle = Bundle.open(quantized)
    insights = look_into(bundle)
    page, plain = write_report(bundle.manifest, tmp_path, insights)
    text = page.read_text("utf-8")
    for heading in ("Which step lost it", "The error of each layer", "Where the models look", "Attention rollout"):
        assert heading in text
    assert "Confidence against how often it is right" in text
    assert text.count('src="data:image/jpeg;base64,') >= 3 * 2 * 3
    assert 'src="http' not in text
    assert page.stat().st_size < 3_000_000
    read = json.loads(plain.read_bytes())
    assert render_html(read) == text
    assert all(is_jpeg(base64.b64decode(content)) for content in read["pictures"].values())


def is_jpeg(content):
    return content.startswith(b"\xff\xd8\xff")


def test_pictures_stop_where_the_page_would_be_large(looked, monkeypatch):
    bundle, found = looked
    monkeypatch.setattr(data, "MOST_PICTURES", 10_000)
    shown = data.report_data(bundle.manifest, found)
    assert 0 < sum(len(base64.b64decode(each)) for each in shown["pictures"].values()) <= 10_000
    assert set(shown["pictures"]) < set(found.pictures)
    assert '<div class="none">' in render_html(shown)


def test_the_report_is_in_the_bundle(edgevit, quantized):
    assert edgevit("report", quantized).code == 0
    assert "report/index.html" in {logical_path(file) for file in Bundle.open(quantized).manifest.extra}
    assert "Where the models look" in (quantized / "report" / "index.html").read_text("utf-8")
    assert edgevit("report", quantized, "--figures-only").code == 0
    assert "Where the models look" not in (quantized / "report" / "index.html").read_text("utf-8")
