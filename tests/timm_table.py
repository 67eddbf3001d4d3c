"""The table of timm's ViTs, as timm itself builds them: what each passes to its VisionTransformer."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import edgevit.models

PATH = Path(edgevit.models.__file__).parent / "timm_architectures.json"
_CLASSES = {"architectures": ("VisionTransformer", "VisionTransformerDistilled"), "eva": ("Eva",), "beit": ("Beit",)}
#: What is the builder's, not the model's.
_LOADING = {"pretrained_filter_fn", "pretrained_strict", "feature_cfg"}


def table(timm: ModuleType) -> dict[str, Any]:
    """Return timm's version, its ViTs with their arguments, and which of them its old names stand for."""
    found: dict[str, dict[str, Any]] = {"architectures": {}, "eva": {}, "beit": {}}
    models = timm.models
    for module, kind in (
        (models.vision_transformer, "architectures"), (models.deit, "architectures"), (models.eva, "eva"),
        (models.beit, "beit"),
    ):  # fmt: skip
        for name in timm.list_models(module=module.__name__.split(".")[-1]):
            built, arguments = _built(module, timm.models.model_entrypoint(name))
            assert built in _CLASSES[kind], (name, built)
            found[kind][name] = dict(sorted(arguments.items()))
    entries = {name for kind in found.values() for name in kind}
    registry = importlib.import_module("timm.models._registry")
    old = {name: new.split(".")[0] for name, new in registry._deprecated_models.items()}
    old = {name: new for name, new in old.items() if new in entries and name not in entries}
    kinds = {kind: dict(sorted(each.items())) for kind, each in found.items()}
    return {"timm": timm.__version__, **kinds, "old_names": old}


def text(found: dict[str, Any]) -> str:
    """Return the table as it is stored: an architecture a line."""
    parts = [f'  "timm": {json.dumps(found["timm"])}']
    for kind in ("architectures", "eva", "beit", "old_names"):
        rows = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in found[kind].items()]
        parts.append(f'  "{kind}": {{\n' + ",\n".join(rows) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


class _BuiltError(Exception):
    """Ends an architecture's function where it would build the model."""


def _built(module: ModuleType, entry: Any) -> tuple[str, dict[str, Any]]:
    caught: dict[str, Any] = {}

    def build(kind: type, variant: str, pretrained: bool, **arguments: Any) -> None:
        caught.update(kind=kind.__name__, arguments=arguments)
        raise _BuiltError

    original = module.build_model_with_cfg
    module.build_model_with_cfg = build
    try:
        entry()
    except _BuiltError:
        pass
    finally:
        module.build_model_with_cfg = original
    said: dict[str, Any] = {}
    for key, value in caught["arguments"].items():
        if key not in _LOADING:
            said |= _plain(key, value)
    return caught["kind"], said


def _plain(key: str, value: Any) -> dict[str, Any]:
    """Return ``value`` as JSON has it: a layer by its name in small letters, an epsilon apart."""
    if isinstance(value, functools.partial):
        options = dict(value.keywords)
        said = {key: value.func.__name__.lower()}
        if key == "mlp_layer":
            assert set(options) == {"act_layer", "gate_last"}, options
            half = "last" if options["gate_last"] else "first"
            said = {key: f"glumlp-{options['act_layer'].__name__.lower()}-{half}"}
        elif "eps" in options:
            said["norm_eps" if key == "norm_layer" else f"{key}_eps"] = options.pop("eps")
            assert not options, (key, options)
        return said
    if isinstance(value, type) or callable(value):
        return {key: value.__name__.lower()}
    return {key: value}
