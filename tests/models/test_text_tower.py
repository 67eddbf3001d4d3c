"""What configs say of text towers is used, compared with the weights, or refused; transformers is the oracle."""

import pytest
import torch
from torch import nn

from edgevit.errors import CheckpointError
from edgevit.models.config import OpenClip, OpenClipModel
from edgevit.models.families.base import Raw
from edgevit.models.text_tower import text_tower

LENGTH, VOCABULARY, WIDTH = 12, 40, 32
TEXT = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
NUMBERS = torch.randint(3, VOCABULARY, (4, LENGTH), generator=torch.Generator().manual_seed(0))


def siglip_text():
    """Return a random SigLIP text model of transformers, and its weights under OpenCLIP's names."""
    import transformers

    config = transformers.SiglipTextConfig(
        **TEXT, vocab_size=VOCABULARY, max_position_embeddings=LENGTH, projection_size=16
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = transformers.SiglipTextModel(config).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    theirs = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    named = {
        "token_embedding.weight": theirs["embeddings.token_embedding.weight"],
        "positional_embedding": theirs["embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        named |= {
            f"ln_final.{kind}": theirs[f"final_layer_norm.{kind}"],
            f"text_projection.{kind}": theirs[f"head.{kind}"],
        }
        for number in range(2):
            ours, old = f"transformer.resblocks.{number}.", f"encoder.layers.{number}."
            joined = [theirs[f"{old}self_attn.{each}_proj.{kind}"] for each in "qkv"]
            named[f"{ours}attn.in_proj_{kind}"] = torch.cat(joined)
            pairs = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
            pairs |= {f"ln_{each}": f"layer_norm{each}" for each in (1, 2)}
            named |= {f"{ours}{new}.{kind}": theirs[f"{old}{before}.{kind}"] for new, before in pairs.items()}
    return model, {f"text.{name}": tensor.clone() for name, tensor in named.items()}


SIGLIP = {
    "context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 4, "layers": 2, "mlp_ratio": 2.0,
    "no_causal_mask": True, "pool_type": "last", "proj_type": "linear", "proj_bias": True,
    "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6}, "tokenizer_kwargs": {"clean": "canonicalize"},
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
}  # fmt: skip


def of_open_clip(weights, **said):
    config = OpenClip(model_cfg=OpenClipModel(text_cfg={**SIGLIP, **said}))
    return text_tower(Raw("it", weights, open_clip=config))


def of_transformers(weights, **said):
    config = {"model_type": "siglip", "text_config": said.pop("text_config", {**TEXT, **said})}
    return text_tower(Raw("it", weights, said=config))


def test_open_clips_siglip_gives_what_transformers_does():
    model, weights = siglip_text()
    tower = of_open_clip(weights)
    with torch.inference_mode():
        torch.testing.assert_close(tower(NUMBERS), model(NUMBERS).pooler_output, atol=1e-5, rtol=1e-5)
    assert (tower.spec.causal, tower.spec.cleaning) == (False, "canonicalize")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"heads": "4"}, "Expected `int`, got `str` - at `\\$.heads`"),
        ({"heads": 0}, ">= 1"),
        ({"width": 64}, "width is 64, not 32"),
        ({"layers": 3}, "layers is 3, not 2"),
        ({"context_length": 77}, "context_length is 77, not 12"),
        ({"vocab_size": 49408}, "vocab_size is 49408, not 40"),
        ({"pool_type": "eos"}, "pools by 'eos'"),
        ({"no_causal_mask": False}, "pools by 'last', with a causal mask"),
        ({"embed_cls": True}, "pools by a class token"),
        ({"proj_type": "mlp"}, "'mlp' - at `\\$.proj_type`"),
        ({"norm_kwargs": {"eps": -1}}, "norm_kwargs.eps"),
        ({"act_kwargs": {"inplace": True}}, "unknown field `inplace`"),
        ({"tokenizer_kwargs": {"strip_sep_token": True}}, "unknown field `strip_sep_token`"),
        ({"ls_init_value": 0.1}, "unknown field `ls_init_value`"),
        ({"hf_model_name": "roberta-base"}, "unknown field `hf_model_name`"),
    ],
)
def test_what_open_clip_says_and_is_not_so_is_refused(said, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        of_open_clip(siglip_text()[1], **said)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"text_config": "x"}, "Expected `object`, got `str`"),
        ({"text_config": [1]}, "Expected `object`, got `array`"),
        ({"num_attention_heads": "4"}, "Expected `int | null`, got `str`"),
        ({"num_attention_heads": True}, "got `bool`"),
        ({"layer_norm_eps": 0}, "Expected `float` > 0"),
        ({"eos_token_id": [1, 2]}, "got `array`"),
        ({"hidden_act": ["gelu"]}, "got `array`"),
        ({"hidden_size": 64}, "hidden_size is 64, not 32"),
        ({"num_hidden_layers": 1}, "num_hidden_layers is 1, not 2"),
        ({"intermediate_size": 32}, "intermediate_size is 32, not 64"),
    ],
)
def test_what_transformers_says_and_is_not_so_is_refused(said, message):
    model, _ = siglip_text()
    weights = {f"text_model.{name.removeprefix('text_model.')}": each for name, each in model.state_dict().items()}
    with torch.inference_mode():
        torch.testing.assert_close(
            of_transformers(weights)(NUMBERS), model(NUMBERS).pooler_output, atol=1e-5, rtol=1e-5
        )
    with pytest.raises(CheckpointError, match=message.replace("|", r"\|")) as caught:
        of_transformers(weights, **said)
    assert caught.value.remedy


def test_a_projection_that_is_missing_is_not_taken_for_none():
    _, weights = siglip_text()
    for kind in ("weight", "bias"):
        del weights[f"text.text_projection.{kind}"]
    with pytest.raises(CheckpointError, match="has no projection to the image tower's features"):
        of_open_clip(weights)
    assert of_open_clip(weights, proj_type="none").spec.embedding == WIDTH
