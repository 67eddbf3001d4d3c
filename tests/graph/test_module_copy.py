"""Copies of modules whose functions refer to them; a module that was changed by its copy is the failure."""

import sys
import threading
import weakref
from functools import partial
from types import MethodType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgevit.errors import GraphError
from edgevit.graph.module_copy import Untouched, copied

IMAGES = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Features that are kept by a hook, in one of several ways, and a head on them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        self.head = nn.Linear(16, 5)
        self.kept = {}
        self.list = []

    def forward(self, images):
        self.body(images)
        return self.head(self.kept["x"])


def by_closure(module):
    module.body.register_forward_hook(lambda _module, _given, found: module.kept.__setitem__("x", found))


def by_the_dictionary(module):
    kept = module.kept
    module.body.register_forward_hook(lambda _module, _given, found: kept.__setitem__("x", found))


def by_a_default(module):
    def keep(_module, _given, found, *, to=module.kept):
        to["x"] = found

    module.body.register_forward_hook(keep)


def by_partial(module):
    module.body.register_forward_hook(partial(lambda own, _module, _given, found: own.kept.update(x=found), module))


def by_another_function(module):
    def keep(found):
        module.kept["x"] = found

    module.body.register_forward_hook(lambda _module, _given, found: keep(found))


def by_a_method_of_a_list(module):
    module.body[2].register_forward_pre_hook(lambda _module, given: module.body[1](given[0]))
    module.add = module.list.append
    module.body.register_forward_hook(lambda _module, _given, found: module.add(found))
    module.forward = lambda images: (module.body(images), module.head(module.list[-1]))[1]


def by_a_bound_function(module):
    inner = module.body.forward

    def forward(self, images):
        self.kept["x"] = inner(images)
        return self.head(module.kept["x"])

    module.forward = MethodType(forward, module)


def by_a_weak_reference(module):
    parent = weakref.ref(module)
    module.body.parent = parent
    module.body.register_forward_hook(lambda own, _given, found: own.parent().kept.__setitem__("x", found))


def by_a_variable_of_both(module):
    kept = None

    def keep(_module, _given, found):
        nonlocal kept
        kept = found

    def forward(images):
        module.body(images)
        return module.head(kept)

    module.body.register_forward_hook(keep)
    module.forward = forward


def by_a_global_name(module):
    global model
    model = module
    module.body.register_forward_hook(keep_in_model)


def keep_in_model(_module, _given, found):
    keep_it(found)


def keep_it(found):
    model.kept["x"] = found


def by_a_global_forward(module):
    global original
    original = module.body.forward
    module.body.forward = lambda images: original(images) * 2
    by_closure(module)


WAYS = [
    *(by_closure, by_the_dictionary, by_a_default, by_partial, by_another_function, by_a_method_of_a_list),
    *(by_a_bound_function, by_a_weak_reference, by_a_variable_of_both, by_a_global_name, by_a_global_forward),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("times", [1, 2])
def test_functions_of_a_copy_refer_to_the_copy(way, times):
    module = Net()
    way(module)
    with torch.no_grad():
        module(torch.zeros_like(IMAGES))  # what it has kept is another's
    before = {key: value.clone() for key, value in module.state_dict().items()}
    kept, listed = dict(module.kept), list(module.list)
    copy = module
    for _ in range(times):
        copy = copied(copy)
    copy.eval()
    with torch.no_grad():
        nn.init.ones_(copy.head.bias)  # it has weights of its own
        found = copy(IMAGES)
        assert module.training
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[key])
        assert module.kept.keys() == kept.keys()
        assert all(module.kept[key] is kept[key] for key in kept)
        assert len(module.list) == len(listed)
        module.eval()
        expected = module(IMAGES) - module.head.bias + 1
    torch.testing.assert_close(found, expected)


def test_functions_that_know_nothing_of_the_module_stay_themselves():
    module = Net()
    module.act, module.pool = functional.relu, keep_nothing
    copy = copied(module)
    assert copy.act is functional.relu
    assert copy.pool is keep_nothing


def keep_nothing(found):
    return found


def test_what_a_function_alone_holds_is_copied_if_it_can_be():
    module, seen, lock = Net(), [], threading.Lock()
    by_closure(module)

    def count(_module, _given, found):
        with lock:
            seen.append(found)

    module.body.register_forward_hook(count)
    copied(module)(IMAGES)
    assert not seen
    module(IMAGES)
    assert len(seen) == 1


def test_what_cannot_be_copied_and_leads_to_the_module():
    module = Net()
    trainer = SimpleNamespace(lock=threading.Lock(), module=module)
    module.body.register_forward_hook(lambda _module, _given, found: trainer.module.kept.update(x=found))
    with pytest.raises(TypeError, match="lock"):
        copied(module)


def test_what_a_class_makes_again_need_not_be_copied():
    class Makes(Net):
        def __init__(self):
            super().__init__()
            self.__setstate__(vars(self))

        def __getstate__(self):
            return {key: value for key, value in vars(self).items() if key != "keep"}

        def __setstate__(self, state):
            self.__dict__.update(state)
            lock = threading.Lock()
            self.keep = lambda found: self.kept.update(x=found) if lock else None

        def forward(self, images):
            self.keep(self.body(images))
            return self.head(self.kept["x"])

    module = Makes()
    copied(module)(IMAGES)
    assert not module.kept


def test_tensors_that_autograd_knows_the_origin_of():
    module = Net()
    scale = nn.Parameter(torch.ones(5))
    module.register_buffer("scale", scale * 2)
    module.kept["scale"], module.list[:] = scale * 3, [scale * 4]
    copy = copied(module)
    for value, times in ((copy.scale, 2), (copy.kept["scale"], 3), (copy.list[0], 4)):
        assert torch.equal(value, torch.full((5,), float(times)))
        assert value.is_leaf


def test_a_function_that_sets_a_global_variable_and_uses_the_module_by_one(monkeypatch):
    module = Net()
    this = sys.modules[__name__]
    monkeypatch.setattr(this, "model", module, raising=False)

    def keep(_module, _given, found):
        global last
        last = found
        model.kept["x"] = last

    module.body.register_forward_hook(keep)
    with pytest.raises(GraphError, match=r"global name model and sets the global variable last") as caught:
        copied(module)
    assert "dictionary" in caught.value.remedy


def test_tensors_that_are_not_to_be_used():
    module = Net()
    copy = copied(module)
    by_closure(copy)
    with Untouched(module.parameters(), "Net"):
        copy(IMAGES)
    copy.body = module.body
    message = "Net reaches itself in other ways than by self"
    with pytest.raises(GraphError, match=message) as caught, Untouched(module.parameters(), "Net"):
        copy(IMAGES)
    assert "module.eval()" in caught.value.remedy
