"""The drivers against a fake of each version of the bindings: from the ONNX file to logits."""

import json
import sys

import msgspec
import numpy as np
import onnx
import pytest
from fake_cuda import COMPUTE_MS, OUT_OF_MEMORY, TO_DEVICE_MS, TO_HOST_MS, FakeCuda
from fake_tensorrt import Fake, expected_logits
from trt_contract import listings

from edgevit import system
from edgevit.backends import get_backend
from edgevit.backends.base import BatchProfile, BuildOptions
from edgevit.backends.tensorrt import timing_cache
from edgevit.backends.tensorrt.builder import build_engine
from edgevit.errors import BundleError, DataError, GraphError, InputError, MissingDependencyError, MissingError
from edgevit.progress import Silent

FOR_EIGHT = BuildOptions(batch=BatchProfile(min=2, opt=4, max=8), compute_capability="8.6", precision="int8")


class Notes(Silent):
    def __init__(self):
        self.said, self.steps = [], []

    def note(self, message):
        self.said.append(message)

    def track(self, items, *, total, label):
        for item in items:
            self.steps.append((label, item, total))
            yield item


@pytest.fixture
def ampere(gpu):
    gpu.compute_capability = "8.6"
    return gpu


@pytest.fixture
def built(fake, ampere, model, tmp_path):
    paths = get_backend(fake.flavour).build(model, tmp_path / "built", FOR_EIGHT)
    return paths[0]


def open_engine(fake, path, **settings):
    return get_backend(fake.flavour).open(path, threads=0, settings=settings)


def change_info(engine, **changes):
    path = engine.with_name("engine.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_build_says_what_it_takes_and_how_far_it_is(fake, ampere, model, tmp_path):
    notes = Notes()
    paths = get_backend(fake.flavour).build(model, tmp_path / "built", FOR_EIGHT, progress=notes)
    assert [path.name for path in paths] == ["model.engine", "engine.json", "model.onnx", "kernels.json"]
    assert sorted(paths) == sorted((tmp_path / "built").iterdir())
    assert paths[2].read_bytes() == model.read_bytes()
    assert any("MiB of memory" in line for line in notes.said)
    shown = [item for _, item, _ in notes.steps]
    assert shown == list(range(100)) or (fake.listing.version == "8.6.1" and not shown)


def test_what_is_built_is_told_beside_the_engine(fake, built, model):
    info = json.loads(built.with_name("engine.json").read_text())
    assert {name: info[name] for name in ("flavour", "version", "driver", "compute_capability", "precision")} == {
        "flavour": fake.flavour,
        "version": fake.listing.version,
        "driver": "python",
        "compute_capability": "8.6",
        "precision": "int8",
    }
    assert info["batch"] == {"min": 2, "opt": 4, "max": 8}
    assert info["settings"]["version_compatible"] == "no"


def test_precision_is_a_flag_before_types_carry_it(fake, built):
    flags = fake.seen.flags - {"TF32"}
    assert flags == (set() if fake.typed else {"FP16", "INT8"})
    assert ("PROFILE_SHARING_0806" in fake.seen.properties) == (not fake.typed)
    assert fake.seen.properties["profiling_verbosity"].name == "DETAILED"
    assert fake.seen.properties["max_aux_streams"] == 0
    assert fake.seen.properties.get("compute_capability") == ("SM86" if fake.flavour == "tensorrt-rtx" else None)


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("float32", set()), ("fp16", {"TF32", "FP16"}), ("int8", {"TF32", "FP16", "INT8"}), (None, {"TF32"})],
)
def test_flags_of_the_legacy_flavour(install, ampere, model, tmp_path, precision, flags):
    fake = install("10.3.0")
    get_backend("tensorrt").build(model, tmp_path, msgspec.structs.replace(FOR_EIGHT, precision=precision))
    assert fake.seen.flags == flags


def test_compatibility_is_asked_for_by_name(fake, ampere, model, tmp_path):
    settings = {"hardware_compatibility": "ampere+", "version_compatible": "yes", "optimization_level": "4"}
    get_backend(fake.flavour).build(model, tmp_path, msgspec.structs.replace(FOR_EIGHT, settings=settings))
    assert fake.seen.properties["hardware_compatibility_level"].name == "AMPERE_PLUS"
    assert fake.seen.properties["builder_optimization_level"] == 4
    assert "VERSION_COMPATIBLE" in fake.seen.flags


def test_a_compatibility_that_a_version_lacks(fake, ampere, model, tmp_path):
    options = msgspec.structs.replace(FOR_EIGHT, settings={"hardware_compatibility": "same-compute-capability"})
    backend = get_backend(fake.flavour)
    if fake.listing.has("HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"):
        backend.build(model, tmp_path, options)
        assert fake.seen.properties["hardware_compatibility_level"].name == "SAME_COMPUTE_CAPABILITY"
    else:
        with pytest.raises(InputError, match="no such hardware compatibility"):
            backend.build(model, tmp_path, options)


@pytest.mark.parametrize("contexts", ["1", "3"])
@pytest.mark.parametrize("cuda_graph", ["auto", "off"])
def test_logits_are_those_of_the_images_whatever_the_batch(fake, built, images, contexts, cuda_graph):
    many = np.concatenate([images * factor for factor in range(1, 6)])  # (25, 1, 4, 4)
    with open_engine(fake, built, contexts=contexts, cuda_graph=cuda_graph) as session:
        for count in (1, 5, 25, 2, 5, 25, 8, 0):  # fewer than the engine takes, more, and the same again
            found = session.infer(many[:count])
            assert found.shape == (count, 3)
            np.testing.assert_array_equal(found, expected_logits(many[:count], 3))
    assert fake.seen.contexts == int(contexts)


def test_kernels_are_told_by_the_report_beside_the_engine(fake, built):
    with open_engine(fake, built) as session:
        assert session.linear_kernels() == []  # a fake's log names no layers
        built.with_name("kernels.json").write_text("{}")
        with pytest.raises(BundleError, match="is no report of kernels"):
            session.linear_kernels()
        built.with_name("kernels.json").unlink()
        assert session.linear_kernels() == []


def test_logits_belong_to_the_caller(fake, built, images):
    with open_engine(fake, built) as session:
        first = session.infer(images[:2])
        before = first.copy()
        session.infer(images[2:4])
        np.testing.assert_array_equal(first, before)


def test_images_that_do_not_fit(fake, built):
    with open_engine(fake, built) as session, pytest.raises(DataError, match=r"takes float32 images \(any, 1, 4, 4\)"):
        session.infer(np.zeros((1, 1, 4, 5), dtype=np.float32))


def test_a_graph_is_launched_from_the_second_batch_of_a_size_on(install, ampere, model, images, tmp_path):
    fake = install("10.16.1")
    engine = get_backend("tensorrt").build(model, tmp_path, FOR_EIGHT)[0]
    with open_engine(fake, engine) as session:
        ampere.calls.clear()
        session.infer(images)
        assert "cuGraphLaunch" not in ampere.calls
        ampere.calls.clear()
        session.infer(images)
        assert ampere.calls.count("cuGraphLaunch") == 1
        assert "cuMemcpyHtoDAsync_v2" not in ampere.calls


def test_what_cannot_be_captured_runs_without(install, ampere, model, images, tmp_path):
    fake = install("10.16.1")
    engine = get_backend("tensorrt").build(model, tmp_path, FOR_EIGHT)[0]
    ampere.failing["cuGraphInstantiateWithFlags"] = 900
    with open_engine(fake, engine) as session:
        for _ in range(3):
            np.testing.assert_array_equal(session.infer(images), expected_logits(images, 3))
    assert "cuGraphLaunch" not in ampere.calls


def test_rtx_captures_graphs_itself(install, ampere, model, images, tmp_path):
    fake = install("rtx-1.7.1")
    engine = get_backend("tensorrt-rtx").build(model, tmp_path, FOR_EIGHT)[0]
    for setting, strategy in (("auto", "WHOLE_GRAPH_CAPTURE"), ("off", None)):
        with open_engine(fake, engine, cuda_graph=setting) as session:
            session.infer(images)
        chosen = fake.seen.cuda_graph_strategy
        assert (chosen.name if chosen is not None else None) == strategy
    assert "cuStreamBeginCapture_v2" not in ampere.calls


def test_a_fixed_batch_is_filled_up_and_cut(fake, ampere, model, images, tmp_path):
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(fixed, tmp_path / "fixed.onnx")
    engine = get_backend(fake.flavour).build(tmp_path / "fixed.onnx", tmp_path / "built", FOR_EIGHT)[0]
    assert json.loads(engine.with_name("engine.json").read_text())["batch"] == {"min": 2, "opt": 2, "max": 2}
    with open_engine(fake, engine) as session:
        np.testing.assert_array_equal(session.infer(images), expected_logits(images, 3))


def test_the_parser_names_node_and_reason(fake, ampere, model, tmp_path):
    wrong = onnx.load(model)
    wrong.graph.node.append(onnx.helper.make_node("Unparsable", ["x"], ["y"], name="blocks.0.odd"))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    where = "node 6" if fake.listing.version == "8.6.1" else r"'blocks.0.odd' \(Unparsable\)"
    with pytest.raises(GraphError, match=f"does not take wrong.onnx: {where}: Assertion failed: no such operator"):
        get_backend(fake.flavour).build(tmp_path / "wrong.onnx", tmp_path / "built", FOR_EIGHT)
    assert not (tmp_path / "built").exists()


def test_what_the_builder_says_is_the_reason(fake, ampere, model, tmp_path):
    wrong = onnx.load(model)
    wrong.graph.node.append(onnx.helper.make_node("Unbuildable", ["x"], ["y"]))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    with pytest.raises(GraphError, match="cannot build the engine: no kernel for Unbuildable"):
        get_backend(fake.flavour).build(tmp_path / "wrong.onnx", tmp_path / "built", FOR_EIGHT)


def test_what_takes_more_than_images(fake, ampere, model, tmp_path):
    wrong = onnx.load(model)
    wrong.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["batch", 8]))
    onnx.save(wrong, tmp_path / "two.onnx")
    with pytest.raises(GraphError, match="1 inputs and 2 outputs"):
        get_backend(fake.flavour).build(tmp_path / "two.onnx", tmp_path / "built", FOR_EIGHT)


def test_a_build_is_stopped_from_outside(install, ampere, model, tmp_path):
    class Impatient(Silent):
        def track(self, items, *, total, label):
            yield 0
            raise KeyboardInterrupt

    install("10.16.1")
    with pytest.raises(KeyboardInterrupt):
        get_backend("tensorrt").build(model, tmp_path / "built", FOR_EIGHT, progress=Impatient())
    assert not (tmp_path / "built").exists()


def test_timings_are_kept_for_the_next_build(fake, ampere, model, own_cache, tmp_path):
    backend = get_backend(fake.flavour)
    for _ in range(2):
        backend.build(model, tmp_path, FOR_EIGHT)
    kept = timing_cache.timing_cache_path(fake.flavour, fake.listing.version, "8.6")
    assert kept.is_relative_to(own_cache)
    if fake.flavour == "tensorrt-rtx":
        assert not kept.exists()
    else:
        assert kept.read_bytes() == b"timingstimings"
        kept.write_bytes(b"damaged")
        backend.build(model, tmp_path, FOR_EIGHT)
        assert kept.read_bytes() == b"timings"


def test_timings_that_cannot_be_kept_do_not_stop_a_build(install, ampere, model, own_cache, tmp_path):
    install("11.4.0")
    own_cache.write_text("in the way")
    notes = Notes()
    assert get_backend("tensorrt").build(model, tmp_path / "built", FOR_EIGHT, progress=notes)[0].is_file()
    assert any("are not kept for the next" in line for line in notes.said)


def test_workspace_is_what_is_wanted_or_what_is_free(install, ampere, model, tmp_path, monkeypatch):
    fake = install("10.3.0")
    backend = get_backend("tensorrt")
    monkeypatch.setattr(system, "memory", lambda: system.Memory(8000, 4000))
    for wanted, expected in ((None, 1024), (2048, 2048)):
        backend.build(model, tmp_path, msgspec.structs.replace(FOR_EIGHT, workspace_mb=wanted))
        assert fake.seen.properties["WORKSPACE"] == expected << 20
    ampere.free = 1000 << 20  # a Jetson's memory is the GPU's too
    backend.build(model, tmp_path, FOR_EIGHT)
    assert 64 <= fake.seen.properties["WORKSPACE"] >> 20 < 1000
    ampere.free = 100 << 20
    with pytest.raises(MissingError, match=r"building takes about \d+ MiB of memory, and 100 are free"):
        backend.build(model, tmp_path, FOR_EIGHT)


def test_an_engine_of_another_gpu(fake, built, ampere):
    ampere.compute_capability = "8.7"
    with pytest.raises(MissingDependencyError, match=r"built for compute capability 8\.6, and this GPU has 8\.7"):
        open_engine(fake, built)


def test_an_engine_of_another_version_names_both(fake, built):
    change_info(built, version="9.1.2")
    with pytest.raises(MissingDependencyError, match=f"9.1.2, and this is {fake.listing.version}") as caught:
        open_engine(fake, built)
    assert "edgevit build" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_an_engine_that_does_not_fit_is_built_again_where_that_is_allowed(fake, built, ampere, images, own_cache):
    before = built.read_bytes()
    ampere.compute_capability = "8.9"
    for _ in range(2):  # the second time it is there
        with open_engine(fake, built, rebuild="yes") as session:
            np.testing.assert_array_equal(session.infer(images), expected_logits(images, 3))
        (again,) = own_cache.rglob("model.engine")
    assert json.loads(again.with_name("engine.json").read_text())["compute_capability"] == "8.9"
    assert built.read_bytes() == before
    again.write_bytes(b"damaged")
    with open_engine(fake, built, rebuild="yes") as session:
        session.infer(images)


def test_what_it_is_built_again_from_must_be_the_same_file(fake, built, ampere):
    ampere.compute_capability = "8.9"
    built.with_name("model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="is missing or another"):
        open_engine(fake, built, rebuild="yes")


def test_an_engine_for_all_gpus_from_ampere_on(fake, ampere, model, images, tmp_path):
    options = msgspec.structs.replace(FOR_EIGHT, settings={"hardware_compatibility": "ampere+"})
    engine = get_backend(fake.flavour).build(model, tmp_path, options)[0]
    ampere.compute_capability = "8.9"
    with open_engine(fake, engine) as session:
        session.infer(images)
    ampere.compute_capability = "7.5"
    with pytest.raises(MissingDependencyError, match=r"this GPU has 7\.5"):
        open_engine(fake, engine)


def test_an_engine_of_an_earlier_version_runs_its_own_code_only_if_the_user_says_so(fake, built):
    info = json.loads(built.with_name("engine.json").read_text())
    major = fake.listing.version.partition(".")[0]
    change_info(built, version=f"{major}.0.1", settings=info["settings"] | {"version_compatible": "yes"})
    with pytest.raises(MissingDependencyError, match="and this is"):
        open_engine(fake, built)
    with open_engine(fake, built, host_code="yes"):
        assert fake.seen.host_code is True


def test_an_engine_that_tensorrt_does_not_take(fake, built):
    built.write_bytes(b"garbage")
    with pytest.raises(BundleError, match="is damaged"):
        open_engine(fake, built)
    import hashlib

    change_info(built, engine_sha256=hashlib.sha256(b"garbage").hexdigest())
    with pytest.raises(BundleError, match=r"cannot load .*model.engine: Serialization assertion failed. In parsePlan"):
        open_engine(fake, built)


def test_an_onnx_file_is_not_an_engine(fake, built):
    with pytest.raises(MissingDependencyError, match=r"model.onnx is no engine yet"):
        open_engine(fake, built.with_name("model.onnx"))


def test_memory_that_the_gpu_lacks(install, ampere, model, tmp_path):
    fake = install("10.16.1")
    engine = get_backend("tensorrt").build(model, tmp_path, FOR_EIGHT)[0]
    ampere.failing["cuMemAlloc_v2"] = OUT_OF_MEMORY
    with pytest.raises(MissingError, match="CUDA_ERROR_OUT_OF_MEMORY in cuMemAlloc_v2") as caught:
        open_engine(fake, engine)
    assert caught.value.exit_code == 3


def test_tensorrt_builds_for_the_gpu_at_hand_only(install, gpu, model, tmp_path):
    install("10.16.1")
    with pytest.raises(InputError, match=r"has compute capability 8\.7, not 8\.6"):
        get_backend("tensorrt").build(model, tmp_path, FOR_EIGHT)


def test_rtx_compiles_for_gpus_that_are_not_there(model, tmp_path, monkeypatch):
    nowhere = FakeCuda(gpus=0)
    fake = Fake("rtx-1.7.1", listings()["rtx-1.7.1"], nowhere)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake.module)
    backend = get_backend("tensorrt-rtx")
    engine = backend.build(model, tmp_path, FOR_EIGHT)[0]
    assert nowhere.calls == []
    assert "WORKSPACE" not in fake.seen.properties  # it is the other GPU's: nothing here decides
    with pytest.raises(InputError, match=r"does not compile for compute capability 8\.7") as caught:
        backend.build(model, tmp_path, msgspec.structs.replace(FOR_EIGHT, compute_capability="8.7"))
    assert "SM86" in caught.value.remedy
    monkeypatch.setattr("edgevit.backends.tensorrt.cuda.load_library", lambda: nowhere)
    with pytest.raises(InputError, match="must be told which GPU"):
        backend.build(model, tmp_path, BuildOptions())
    with pytest.raises(MissingDependencyError, match="finds no GPU: CUDA_ERROR_NO_DEVICE"):
        backend.open(engine, threads=0, settings={})


@pytest.mark.parametrize("device", ["dla", "DLA:0"])
def test_a_dla_is_refused_with_the_reason(install, ampere, model, tmp_path, device):
    install("10.3.0")
    with pytest.raises(BundleError, match="a DLA does not run MatMul"):
        get_backend("tensorrt").build(model, tmp_path, msgspec.structs.replace(FOR_EIGHT, settings={"device": device}))


def test_the_builder_alone_is_not_started_without_the_driver(install, gpu, model):
    from edgevit.backends.tensorrt.bindings import load_bindings
    from edgevit.backends.tensorrt.builder import EngineBuild

    install("10.16.1")
    with pytest.raises(SystemError, match="would have ended"):  # the fake's stand-in for a crash: the guard is real
        build_engine(load_bindings("tensorrt"), EngineBuild(model=model, compute_capability="8.6"))


@pytest.mark.parametrize("count", [1, 5, 20])  # fewer and more than the engine takes at once
def test_copies_and_computing_are_told_apart(fake, built, count):
    images = np.random.default_rng(0).standard_normal((count, 1, 4, 4), dtype=np.float32)
    found = get_backend(fake.flavour).transfer_times(built, settings={}, images=images)
    assert (found.to_device_ms, found.compute_ms, found.to_host_ms) == (TO_DEVICE_MS, COMPUTE_MS, TO_HOST_MS)


def test_answers_are_right_after_copies_were_timed(fake, built):
    images = np.random.default_rng(0).standard_normal((4, 1, 4, 4), dtype=np.float32)
    with open_engine(fake, built) as session:
        before = session.infer(images)
        session.transfers(images)
        np.testing.assert_array_equal(session.infer(images), before)


def test_images_of_another_size_are_not_timed(fake, built):
    with pytest.raises(DataError):
        get_backend(fake.flavour).transfer_times(built, settings={}, images=np.zeros((1, 1, 5, 5), np.float32))
