"""What the time of a run goes to, as the engines count it."""

import json

import numpy as np
import pytest

from edgevit.backends import get_backend
from edgevit.backends.profiles import WARMUP, onnxruntime_times


def event(name, kind, start, duration):
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": {"op_name": kind}}


def test_the_typical_run_after_the_warm_up_is_taken(tmp_path):
    runs = [900] * WARMUP + [100, 300, 120]  # microseconds of its MatMul
    events = []
    for number, time in enumerate(runs):
        start = number * 1000
        events.append({"cat": "Session", "name": "model_run", "ts": start, "dur": time + 60})
        events += [event("a", "MatMul", start + 1, time), event("b", "Add", start + time + 5, 50)]
        events.append({"cat": "Node", "name": "a_fence_before", "ts": start, "dur": 7, "args": {"op_name": "MatMul"}})
    events.append(event("c", "Loading", 10**6, 5))
    (tmp_path / "profile.json").write_text(json.dumps(events))
    assert onnxruntime_times(tmp_path / "profile.json") == pytest.approx({"MatMul": 0.12, "Add": 0.05})


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_say_which_operators_their_time_goes_to(exported_vit, engine):
    from edgevit.models.spec import ModelSpec

    spec = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=64, depth=2, heads=2, classes=5)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=np.float32)
    times = get_backend(engine).operator_times(exported_vit(spec), threads=1, settings={}, images=images)
    assert all(time > 0 for time in times.values())
    largest = max(times, key=lambda kind: times[kind])
    assert {"MatMul", "FullyConnected", "Gemm"} & set(times), largest
