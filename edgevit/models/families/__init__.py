"""The families of checkpoints that load: one adapter each, recognised by the names of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.errors import CheckpointError
from edgevit.models.families import (
    dinov2,
    hugging_face_clip,
    hugging_face_vit,
    jax,
    open_clip,
    timm,
    torchvision,
    vit_pytorch,
)
from edgevit.models.families.base import Family

#: Those with more marks stand before those that share some of them.
FAMILIES: tuple[Family, ...] = (
    dinov2.FAMILY,
    timm.FAMILY,
    hugging_face_vit.DEIT,
    hugging_face_vit.VIT,
    hugging_face_vit.DINOV2,
    hugging_face_clip.CLIP,
    hugging_face_clip.SIGLIP,
    open_clip.FAMILY,
    torchvision.FAMILY,
    vit_pytorch.FAMILY,
    jax.FAMILY,
)


def identify(names: Sequence[str], source: str) -> Family:
    """Return the family whose checkpoints name their tensors so.

    Raises:
        CheckpointError: if there is none; the message shows the first names, the remedy the closest family.
    """
    scores = [(family.recognises(names), family) for family in FAMILIES]
    for score, family in scores:
        if score == 1:
            return family
    best, closest = max(scores, key=lambda entry: entry[0])
    hint = f"the closest is {closest.name}; is the checkpoint whole?" if best else "it does not look like a ViT"
    raise CheckpointError(
        f"{source} is of no known family; its first tensors are {', '.join(names[:5]) or 'none'}",
        remedy=f"{hint}. EdgeViT knows: {', '.join(family.name for family in FAMILIES)}",
    )
