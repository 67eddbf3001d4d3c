"""Tokens are merged as the paper says: what a merged graph gives is what timm's modules give, merged one by one."""

import importlib
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tome
import torch
from external_vits import write_old
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from onnx_files import read
from onnx_ir.passes import common
from torch import nn
from zoo import Build, dinov2_case, timm_case

from edgevit.errors import GraphError
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.saving import serialize
from edgevit.graph.torch_export import export_onnx
from edgevit.models.dense import DenseCheckpoint
from edgevit.models.loading import load_checkpoint
from edgevit.models.requested import requests_in
from edgevit.models.token_schedule import most_merged

ATOL = 1e-5
IMAGES = 3


@dataclass(frozen=True)
class Case:
    """A model of timm's, how many tokens its blocks merge, and the images (C, H, W) that it takes."""

    build: Build
    schedule: tuple[int, ...] = (4, 2, 3)
    size: tuple[int, int, int] = (3, 32, 32)

    def images(self):
        return torch.rand(IMAGES, *self.size, generator=torch.Generator().manual_seed(0))


def of_timm(name="vit_tiny_patch16_224", **options):
    return timm_case(name, depth=3, **options)


def swiglu(folder):
    packed = importlib.import_module("timm.layers").SwiGLUPacked  # import_timm must come first
    return dinov2_case({}, depth=3, img_size=56, mlp_layer=packed, mlp_ratio=5.25, act_layer=nn.SiLU)(folder)


ODD = {"img_size": 40}  # 25 patches
GREY = {"img_size": (24, 56), "in_chans": 1, "config": {"pretrained_cfg": {"input_size": [1, 24, 56]}}}
CLASSIFIERS = {
    "class-token": Case(of_timm()),
    "not-square": Case(of_timm(**GREY), (3, 5, 0), (1, 24, 56)),
    "registers": Case(of_timm("vit_medium_patch16_reg4_gap_256", embed_dim=128, num_heads=2)),
    "mean": Case(of_timm(global_pool="avg", class_token=False, fc_norm=False, **ODD), (9, 6, 4), (3, 40, 40)),
    "attention": Case(of_timm("vit_base_patch16_siglip_224", num_classes=0)),
}
OTHERS = {
    "odd": Case(of_timm(**ODD), (11, 0, 6), (3, 40, 40)),
    "class-and-distillation-token": Case(of_timm("deit_tiny_distilled_patch16_224")),
    "class-token-and-registers": Case(of_timm(reg_tokens=2), (2, 3, 2)),
    "mean-beside-a-class-token": Case(of_timm(global_pool="avg")),
    "mean-and-maximum": Case(of_timm(global_pool="avgmax", class_token=False)),
    "attention-beside-a-class-token": Case(of_timm(global_pool="map", reg_tokens=2)),
    "norm-in-front": Case(of_timm("vit_base_patch16_clip_224")),
    "LayerScale": Case(of_timm("deit3_small_patch16_224")),
    "DINOv2": Case(dinov2_case({}, depth=3, img_size=42), (3, 0, 1), (3, 42, 42)),
    "DINOv2-with-registers": Case(dinov2_case({}, depth=3, img_size=56, reg_tokens=4), (3, 2, 1), (3, 56, 56)),
    "SwiGLU": Case(swiglu, (4, 2, 3), (3, 56, 56)),
}


def merged(path, schedule):
    """Return the file of ``path`` with tokens merged, in onnxruntime."""
    graph = read(path)
    assert MergeTokens(schedule)(graph).modified
    place = path.with_name("merged.onnx")
    ir.save(graph, place)
    onnx.checker.check_model(str(place), full_check=True)
    return onnxruntime.InferenceSession(place)


def assert_merged_as_timm(session, model, case):
    images = case.images()
    with torch.inference_mode():
        whole, expected = model(images).numpy(), tome.answers(model, images, case.schedule).numpy()
    assert np.abs(whole - expected).max() > 100 * ATOL  # merging is not nothing
    for start, end in ((0, 1), (1, 3), (0, 3)):
        (found,) = session.run(None, {"images": images[start:end].numpy()})
        np.testing.assert_allclose(found, expected[start:end], atol=ATOL, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_answers_are_those_of_timms_modules_merged_as_the_paper_says(tmp_path, name):
    case = CLASSIFIERS[name]
    path, model = case.build(tmp_path)
    loaded = load_checkpoint(str(path))
    export_onnx(loaded.model(), tmp_path / "m.onnx", preprocess=loaded.preprocess, labels=loaded.labels)
    assert_merged_as_timm(merged(tmp_path / "m.onnx", case.schedule), model, case)


@pytest.mark.parametrize("name", OTHERS)
def test_so_are_those_of_files_that_torch_has_written(tmp_path, name):
    case = OTHERS[name]
    _, model = case.build(tmp_path)
    given, path = tmp_path / "given.onnx", tmp_path / "m.onnx"
    write_old(model, given, size=case.size)
    opened = open_onnx(given, "given.onnx", MetadataOverrides(embedding=model.num_classes == 0))
    write_verified(opened, path, case.images().numpy())
    assert_merged_as_timm(merged(path, case.schedule), model, case)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Return timm's model, EdgeViT's file with all kinds of outputs of it, and how images are."""
    folder = tmp_path_factory.mktemp("dense")
    case = Case(of_timm(reg_tokens=1, num_classes=0), size=(3, 32, 32))
    path, model = case.build(folder)
    asked = DenseCheckpoint.of(load_checkpoint(str(path)), requests_in(["tokens", "blocks=0,1", "embedding"]))
    export_onnx(asked.model(), folder / "dense.onnx", preprocess=asked.preprocess, labels=())
    return folder / "dense.onnx", model, case


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.tuples(st.integers(0, 7), st.integers(0, 4), st.integers(0, 2)))
@example(schedule=(7, 3, 2))
@example(schedule=(0, 0, 2))
def test_outputs_of_tokens_have_a_row_for_each_patch_of_what_it_went_into(dense, schedule):
    path, model, case = dense
    assume(any(schedule))
    names = ["tokens", "block_0", "block_1", "embedding"]
    session, images = merged(path, schedule), case.images()
    found = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
    assert [output.name for output in session.get_outputs()] == names
    with torch.inference_mode():
        blocks = [model.norm(each) for each in tome.tokens_of_blocks(model, images, schedule)]
        expected = [each[:, model.num_prefix_tokens :] for each in blocks]
        maps = [each.transpose(1, 2).unflatten(2, (4, 4)) for each in expected]
        wanted = [expected[2], maps[0], maps[1], model.forward_head(blocks[2])]
    for name, each in zip(names, wanted, strict=True):
        np.testing.assert_allclose(found[name], each.numpy(), atol=ATOL, rtol=1e-4, err_msg=name)
    distinct = [len(np.unique(image.round(4), axis=0)) for image in found["tokens"]]
    assert distinct == [16 - sum(schedule)] * IMAGES


def test_a_batch_of_a_fixed_size_is_kept(dense):
    path, model, case = dense
    graph = read(path)
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        value.shape = ir.Shape([2, *value.shape[1:]])
    for node in graph.graph:
        for value in node.outputs:
            value.shape = None
    common.ShapeInferencePass()(graph)
    MergeTokens((4, 2, 0))(graph)
    session, images = onnxruntime.InferenceSession(serialize(graph)), case.images()[:2]
    assert [output.shape[0] for output in session.get_outputs()] == [2] * 4
    with torch.inference_mode():
        expected = tome.answers(model, images, (4, 2, 0)).numpy()
    np.testing.assert_allclose(session.run(["embedding"], {"images": images.numpy()})[0], expected, atol=ATOL)


def test_nothing_is_done_where_nothing_is_to_be_merged(dense):
    graph = read(dense[0])
    before = ir.to_proto(graph).SerializeToString()
    assert not MergeTokens([0, 0, 0])(graph).modified
    assert ir.to_proto(graph).SerializeToString() == before


@pytest.mark.parametrize(
    ("schedule", "reason", "remedy"),
    [
        ([1, 1], "of 2 blocks, the model has 3", "one number for each block"),
        ([8, 0, 0], "block 0 cannot merge 8 of 18 tokens", "merge 0 to 7"),
        ([7, 5, 0], "block 1 cannot merge 5 of 11 tokens", "merge 0 to 4"),
        ([0, -1, 0], "block 1 cannot merge -1 of 18", "merge 0 to 7"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(dense, schedule, reason, remedy):
    with pytest.raises(GraphError, match=reason) as error:
        MergeTokens(schedule)(read(dense[0]))
    assert remedy in str(error.value.remedy)


@pytest.mark.parametrize(("prefix", "counts"), [(0, [7, 4, 2, 1, 0]), (1, [7, 3, 2, 1, 0]), (2, [7, 4, 2, 1, 0])])
def test_of_those_that_are_merged_into_others_one_stays(prefix, counts):
    left, found = prefix + 16, []
    for _ in counts:
        found.append(most_merged(left, prefix))
        left -= found[-1]
    assert (found, left) == (counts, prefix + 16 - sum(counts))
