"""What an application embeds: numpy, Pillow and one backend.

.. code-block:: python

    from edgevit.runtime import load

    with load("shirts.edgevit") as model:
        for prediction in model.predict("photo.jpg"):
            print(prediction.label, prediction.probability)
"""

from typing import TYPE_CHECKING, Any

from edgevit.runtime.info import RuntimeInfo
from edgevit.runtime.loading import LoadWarning, load
from edgevit.runtime.model import Model
from edgevit.runtime.prediction import Prediction
from edgevit.runtime.streaming import Streamed
from edgevit.runtime.verification import Check

if TYPE_CHECKING:
    from edgevit.runtime.asynchronous import AsyncModel

__all__ = ["AsyncModel", "Check", "LoadWarning", "Model", "Prediction", "RuntimeInfo", "Streamed", "load"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - asyncio is imported by those who use it
    if name != "AsyncModel":
        raise AttributeError(f"module 'edgevit.runtime' has no attribute '{name}'")
    from edgevit.runtime.asynchronous import AsyncModel

    return AsyncModel
