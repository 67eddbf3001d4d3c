"""Registers the toys in every Python that finds this folder, as `edgevit benchmark`'s workers do: a line for each."""

from edgevit.backends import BACKENDS
from edgevit.quantization.emit import DIALECTS

BACKENDS["toy"] = "toy_engine:Toy"
DIALECTS["toy"] = "toy_dialect"
