"""The golden check: the same weights in the library that they come from, run on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import InputError, VerificationError
from edgevit.graph.external_onnx import OnnxModel
from edgevit.graph.probabilities import logarithms
from edgevit.graph.running import measure_of
from edgevit.likeness import nearest
from edgevit.models.outputs import parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.outputs import Output
    from edgevit.models.spec import OutputActivation

LIBRARIES = ("timm", "transformers")
_MISREAD = "do not use this export: EdgeViT reads the checkpoint wrongly, or config.json is another model's"
#: In what ``measure_of`` returns of the logits: the checks against torch come to a tenth of it.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Peer:
    """A model of another library, from images (B, C, H, W) to logits or features (B, N).

    ``note`` says so where the library could not read the file by itself; ``remedy`` what to do if it answers otherwise.
    Where there is an ``activation``, the peer gives the probabilities that it makes of logits; where there are
    ``outputs``, a row of all of them.
    """

    library: str
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    note: str | None = None
    remedy: str = _MISREAD
    activation: OutputActivation | None = None
    outputs: tuple[Output, ...] = ()


def peer_called(name: str, source: str, model: Checkpoint | OnnxModel, *, raw_weights: bool) -> Peer:
    """Return the model of ``source`` as the library ``name`` has it; ``timm:ARCHITECTURE`` says which of timm's.

    Raises:
        InputError: if there is no such library, ``source`` is an ONNX file, or its text tower has become a classifier.
        CheckpointError: if the library has no such model.
        MissingDependencyError: if the library is not installed, or does not load.
    """
    library, _, architecture = name.partition(":")
    if library not in LIBRARIES:
        raise InputError(f"--check-with knows no library '{library}'", remedy=nearest(library, LIBRARIES))
    if isinstance(model, OnnxModel):
        raise InputError(
            f"--check-with goes with checkpoints, and {source} is an ONNX file",
            remedy="leave it out: the bundle is compared with the file itself",
        )
    if model.spec.classes and model.spec.l2_normalize:
        raise InputError(
            f"--check-with compares what {source} gives by itself, and labels made a classifier of its text tower",
            remedy="leave --check-with out, or export the image tower without --labels to compare that",
        )
    from edgevit.models.peers import timm_model, transformers_model

    if library == "timm":
        return Peer("timm", *timm_model(source, model, architecture or None, raw_weights=raw_weights))
    return Peer("transformers", *transformers_model(source, model, raw_weights=raw_weights))


def check_equal(peer: Peer, images: NDArray[np.float32], found: NDArray[np.float32]) -> None:
    """Check that ``peer`` answers as was ``found``.

    Raises:
        VerificationError: if it does not.
    """
    expected = peer.infer(images)
    if expected.shape != found.shape:
        raise VerificationError(
            f"{peer.library}'s model gives {expected.shape[1:]} values for an image, EdgeViT's {found.shape[1:]}",
            remedy=peer.remedy,
        )
    if peer.activation is not None:
        found, expected = logarithms(found, expected, peer.activation)
    pairs = [("they", found, expected)]
    if peer.outputs:  # each has a measure of its own
        given = zip(parts(peer.outputs, found), parts(peer.outputs, expected), strict=True)
        pairs = [(output.name, one, other) for (output, one), (_, other) in given]
    for name, one, other in pairs:
        difference, allowed = float(np.abs(other - one).max()), TOLERANCE * measure_of(other)
        if not difference <= allowed:
            raise VerificationError(
                f"the model does not answer as {peer.library}'s on {len(images)} images: "
                f"{name} differ by up to {difference:.3g}, and {allowed:.3g} is allowed",
                remedy=peer.remedy,
            )
