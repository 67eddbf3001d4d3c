"""How INT8 and FP8 are to be made of a model: what a recipe says of it, and for which targets."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.bundle.manifest import Precision
from edgevit.models.outputs import Output
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.emit import scheme_of
from edgevit.recipes import NO_FALLBACK, NO_REWRITES, FallbackLimits, ObserverChoice, Recipe, Rewrites
from edgevit.stages.fallback import NO_CRITERIA, AccuracyCriteria
from edgevit.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How INT8 and FP8 are made: how ranges are read off, for which ``targets``, and what INT8 may cost.

    ``observer``, ``rewrites`` and ``fallback`` are as in ``Recipe``; the last counts where ``criteria`` have no limit.
    """

    targets: tuple[Target, ...] = ()
    observer: ObserverChoice = "minmax"
    rewrites: Rewrites = NO_REWRITES
    criteria: AccuracyCriteria = NO_CRITERIA
    fallback: FallbackLimits = NO_FALLBACK

    @classmethod
    def of(cls, recipe: Recipe, precision: Precision, *, classes: int, typed: tuple[Output, ...] = ()) -> Rules:
        """Return what ``recipe`` says for a model of ``classes``, 0 if it gives no row of logits, or ``typed`` outputs.

        Limits are INT8's alone.
        """
        if precision != "int8":
            return cls(observer=recipe.observer, rewrites=recipe.rewrites)
        return cls(
            observer=recipe.observer,
            rewrites=recipe.rewrites,
            criteria=AccuracyCriteria.of(recipe, classes=classes, typed=typed),
            fallback=recipe.fallback,
        )

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The ways to store activations that the targets need."""
        return tuple(dict.fromkeys(scheme_of(target.dialect) for target in self.targets))

    def targets_of(self, scheme: Scheme) -> list[Target]:
        """Return the targets that store activations so."""
        return [target for target in self.targets if scheme_of(target.dialect) == scheme]
