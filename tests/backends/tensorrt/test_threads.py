"""One engine between threads: each has the contexts that it borrowed to itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_tensorrt import expected_logits

from edgevit.backends import get_backend
from edgevit.backends.base import BatchProfile, BuildOptions

pytestmark = pytest.mark.usefixtures("all_cores")

THREADS = 8
OPTIONS = BuildOptions(batch=BatchProfile(min=1, opt=2, max=4), compute_capability="8.6", precision="int8")


@pytest.mark.parametrize("contexts", ["1", "2"])
def test_eight_threads_with_batches_of_all_sizes_get_what_one_gets(install, gpu, model, tmp_path, contexts):
    gpu.compute_capability = "8.6"
    fake = install("10.3.0")
    path = get_backend(fake.flavour).build(model, tmp_path / "built", OPTIONS)[0]
    with get_backend(fake.flavour).open(path, threads=0, settings={"contexts": contexts}) as session:
        shape = session.infer(np.zeros((1, 1, 4, 4), np.float32)).shape

        def ask(thread: int) -> bool:
            random = np.random.default_rng(thread)
            right = []
            for size in random.integers(1, 10, 40):
                images = random.standard_normal((size, 1, 4, 4)).astype(np.float32)
                right.append(np.array_equal(session.infer(images), expected_logits(images, shape[1])))
            return all(right)

        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(ask, range(THREADS))) == [True] * THREADS
