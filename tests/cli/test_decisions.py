"""A single logit, and several labels of an image, through the commands."""

import json
import shutil

import msgspec
import numpy as np
import pytest
from oracles import import_timm
from PIL import Image
from tiny import must_run

from edgevit.bundle.manifest import Manifest
from edgevit.bundle.reading import decode_manifest
from edgevit.errors import InputError
from edgevit.runtime import load

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 1}
PRETRAINED = {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
IMAGES = np.random.default_rng(1).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


def checkpoint(folder, classes, **config):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(2)
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=classes, **ARGS).eval()
    torch.nn.init.normal_(model.head.weight)
    with torch.inference_mode():  # decisions of both kinds
        model.head.bias -= model(pixels()).mean(dim=0)
    save_file(model.state_dict(), folder / "model.safetensors")
    said = {"architecture": "vit_tiny_patch16_224", "model_args": ARGS, "pretrained_cfg": PRETRAINED, **config}
    (folder / "config.json").write_text(json.dumps(said))
    return model


def pixels():
    import torch

    return torch.from_numpy((IMAGES.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5).float()


def logits(model):
    import torch

    with torch.inference_mode():
        return model(pixels())


def write_images(root, names):
    for index, (name, image) in enumerate(zip(names, IMAGES, strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def one_logit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one-logit")
    model = checkpoint(folder, 1, label_names=["cat", "dog"])
    must_run("export", folder, "-o", folder / "m.edgevit")
    return model, folder / "m.edgevit"


@pytest.fixture
def yes_or_no(one_logit, tmp_path):
    """Return a model with a single logit, and a bundle of it to be changed at will."""
    model, bundle = one_logit
    return model, shutil.copytree(bundle, tmp_path / "m.edgevit")


def test_a_single_logit_gives_the_sigmoid(edgevit, yes_or_no, tmp_path):
    import torch

    model, bundle = yes_or_no
    expected = torch.sigmoid(logits(model)[:, 0]).numpy()
    with load(bundle) as loaded:
        for image, probability in zip(IMAGES, expected, strict=True):
            found = {item.label: item for item in loaded.predict(image)}
            assert found["dog"].probability == pytest.approx(probability, abs=1e-5)
            assert found["cat"].probability == pytest.approx(1 - probability, abs=1e-5)
            assert (found["dog"].decided, found["cat"].decided) == (probability > 0.5, probability <= 0.5)
            assert next(iter(found)) == ("dog" if probability > 0.5 else "cat")
            strict = {item.label: item.decided for item in loaded.predict(image, threshold=0.99)}
            assert strict == {"dog": probability > 0.99, "cat": probability <= 0.99}
        with pytest.raises(InputError, match="no threshold"):
            loaded.predict(IMAGES[0], threshold=2)
    Image.fromarray(IMAGES[0]).save(tmp_path / "one.png")
    done = edgevit("predict", bundle, tmp_path / "one.png", "--json", "--top", "1")
    (found,) = done.data()["images"][0]["predictions"]
    assert found["decided"] is True
    assert found["probability"] == pytest.approx(max(expected[0], 1 - expected[0]), abs=1e-5)


def test_int8_of_a_single_logit_is_compared_by_decisions_and_distance(edgevit, yes_or_no, tmp_path):
    model, bundle = yes_or_no
    right = ["dog" if logit > 0 else "cat" for logit in logits(model)[:, 0]]
    right[0] = "cat" if right[0] == "dog" else "dog"
    data = write_images(tmp_path / "data", right)
    made = edgevit("quantize", bundle, "--data", data, "--dialect", "onnxruntime")
    assert made.code == 0, made.err
    done = edgevit("validate", bundle, "--data", data, "--json", "--max-drop", "100")
    assert done.code == 0, done.err
    said = {variant["name"]: variant for variant in done.data()["variants"]}
    assert said["float32"]["top1"] == pytest.approx(23 / 24)
    with load(bundle, variant="int8-onnxruntime") as int8:
        found = int8.infer(int8.prepare(list(IMAGES)))
    expected, entry = logits(model).numpy(), said["int8-onnxruntime"]
    assert entry["agreement"] == pytest.approx(((found > 0) == (expected > 0)).mean())
    assert entry["decisions"]["mean_distance"] == pytest.approx(np.abs(found - expected).mean(), abs=1e-5)
    assert entry["kl"] > 0
    assert entry["sqnr_db"] > 0
    shown = edgevit("validate", bundle, "--data", data, "--max-drop", "100")
    assert "accurate" not in shown.out
    assert "top-1" not in shown.out
    assert " dB)" in shown.out.replace("\N{NO-BREAK SPACE}", " ")
    assert edgevit("report", bundle).code == 0
    page = (bundle / "report" / "index.html").read_text()
    assert "a binary decision" in page
    assert "Top-1" not in page
    assert "accurate, " not in page


@pytest.fixture(scope="module")
def three_logits(tmp_path_factory):
    """Return a model with three logits, and a folder with bundles that take them for several labels and for one."""
    folder = tmp_path_factory.mktemp("three-logits")
    model = checkpoint(folder, 3, label_names=["day", "person", "rain"])
    must_run("export", folder, "-o", folder / "several.edgevit", "--activation", "sigmoid")
    must_run("export", folder, "-o", folder / "one.edgevit")
    return model, folder


def test_an_activation_that_there_is_not_is_refused(edgevit, three_logits, tmp_path):
    refused = edgevit("export", three_logits[1], "-o", tmp_path / "m.edgevit", "--activation", "sigmod")
    assert refused.code == 2
    assert "sigmoid" in refused.err


def test_several_labels_are_decided_one_by_one(edgevit, three_logits, tmp_path):
    import torch

    model, folder = three_logits
    bundle = shutil.copytree(folder / "several.edgevit", tmp_path / "m.edgevit")
    data = write_images(tmp_path / "data", ["day", "rain"] * 12)
    with load(bundle) as loaded:
        assert loaded.independent
        for image, expected in zip(IMAGES, torch.sigmoid(logits(model)).numpy(), strict=True):
            found = sorted(loaded.predict(image), key=lambda item: item.index)
            assert [item.probability for item in found] == pytest.approx(expected.tolist(), abs=1e-5)
            assert [item.decided for item in found] == [value > 0.5 for value in expected]
    done = edgevit("validate", bundle, "--data", data, "--json")
    assert done.code == 0, done.err
    assert "not looked at" in done.err
    (entry,) = done.data()["variants"]
    assert (entry["top1"], entry["delta_top1"], entry["agreement"]) == (None, None, 1)
    assert "3 labels, each decided by itself" in edgevit("inspect", bundle).out


@pytest.mark.parametrize("form", ["columns", "cells"])
def test_several_labels_of_a_csv_are_what_is_right(edgevit, three_logits, tmp_path, form):
    model, folder = three_logits
    bundle = shutil.copytree(folder / "several.edgevit", tmp_path / "m.edgevit")
    truth = (logits(model) > 0).numpy()
    truth[:, 0] |= ~truth.any(axis=1)  # each has one
    truth[0] = ~truth[0]
    truth[0, 0] |= ~truth[0].any()
    names = np.array(["day", "person", "rain"])
    rows = ["path,rain,person,day" if form == "columns" else "path,label"]
    for index, (image, own) in enumerate(zip(IMAGES, truth, strict=True)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
        said = ",".join(str(int(value)) for value in own[::-1]) if form == "columns" else ";".join(names[own])
        rows.append(f"{index}.png,{said}")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    done = edgevit("validate", bundle, "--data", tmp_path / "set.csv", "--json")
    assert done.code == 0, done.err
    assert "not looked at" not in done.err
    (entry,) = done.data()["variants"]
    right = (logits(model) > 0).numpy() == truth
    assert entry["top1"] == pytest.approx(right.all(axis=1).mean())
    assert entry["decisions"]["truth"]["right"] == pytest.approx(right.mean())
    assert 0.5 < entry["decisions"]["truth"]["f1"] < 1
    assert edgevit("report", bundle).code == 0
    assert "mAP" in (bundle / "report" / "index.html").read_text()
    refused = edgevit("validate", folder / "one.edgevit", "--data", tmp_path / "set.csv")
    assert refused.code == 2
    assert "several labels for one image" in refused.failure()[0]
    trained = edgevit("train", "--data", tmp_path / "set.csv", "-o", tmp_path / "run", "--epochs", "1")
    assert trained.code == 2
    assert "several labels for one image" in trained.failure()[0]


def test_a_file_that_edgevit_wrote_says_how_its_logits_are_meant(edgevit, tmp_path):
    checkpoint(tmp_path, 3)
    assert edgevit("export", tmp_path, "-o", tmp_path / "m.edgevit", "--activation", "sigmoid").code == 0
    again = edgevit("export", tmp_path / "m.edgevit/float32/model.onnx", "-o", tmp_path / "again.edgevit")
    assert again.code == 0, again.err
    with load(tmp_path / "again.edgevit") as loaded:
        assert loaded.independent


def test_an_older_bundle_of_a_single_logit_is_read_and_its_100_percent_forgotten(yes_or_no):
    _, bundle = yes_or_no
    old = msgspec.json.decode((bundle / "manifest.json").read_bytes())
    del old["activation"]
    old |= {"schema_version": 1, "labels": ["dog"]}
    old["variants"][0]["accuracy"] = {
        **dict.fromkeys(("top1", "top1_ci95", "top5", "delta_top1", "mcnemar_p", "sqnr_db")),
        "data": "d", "data_sha256": "0" * 64, "images": 9, "agreement": 1.0, "kl": 0.0, "max_drop": 0.5, "passed": True,
        "reason": "no labels; 0.00 % of answers differ",
    }  # fmt: skip
    found = decode_manifest(msgspec.json.encode(old))
    assert isinstance(found, Manifest)
    assert found.independent
    assert found.outcomes == ("not dog", "dog")
    assert found.variants[0].accuracy is None
