"""What a ``torch.nn.Module`` of any kind gives, as tensors by their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.errors import GraphError
from edgevit.graph.metadata import INPUT, OUTPUT
from edgevit.graph.onnx_file import shown

_WRAP = "wrap it in a module whose forward() returns the tensors that are meant"


class ModuleOutputs(nn.Module):
    """Runs ``module``, called ``name``, and gives of its outputs the tensors that are meant.

    Those are the ones in ``wanted``; without it, ``logits`` alone, if they are (B, classes), or else all. What is None
    is left out. ``names`` are what they were called at the last run.
    """

    def __init__(self, module: nn.Module, name: str, wanted: Collection[str] = ()) -> None:
        super().__init__()
        self.module = module
        self.names: tuple[str, ...] = ()
        self._called, self._wanted = name, frozenset(wanted)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return them for ``images`` (B, C, H, W).

        Raises:
            GraphError: if there are none, one is no dense tensor of real numbers, names do not tell them apart, or
                one in ``wanted`` is not there.
        """
        named = self._chosen(self._named(self.module(images.clone())))  # a module may normalise images in place
        for name, value in named.items():
            if not isinstance(value, Tensor):
                raise GraphError(f"{self._called} gives a {type(value).__name__}, not a tensor", remedy=_WRAP)
            if value.layout != torch.strided or value.is_complex():
                kind = "complex" if value.is_complex() else "sparse"
                raise GraphError(f"the output '{shown(name)}' of {self._called} is {kind}", remedy=_WRAP)
        self.names = tuple(named)
        return tuple(named.values())

    def _chosen(self, named: dict[str, Any]) -> dict[str, Any]:
        if not named:
            raise GraphError(f"{self._called} gives no tensors", remedy=_WRAP)
        for name in ("", INPUT):
            if name in named:
                raise GraphError(
                    f"{self._called} calls an output '{name}', which cannot be the name of one",
                    remedy=f"give it another name; '{INPUT}' is that of the input",
                )
        for name in self._wanted - named.keys():
            raise GraphError(
                f"{self._called} has no output '{shown(name)}'",
                remedy=f"give --onnx-output one of: {', '.join(map(shown, named))}",
            )
        if self._wanted:
            return {name: value for name, value in named.items() if name in self._wanted}
        logits = named.get("logits")
        return {"logits": logits} if isinstance(logits, Tensor) and logits.ndim == 2 else named

    def _named(self, given: Any) -> dict[str, Any]:  # noqa: ANN401 - what a module gives
        if isinstance(given, Mapping):  # transformers' outputs are such, too
            kept = [(str(key), value) for key, value in given.items() if value is not None]
            named = dict(kept)
            if len(named) < len(kept):
                raise GraphError(
                    f"{self._called} gives two outputs under one name, of {', '.join(shown(key) for key, _ in kept)}",
                    remedy="give each a name of its own: keys are compared as text",
                )
            return named
        if hasattr(given, "_asdict"):
            return {key: value for key, value in given._asdict().items() if value is not None}
        alone = given
        if isinstance(given, (tuple, list)):
            numbered = {f"output_{number}": each for number, each in enumerate(given) if each is not None}
            if len(numbered) != 1:
                return numbered
            (alone,) = numbered.values()
        return {OUTPUT if getattr(alone, "ndim", 0) == 2 else "output": alone}
