"""Streams answer as single calls do, in order; nothing piles up, and nothing is left behind."""

import asyncio
import itertools
import os
import signal
import threading
import time

import numpy as np
import pytest

from edgevit.errors import InputError, VerificationError
from edgevit.runtime import AsyncModel, load


@pytest.fixture(scope="module")
def model(tiny_quantized):
    with load(tiny_quantized, variant="int8-onnxruntime", threads=1) as loaded:
        yield loaded


def frames(count):
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (20, 18, 3), dtype=np.uint8) for _ in range(count)]


class Camera:
    """Gives frames as OpenCV does."""

    def __init__(self, images, pause=0.0):
        self.images, self.pause, self.given = iter(images), pause, 0

    def read(self):
        time.sleep(self.pause)
        frame = next(self.images, None)
        self.given += frame is not None
        return frame is not None, frame


def threads_of_streams():
    return [thread for thread in threading.enumerate() if thread.name == "edgevit-stream"]


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_answers_are_those_of_single_calls_in_order(model, batch):
    images = frames(10)
    found = list(model.stream(images, batch=batch, prefetch=3))
    assert [each.index for each in found] == list(range(10))
    assert all(each.image is image for each, image in zip(found, images, strict=True))
    assert [each.predictions for each in found] == [model.predict(image) for image in images]
    assert all(each.dropped == 0 and each.error is None for each in found)
    np.testing.assert_array_equal([each.outputs["logits"] for each in found], model.infer_images(images))
    assert not threads_of_streams()


def test_a_camera_gives_bgr_until_it_ends(model):
    images = frames(4)
    found = list(model.stream(Camera(images)))
    assert [each.predictions for each in found] == [model.predict(image, channels="bgr") for image in images]
    [same] = model.stream(Camera(images[:1]), channels="rgb")
    assert same.predictions == model.predict(images[0])


def test_only_so_many_are_taken_ahead(model):
    camera = Camera(itertools.repeat(frames(1)[0]))
    stream = model.stream(camera, prefetch=2)
    next(stream)
    time.sleep(0.3)
    assert camera.given <= 1 + 2 + 1  # the one that was answered, those that wait, the one in the thread's hands
    stream.close()
    assert not threads_of_streams()


def test_what_comes_while_the_model_is_busy_is_passed_over_if_only_the_latest_counts(model):
    stream = model.stream(Camera(frames(200), pause=0.002), latest=True)
    indices, dropped = [], 0
    for each in stream:
        time.sleep(0.05)
        indices.append(each.index)
        dropped += each.dropped
    assert indices == sorted(indices)
    assert len(indices) < 100
    assert indices[-1] == 199
    assert len(indices) + dropped == 200


def test_what_cannot_be_read_has_its_error_and_the_others_their_answer(model):
    images = [*frames(2), b"no image", np.zeros((2, 2, 7), np.uint8), *frames(1)]
    found = list(model.stream(images, batch=5))
    assert [each.error is not None for each in found] == [False, False, True, True, False]
    assert found[2].predictions is None
    assert found[4].predictions == model.predict(images[4])


def test_an_error_of_the_source_reaches_who_takes_the_answers(model):
    def broken():
        yield from frames(2)
        raise OSError("the camera was unplugged")

    taken = []
    with pytest.raises(OSError, match="unplugged"):
        taken.extend(iter(each.index for each in model.stream(broken())))
    assert not threads_of_streams()


@pytest.mark.parametrize(
    ("images", "options"),
    [
        ("photo.jpg", {}),
        (b"bytes", {}),
        (3, {}),
        ([], {"batch": 0}),
        ([], {"prefetch": 0}),
        ([], {"channels": "hsv"}),
        ([], {"top": 0}),
    ],
)
def test_what_is_no_stream_is_refused(model, images, options):
    with pytest.raises(InputError):
        list(model.stream(images, **options))


def test_an_open_file_is_no_camera(model, pictures):
    with pictures[0].open("rb") as file, pytest.raises(InputError, match="neither"):
        list(model.stream(file))


def test_a_model_of_other_outputs_streams_them(dense):
    with load(dense, variant="float32") as model:
        [found] = model.stream(frames(1))
        assert found.predictions == model.predict(frames(1)[0])
        assert model.info().classes == len(model.labels) > 0
        expected = model.outputs(frames(1)[0])
        assert found.outputs.keys() == expected.keys()
        for name, given in expected.items():
            np.testing.assert_array_equal(found.outputs[name], given)


def test_warm_up_runs_and_says_how_long_it_took(model):
    assert model.warm_up(batch=2, runs=2) > 0
    with pytest.raises(InputError):
        model.warm_up(runs=0)


def test_info_is_for_logs(model, tiny_quantized):
    info = model.info()
    assert info.variant == "int8-onnxruntime"
    assert info.engine_version
    assert info.input == (3, 16, 16)
    assert info.sha256[:12] in str(info)
    assert info.to_dict()["threads"] == 1


async def _predict_all(model, images):
    async with AsyncModel(model, workers=2) as asynchronous:
        single = await asyncio.gather(*(asynchronous.predict(image) for image in images))
        streamed = [each async for each in asynchronous.stream(images)]

        async def source():
            for image in images:
                await asyncio.sleep(0)
                yield image

        again = [each async for each in asynchronous.stream(source(), ahead=3)]
        return single, streamed, again


def test_the_awaited_answers_are_the_same(tiny_quantized):
    images = [*frames(5), b"no image"]
    with load(tiny_quantized, variant="int8-onnxruntime", threads=1) as model:
        expected = [model.predict(image) for image in images[:5]]
    loaded = load(tiny_quantized, variant="int8-onnxruntime", threads=1)
    single, streamed, again = asyncio.run(_predict_all(loaded, images[:5]))
    assert list(single) == expected
    for answers in (streamed, again):
        assert [each.predictions for each in answers] == expected
        assert [each.index for each in answers] == list(range(5))
    with pytest.raises(InputError, match="closed"):
        loaded.predict(images[0])


@pytest.mark.parametrize("workers", [0, -1, 10**9, 1.5, True, "2"])
def test_workers_that_cannot_be_are_named(model, workers):
    with pytest.raises(InputError, match="workers is") as error:
        AsyncModel(model, workers=workers)
    assert "give workers as" in error.value.remedy


def test_the_event_loop_goes_on_while_the_model_works(tiny_quantized):
    async def run():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with AsyncModel(load(tiny_quantized, variant="float32")) as model:
            ticking = asyncio.create_task(tick())
            await model.infer(np.zeros((64, 3, 16, 16), np.float32))
            ticking.cancel()
            [bad] = [each async for each in model.stream([b"no image"])]
            return ticks, bad

    ticks, bad = asyncio.run(run())
    assert ticks > 1
    assert bad.error is not None


def test_an_answer_that_is_no_number_is_an_error(model):
    with pytest.raises(VerificationError):
        model.answer(np.full((1, 8), np.nan, np.float32))


def test_a_camera_that_returns_something_else_is_named(model):
    class Camera:
        def read(self):
            return None

    with pytest.raises(InputError, match="returned a NoneType"):
        list(model.stream(Camera()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_stream_in_a_forked_process_ends_instead_of_waiting_for_ever(model):
    stream = model.stream(itertools.repeat(np.zeros((16, 16, 3), np.uint8)))
    next(stream)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            list(stream)
        except InputError as error:
            code = 0 if "fork" in error.message else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    next(stream)
    stream.close()


@pytest.mark.parametrize("images", [None, 5, "photo.jpg", b"photo", np.zeros((16, 16, 3), np.uint8)])
def test_what_is_no_series_of_images_is_refused_in_asyncio_too(tiny_quantized, images):
    async def run():
        async with AsyncModel(load(tiny_quantized, variant="float32")) as model:
            async for _ in model.stream(images):
                pytest.fail("it has no images")

    with pytest.raises(InputError, match="neither an iterable"):
        asyncio.run(run())


def test_an_asynchronous_model_that_was_closed_says_so(tiny_quantized):
    async def run():
        model = AsyncModel(load(tiny_quantized, variant="float32"))
        await model.aclose()
        await model.predict(np.zeros((16, 16, 3), np.uint8))

    with pytest.raises(InputError, match="closed"):
        asyncio.run(run())
