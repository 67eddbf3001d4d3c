"""What an application embeds: numpy, Pillow and one backend.

.. code-block:: python

    from edgevit.runtime import load

    with load("shirts.edgevit") as model:
        for prediction in model.predict("photo.jpg"):
            print(prediction.label, prediction.probability)
"""

from edgevit.runtime.loading import LoadWarning, load
from edgevit.runtime.model import Model
from edgevit.runtime.prediction import Prediction
from edgevit.runtime.verification import Check

__all__ = ["Check", "LoadWarning", "Model", "Prediction", "load"]
