"""Classifiers made of labels by the text towers of CLIP and SigLIP; transformers and its tokenizers are the oracle."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import edgevit
from edgevit.errors import CheckpointError, DataError, InputError
from edgevit.models.dense import DenseCheckpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.requested import requests_in
from edgevit.models.tokenizer import clean_text, read_tokenizer
from edgevit.models.zero_shot import Prompts

LABELS = ("cat", "golden retriever", "Rue's  12 dogs!", "tench", "hen")
LENGTH = 20
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {**TEXT, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32))


def tokenizer(kind):
    """Return a tokenizer of transformers: byte pairs learned from a few words, with the special tokens of ``kind``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<start>", *(["<end>"] if kind == "metaclip_2" else []), "<unk>"]
    pad, unknown, end = "<end>" if kind == "clip" else "<pad>", "<unk>", "<end>"
    backend = Tokenizer(models.BPE(unk_token=unknown))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    words = ["a photo of a cat, golden retriever, tench; rue's 12 dogs! hen. it is on grass"]
    alphabet = sorted(set("".join(words)))
    trainer = trainers.BpeTrainer(special_tokens=special, vocab_size=60, initial_alphabet=alphabet)
    backend.train_from_iterator(words * 3, trainer)
    backend.add_special_tokens(["<end>"])  # CLIP's end is its largest number
    ends = [(name, backend.token_to_id(name)) for name in ("<start>", "<end>")]
    single = "$A <end>" if kind == "siglip" else "<start> $A <end>"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=unknown, eos_token=end, pad_token=pad)


def whole_model(kind, tmp_path, *, end=None):
    """Write a random model of ``kind`` with its tokenizer; return its folder, and its probabilities for a template."""
    import transformers

    words = tokenizer(kind)
    number = words.eos_token_id if end is None else end
    text = {**TEXT, "vocab_size": len(words), "max_position_embeddings": LENGTH, "eos_token_id": number}
    text |= {"pad_token_id": 0, "bos_token_id": 1}
    if kind != "siglip":
        name = "CLIP" if kind == "clip" else "MetaClip2"
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=VISION, projection_dim=16)
        model = getattr(transformers, f"{name}Model")(config)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=VISION))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        if kind == "siglip":
            nn.init.constant_(model.logit_scale, 1.5)
            nn.init.constant_(model.logit_bias, -1)
    model.eval().save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)

    def probabilities(template):
        texts = [template.replace("{}", label) for label in LABELS]
        filled = {"padding": True} if kind != "siglip" else {"padding": "max_length", "max_length": LENGTH}
        numbers = words(texts, return_tensors="pt", **filled).input_ids  # SigLIP was trained without a mask
        with torch.inference_mode():
            logits = model(input_ids=numbers, pixel_values=IMAGES).logits_per_image
        return (logits.sigmoid() if kind == "siglip" else logits.softmax(dim=1)).numpy()

    return tmp_path, probabilities


def probabilities_of(checkpoint):
    with torch.inference_mode():
        logits = checkpoint.model()(IMAGES)
    return (logits.softmax(dim=1) if checkpoint.activation == "softmax" else logits.sigmoid()).numpy()


@pytest.mark.parametrize("template", ["a photo of a {}", "It is {} on grass."])
@pytest.mark.parametrize(("kind", "end"), [("clip", None), ("clip", 2), ("metaclip_2", None), ("siglip", None)])
def test_probabilities_are_those_of_transformers(tmp_path, kind, end, template):
    folder, expected = whole_model(kind, tmp_path, end=end)
    found = load_checkpoint(str(folder), prompts=Prompts(LABELS, (template,)))
    assert (found.labels, found.activation) == (LABELS, "sigmoid" if kind == "siglip" else "softmax")
    if kind == "metaclip_2":  # the end is no largest number, and 2 is meant
        assert tokenizer(kind).eos_token_id == 2
    np.testing.assert_allclose(probabilities_of(found), expected(template), atol=1e-5)
    assert np.ptp(expected(template), axis=0).max() > 0.05  # images tell the labels apart


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_logits_and_embedding_beside_each_other(tmp_path, kind):
    folder, expected = whole_model(kind, tmp_path)
    zero_shot = load_checkpoint(str(folder), prompts=Prompts(LABELS))
    model = DenseCheckpoint.of(zero_shot, requests_in(["logits", "embedding"])).model()
    with torch.inference_mode():
        logits, embedding = model(IMAGES)
        alone = load_checkpoint(str(folder)).normalized().model()(IMAGES)
    torch.testing.assert_close(embedding, alone)
    found = logits.softmax(dim=1) if kind == "clip" else logits.sigmoid()
    np.testing.assert_allclose(found.numpy(), expected("a photo of a {}"), atol=1e-5)


def test_openai_names_give_the_same(tmp_path):
    folder, expected = whole_model("clip", tmp_path)
    weights = load_file(folder / "model.safetensors")
    renamed = {"logit_scale": weights["logit_scale"]}
    for name, parts in (("visual.", "vision_model."), ("", "text_model.")):
        layers = f"{parts}encoder.layers."
        for number in range(2):
            ours, theirs = f"{name}transformer.resblocks.{number}.", f"{layers}{number}."
            for kind in ("weight", "bias"):
                joined = [weights[f"{theirs}self_attn.{each}_proj.{kind}"] for each in "qkv"]
                renamed[f"{ours}attn.in_proj_{kind}"] = torch.cat(joined)
                pairs = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
                pairs |= {f"ln_{each}": f"layer_norm{each}" for each in (1, 2)}
                renamed |= {f"{ours}{new}.{kind}": weights[f"{theirs}{old}.{kind}"] for new, old in pairs.items()}
    others = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
    }
    for new, old in (("visual.ln_pre", "pre_layrnorm"), ("visual.ln_post", "post_layernorm")):
        others |= {f"{new}.{kind}": f"vision_model.{old}.{kind}" for kind in ("weight", "bias")}
    others |= {f"ln_final.{kind}": f"text_model.final_layer_norm.{kind}" for kind in ("weight", "bias")}
    renamed |= {new: weights[old] for new, old in others.items()}
    renamed["visual.proj"] = weights["visual_projection.weight"].T
    renamed["text_projection"] = weights["text_projection.weight"].T
    other = tmp_path / "openai"
    other.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, other / "open_clip_model.safetensors")
    (other / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    tokens = len(renamed["token_embedding.weight"])
    text = {"context_length": LENGTH, "width": 32, "heads": 4, "layers": 2, "vocab_size": tokens}
    cfg = {"model_cfg": {"embed_dim": 16, "quick_gelu": True, "text_cfg": text}}
    (other / "open_clip_config.json").write_text(json.dumps(cfg))
    found = load_checkpoint(str(other), heads=2, prompts=Prompts(LABELS))
    np.testing.assert_allclose(probabilities_of(found), expected("a photo of a {}"), atol=1e-5)


def test_of_several_templates_the_mean_embedding_is_taken(tmp_path):
    folder, _ = whole_model("clip", tmp_path)
    templates = ("a photo of a {}", "It is {} on grass.")
    single = [load_checkpoint(str(folder), prompts=Prompts(LABELS, (each,))).weights for each in templates]
    mean = sum(weights["classifier.weight"] for weights in single)
    both = load_checkpoint(str(folder), prompts=Prompts(LABELS, templates)).weights["classifier.weight"]
    length = both.norm(dim=1, keepdim=True)
    torch.testing.assert_close(both, mean / mean.norm(dim=1, keepdim=True) * length)


def test_export_makes_a_bundle_that_answers_with_the_labels(tmp_path):
    folder, expected = whole_model("clip", tmp_path / "model")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    images = np.random.default_rng(0).integers(0, 256, size=(4, 32, 32, 3), dtype=np.uint8)
    made = edgevit.export(
        str(folder), tmp_path / "zero.edgevit", labels=tmp_path / "labels.txt", template="a {}", data=list(images)
    )
    assert any("made a classifier of 5 labels, by 'a {}'" in note for note in made.notes)
    with edgevit.load(made.bundle.path) as model:
        (best,) = model.predict(images[0], top=1)
    assert best.label in LABELS
    assert expected("a {}").shape == (4, 5)


def test_a_classifier_of_the_text_tower_is_not_compared_with_a_library(tmp_path):
    folder, _ = whole_model("clip", tmp_path / "model")
    with pytest.raises(InputError, match="labels made a classifier of its text tower"):
        edgevit.export(str(folder), tmp_path / "zero.edgevit", labels=LABELS, check_with="transformers")
    assert not (tmp_path / "zero.edgevit").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("text_model.embeddings.token_embedding.weight", "a text tower that EdgeViT does not have"),
        ("text_model.", "has no text tower"),
        ("text_model.encoder.layers.1.mlp.fc1.weight", "is not as its config says"),
        ("logit_scale", "no logit_scale"),
    ],
)
def test_a_model_without_a_part_is_refused(tmp_path, missing, message):
    folder, _ = whole_model("clip", tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: each for name, each in weights.items() if not name.startswith(missing)}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder), prompts=Prompts(LABELS))


def test_a_folder_without_a_tokenizer_says_where_one_comes_from(tmp_path):
    folder, _ = whole_model("clip", tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json") as caught:
        load_checkpoint(str(folder), prompts=Prompts(LABELS))
    assert "AutoTokenizer" in caught.value.remedy
    changed(folder, "tokenizer_config.json", lambda content: content.update(tokenizer_class="SiglipTokenizer"))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(folder), prompts=Prompts(LABELS))
    assert "OpenCLIP" in caught.value.remedy


def changed(folder, name, change):
    """Change a JSON file in ``folder``."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("end", [None, 2])  # by its number, or as the largest
def test_a_tokenizer_that_does_not_end_prompts_is_refused(tmp_path, end):
    folder, _ = whole_model("clip", tmp_path, end=end)
    changed(folder, "tokenizer.json", lambda content: content["post_processor"]["single"].pop())
    with pytest.raises(CheckpointError, match="does not end 'a photo of a cat' with the token") as caught:
        load_checkpoint(str(folder), prompts=Prompts(LABELS))
    assert "tokenizer.json" in caught.value.remedy


def test_a_config_that_names_another_end_is_refused(tmp_path):
    folder, _ = whole_model("clip", tmp_path)
    changed(folder, "config.json", lambda content: content["text_config"].pop("eos_token_id"))
    with pytest.raises(CheckpointError, match="the token that the text tower reads, 49407"):
        load_checkpoint(str(folder), prompts=Prompts(LABELS))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_what_is_longer_than_the_tower_reads_is_cut_and_said(tmp_path, kind):
    folder, _ = whole_model(kind, tmp_path)
    labels = ("cat", "a golden retriever on grass and a hen on grass and a dog")
    found = load_checkpoint(str(folder), prompts=Prompts(labels))
    (note,) = [note for note in found.notes if "prompts are cut" in note]
    assert note.startswith(f"the text tower reads {LENGTH} tokens: 1 prompts are cut, that of 'a golden")
    with pytest.raises(DataError, match="are the same tokens to the text tower") as caught:
        load_checkpoint(str(folder), prompts=Prompts((*labels, f"{labels[1]}, too")))
    assert "shorter" in caught.value.remedy


def test_labels_of_unknown_words_are_named(tmp_path):
    folder, expected = whole_model("clip", tmp_path)
    found = load_checkpoint(str(folder), prompts=Prompts((*LABELS, "\u732b")))
    assert "the tokenizer does not know all of 1 labels, such as '\u732b'" in found.notes
    known = load_checkpoint(str(folder), prompts=Prompts(LABELS))
    assert not any("does not know" in note for note in known.notes)
    np.testing.assert_allclose(probabilities_of(known), expected("a photo of a {}"), atol=1e-5)


@pytest.mark.parametrize("labels", [("Cat", "cat"), ("\u732b", "\u72ac")])
def test_labels_that_are_the_same_to_the_tower_are_refused(tmp_path, labels):
    folder, _ = whole_model("clip", tmp_path)
    with pytest.raises(DataError, match=f"'{labels[0]}' and '{labels[1]}' are the same tokens"):
        load_checkpoint(str(folder), prompts=Prompts(labels))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("clip", {"text_model.final_layer_norm.weight": torch.full((32,), torch.nan)}, "not finite"),
        ("clip", {"logit_scale": torch.tensor(200.0)}, "logit_scale or logit_bias .* not a finite number"),
        ("clip", {"logit_scale": torch.ones(2)}, "no logit_scale"),
        ("siglip", {"logit_bias": torch.ones(2)}, "no logit_bias of one number"),
        ("siglip", {"logit_bias": None}, "no logit_bias of one number"),
        ("clip", {"text_projection.weight": None}, "no projection"),
        ("siglip", {"text_model.head.weight": None}, "no projection"),
    ],
)
def test_weights_that_make_no_classifier_are_refused(tmp_path, kind, change, message):
    folder, _ = whole_model(kind, tmp_path)
    weights = load_file(folder / "model.safetensors") | change
    save_file({name: each for name, each in weights.items() if each is not None}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(str(folder), prompts=Prompts(LABELS))
    assert caught.value.remedy


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_the_size_give_what_they_do_in_float32(tmp_path, kind, dtype):
    folder, _ = whole_model(kind, tmp_path)
    halved = {name: each.to(dtype) for name, each in load_file(folder / "model.safetensors").items()}
    found = []
    for weights in (halved, {name: each.float() for name, each in halved.items()}):
        save_file(weights, folder / "model.safetensors")
        found.append(load_checkpoint(str(folder), prompts=Prompts(LABELS)))
    for name in ("classifier.weight", "classifier.bias"):
        torch.testing.assert_close(found[0].weights[name].float(), found[1].weights[name])


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"model": {"type": "Nothing"}}', ""])
def test_a_damaged_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        read_tokenizer(tmp_path, "it")


def test_the_tokenizer_of_a_larger_model_is_refused(tmp_path):
    folder, _ = whole_model("clip", tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    save_file({**weights, name: weights[name][:20].clone()}, folder / "model.safetensors")
    changed(folder, "config.json", lambda content: content["text_config"].update(vocab_size=20))
    with pytest.raises(CheckpointError, match="more tokens than the text tower"):
        load_checkpoint(str(folder), prompts=Prompts(LABELS))


@pytest.mark.parametrize("key", ["is_rotary", "rope_scaling"])
def test_what_the_texts_config_says_is_known_or_refused(tmp_path, key):
    folder, _ = whole_model("clip", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][key] = True
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=key):
        load_checkpoint(str(folder), prompts=Prompts(LABELS))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((),), DataError, "no labels"),
        ((("cat", "dog"), ("a photo",)), InputError, "0 places"),
        ((("cat", "dog"), ("{} and {}",)), InputError, "2 places"),
    ],
)
def test_prompts_that_say_nothing(arguments, error, message):
    with pytest.raises(error, match=message):
        Prompts(*arguments)


def test_a_label_that_is_there_twice_is_refused(tmp_path):
    folder, _ = whole_model("clip", tmp_path)
    with pytest.raises(DataError, match="'cat' is there twice"):
        load_checkpoint(str(folder), prompts=Prompts(("cat", "dog", "cat")))


def test_a_single_label_of_a_softmax_is_refused(tmp_path):
    folder, _ = whole_model("clip", tmp_path)
    with pytest.raises(InputError, match="single logit"):
        load_checkpoint(str(folder), prompts=Prompts(("cat",)))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("canonicalize", "a tench rues 12 dogs"),
        ("punctuation", "atench rues 12 dogs"),
        ("lower", "a_tench rue's 12 dogs!"),
        ("whitespace", "A_tench Rue's 12 dogs!"),
    ],
)
def test_text_is_cleaned_as_the_models_were_trained(how, expected):
    assert clean_text("A_tench  Rue's\t12 dogs! ", how) == expected


def test_an_unknown_way_to_clean_text_is_refused():
    with pytest.raises(CheckpointError, match="'fold'"):
        clean_text("a", "fold")


def test_too_few_labels_and_templates_without_labels_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="5 labels, and fashion-micro is a classifier of 10"):
        edgevit.export("fashion-micro", tmp_path / "it.edgevit", labels=LABELS)
    with pytest.raises(InputError, match="--template"):
        edgevit.export("fashion-micro", tmp_path / "it.edgevit", template="a {}")
