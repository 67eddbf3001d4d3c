"""What ``edgevit.export`` takes."""

from __future__ import annotations

import os
from typing import Any, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class TorchModule(Protocol):
    """A ``torch.nn.Module``, as far as can be said of one without torch, which devices lack."""

    training: bool

    def eval(self) -> Any:  # noqa: ANN401
        """Return the module in evaluation mode."""
        ...

    def state_dict(self) -> Any:  # noqa: ANN401
        """Return all weights by their names."""
        ...


Source: TypeAlias = str | os.PathLike[str] | TorchModule
"""A checkpoint or an ONNX file by its path or name, or a module."""
