"""The way for models that do not load from weights: as their own library builds them, or by an ONNX file."""

from __future__ import annotations

from pathlib import Path

from edgevit.errors import CheckpointError
from edgevit.models.config import Config, read_configs
from edgevit.models.timm_args import AS_A_MODULE, AS_TIMM_BUILDS, name_of, table

#: What to type for a model of any library.
BY_ONNX = "torch.onnx.export(model, (images,), 'model.onnx', dynamo=True), then 'edgevit export model.onnx -o NAME'"
ANY_MODEL = f"in Python, where its own library has built it, {AS_A_MODULE}; or by ONNX, {BY_ONNX}"


def named_elsewhere(error: CheckpointError, path: Path, source: str) -> CheckpointError | None:
    """Return what to raise for ``error``, on tensors of no known family at ``path``: it says what they are of.

    None where no config beside them does.
    """
    folder = path if path.is_dir() else path.parent
    try:
        config = read_configs(folder).config
    except CheckpointError:
        return None
    found = _of_timm(config) or _of_transformers(config, source)
    if found is None:
        return None
    what, way = found
    return CheckpointError(
        f"{source} is {what}, which does not load from weights alone ({error.message})",
        remedy=f"export it as its library builds it, in Python: {way}; or by ONNX: {BY_ONNX}",
    )


def _of_timm(config: Config) -> tuple[str, str] | None:
    name = name_of(config.architecture)
    if not name or any(name in kind for kind in (table().architectures, table().eva, table().beit)):
        return None
    return f"timm's {name}", AS_TIMM_BUILDS.format(name=name)


def _of_transformers(config: Config, source: str) -> tuple[str, str] | None:
    if config.model_type is None or not config.architectures:
        return None
    kind = config.architectures[0]
    if not kind.isidentifier():
        return None
    place = source.removeprefix("hf://").partition("@")[0]
    model = f"transformers.{kind}.from_pretrained('{place}').eval()"
    return f"transformers' {kind}", AS_A_MODULE.replace("model,", f"{model},", 1)
