"""What transformers' config.json says of an architecture: each key is used, compared with the weights, or refused.

A test holds that every key of transformers' own configs of these models is known here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from edgevit.errors import CheckpointError

#: Those that ``Config`` reads, that shapes show, or whose parts are looked at by themselves.
_USED = frozenset({
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
    "image_size", "patch_size", "num_channels", "id2label", "label2id", "num_labels", "problem_type", "model_type",
    "vision_config", "text_config", "projection_dim", "mlp_ratio", "architectures", "rope_theta",
})  # fmt: skip
#: Of training and loading, of heads and parts that play no part in the output, or of how results are handed over.
_HARMLESS = frozenset({
    "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "dropout", "hidden_dropout",
    "drop_path_rate", "initializer_range", "initializer_factor", "layerscale_value", "logit_scale_init_value",
    "encoder_stride", "pooler_output_size", "pooler_act", "use_mask_token", "apply_layernorm", "reshape_hidden_states",
    "stage_names", "out_features", "out_indices", "_name_or_path", "dtype", "torch_dtype",
    "transformers_version", "output_attentions", "output_hidden_states", "return_dict", "use_return_dict",
    "chunk_size_feed_forward", "is_encoder_decoder", "is_decoder", "add_cross_attention",
    "cross_attention_hidden_size", "finetuning_task", "gradient_checkpointing", "pruned_heads", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "prefix", "torchscript", "tf_legacy_loss", "use_bfloat16",
    "task_specific_params", "sep_token_id", "text_config_dict", "vision_config_dict", "_commit_hash",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "semantic_loss_ignore_index",
    "text_model_name", "direct_kl", "bridge", "is_composition", "_from_model_config", "_diffusers_version",
    "transformers.js_config", "license", "license_name", "license_link", "layer_scale_init_value", "pool_scales",
    "use_auxiliary_head", "auxiliary_loss_weight", "auxiliary_channels", "auxiliary_num_convs",
    "decoder_hidden_size", "decoder_intermediate_size", "decoder_num_attention_heads", "decoder_num_hidden_layers",
    "mask_ratio", "norm_pix_loss", "auxiliary_concat_input", "add_fpn", "pos_embed_shift", "pos_embed_jitter",
    "pos_embed_rescale",
})  # fmt: skip
#: Of generating text, which older versions wrote into the config of every model.
_OF_TEXT = frozenset({
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty",
    "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "pad_token_id", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
    "use_cache", "vocab_size",
})  # fmt: skip
#: Keys of which these values alone are implemented.
_ONLY: dict[str, tuple[object, ...]] = {
    "vision_use_head": (True, None),
    "use_mean_pooling": (False, None),
    "position_embedding_type": ("absolute", None),
    "quantization_config": (None,),
    "backbone": (None,),
    "backbone_config": (None,),
}
#: Keys that say what weights there are, under timm's names.
_CLAIMS: dict[str, Any] = {
    "qkv_bias": lambda weights: "blocks.0.attn.q.bias" in weights or "blocks.0.attn.qkv.bias" in weights,
    "num_register_tokens": lambda weights: weights["reg_token"].shape[-2] if "reg_token" in weights else 0,
    "use_swiglu_ffn": lambda weights: _is_gated(weights),
    "use_gated_mlp": lambda weights: "blocks.0.mlp.gate.weight" in weights,
    "query_bias": lambda weights: "blocks.0.attn.q.bias" in weights,
    "key_bias": lambda weights: "blocks.0.attn.k.bias" in weights,
    "value_bias": lambda weights: "blocks.0.attn.v.bias" in weights,
    "proj_bias": lambda weights: "blocks.0.attn.proj.bias" in weights,
    "mlp_bias": lambda weights: "blocks.0.mlp.fc2.bias" in weights,
    "use_absolute_position_embeddings": lambda weights: "pos_embed" in weights,
    "use_relative_position_bias": lambda weights: "blocks.0.attn.relative.table" in weights,
    "use_shared_relative_position_bias": lambda weights: "shared" in weights,
}
#: What transformers builds of these weights, and what is made of them here, is the same for these classes.
_ARCHITECTURES = re.compile(
    r"(TF|Flax)?((ViT|ViTMSN|DeiT|Dinov2|Dinov2WithRegisters|Siglip|Beit|Data2VecVision|IJepa)(Model|ForImageClassification)"
    r"|(CLIP|MetaClip2)ForImageClassification"
    r"|DINOv3ViTModel|ViTMAEModel|ViTMAEForPreTraining"
    r"|DeiTForImageClassificationWithTeacher"
    r"|(CLIP|MetaClip2|ChineseCLIP|AltCLIP|Siglip)(Model|VisionModel|VisionTransformer)"
    r"|(CLIP|MetaClip2)VisionModelWithProjection|VisionEncoderDecoderModel|VisionTextDualEncoderModel)"
)
KNOWN = _USED | _HARMLESS | _OF_TEXT | _ONLY.keys() | _CLAIMS.keys()


def check_keys(said: Mapping[str, Any], weights: Mapping[str, Tensor], source: str, uses: Collection[str] = ()) -> None:
    """Check what a transformers config says against what EdgeViT implements, and ``weights`` under timm's names.

    ``uses`` are keys that the weights' family implements whatever their value, where others do not.

    Raises:
        CheckpointError: if it has a key that is not known, or a value that is not implemented or not the weights'.
    """
    for name in said.get("architectures") or ():
        if not _ARCHITECTURES.fullmatch(str(name)):
            raise CheckpointError(
                f"config.json of {source} says that it is a {_short(name)}, which EdgeViT does not implement",
                remedy="export it to ONNX by its own library and give that file; if it answers as one of "
                "transformers' own classes does, name that in architectures in config.json",
            )
    vision = said.get("vision_config") or {}
    for key, value in [*said.items(), *vision.items()]:
        if key not in KNOWN or (key in _ONLY and key not in uses and value not in _ONLY[key]):
            raise CheckpointError(
                f"config.json of {source} says {key}={_short(value)}, which EdgeViT does not implement",
                remedy="use a model without it, or export it to ONNX by its own library and give that file; "
                f"if it is a note that changes nothing, take {key} out of config.json",
            )
        if key in _CLAIMS and value is not None and value != (found := _CLAIMS[key](weights)):
            raise CheckpointError(
                f"config.json contradicts the weights of {source}: {key} is {_short(value)}, the weights have {found}",
                remedy="put the config.json beside the weights that it was saved with",
            )


def _is_gated(weights: Mapping[str, Tensor]) -> bool:
    first, second = (weights.get(f"blocks.0.mlp.fc{number}.weight") for number in (1, 2))
    if first is None or second is None or second.ndim != 2:
        return False
    return bool(first.shape[0] == 2 * second.shape[1])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
