"""A small job and its images, for the tests of training."""

import numpy as np
import torch
from PIL import Image

from edgevit.data.dataset import ArrayDataset
from edgevit.data.preprocess import Preprocess
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer
from edgevit.progress import SILENT
from edgevit.training import loop
from edgevit.training.distributed import Single
from edgevit.training.loaders import MemoryLoader
from edgevit.training.objective import Normalise, Objective
from edgevit.training.recipe import TrainRecipe
from edgevit.training.run import TrainJob
from edgevit.training.scoring import ImageEvaluationSet

SPEC = ModelSpec(image_size=(8, 8), patch_size=(4, 4), width=16, depth=2, heads=2, classes=2, channels=1)
PREPROCESS = Preprocess(size=(8, 8), resize=8, mean=(0.5,), std=(0.25,), channel_order="L")
LABELS = ("dark", "light")
CPU = Single(torch.device("cpu"))


def make_recipe(**changes) -> TrainRecipe:
    settings = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "warmup_epochs": 1, "ema_decay": 0.9}
    return TrainRecipe(**{**settings, **changes})


def make_job(**recipe) -> TrainJob:
    return TrainJob(
        data="test",
        data_sha256="0",
        initial_sha256="0",
        spec=SPEC,
        preprocess=PREPROCESS,
        labels=LABELS,
        recipe=make_recipe(**recipe),
    )


def make_images(count=64, seed=0) -> ArrayDataset:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    pixels = random.integers(0, 128, (count, 8, 8, 1)) + 127 * labels[:, None, None, None]
    return ArrayDataset("test", pixels.astype(np.uint8), labels, LABELS)


def make_model(seed=0) -> VisionTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VisionTransformer(SPEC)


def make_task(job, training, *, validation=None, test=None, teacher=None) -> loop.TrainTask:
    def evaluation_set(name, dataset):
        return ImageEvaluationSet(name, dataset, dataset.labels, PREPROCESS) if dataset is not None else None

    return loop.TrainTask(
        make_model(),
        Objective(job.recipe, 2, Normalise(PREPROCESS), teacher),
        MemoryLoader(training.pixels, training.labels, job.recipe),
        evaluation_set("validation", validation),
        evaluation_set("test", test),
    )


def run(folder, job, training, *, state=None, processes=CPU, **parts):
    task = make_task(job, training, **parts)
    return loop.train(folder, job, task, processes, state=state, progress=SILENT)


def fill_folder(root, *, parts=("train", "validation", "test"), count=8):
    """Write PNG images of two classes, dark and light, and return the folder's name."""
    random = np.random.default_rng(0)
    for part in parts:
        for shade, label in enumerate(LABELS):
            for number in range(count):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 128, (12, 14), dtype=np.uint8) + 127 * shade
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(root)


def save_checkpoint(path, labels=("cat", "dog"), seed=1):
    """Write a small checkpoint that has never seen the images of ``fill_folder``, and return its name."""
    Checkpoint(SPEC, make_model(seed).state_dict(), PREPROCESS, labels, "test").save(path)
    return str(path)


def assert_same_but_for_rounding(weights, expected):
    """Compare the weights of two runs of the same job."""
    width = SPEC.width
    for name, tensor in expected.items():
        ours, theirs = weights[name], tensor
        if name.endswith("qkv.bias"):
            # Softmax does not see a bias of the keys: its gradient is rounding alone, which Adam scales up.
            ours, theirs = (torch.cat([bias[:width], bias[2 * width :]]) for bias in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
