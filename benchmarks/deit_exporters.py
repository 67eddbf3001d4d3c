"""What a ViT's INT8 is worth by who exported it: the same weights in three libraries' classes, by torch's exporters.

    python benchmarks/deit_exporters.py deit_tiny_patch16_224.safetensors --calibration PHOTOS --evaluation PHOTOS

Each file goes the whole way: ``edgevit.export``, ``edgevit.quantize`` for onnxruntime, OpenVINO and in the portable
form, ``edgevit.validate``. Writes a Markdown table: the SQNR of the logits against float32 in dB, the agreement, and
the share of multiply-adds in integers, by engine. Needs timm (tests/requirements-nodeps.txt) and transformers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from command_line import command_line
from comparison import machine
from exporters import new, old, quietly
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor, nn

import edgevit
from edgevit.files import write_atomically
from edgevit.report.formats import decibels, percent

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from oracles import import_timm

OUTPUT = Path("benchmarks/results/deit-exporters.md")
WIDTH, DEPTH, HEADS, CLASSES, SIDE = 192, 12, 3, 1000, 224
OWN = "edgevit export"
DIALECTS = ("onnxruntime", "openvino", "portable")
EPSILON = 1e-6

Weights = Mapping[str, Tensor]


def of_timm(weights: Weights, *, fused: bool = True) -> nn.Module:
    """Return timm's model; ``fused`` False writes its attention out, which opset 13 needs."""
    model = import_timm().create_model("deit_tiny_patch16_224")
    model.load_state_dict(weights)
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model.eval()


class Logits(nn.Module):
    """A model of transformers' that gives a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.model(images).logits
        return logits


def of_transformers(weights: Weights) -> nn.Module:
    """Return transformers' model."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        num_labels=CLASSES,
        layer_norm_eps=EPSILON,
    )
    model = ViTForImageClassification(config)
    names = {
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "vit.layernorm": "norm",
        "classifier": "head",
    }
    within = {
        "attention.o_proj": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    state: dict[str, Tensor] = {}
    for key in model.state_dict():
        if key in names:
            state[key] = weights[names[key]]
            continue
        module, kind = key.rsplit(".", 1)
        if module in names:
            state[key] = weights[f"{names[module]}.{kind}"]
            continue
        _, _, number, part = module.split(".", 3)
        if part in within:
            state[key] = weights[f"blocks.{number}.{within[part]}.{kind}"]
        else:
            index = ("attention.q_proj", "attention.k_proj", "attention.v_proj").index(part)
            state[key] = weights[f"blocks.{number}.attn.qkv.{kind}"].chunk(3)[index]
    model.load_state_dict(state)
    return Logits(model).eval()


class Block(nn.Module):
    """A pre-norm block of ``nn.MultiheadAttention``, tokens first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=EPSILON), nn.LayerNorm(WIDTH, eps=EPSILON)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (N, B, D) behind the block."""
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class MultiheadViT(nn.Module):
    """The model as PyTorch's own modules make it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, 197, WIDTH))
        self.blocks = nn.Sequential(*[Block() for _ in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=EPSILON), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(images.shape[0], -1, -1), patches], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x.transpose(0, 1)))[0])
        return logits


def of_torch(weights: Weights) -> nn.Module:
    """Return the model of ``nn.MultiheadAttention``."""
    model = MultiheadViT()
    names = {
        "token": "cls_token",
        "positions": "pos_embed",
        "embed.": "patch_embed.proj.",
        "attention.in_proj_": "attn.qkv.",
        "attention.out_proj.": "attn.proj.",
        ".fc1.": ".mlp.fc1.",
        ".fc2.": ".mlp.fc2.",
    }
    state = {}
    for key in model.state_dict():
        name = key
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[key] = weights[name]
    model.load_state_dict(state)
    return model.eval()


FILES: dict[str, tuple[Callable[[Weights], nn.Module], Callable[[nn.Module, Path], object]]] = {
    "timm, dynamo=False, opset 13": (lambda weights: of_timm(weights, fused=False), old(13, side=SIDE)),
    "timm, dynamo=False, opset 17": (of_timm, old(17, side=SIDE)),
    "timm, dynamo=False, opset 17, one image": (of_timm, old(17, 1, SIDE)),
    "timm, dynamo=True": (of_timm, new(side=SIDE)),
    "timm, dynamo=True, one image": (of_timm, new(1, SIDE)),
    "transformers, dynamo=False, opset 17": (of_transformers, old(17, side=SIDE)),
    "transformers, dynamo=True": (of_transformers, new(side=SIDE)),
    "nn.MultiheadAttention, dynamo=False, opset 14": (of_torch, old(14, side=SIDE)),
    "nn.MultiheadAttention, dynamo=True, one image": (of_torch, new(1, SIDE)),
}


def row(name: str, source: Path, options: argparse.Namespace, folder: Path) -> str:
    """Return the line of one file."""
    bundle = edgevit.export(source, folder / "it.edgevit", data=options.evaluation, overwrite=True).bundle
    cells = []
    for dialect in DIALECTS:
        made = edgevit.quantize(bundle, data=options.calibration, dialect=dialect)
        (variant,) = [each.name for each in made.variants if each.precision == "int8"]
        checked = edgevit.validate(bundle, data=options.evaluation, samples=options.samples, variants=[variant])
        found = checked.accuracies[variant]
        share = checked.bundle.variant(variant).kernels.integer_share
        cells.append(f"{decibels(found.sqnr_db)}, {percent(found.agreement, found.images)}, {share:.0%}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--samples", type=int, default=300, help="images to measure on")
    parser.add_argument("--only", action="append", default=[], help="what has this in its name; can be given again")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    weights = load_file(options.weights)
    lines = ["# DeiT-tiny in INT8, by exporter", ""]
    command = command_line()
    lines += [f"`{command}`: {options.samples} images, by engine. {machine(0)}", ""]
    lines += ["| exported by | " + " | ".join(DIALECTS) + " |", "| --- " * (1 + len(DIALECTS)) + "|"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = [name for name in (OWN, *FILES) if not options.only or any(each in name for each in options.only)]
        for name in track(names):
            source = options.weights
            if name in FILES:
                build, write = FILES[name]
                source = folder / "it.onnx"
                with quietly():
                    write(build(weights), source)
            lines.append(row(name, source, options, folder))
            write_atomically(options.output, "\n".join([*lines, ""]).encode())
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
