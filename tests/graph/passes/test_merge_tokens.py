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
from onnx_files import read
from torch import nn
from zoo import Build, dinov2_case, timm_case

from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.torch_export import export_onnx
from edgevit.models.loading import load_checkpoint

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
