"""Checkpoints from the Hugging Face Hub, through huggingface-hub: its cache, its token, HF_HUB_OFFLINE, HF_ENDPOINT."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

from edgevit.dependencies import require
from edgevit.errors import CheckpointError, MissingDataError
from edgevit.files import expanded
from edgevit.models.model_card import CARD

SCHEME = "hf://"

_CONFIGS = ["config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json", CARD]
#: In the order in which they are wanted: a repository often has the same weights in several formats.
_FORMATS = (
    ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", "open_clip_model.safetensors"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin", "open_clip_pytorch_model.bin"],
    ["*.npz", "*.pth"],
)


def fetch(source: str, *also: str) -> Path:
    """Return the folder with the config and weights of ``hf://owner/name`` or ``hf://owner/name@revision``.

    ``also`` are patterns of other files that are wanted, where they are there.

    Raises:
        CheckpointError: if the address is malformed, the repository has no weights, or it may not be read.
        MissingDataError: if the Hub cannot be reached and the files are not in its cache.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
    if match is None:
        raise CheckpointError(f"{source} is no address on the Hub", remedy="write hf://owner/name, as the Hub shows it")
    for names in _FORMATS:
        folder = _snapshot(match[1], match[2], [*_CONFIGS, *also, *names], source)
        if any(path.suffix != ".json" and path.name != CARD for path in folder.iterdir()):
            return folder
    raise CheckpointError(
        f"{source} has no weights that EdgeViT reads", remedy="use a repository with model.safetensors"
    )


def _snapshot(repository: str, revision: str | None, patterns: list[str], source: str) -> Path:
    hub = require("huggingface_hub", extra="train")
    errors = importlib.import_module("huggingface_hub.errors")
    expanded(
        importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE
    )  # the library's own error where there is no home says nothing of it
    offline = "connect and try again (what was downloaded is kept), or unset HF_HUB_OFFLINE if that is set"
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except errors.HFValidationError as error:
        raise CheckpointError(f"{source} is no address on the Hub: {error}", remedy="write hf://owner/name") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{source} is gated: its owner asks for your consent first",
            remedy=f"accept the terms on the Hub's page of {repository}, then run 'hf auth login'",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{source} has no such revision", remedy="leave '@revision' out, or correct it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the Hub has no {repository} that you may read",
            remedy="check the spelling of owner/name; if it is private, run 'hf auth login' or set HF_TOKEN",
        ) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no answer"
        if code in (401, 403):
            raise CheckpointError(
                f"the Hub refuses {source} ({code})", remedy="run 'hf auth login', or set HF_TOKEN to a valid token"
            ) from error
        raise MissingDataError(f"the Hub could not give {source} ({code})", remedy="try again later") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, *_transport_errors()) as error:
        raise MissingDataError(
            f"{source} is not in the cache, and the Hub cannot be reached: {str(error).splitlines()[0]}", remedy=offline
        ) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return what the Hub's library lets through when a connection breaks, whichever HTTP client it has."""
    clients = [importlib.import_module(name) for name in ("httpx2", "httpx") if find_spec(name)]
    return (ConnectionError, *(client.TransportError for client in clients))
