import torch
from lessons import CPU, LABELS, PREPROCESS, SPEC, make_images, make_model

from edgevit.models.checkpoints import Checkpoint
from edgevit.progress import SILENT
from edgevit.training.heads import features, fit_head, freeze_backbone


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


def test_other_names_for_as_many_classes_are_other_labels():
    assert fit_head(checkpoint(), ("a", "b"))[0].weights["head.weight"].eq(0).all()


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
