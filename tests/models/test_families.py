"""Every family against its own library: the same weights and images give the same output within 1e-5."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from measured_families import ENGINES, measure_checkpoint, measure_module, measured, note
from zoo import CASES as PLAIN
from zoo_modules import MODULES, ModuleCase
from zoo_positions import CASES as POSITIONS

from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.verify import export_verified
from edgevit.models.loading import load_checkpoint

TOLERANCE = 1e-5
CASES = (*PLAIN, *POSITIONS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_equal_the_librarys(case, tmp_path):
    path, reference = case.build(tmp_path)
    loaded = load_checkpoint(str(path))
    assert (loaded.spec.channels, *loaded.spec.image_size) == case.size
    images = torch.randn(3, *case.size)
    with torch.inference_mode():
        expected, found = reference(images), loaded.model()(images)
    assert expected.std() > 0.05, "the comparison would see nothing"
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert found.shape == (3, loaded.spec.outputs)


#: Of each adapter, and of each part that only some families have, one: an export takes seconds. All: --every-export.
EXPORTED = (
    "timm DeiT distilled: two tokens, two heads averaged",
    "timm mean-pooled: fc_norm",
    "timm registers: 4 registers, positions for patches alone",
    "timm SigLIP: tanh GELU from config.json, classes",
    "timm CLIP: QuickGELU from config.json",
    "DINOv2: SwiGLU",
    "Hugging Face DINOv2: registers",
    "Hugging Face ViT: sharded, width 64, images of 16x40, no qkv biases",
    "Hugging Face DeiT: two heads averaged",
    "Hugging Face CLIP: CLIPVisionModelWithProjection",
    "Hugging Face SigLIP: SiglipVisionModel",
    "CLIP: OpenAI's state_dict, QuickGELU, text tower left out",
    "OpenCLIP SigLIP: a tower of timm's with a projection",
    "torchvision: older names, pre_logits",
    "vit-pytorch: heads wider than the model",
    "JAX .npz: AugReg with pre_logits, from an optimiser's state",
    "timm RoPE-ViT: mixed and learned positions, images of 32x64",
    "Hugging Face BEiT: BeitForImageClassification",
)


def pytest_generate_tests(metafunc):
    if "exported" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-export")
        chosen = [case for case in CASES if every or case.name in EXPORTED]
        metafunc.parametrize("exported", chosen, ids=lambda case: case.name)


@pytest.mark.slow
def test_exports_equal_the_library_and_their_linears_are_found(exported, tmp_path):
    path, reference = exported.build(tmp_path)
    loaded = load_checkpoint(str(path))
    loaded = loaded if loaded.spec.classes else loaded.normalized()
    images = torch.randn(4, *exported.size)
    onnx = tmp_path / "model.onnx"
    model = loaded.model()
    export_verified(model, onnx, images.numpy(), preprocess=loaded.preprocess, labels=loaded.labels)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        expected = reference(images)
    if not loaded.spec.classes:
        expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    linears = {layer.name: layer for layer in find_linears(load_graph(onnx).graph)}
    assert set(linears) == {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert all(layer.bias is not None for layer in linears.values())


def test_every_case_to_export_is_there():
    assert set(EXPORTED) <= {case.name for case in CASES}


def one_of_each_family(cases):
    return list({case.family: case for case in reversed(cases)}.values())


#: Of each family the first.
MEASURED = (*one_of_each_family(CASES), *MODULES)


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: case.name)
def test_families_are_measured(case, tmp_path, request):
    if not request.config.getoption("--measure-families"):
        pytest.skip("measured with --measure-families")
    measure = measure_module if isinstance(case, ModuleCase) else measure_checkpoint
    note(case.name, measure(case, tmp_path))


def test_what_was_measured_holds():
    found = measured()
    assert set(found) <= {case.name for case in (*CASES, *MODULES)}
    assert len({case.family for case in MEASURED if case.name in found}) >= 35
    for name, one in found.items():
        assert one.get("torch", 0) < TOLERANCE, name
        assert one["onnx"] < 1e-4, name
        for engine in ENGINES:
            integers, linears = one[engine]["linears"].split(" of ")
            assert integers == linears or name in MODULE_NAMES, (name, engine)
            assert one[engine]["sqnr_db"] > (14.5 if name in NEAR else 15), (name, engine)


MODULE_NAMES = {case.name for case in MODULES}
#: With random weights both have 14.7 dB on onnxruntime: their probabilities, which INT8 is judged by, are nearly flat.
NEAR = {"LeViT: levit_128s", "MobileCLIP: fastvit_mci0"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm EVA-02 CLIP: norms in attention and MLP"])
def test_a_family_goes_the_whole_way(name, tmp_path):
    """As all do with --measure-families: Linear layers in integers, near float32."""
    (case,) = [case for case in MEASURED if case.name == name]
    measure = measure_module if isinstance(case, ModuleCase) else measure_checkpoint
    found = measure(case, tmp_path)
    assert found["onnx"] < 1e-4
    for engine in ENGINES:
        assert found[engine]["share"] > 0.8
        assert found[engine]["sqnr_db"] > 20


DOCS = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made by: pytest tests/models/test_families.py --write-docs -->\n", "<!-- end -->"


HEAD = "| family | what was loaded and compared | input | torch | ONNX | integers | agreement | SQNR |"


def table() -> str:
    found = measured()
    lines = [HEAD, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for case in CASES:
        size = "x".join(map(str, case.size))
        lines.append(f"| {case.family} | {case.loads} | {size} | {figures(found.get(case.name))} |")
    for case in MODULES:
        if case.name not in found:
            continue
        size = f"3x{case.size}x{case.size}"
        lines.append(
            f"| {case.family} | `{case.architecture}` as a module | {size} | {figures(found.get(case.name))} |"
        )
    return "\n".join(lines) + "\n"


def figures(found: dict | None) -> str:
    """Return the columns of what was measured; of INT8 onnxruntime's and OpenVINO's, where they differ."""
    if found is None:
        return "< 1e-5 |  |  |  | "
    parity = f"{found['torch']:.0e}".replace("e-0", "e-") if "torch" in found else "|"
    shown = {
        "share": lambda value: "not known" if value is None else f"{value:.0%}",
        "agreement": lambda value: f"{value:.0%}",
        "sqnr_db": lambda value: f"{value:.0f} dB",
    }
    columns = [
        " and ".join(dict.fromkeys(show(found[engine][key]) for engine in ENGINES)) for key, show in shown.items()
    ]
    onnx = f"{found['onnx']:.0e}".replace("e-0", "e-")
    return " | ".join([parity.strip("|"), onnx, *columns])


def test_the_table_in_the_docs_is_current(request):
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    current, _, after = rest.partition(END)
    if request.config.getoption("--write-docs"):
        DOCS.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
    else:
        assert current == table(), "run: pytest tests/models/test_families.py --write-docs"
