import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from train_tasks import LABELS, PREPROCESS, SPEC, make_model

from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.vit import VisionTransformer
from edgevit.training.batch_plan import MicroBatch
from edgevit.training.objective import Normalise, Objective, Teacher, as_channels, distillation
from edgevit.training.recipe import TrainRecipe

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8))
ANSWERS = torch.tensor([0, 1, 1, 0, 1, 0])
MICRO_BATCH = MicroBatch(0, 0, np.arange(6), 0, 6, last=True)


def checkpoint(labels=LABELS, preprocess=PREPROCESS, seed=1):
    return Checkpoint(SPEC, make_model(seed).state_dict(), preprocess, labels, "teacher.safetensors")


def test_normalisation_is_that_of_every_other_stage():
    preprocess = Preprocess(size=(5, 7), resize=9, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)
    ours = Normalise(preprocess)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(ours, torch.from_numpy(preprocess.normalize(pixels)), rtol=1e-5, atol=1e-5)


def test_without_anything_new_the_loss_is_cross_entropy():
    model = make_model()
    loss, correct = Objective(TrainRecipe(label_smoothing=0.1), 2, Normalise(PREPROCESS))(
        model, PIXELS, ANSWERS, MICRO_BATCH
    )
    logits = model(Normalise(PREPROCESS)(PIXELS.float()))
    torch.testing.assert_close(loss, functional.cross_entropy(logits, ANSWERS, label_smoothing=0.1, reduction="sum"))
    assert correct == int((logits.argmax(1) == ANSWERS).sum())


def test_distillation_is_zero_for_the_teachers_own_logits_and_positive_for_others():
    logits = torch.randn(5, 7, dtype=torch.float64)
    assert float(distillation(logits + 3, logits, 2.0)) == pytest.approx(0, abs=1e-12)
    assert float(distillation(logits.flip(0), logits, 2.0)) > 0


def test_distillation_is_the_divergence_of_hinton():
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum()
    torch.testing.assert_close(distillation(student, teacher, 3.0), expected)


def test_a_teacher_changes_the_loss_and_learns_nothing():
    model = make_model()
    teacher = Teacher(checkpoint(), LABELS, PREPROCESS)
    whole = Objective(TrainRecipe(teacher_weight=1.0), 2, Normalise(PREPROCESS), teacher)
    loss, _ = whole(model, PIXELS, ANSWERS, MICRO_BATCH)
    wanted = make_model(1)(Normalise(PREPROCESS)(PIXELS.float()))
    torch.testing.assert_close(loss, distillation(model(Normalise(PREPROCESS)(PIXELS.float())), wanted, 2.0))
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert model.head.weight.grad is not None


def test_a_teacher_normalises_as_it_learnt_and_names_classes_in_the_students_order():
    other = msgspec.structs.replace(PREPROCESS, mean=(0.1,), std=(0.9,))
    swapped = Teacher(checkpoint(labels=("light", "dark"), preprocess=other), LABELS, PREPROCESS)
    expected = make_model(1)(Normalise(other)(PIXELS.float())).flip(1)
    torch.testing.assert_close(swapped(PIXELS.float()), expected)


def test_a_teacher_that_lacks_a_class_is_refused():
    with pytest.raises(InputError, match="does not know the class 'dark' and 1 more") as caught:
        Teacher(checkpoint(labels=("cat", "dog")), LABELS, PREPROCESS)
    assert "fine-tune the teacher" in caught.value.remedy


def test_a_teacher_that_knows_more_says_what_it_knows_of_the_students_classes():
    spec = msgspec.structs.replace(SPEC, classes=3)
    torch.manual_seed(0)
    model = VisionTransformer(spec).eval()
    knows = Checkpoint(spec, model.state_dict(), PREPROCESS, ("light", "grey", "dark"), "teacher")
    expected = model(Normalise(PREPROCESS)(PIXELS.float()))[:, [2, 0]]
    torch.testing.assert_close(Teacher(knows, LABELS, PREPROCESS)(PIXELS.float()), expected)


def test_a_teacher_sees_images_in_its_own_size():
    large = msgspec.structs.replace(PREPROCESS, size=(16, 16), resize=16)
    teacher = Teacher(checkpoint(), LABELS, large)
    ramp = torch.arange(16.0)
    fine = torch.stack([8 * ramp[:, None] + 4 * ramp, 120 - 6 * ramp[:, None] + ramp])[:, None]  # (2, 1, 16, 16)
    coarse = functional.avg_pool2d(fine, 2)
    torch.testing.assert_close(
        teacher(fine), Teacher(checkpoint(), LABELS, PREPROCESS)(coarse), atol=0.05, rtol=0
    )  # edges


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_channels_are_those_that_pillow_makes(order):
    colours = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colours[0]).convert("L"), dtype=np.float32)
    planes = torch.from_numpy(colours[..., :: 1 if order == "RGB" else -1].copy()).permute(0, 3, 1, 2).float()
    np.testing.assert_allclose(as_channels(planes, order, "L")[0, 0], grey, atol=1)
    assert as_channels(planes[:, :1], "L", order).shape == planes.shape
    assert torch.equal(as_channels(planes, order, "RGB")[0, 0], torch.from_numpy(colours[0, ..., 0]).float())
