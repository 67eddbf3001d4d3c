"""What a run leaves to look at."""

import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from edgevit.plots import confusion, curves
from edgevit.plots.curves import Curve, Panel

SVG = "{http://www.w3.org/2000/svg}"


def classes(page, name):
    return [each for each in page.iter() if each.get("class", "").split(" ")[0] == name]


def corners(line):
    return [tuple(map(float, corner.split(","))) for corner in line.get("points").split()]


def test_a_curve_falls_as_its_values_do():
    page = ET.fromstring(curves.draw_curves([Panel("loss", (Curve("training", [3.0, 2.0, 1.0]),))], "Losses"))
    (line,) = page.iter(f"{SVG}polyline")
    (_, first), (_, second), (_, third) = corners(line)
    assert first < second < third  # pixels count from the top
    assert second - first == pytest.approx(third - second, abs=0.02)
    assert "epoch" in [each.text for each in page.iter(f"{SVG}text")]
    assert page.get("aria-label") == "Losses"


def test_panels_stand_beside_one_another_with_all_names():
    panels = [Panel(name, (Curve("a <b>", [1.0, 2.0]), Curve("c", [2.0, 1.0]))) for name in ("loss", "accuracy")]
    page = ET.fromstring(curves.draw_curves(panels, "both"))
    assert len(list(page.iter(f"{SVG}polyline"))) == 4
    said = [each.text for each in page.iter(f"{SVG}text")]
    assert said.count("a <b>") == said.count("c") == 2
    assert [each.get("transform") for each in page.iter(f"{SVG}g") if each.get("transform")] == [
        "translate(0 0)",
        "translate(480 0)",
    ]


@pytest.mark.parametrize(
    ("values", "lines", "dots"),
    [
        ([1.0], 0, 1),
        ([1.0, None, 2.0, 3.0], 1, 1),
        ([None, float("nan")], 0, 0),
        ([], 0, 0),
        ([float("inf"), 1.0], 0, 1),
    ],
)
def test_epochs_without_a_value_are_gaps(values, lines, dots):
    page = ET.fromstring(curves.draw_curves([Panel("loss", (Curve("x", values),))], "x"))
    assert len(list(page.iter(f"{SVG}polyline"))) == lines
    assert len(list(page.iter(f"{SVG}circle"))) == dots


def test_a_matrix_has_its_numbers_and_names():
    page = ET.fromstring(confusion.draw_confusion([[3, 1], [0, 4]], ["cat & dog", "b" * 30], "top-1 on test: 87.50%"))
    cells = classes(page, "cell")
    assert [float(cell.get("fill-opacity")) for cell in cells] == [0.75, 0.25, 1.0]
    assert [each.text for each in classes(page, "count")] == ["3", "1", "4"]
    said = [each.text for each in page.iter(f"{SVG}text")]
    assert said.count("cat & dog") == 2
    assert said.count("b" * 19 + "…") == 2
    assert "top-1 on test: 87.50%" in said


def test_a_class_without_images_is_an_empty_row():
    page = ET.fromstring(confusion.draw_confusion([[0, 0], [1, 1]], ["a", "b"], "t"))
    assert len(classes(page, "cell")) == 2


def test_many_classes_are_an_image_of_shades():
    counts = np.diag(np.full(300, 5))
    counts[0, 299] = 5
    content = confusion.draw_confusion(counts.tolist(), [str(index) for index in range(300)], "t")
    assert len(content) < 100_000
    (image,) = ET.fromstring(content).iter(f"{SVG}image")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get("href").partition(",")[2]))))
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert np.array_equal(pixels[..., 3], np.rint(255 * shares).astype(np.uint8))
