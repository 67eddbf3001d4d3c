"""Reference implementations that tests compare against, imported on what the tests have installed."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

#: What timm imports from torchvision when it is loaded, for data loading and BatchNorm, neither of which a ViT has.
_TORCHVISION = {
    "torchvision": (),
    "torchvision.ops": (),
    "torchvision.ops.misc": ("FrozenBatchNorm2d",),
    "torchvision.transforms": ("ToTensor",),
    "torchvision.transforms.functional": (),
    "torchvision.datasets": ("CIFAR10", "CIFAR100", "MNIST", "KMNIST", "FashionMNIST", "ImageFolder"),
}


class InterpolationMode(enum.Enum):
    """Stands in for torchvision's, whose members timm lists in a table."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def _stand_ins() -> dict[str, ModuleType]:
    modules = {name: ModuleType(name) for name in _TORCHVISION}
    for name, classes in _TORCHVISION.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, modules[name])
        for each in classes:
            setattr(modules[name], each, type(each, (), {}))
    modules["torchvision.transforms.functional"].InterpolationMode = InterpolationMode
    modules["torchvision.transforms"].InterpolationMode = InterpolationMode
    return modules


def import_timm() -> ModuleType:
    """Import timm, with empty stand-ins for torchvision for as long as that takes.

    They are taken away again, so that no other library takes them for the real thing.
    """
    if "timm" not in sys.modules:
        with mock.patch.dict(sys.modules, _stand_ins()):
            importlib.import_module("timm")
            loaded = {name: module for name, module in sys.modules.items() if not name.startswith("torchvision")}
        sys.modules.update(loaded)
    return sys.modules["timm"]


def import_vit_pytorch() -> ModuleType:
    """Import the one module of vit-pytorch with its ViT; the package as a whole asks for torchvision."""
    package = importlib.util.find_spec("vit_pytorch")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "vit-pytorch is not installed: pip install --no-deps -r tests/requirements-nodeps.txt"
        )
    spec = importlib.util.spec_from_file_location("vit_pytorch_vit", Path(package.origin).with_name("vit.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
