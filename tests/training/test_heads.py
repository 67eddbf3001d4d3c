import msgspec
import numpy as np
import pytest
import torch
from train_tasks import CPU, LABELS, PREPROCESS, SPEC, make_images, make_model

from edgevit.data.dataset import ArrayDataset
from edgevit.data.imagenet import imagenet_labels
from edgevit.data.labels import map_labels
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.vit import VisionTransformer
from edgevit.progress import SILENT
from edgevit.training.heads import features, fit_head, freeze_backbone, head_labels


def checkpoint():
    return Checkpoint(SPEC, make_model().state_dict(), PREPROCESS, LABELS, "old.safetensors")


def test_other_labels_get_a_head_of_zeros_on_the_same_backbone():
    fitted, said = fit_head(checkpoint(), ("a", "b", "c"))
    assert (fitted.spec.classes, fitted.labels) == (3, ("a", "b", "c"))
    model = fitted.model()
    assert model(torch.randn(4, 1, 8, 8)).eq(0).all()
    old = make_model().state_dict()
    assert all(torch.equal(tensor, old[name]) for name, tensor in model.state_dict().items() if "head" not in name)
    assert "3 labels instead of 2" in said


def test_the_same_labels_keep_the_head():
    same = checkpoint()
    fitted, said = fit_head(same, LABELS)
    assert fitted is same
    assert "kept" in said


def test_the_same_labels_in_another_order_keep_the_head_and_its_order():
    fitted, _ = fit_head(checkpoint(), ("light", "dark"))
    assert fitted.labels == LABELS


def test_some_of_the_labels_keep_what_the_head_learnt_of_them():
    spec = msgspec.structs.replace(SPEC, classes=3)
    torch.manual_seed(0)
    old = Checkpoint(spec, VisionTransformer(spec).state_dict(), PREPROCESS, ("a", "b, bee", "c"), "old.safetensors")
    fitted, said = fit_head(old, ("c", "bee"))
    inputs = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(fitted.model()(inputs), old.model()(inputs)[:, [2, 1]])
    assert "2 of the 3 labels" in said


@pytest.mark.parametrize(
    "changes",
    [{}, {"projection": 6}, {"l2_normalize": True}, {"pooling": "mean"}, {"pooling": "class+mean"}, {"pre_logits": 5}],
    ids=str,
)
def test_an_embedding_model_gets_a_head(changes):
    spec = msgspec.structs.replace(SPEC, classes=0, **changes)
    torch.manual_seed(0)
    backbone = Checkpoint(spec, VisionTransformer(spec).state_dict(), PREPROCESS, (), "backbone.safetensors")
    fitted, said = fit_head(backbone, LABELS)
    assert fitted.model()(torch.randn(4, 1, 8, 8)).tolist() == [[0, 0]] * 4
    assert "where it had none" in said


def test_other_names_for_as_many_classes_are_other_labels():
    assert fit_head(checkpoint(), ("a", "b"))[0].weights["head.weight"].eq(0).all()


def images_of(indices, names):
    return ArrayDataset("a.csv", np.zeros((len(indices), 8, 8, 1), np.uint8), np.array(indices, np.int64), names)


def numbered(count):
    return tuple(map(str, range(count)))


@pytest.mark.parametrize("known", [imagenet_labels(), numbered(702), numbered(1000)], ids=len)
def test_indices_with_gaps_are_those_of_the_checkpoint(known):
    indices = [0, 701, 217, 701, 482]
    training = images_of(indices, numbered(702))
    labels, (said,) = head_labels(training, known)
    assert labels == known
    assert f"checkpoint's {len(known)} labels; 4 have images" in said
    assert map_labels(training, labels).tolist() == indices, "as validate has them"
    spec = msgspec.structs.replace(SPEC, classes=len(known))
    old = Checkpoint(spec, VisionTransformer(spec).state_dict(), PREPROCESS, known, "old.safetensors")
    assert fit_head(old, labels)[0] is old, "imagenet has two cranes"


def test_other_classes_without_images_are_said():
    few = images_of([0, 701, 217], numbered(702))
    for known in ((), imagenet_labels()[:701]):
        labels, (said,) = head_labels(few, known)
        assert labels == few.class_names
        assert "699 of 702 classes of a.csv have no image to learn from: number them from 0" in said
    own = images_of([0, 1, 2, 4], numbered(5))
    labels, (said,) = head_labels(own, imagenet_labels())
    assert labels == own.class_names, "one class is missing by chance: these are not ImageNet's"
    assert "1 of 5 classes" in said
    assert head_labels(images_of([0, 1, 2], numbered(3)), imagenet_labels()) == (numbered(3), ())
    named = images_of([0, 0], ("cat", "dog"))
    assert "add some" in head_labels(named, ("cat", "dog"))[1][0]


def test_features_are_what_the_head_sees():
    model, images = make_model().eval(), make_images(70)
    seen = features(model, images, PREPROCESS, "test", CPU, SILENT)
    inputs = torch.from_numpy(PREPROCESS.normalize(images.pixels))
    torch.testing.assert_close(model.head(seen), model(inputs))


def test_freezing_leaves_the_head():
    model = make_model()
    freeze_backbone(model)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "head.weight",
        "head.bias",
    }
