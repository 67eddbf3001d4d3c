"""What the options of ``edgevit train`` and a recipe's file give together; options override the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgevit.errors import InputError
from edgevit.stages.budgets import share_given
from edgevit.stages.recovery import SELF
from edgevit.training.recipe import USUAL_MODEL, TrainRecipe
from edgevit.training.recipe_file import RunSettings, read_recipe, task


class Chosen(NamedTuple):
    """What a run is to be: its settings and its recipe; ``warmup`` is as long as it would be if no option cut it."""

    settings: RunSettings
    recipe: TrainRecipe
    warmup: float


def run_chosen(options: dict[str, Any], path: Path | None) -> Chosen:
    """Return what ``options``, by the names of settings, and the file at ``path`` give; None is an option not given.

    Raises:
        InputError: if a value is out of range, or two contradict each other; the message names the culprit.
    """
    file, said = read_recipe(path) if path is not None else (RunSettings(), {})
    given = {name: value for name, value in options.items() if value is not None}
    settings, defaults = _task(file, said, given)
    of_recipe = _of_recipe(given)
    _check_options(defaults, of_recipe)
    try:
        recipe = _recipe(defaults, said, of_recipe)
    except InputError as error:
        culprits = [_called(name) for name in given if _right_without(name, file, said, given)]
        begin = f"{path} does not go with {' or '.join(culprits)}" if culprits else f"{path}"
        raise InputError(f"{begin}: {error.message}", remedy=error.remedy) from error
    return Chosen(settings, recipe, said.get("warmup_epochs", defaults.warmup_epochs))


def _task(file: RunSettings, said: dict[str, Any], given: dict[str, Any]) -> tuple[RunSettings, TrainRecipe]:
    """Return the settings, and what the recipe is where nothing is said."""
    settings = _with_options(file, {name: given[name] for name in given if name in RunSettings.__struct_fields__})
    _check_tokens(settings)
    return settings, task(settings.source, given.get("mode", said.get("mode")), recovery=settings.merges)


def _of_recipe(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in given if name in TrainRecipe.__struct_fields__}


def _right_without(option: str, file: RunSettings, said: dict[str, Any], given: dict[str, Any]) -> bool:
    """Return whether the file and the options go together without this one."""
    others = {name: value for name, value in given.items() if name != option}
    try:
        _recipe(_task(file, said, others)[1], said, _of_recipe(others))
    except InputError:
        return False
    return True


def _called(name: str) -> str:
    return "--from" if name == "source" else f"--{name.replace('_', '-')}"


def _with_options(settings: RunSettings, given: dict[str, Any]) -> RunSettings:
    """Return ``settings`` with the options that were given, which replace what a file says instead of them, too."""
    for one_of in ({"source", "model"}, {"token_budget", "token_schedule"}):
        if len(given.keys() & one_of) == 1:
            given = {**dict.fromkeys(one_of), **given}
    settings = msgspec.structs.replace(settings, **given)
    if settings.source is None and settings.model is None:
        return msgspec.structs.replace(settings, model=USUAL_MODEL)
    return settings


def _recipe(defaults: TrainRecipe, said: dict[str, Any], given: dict[str, Any]) -> TrainRecipe:
    """Return the recipe that a file and options give; options replace what the file says, before it is judged.

    A file may say both ``epochs`` and ``minutes``, as those do that train writes: the minutes end the run. A warm-up is
    no longer than a run that options shorten.
    """
    stops = "epochs" in given or given.get("minutes")  # 0 minutes leave the file's epochs
    said = {name: value for name, value in said.items() if not stops or name not in ("epochs", "minutes")}
    both = {**said, **given}
    if "epochs" in both:
        both = {"minutes": 0.0, **both}
    if stops or "warmup_epochs" not in said:
        longest = max(0, both.get("epochs", defaults.epochs))
        both["warmup_epochs"] = float(min(both.get("warmup_epochs", defaults.warmup_epochs), longest))
    return msgspec.structs.replace(defaults, **both)


def _check_options(defaults: TrainRecipe, given: dict[str, Any]) -> None:
    """See to it that the options are right and go together, whatever a file says."""
    if "epochs" in given and given.get("minutes"):
        raise InputError("--epochs and --minutes both say when to stop", remedy="leave out one of them")
    msgspec.structs.replace(defaults, **{**given, "warmup_epochs": 0.0})


def _check_tokens(settings: RunSettings) -> None:
    """See to it that what is said of fewer tokens goes together."""
    if not settings.merges:
        if settings.teacher == SELF:
            raise InputError(
                "a model learns nothing from itself as it is", remedy="give --token-budget 0.7, or another teacher"
            )
        return
    if settings.token_budget is not None and settings.token_schedule is not None:
        raise InputError(
            "token_budget and token_schedule both say how many tokens to merge", remedy="leave out one of them"
        )
    if settings.token_budget is not None:
        share_given(settings.token_budget)
    if settings.teacher not in (None, SELF):
        raise InputError(
            "a model that merges tokens learns from itself with all of them", remedy="give --teacher self, or none"
        )
    if settings.source is None:
        raise InputError(
            "there is no model whose tokens could be merged", remedy="name a checkpoint or a bundle with --from"
        )
