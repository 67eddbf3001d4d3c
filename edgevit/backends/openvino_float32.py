"""Mark in OpenVINO's IR what shall be computed in float32, whatever precision the model is compiled for.

That is the patch embedding of a quantized model where it stayed a convolution (``quantization.rewrites.patches`` says
when). What BF16 rounds there stays in the residual stream to the end. A patch embedding that went back to float as a
Linear layer is computed in BF16: OpenVINO does not heed the mark on a MatMul.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

#: OpenVINO's own mark of operators whose precision is not to be lowered: 2024.6, 2025.3 and 2026.4 heed it.
_MARK = {"name": "precise", "version": "0"}


def keep_float32(path: Path) -> int:
    """Mark, in the IR ``path``, the convolutions before the first quantized layer; return how many they are.

    They compute in float32 then even where the model is compiled for BF16. There are none where nothing is quantized.
    """
    content = path.read_bytes()
    if not all(kind in content for kind in (b'"FakeQuantize"', b'"Convolution"')):  # which is quick to see
        return 0
    tree = ElementTree.parse(path)  # noqa: S314 - OpenVINO has just written it
    layers = {layer.attrib["id"]: layer for layer in tree.iterfind("layers/layer")}
    consumers: dict[str, set[str]] = defaultdict(set)
    for edge in tree.iterfind("edges/edge"):
        consumers[edge.attrib["from-layer"]].add(edge.attrib["to-layer"])

    def reached(kind: str) -> set[str]:
        return _reached({name for name, layer in layers.items() if layer.attrib["type"] == kind}, consumers)

    quantized = reached("FakeQuantize")
    if not quantized:
        return 0
    before = map(layers.__getitem__, reached("Parameter") - quantized)
    convolutions = [layer for layer in before if layer.attrib["type"] == "Convolution"]
    for layer in convolutions:
        notes = layer.find("rt_info")
        if notes is None:
            notes = ElementTree.Element("rt_info")
            layer.insert(_place_of_notes(layer), notes)
        ElementTree.SubElement(notes, "attribute", _MARK)
    tree.write(path, encoding="utf-8", xml_declaration=True)
    return len(convolutions)


def _reached(start: set[str], consumers: dict[str, set[str]]) -> set[str]:
    """Return ``start`` and all that reads what they give, at first or second hand."""
    reached, left = set(start), list(start)
    while left:
        new = consumers[left.pop()] - reached
        reached |= new
        left += new
    return reached


def _place_of_notes(layer: ElementTree.Element) -> int:
    """Return where OpenVINO writes notes: behind the attributes, in front of the ports."""
    return next((index for index, child in enumerate(layer) if child.tag in ("input", "output")), len(layer))
