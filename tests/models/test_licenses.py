"""Licenses that model cards and configs name, and what they mean for the use of the weights."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from random_vit import random_model
from safetensors.torch import save_file

from edgevit.bundle.manifest import Provenance
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.files import sha256_of
from edgevit.models.licenses import license_beside, license_called
from edgevit.models.loading import load_checkpoint
from edgevit.models.model_card import front_matter
from edgevit.models.spec import ModelSpec
from edgevit.report.data import report_data
from edgevit.report.html import render_html

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=64, depth=1, heads=1, classes=5)


@pytest.mark.parametrize(
    ("name", "restricted"),
    [
        *(
            (name, None)
            for name in ("mit", "apache-2.0", "Apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "gpl-3.0")
        ),
        ("cc-by-nc-4.0", "commercial"),
        ("CC BY-NC 4.0", "commercial"),
        ("cc-by-nc-sa-4.0", "commercial"),
        ("fair-noncommercial-research-license", "commercial"),
        ("cc-by-nd-4.0", "changed"),
        ("dinov3-license", "its maker's own"),
        ("creativeml-openrail-m", "some uses"),
        ("bigscience-bloom-rail-1.0", "some uses"),
        ("apple-amlr", "research"),
        ("other", "terms of its own"),
    ],
)
def test_what_names_tell_of_terms(name, restricted):
    found = license_called(name, "README.md")
    assert found.known
    assert (found.restriction is None) == (restricted is None)
    assert restricted is None or restricted in found.warning()
    assert restricted is not None or found.warning() is None


def test_a_name_that_says_nothing_known_is_said_and_no_warning():
    found = license_called("acme-2", "config.json")
    assert not found.known
    assert found.warning() is None
    assert "no license that is known" in found.in_words()
    assert license_called("unknown", "README.md") is None
    assert license_called("\n", "README.md") is None


CARD = """---
language: en
license: other
license_name: dinov3-license
license_link: https://ai.meta.com/resources/models-and-libraries/dinov3-license
tags:
- dino
---
# A model
license: mit
"""


def test_a_card_names_license_and_link(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    found = license_beside(tmp_path, {"license": "mit"})
    assert (found.name, found.said_by) == ("dinov3-license", "README.md")
    assert found.link == "https://ai.meta.com/resources/models-and-libraries/dinov3-license"
    assert found.warning().endswith(f"read {found.link} before you ship it")


@pytest.mark.parametrize(
    ("front", "name"),
    [
        ("license: 'apache-2.0'  # as the code", "apache-2.0"),
        ('license: "cc-by-nc-4.0"', "cc-by-nc-4.0"),
        ("license: mit # the code's", "mit"),
        ("license:\n- mit\n- cc-by-nc-4.0", "mit and cc-by-nc-4.0"),
        ("license:\n  - apache-2.0", "apache-2.0"),
        ("license: [mit, 'apache-2.0']", "mit and apache-2.0"),
        ("license: mit\r", "mit"),
        ("license: other\nlicense_name: acme-2", "acme-2"),
        ("nested:\n  license: mit", None),
        ("license:", None),
        ("license:\nlanguages:\n- mit", None),
        ("license: >-\n  cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("license:\n  cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("license: # of the code\n  cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("license: [\n  mit,\n  cc-by-nc-4.0,\n]", "mit and cc-by-nc-4.0"),
        ('"license": cc-by-nc-4.0', "cc-by-nc-4.0"),
        ("license : !!str cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("license:\n- mit\n- other\nlicense_name: apple-amlr", "mit and apple-amlr"),
        ("license: 'it''s mine'", "it's mine"),
        ('license: "mit\\x1b[31m"', "mit [31m"),
        ("license: mit\n...\nlicense: cc-by-nc-4.0", "mit"),
    ],
)
def test_yaml_as_people_write_it(tmp_path, front, name):
    (tmp_path / "README.md").write_text(f"---\n{front}\ntags: [x]\n---\n", newline="")
    found = license_beside(tmp_path, {})
    assert (found and found.name) == name
    if name and "nc" in name:
        assert found.restriction == "forbids commercial use"
    if name == "acme-2":  # its owner says that it is none of the usual ones
        assert found.restriction == "has terms of its own"


_WORDS = st.text(alphabet="abcXYZ0123 .-_+#:'\"[]{},&!|>%@`*\\\u00e9\U0001f600", min_size=1, max_size=30)


@given(
    value=_WORDS | st.lists(_WORDS, min_size=1, max_size=3),
    style=st.sampled_from([None, '"', "'", "|", ">"]),
    flow=st.booleans(),
    width=st.sampled_from([8, 80]),
)
def test_yaml_as_programs_write_it(tmp_path_factory, value, style, flow, width):
    text = yaml.safe_dump(
        {"language": ["en"], "license": value, "tags": ["mit"]},
        default_style=style,
        default_flow_style=False if not isinstance(value, list) else None if flow else False,
        width=width,
        allow_unicode=True,
        sort_keys=False,
    )
    card = tmp_path_factory.getbasetemp() / "README.md"
    card.write_text(f"---\n{text}---\n", encoding="utf-8")
    expected = [" ".join(each.split()) for each in ([value] if isinstance(value, str) else value)]
    found = front_matter(card).get("license", "")
    assert " ".join(found.split()) == " and ".join(filter(None, expected))


def test_front_matter_as_it_begins(tmp_path):
    card = tmp_path / "README.md"
    for text in ("\n\n---\nlicense: mit\n---\n", "---\rlicense: mit\r---\r", "\ufeff---\nlicense: mit\n---"):
        card.write_bytes(text.encode())
        assert front_matter(card) == {"license": "mit"}
    for text in ("---\nlicense: mit\n", "# A model\n---\nlicense: mit\n---\n", "----\nlicense: mit\n----\n"):
        card.write_bytes(text.encode())
        assert front_matter(card) == {}


@pytest.mark.parametrize(
    ("name", "restriction", "known"),
    [
        ("MIT OR Apache-2.0", None, True),
        ("Apache License, Version 2.0", None, True),
        ("The MIT License (MIT)", None, True),
        ("Apache-2.0 WITH LLVM-exception", None, True),
        ("mit and apache-2.0", None, True),
        ("mit and acme-2", None, False),
        ("MIT AND CC-BY-NC-4.0", "forbids commercial use", True),
        ("CC-BY-NC-4.0 OR MIT", None, True),
        ("CC-BY-NC-4.0 OR acme-2", "forbids commercial use", True),
        ("(MIT OR CC-BY-NC-4.0) AND MIT", "forbids commercial use", True),
        ("metal", None, False),
    ],
)
def test_several_names_and_long_ones(name, restriction, known):
    found = license_called(name, "README.md")
    assert (found.name, found.restriction, found.known) == (name, restriction, known)


@given(st.text() | st.text(alphabet="license:- \n\r[]'\"#_namk"))
def test_no_card_is_too_odd(tmp_path_factory, text):
    card = tmp_path_factory.getbasetemp() / "README.md"
    card.write_text(f"---\n{text}\n---\n", encoding="utf-8", errors="replace", newline="")
    for value in front_matter(card).values():
        found = license_called(value, "README.md")
        assert found is None or (found.name.isprintable() and msgspec.json.encode(found))


def saved(folder, config):
    names = {name: tensor.contiguous() for name, tensor in random_model(SPEC).state_dict().items()}
    save_file(names, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"pretrained_cfg": {"license": "dinov3-license"}}, "dinov3-license"),
        ({"license": "cc-by-nc-4.0", "license_link": "https://example.org"}, "cc-by-nc-4.0"),
        ({"license": ["mit", "cc-by-nc-4.0"]}, "mit and cc-by-nc-4.0"),
    ],
)
def test_a_checkpoint_knows_its_files_and_its_license(tmp_path, config, name):
    checkpoint = load_checkpoint(str(saved(tmp_path, config)))
    assert checkpoint.origin.license.name == name
    assert any(name in note and "before you ship it" in note for note in checkpoint.notes)
    assert checkpoint.origin.digests() == {"model.safetensors": sha256_of(tmp_path / "model.safetensors")}


def test_weights_without_a_license_are_loaded_without_a_word(tmp_path):
    checkpoint = load_checkpoint(str(saved(tmp_path, {})))
    assert checkpoint.origin.license is None
    assert not any("license" in note for note in checkpoint.notes)


def test_the_hubs_cache_names_the_commit(tmp_path):
    folder = tmp_path / "snapshots" / ("0123456789" * 4)
    folder.mkdir(parents=True)
    assert load_checkpoint(str(saved(folder, {}))).origin.revision == "0123456789" * 4


def test_a_bundle_of_before_says_nothing_of_licenses():
    before = {"source": "vit", "weights_sha256": "0", "edgevit": "0.2.0", "packages": {}, "created_at": "then"}
    found = msgspec.json.decode(json.dumps(before).encode(), type=Provenance)
    assert found.license is None
    assert json.loads(msgspec.json.encode(found)) == before


def test_timms_own_note_goes_with_a_module(tmp_path):
    import edgevit

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pretrained_cfg = {"license": "cc-by-nc-4.0"}
            self.head = torch.nn.Linear(48, 5)

        def forward(self, images):
            return self.head(images.flatten(1)[:, :48])

    notes = []
    place = tmp_path / "head.edgevit"
    made = edgevit.export(
        Head().eval(), place, input_shape=(3, 16, 16), progress=lambda event: notes.append(str(event))
    )
    assert made.bundle.manifest.provenance.license.restriction == "forbids commercial use"
    assert made.bundle.manifest.provenance.files == {}
    assert any("before you ship it" in note for note in notes)
    again = edgevit.export(
        Head().eval(), place, input_shape=(3, 16, 16), license="MIT", license_url="https://example.org", overwrite=True
    )
    assert again.bundle.manifest.provenance.license.in_words() == "MIT (said at the export, https://example.org)"
    assert not any("before you ship it" in note for note in again.notes)


def test_inspect_and_the_report_show_it(tmp_path, edgevit):
    """README.md, as the Hub has it, beside weights of EdgeViT's own layout."""
    (tmp_path / "README.md").write_text(CARD)
    source, place = str(saved(tmp_path, {})), str(tmp_path / "m.edgevit")
    exported = edgevit("export", source, "-o", place)
    assert "its maker's own" in exported.err
    shown = edgevit("inspect", place).out
    assert "license of the weights: dinov3-license (README.md, https://ai.meta.com" in shown
    assert f"model.safetensors: sha256 {sha256_of(tmp_path / 'model.safetensors')}" in shown
    data = edgevit("inspect", place, "--json").data()
    assert data["provenance"]["license"]["restriction"] == "has terms of its maker's own"
    assert data["provenance"]["files"].keys() == {"model.safetensors"}
    page = render_html(report_data(Bundle.open(Path(place)).manifest))
    assert "dinov3-license" in page
    assert "its maker&#39;s own" in page or "its maker's own" in page


def test_the_users_word_takes_the_place_of_what_lies_beside_the_weights(tmp_path, edgevit):
    (tmp_path / "README.md").write_text(CARD)
    source, place = str(saved(tmp_path, {})), str(tmp_path / "m.edgevit")
    link = "https://example.org/license"
    done = edgevit("export", source, "-o", place, "--license", "Apache-2.0", "--license-url", link)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "before you ship it" not in said
    assert (
        "the bundle names Apache-2.0 as the license of the weights, as you say; README.md says dinov3-license" in said
    )
    assert f"license of the weights: Apache-2.0 (said at the export, {link})" in edgevit("inspect", place).out
    done = edgevit("export", source, "-o", place, "--overwrite", "--license", "acme-nc", "--output", "tokens")
    assert "acme-nc (said at the export), forbids commercial use" in " ".join(done.err.split())
    assert Bundle.open(Path(place)).manifest.provenance.license.name == "acme-nc"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("--license-url", "https://example.org"), "is of a license that --license names"),
        (("--license", " "), "names no license"),
        (("--license", "none"), "names no license"),
        (("--license", "a\x1b[31mb"), "'a [31mb' names no license"),
        (("--license", "x" * 600), "names no license"),
        (("--license", "MIT", "--license-url", "javascript:alert(1)"), "is no address of a license"),
        (("--license", "MIT", "--license-url", "https://a b"), "is no address of a license"),
    ],
)
def test_what_names_no_license_is_refused_before_the_work(tmp_path, edgevit, said, message):
    done = edgevit("export", "nowhere.safetensors", "-o", tmp_path / "m.edgevit", *said)
    assert done.code == 2
    assert message in done.failure()[0]
    assert done.failure()[1]


def test_a_license_that_is_no_string_is_refused(tmp_path):
    import edgevit

    with pytest.raises(InputError, match="license is 1, not a string"):
        edgevit.export("vit", tmp_path / "m.edgevit", license=1)
