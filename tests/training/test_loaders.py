import numpy as np
import pytest
import torch
from PIL import Image
from train_tasks import PREPROCESS, make_images

from edgevit.data.folder import load_folder
from edgevit.errors import DataError, ImageError
from edgevit.training.batch_plan import micro_batches
from edgevit.training.loaders import FeatureLoader, FileLoader, MemoryLoader, Stopwatch
from edgevit.training.recipe import TrainRecipe

RECIPE = TrainRecipe(batch_size=8, crop=0.5, randaugment=1, shift=1, flip=0.5, erase=0.5)

# From Python 3.12 on, forking a process with threads warns; torch's loader forks, and its workers start no threads.
pytestmark = [
    pytest.mark.usefixtures("all_cores"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 16), dtype=np.uint8)).save(path)
    return tmp_path


def plan(dataset, recipe=RECIPE, epoch=0, rank=0, processes=1):
    return list(micro_batches(dataset.labels, recipe, epoch, rank, processes))


def loader_of(dataset, workers=0, recipe=RECIPE):
    return FileLoader(dataset, dataset.labels, PREPROCESS, recipe, workers)


def test_workers_give_what_one_process_gives_in_each_epoch(folder):
    dataset = load_folder(folder, "train")
    alone, helped = loader_of(dataset), loader_of(dataset, workers=2)
    for epoch in (0, 1, 0):
        expected = list(alone.inputs(plan(dataset, epoch=epoch)))
        for ours, theirs in zip(helped.inputs(plan(dataset, epoch=epoch)), expected, strict=True):
            assert ours.dtype == torch.uint8
            assert ours.shape == (8, 1, 8, 8)
            assert torch.equal(ours, theirs)


def test_what_an_image_becomes_does_not_depend_on_the_micro_batch_that_it_is_in(folder):
    dataset = load_folder(folder, "train")
    whole = list(loader_of(dataset).inputs(plan(dataset)))
    shares = [list(loader_of(dataset).inputs(plan(dataset, rank=rank, processes=2))) for rank in (0, 1)]
    for step, images in enumerate(whole):
        assert torch.equal(torch.cat([share[step] for share in shares]), images)


def test_epochs_differ(folder):
    dataset = load_folder(folder, "train")
    loader = loader_of(dataset)
    first, second = (next(iter(loader.inputs(plan(dataset, epoch=epoch)))) for epoch in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(folder, workers):
    (folder / "a" / "0.png").write_bytes(b"\x89PNG and then nothing")
    dataset = load_folder(folder, "train")
    with pytest.raises(ImageError, match=r"0\.png") as caught:
        list(loader_of(dataset, workers).inputs(plan(dataset, TrainRecipe(batch_size=20))))
    assert caught.value.remedy
    del caught  # in a circle with the frames of its traceback, from which workers would be ended five seconds too late


def test_images_in_memory_are_augmented_as_a_whole_batch():
    images, recipe = make_images(20), TrainRecipe(batch_size=8)
    loader = MemoryLoader(images.pixels, images.labels, recipe)
    whole = list(loader.inputs(plan(images, recipe)))
    shares = [list(loader.inputs(plan(images, recipe, rank=rank, processes=2))) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([share[step] for share in shares]), batch)


def test_unchanged_images_are_the_pixels_themselves():
    images, recipe = make_images(20), TrainRecipe(batch_size=8, shift=0, flip=0, erase=0)
    for micro_batch, batch in zip(
        plan(images, recipe),
        MemoryLoader(images.pixels, images.labels, recipe).inputs(plan(images, recipe)),
        strict=True,
    ):
        np.testing.assert_array_equal(batch.numpy()[:, 0], images.pixels[micro_batch.indices, ..., 0])


def test_features_are_looked_up():
    images, recipe = make_images(20), TrainRecipe(batch_size=8)
    features = torch.arange(40.0).reshape(20, 2)
    for micro_batch, batch in zip(
        plan(images, recipe), FeatureLoader(features, images.labels).inputs(plan(images, recipe)), strict=True
    ):
        assert torch.equal(batch[:, 0], 2.0 * torch.from_numpy(micro_batch.indices))


def test_labels_and_images_have_to_match():
    images = make_images(5)
    with pytest.raises(DataError, match="5 images and 4 labels"):
        MemoryLoader(images.pixels, images.labels[:4], TrainRecipe())


def test_a_stopwatch_passes_everything_on():
    items = [torch.zeros(1), torch.ones(1)]
    watch = Stopwatch(iter(items))
    assert list(watch) == items
    assert watch.waited >= 0
