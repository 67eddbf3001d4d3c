"""What configs say of the text towers of CLIP and SigLIP: each key is used, compared with the weights, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import msgspec
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.families.base import ACTIVATIONS, Raw
from edgevit.models.spec import Activation
from edgevit.models.transformers_args import KNOWN

REMEDY = "export the image tower alone, without --labels, or give a CLIP or SigLIP of transformers or OpenCLIP"
_OF_TEXT = {"max_position_embeddings", "projection_size", "vocab_size", "type_vocab_size", "num_text_layers"}

_StructT = TypeVar("_StructT", bound=msgspec.Struct)
_PositiveCount = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
_Epsilon = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class TextSpec:
    """What a text tower is, without its weights.

    ``causal``: a token sees those before it alone, and the text's vector is that at the token ``end``, or at the
    largest number where that is None (CLIP). Else all tokens of a text that is filled up to ``length`` see each other,
    and the vector is that at the last one (SigLIP). ``cleaning`` is what OpenCLIP does to a text first.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    length: int
    vocabulary: int
    embedding: int
    activation: Activation
    norm_epsilon: float
    causal: bool
    end: int | None = None
    cleaning: str | None = None


class _TextSizes(TypedDict):
    width: int
    vocabulary: int
    length: int
    depth: int
    mlp_width: int
    embedding: int


class _TransformersText(msgspec.Struct, frozen=True):
    """text_config of a config.json."""

    num_attention_heads: _PositiveCount | None = None
    layer_norm_eps: _Epsilon | None = None
    hidden_act: str | None = None
    eos_token_id: int | msgspec.UnsetType | None = msgspec.UNSET
    hidden_size: _PositiveCount | None = None
    num_hidden_layers: _PositiveCount | None = None
    intermediate_size: _PositiveCount | None = None
    vocab_size: _PositiveCount | None = None
    max_position_embeddings: _PositiveCount | None = None


class _NormArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    eps: _Epsilon = 1e-5


class _ActivationArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    approximate: Literal["none", "tanh"] = "none"


class _TokenizerArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clean: str | None = None


class _OpenClipText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """text_cfg of an open_clip_config.json; what is not here is not implemented."""

    width: _PositiveCount | None = None
    layers: _PositiveCount | None = None
    heads: _PositiveCount = 8
    context_length: _PositiveCount | None = None
    vocab_size: _PositiveCount | None = None
    mlp_ratio: float | None = None  # the weights show it
    no_causal_mask: bool = False
    pool_type: str = "argmax"
    proj_type: Literal["linear", "none"] | None = None
    proj_bias: bool = False  # the weights show it
    act_kwargs: _ActivationArguments | None = None
    norm_kwargs: _NormArguments | None = None
    tokenizer_kwargs: _TokenizerArguments | None = None
    hf_tokenizer_name: str | None = None
    output_tokens: bool = False
    embed_cls: bool = False
    pad_id: int | None = None  # of a class token, which there is none


def text_spec_of(raw: Raw, weights: Mapping[str, Tensor], *, hugging_face: bool) -> TextSpec:
    """Return what the text tower with ``weights``, under our names, is.

    Raises:
        CheckpointError: if a config says something that EdgeViT does not have, or that is not so.
    """
    if hugging_face:
        return _of_transformers(raw, weights)
    if raw.open_clip is None:
        if "input_resolution" not in raw.weights:  # OpenAI's archives say it of themselves
            raise CheckpointError(
                f"nothing says what the text tower of {raw.name} is",
                remedy="put the model's open_clip_config.json beside the weights",
            )
        sizes = _sizes(_with_projection(raw, weights))
        return TextSpec(**sizes, heads=sizes["width"] // 64, activation="quick_gelu", norm_epsilon=1e-5, causal=True)
    return _of_open_clip(raw, weights)


def _of_transformers(raw: Raw, weights: Mapping[str, Tensor]) -> TextSpec:
    kind = raw.said.get("model_type")
    if kind not in ("clip", "metaclip_2", "siglip"):
        raise CheckpointError(
            f"config.json of {raw.name} has the model_type {kind!r}, whose text tower EdgeViT does not have",
            remedy=REMEDY,
        )
    clip = kind != "siglip"
    given = raw.said.get("text_config")
    said = _read({} if given is None else given, _TransformersText, f"text_config of {raw.name}")
    for key, value in (given or {}).items():
        if key not in KNOWN | _OF_TEXT:
            raise CheckpointError(
                f"text_config of {raw.name} says {key}={str(value)[:40]}, which EdgeViT does not implement",
                remedy=REMEDY,
            )
    act = said.hidden_act or ("quick_gelu" if clip else "gelu_pytorch_tanh")
    if act not in ACTIVATIONS:
        raise CheckpointError(f"the text tower of {raw.name} has the activation '{act[:40]}'", remedy=REMEDY)
    sizes = _sizes(_with_projection(raw, weights))
    _compare(raw, sizes, {
        "hidden_size": ("width", said.hidden_size),
        "num_hidden_layers": ("depth", said.num_hidden_layers),
        "intermediate_size": ("mlp_width", said.intermediate_size),
        "vocab_size": ("vocabulary", said.vocab_size),
        "max_position_embeddings": ("length", said.max_position_embeddings),
    })  # fmt: skip
    end = 49407 if said.eos_token_id is msgspec.UNSET else said.eos_token_id
    return TextSpec(
        **sizes,
        heads=said.num_attention_heads or (8 if clip else 12),
        activation=ACTIVATIONS[act],
        norm_epsilon=said.layer_norm_eps or (1e-5 if clip else 1e-6),
        causal=clip,
        end=None if (kind, end) == ("clip", 2) else end,  # it was wrong, and transformers looks for the largest then
    )


def _of_open_clip(raw: Raw, weights: Mapping[str, Tensor]) -> TextSpec:
    assert raw.open_clip is not None  # noqa: S101 - text_spec_of has looked
    model = raw.open_clip.model_cfg
    text = _read(model.text_cfg, _OpenClipText, f"text_cfg of {raw.name}")
    causal = not text.no_causal_mask
    if (text.pool_type, causal) not in (("argmax", True), ("last", False)) or text.embed_cls:
        pooled = "a class token" if text.embed_cls else f"'{text.pool_type[:40]}'"
        raise CheckpointError(
            f"the text tower of {raw.name} pools by {pooled}, {'with' if causal else 'without'} a causal mask",
            remedy=REMEDY,
        )
    sizes = _sizes(weights if text.proj_type == "none" else _with_projection(raw, weights))
    _compare(raw, sizes, {
        "width": ("width", text.width),
        "layers": ("depth", text.layers),
        "context_length": ("length", text.context_length),
        "vocab_size": ("vocabulary", text.vocab_size),
    })  # fmt: skip
    tanh = text.act_kwargs is not None and text.act_kwargs.approximate == "tanh"
    cleaning = None if text.tokenizer_kwargs is None else text.tokenizer_kwargs.clean
    return TextSpec(
        **sizes,
        heads=text.heads,
        activation="quick_gelu" if model.quick_gelu else ("gelu_tanh" if tanh else "gelu"),
        norm_epsilon=_NormArguments().eps if text.norm_kwargs is None else text.norm_kwargs.eps,
        causal=causal,
        cleaning=cleaning or (None if causal else "whitespace"),
    )


def _read(said: object, kind: type[_StructT], what: str) -> _StructT:
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{what} cannot be used: {str(error)[:200]}", remedy=REMEDY) from error


def _with_projection(raw: Raw, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if "projection.weight" not in weights:
        raise CheckpointError(
            f"the text tower of {raw.name} has no projection to the image tower's features",
            remedy="use the weights of the whole model",
        )
    return weights


def _sizes(weights: Mapping[str, Tensor]) -> _TextSizes:
    width = weights["tokens.weight"].shape[1]
    projection = weights.get("projection.weight")
    return {
        "width": width,
        "vocabulary": weights["tokens.weight"].shape[0],
        "length": weights["positions"].shape[0],
        "depth": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        "mlp_width": weights["blocks.0.mlp.fc1.weight"].shape[0],
        "embedding": width if projection is None else projection.shape[0],
    }


def _compare(raw: Raw, sizes: _TextSizes, said: Mapping[str, tuple[str, int | None]]) -> None:
    found: Mapping[str, Any] = sizes
    for key, (size, value) in said.items():
        if value is not None and value != found[size]:
            raise CheckpointError(
                f"the config contradicts the text tower of {raw.name}: {key} is {value}, not {found[size]}",
                remedy="put the config beside the weights that it was saved with",
            )
