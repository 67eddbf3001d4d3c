"""Patch tokens and blocks' features are what the libraries give that the models come from."""

import msgspec
import numpy as np
import pytest
import torch
from oracles import import_timm
from zoo import CASES, randomise

from edgevit.errors import InputError
from edgevit.models.dense import DenseCheckpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.outputs import Output, parts
from edgevit.models.requested import is_request, outputs_of, requests_in
from edgevit.models.spec import ModelSpec

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=4, heads=2, classes=8)


def dense(path, *texts, size=None):
    found = DenseCheckpoint.of(load_checkpoint(str(path), size), requests_in(texts))
    return found, found.model()


@pytest.mark.parametrize(
    "name",
    [
        "timm: ViT, width 128",
        "timm DeiT distilled: two tokens, two heads averaged",
        "timm registers: 4 registers, positions for patches alone",
        "timm DINOv2: registers, LayerScale",
        "timm mean-pooled: no class token",
    ],
)
def test_what_timm_gives(tmp_path, name):
    case = next(case for case in CASES if case.name == name)
    path, reference = case.build(tmp_path)
    images = torch.rand((2, *case.size), generator=torch.Generator().manual_seed(0))
    found, model = dense(path, "tokens", "blocks=1,0")
    with torch.inference_mode():
        tokens, last, first = model(images)
        expected = reference.forward_features(images)[:, reference.num_prefix_tokens :]
        maps = reference.forward_intermediates(images, indices=[0, 1], norm=True, intermediates_only=True)
    assert torch.allclose(tokens, expected, atol=1e-5)
    assert torch.allclose(first, maps[0], atol=1e-5)
    assert torch.allclose(last, maps[1], atol=1e-5)
    assert [output.name for output in found.outputs] == ["tokens", "block_1", "block_0"]
    assert [tuple(given.shape[1:]) for given in (tokens, last, first)] == [output.shape for output in found.outputs]
    assert found.labels == ()


def test_another_size_is_timms(tmp_path):
    timm = import_timm()
    options = {"patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 7}
    reference = randomise(timm.create_model("vit_tiny_patch16_224", img_size=32, **options))
    torch.save(reference.state_dict(), tmp_path / "model.pth")
    reference.set_input_size(img_size=(48, 64))
    images = torch.rand((1, 3, 48, 64), generator=torch.Generator().manual_seed(0))
    found, model = dense(tmp_path / "model.pth", "tokens", size=(48, 64))
    with torch.inference_mode():
        (tokens,) = model(images)
        expected = reference.forward_features(images)[:, 1:]
    assert found.outputs[0].shape == (48, 128)
    assert torch.allclose(tokens, expected, atol=1e-5)


@pytest.mark.parametrize("size", [28, 42])
def test_what_transformers_gives(tmp_path, size):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    reference = randomise(transformers.Dinov2Model(config))
    reference.save_pretrained(tmp_path)
    images = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    found, model = dense(tmp_path, "tokens", "embedding", size=(size, size))
    with torch.inference_mode():
        tokens, embedding = model(images)
        expected = reference(images)
    assert torch.allclose(tokens, expected.last_hidden_state[:, 1:], atol=1e-4)
    assert torch.allclose(embedding, expected.pooler_output, atol=1e-4)
    assert found.outputs[1] == Output(name="embedding", kind="embedding", shape=(64,), dims=("width",))


def test_what_is_asked_for():
    outputs = outputs_of(SPEC, requests_in(["blocks=-1,2", "logits"]))
    assert [(output.name, output.shape, output.block, output.normalized) for output in outputs] == [
        ("block_3", (32, 4, 4), 3, True),
        ("block_2", (32, 4, 4), 2, True),
        ("logits", (8,), None, None),
    ]
    assert outputs[0].in_words() == "block_3: features (width 32, rows 4, columns 4), after the last norm"
    pooled = msgspec.structs.replace(SPEC, norm_after_pooling=True, pooling="mean")
    assert "before the last norm" in outputs_of(pooled, requests_in(["tokens"]))[0].in_words()
    assert is_request("blocks=2")
    assert not is_request("blocks.edgevit")


@pytest.mark.parametrize(
    ("texts", "message", "remedy"),
    [
        (["blocks=4"], "there is no block 4: the model has 4", "blocks=0 to blocks=3"),
        (["blocks=-5"], "there is no block -5", "blocks=3"),
        (["blocks=1,3,1"], "block 1 is asked for twice", "once"),
        (["blocks=3,-1"], "counted from the end", "once"),
        (["blocks=a"], "'blocks=a' is no output", "blocks=2,5,8,11"),
        (["token"], "'token' is no output", "did you mean tokens"),
        (["tokens", "tokens"], "tokens is asked for twice", "once"),
    ],
)
def test_what_cannot_be_asked_for(texts, message, remedy):
    with pytest.raises(InputError, match=message) as caught:
        outputs_of(SPEC, requests_in(texts))
    assert remedy in caught.value.remedy


def test_a_model_without_logits_and_one_that_gives_too_much():
    with pytest.raises(InputError, match="has no logits") as caught:
        outputs_of(msgspec.structs.replace(SPEC, classes=0), requests_in(["logits"]))
    assert "embedding" in caught.value.remedy
    large = msgspec.structs.replace(SPEC, image_size=(4096, 4096))
    with pytest.raises(InputError, match="numbers for an image") as caught:
        outputs_of(large, requests_in(["blocks=0,1,2"]))
    assert "--image-size" in caught.value.remedy


def test_the_parts_of_a_row():
    outputs = outputs_of(SPEC, requests_in(["tokens", "logits"]))
    rows = np.arange(2 * (16 * 32 + 8), dtype=np.float32).reshape(2, -1)
    found = {output.name: part for output, part in parts(outputs, rows)}
    assert np.array_equal(found["tokens"], rows[:, :512].reshape(2, 16, 32))
    assert np.array_equal(found["logits"], rows[:, 512:])


def test_an_original_name_can_be_printed():
    with pytest.raises(ValueError, match="original name of the output x cannot be printed"):
        Output(name="x", kind="any", shape=(1,), dims=("axis1",), original_name="\x1b[2J")
