"""What ablations.py does otherwise, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import msgspec
import numpy as np

from edgevit.quantization.calibration import observers
from edgevit.quantization.emit import openvino, prune_residuals
from edgevit.quantization.planning import smoothing
from edgevit.quantization.rewrites import passes
from edgevit.quantization.rewrites import per_token_scale as tokens
from edgevit.quantization.rounding import gptq as rounding
from edgevit.quantization.weight_only import packed
from edgevit.recipes import Recipe


class Change(NamedTuple):
    """One thing that is done otherwise: a constant in every module that has it, or a setting of the recipe.

    ``shown`` is how the table calls the value. ``observer`` takes the place of the recipe's; one that clips goes
    without rewrites that change ranges. Without ``dialects`` the change says something of all.
    """

    name: str
    value: object
    modules: tuple[ModuleType, ...] = ()
    observer: str | None = None
    shown: str | None = None
    precision: str = "int8"
    dialects: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self == BASE:
            return self.name
        value = str(self.value) if self.shown is None else self.shown
        return f"`{self.name}` {value}" + (f" with `{self.observer}`" if self.observer and self.modules else "")


BASE = Change("as it is", "")
AVERAGE = "average-minmax"
UNSIGNED, SIGNED = ("onnxruntime", "openvino"), ("portable", "tensorrt", "tensorrt-legacy")
CHANGES = (
    *(Change("HEADROOM", value, (smoothing, passes)) for value in (1.0, 1.2)),
    *(Change("DEVIATIONS", value, (smoothing,)) for value in (0.0, 3.0, 5.0)),
    *(Change("TOKEN_WEIGHT", value, (rounding,)) for value in (1, 30)),
    *(Change("DAMPING", value, (rounding,)) for value in (0.001, 0.1)),
    *(Change("LEAST", value, (tokens,), dialects=UNSIGNED) for value in (0.01, 0.5, 1.5)),
    *(Change("WORTH_SHIFTING", value, (passes,), dialects=SIGNED) for value in (0.0, 0.5, 1.0)),
    *(Change("GROUP", value, (observers,), AVERAGE) for value in (1, 4, 8)),
    Change("per_token_scale", value=False, dialects=UNSIGNED),
    *(Change("channel_equalization", value, dialects=SIGNED) for value in (0.0, 0.05, 0.25, 0.5)),
    *(Change("residual_layers", value) for value in (0.0, 0.16)),
    *(Change("residual_token_layers", value) for value in (0.0, 0.25, 1.0)),
    Change("KEPT", (0.0, 0.0), (prune_residuals,), shown="none", dialects=("tensorrt",)),
    Change("KEPT", (0.0, 1 / 3), (prune_residuals,), shown="the first third", dialects=("tensorrt",)),
    Change("KEPT", (2 / 3, 1.0), (prune_residuals,), shown="the last third", dialects=("tensorrt",)),
    Change("KEPT", (0.0, 1.0), (prune_residuals,), shown="all", dialects=("tensorrt",)),
    Change("INTEGER_PRODUCTS", (), (openvino,), shown="none in integers", dialects=("openvino",)),
    Change("INTEGER_PRODUCTS", ("scores", "mixed"), (openvino,), shown="both in integers", dialects=("openvino",)),
    *(Change("alpha", value) for value in ("off", 0.5)),
    *(Change("observer", value, observer=value) for value in ("moving-average", "percentile", "entropy", "mse")),
    *(
        Change("SHRINKS", shrinks, (packed,), shown=shown, precision="int4-weights")
        for shrinks, shown in (
            (np.linspace(1.0, 1.0, 1, dtype=np.float32), "1, the whole range"),
            (np.linspace(1.0, 0.7, 4, dtype=np.float32), "to 0.7 in steps of 0.1"),
            (np.linspace(1.0, 0.5, 11, dtype=np.float32), "to 0.5 in steps of 0.05"),
        )
    ),
)


def chosen(precision: str, dialect: str, names: Sequence[str]) -> list[Change]:
    """Return the changes that say something of ``dialect`` in ``precision``.

    Of ``names`` alone, if there are any: a constant's or setting's, or one with its value, as in "TOKEN_WEIGHT 1".
    """
    wanted = set(names)
    own = [each for each in CHANGES if each.precision == precision and dialect in (each.dialects or (dialect,))]
    return [BASE, *(each for each in own if not wanted or wanted & {each.name, f"{each.name} {each.value}"})]


@contextmanager
def changed(change: Change, recipe: Recipe) -> Iterator[Recipe]:
    """Have ``change`` in force, and yield the recipe that goes with it."""
    settings = msgspec.to_builtins(recipe) | {"fallback": {}}  # what a change costs is to be seen
    if change.observer is not None:
        settings |= {"observer": change.observer, "rewrites": {}}
    elif change != BASE and not change.modules:
        settings["rewrites"] |= {change.name: change.value}
    with ExitStack() as stack:
        for module in change.modules:
            stack.enter_context(mock.patch.object(module, change.name, change.value))
        yield msgspec.convert(settings, Recipe)
