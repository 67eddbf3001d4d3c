"""Which converter makes which format."""

from __future__ import annotations

from edgevit.mobile import MobileFormat
from edgevit.mobile.converter import Converter
from edgevit.mobile.coreml import CoreML
from edgevit.mobile.executorch import ExecuTorch
from edgevit.mobile.litert import LiteRT
from edgevit.mobile.ncnn import Ncnn

CONVERTERS: dict[MobileFormat, type[Converter]] = {each.name: each for each in (CoreML, ExecuTorch, LiteRT, Ncnn)}
