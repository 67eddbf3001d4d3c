"""The families of checkpoints that load: one adapter each, recognised by the names of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.errors import CheckpointError
from edgevit.models.elsewhere import ANY_MODEL
from edgevit.models.families import (
    beit,
    dinov2,
    hugging_face_clip,
    hugging_face_dinov3,
    hugging_face_vit,
    jax,
    open_clip,
    timm,
    timm_eva,
    torchvision,
    vit_pytorch,
)
from edgevit.models.families.base import Family

#: Those that open_clip_config.json describes.
OPEN_CLIP = (open_clip.FAMILY, open_clip.TIMM_TOWER)

#: Those with more marks stand before those that share some of them.
FAMILIES: tuple[Family, ...] = (
    beit.TIMM,
    beit.HUGGING_FACE,
    timm_eva.DINOV3,
    timm_eva.EVA,
    dinov2.FAMILY,
    timm.FAMILY,
    timm_eva.ROTARY,
    hugging_face_vit.DEIT,
    hugging_face_vit.VIT,
    hugging_face_vit.DINOV2,
    hugging_face_dinov3.FAMILY,
    hugging_face_clip.CLIP,
    hugging_face_clip.SIGLIP,
    *OPEN_CLIP,
    torchvision.FAMILY,
    vit_pytorch.FAMILY,
    jax.FAMILY,
)


class UnknownFamilyError(CheckpointError):
    """Tensors are of no family that loads from weights."""


def identify(names: Sequence[str], source: str) -> Family:
    """Return the family whose checkpoints name their tensors so.

    Raises:
        UnknownFamilyError: if there is none; the message shows the first names, the remedy the closest family, and
            the way for any other.
    """
    scores = [(family.recognises(names), family) for family in FAMILIES]
    for score, family in scores:
        if score == 1:
            return family
    raise UnknownFamilyError(
        f"{source} is of no known family; its first tensors are {', '.join(names[:5]) or 'none'}",
        remedy=f"{_hint(names, scores)}. Weights of these load: {', '.join(family.name for family in FAMILIES)}. "
        f"Any other model goes {ANY_MODEL}",
    )


def _hint(names: Sequence[str], scores: Sequence[tuple[float, Family]]) -> str:
    for prefix in dict.fromkeys(name[: name.find(".") + 1] for name in names if "." in name):
        inner = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        for family in FAMILIES:
            if family.recognises(inner) == 1:
                return f"the tensors under '{prefix}' are a {family.name}'s: save that part's state_dict() alone"
    best, closest = max(scores, key=lambda entry: entry[0])
    return f"the closest is {closest.name}; is the checkpoint whole?" if best else "it does not look like a ViT"
