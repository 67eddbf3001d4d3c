import torch
from train_tasks import make_model

from edgevit.training import optimizer
from edgevit.training.heads import freeze_backbone
from edgevit.training.recipe import TrainRecipe


def settings(model, recipe):
    """Return what the optimizer does with each parameter: its scale and its decay."""
    built = optimizer.make_optimizer(model, recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["scale"], group["weight_decay"])
        for group in built.param_groups
        for parameter in group["params"]
    }


def test_each_layer_learns_slower_than_the_one_above():
    found = settings(make_model(), TrainRecipe(layer_decay=0.5, weight_decay=0.1))
    assert found["head.weight"] == (1, 0.1)
    assert found["norm.weight"] == (1, 0)
    assert found["blocks.1.attn.qkv.weight"] == (0.5, 0.1)
    assert found["blocks.0.mlp.fc2.bias"] == (0.25, 0)
    assert found["patch_embed.proj.weight"] == (0.125, 0.1)
    assert found["cls_token"] == found["pos_embed"] == (0.125, 0)


def test_without_layer_decay_all_learn_alike_and_all_learn():
    model = make_model()
    found = settings(model, TrainRecipe())
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert {scale for scale, _ in found.values()} == {1}


def test_a_frozen_backbone_is_left_alone():
    model = make_model()
    freeze_backbone(model)
    assert set(settings(model, TrainRecipe())) == {"head.weight", "head.bias"}


def test_a_head_alone_decays_its_weights():
    assert settings(torch.nn.Linear(3, 2), TrainRecipe(weight_decay=0.1)) == {"weight": (1, 0.1), "bias": (1, 0)}


def test_rates_keep_their_proportions():
    built = optimizer.make_optimizer(make_model(), TrainRecipe(layer_decay=0.5))
    optimizer.set_rate(built, 0.8)
    assert {group["lr"] for group in built.param_groups} == {0.8, 0.4, 0.2, 0.1}
