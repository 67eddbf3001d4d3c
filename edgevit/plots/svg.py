"""The text of SVG elements, and how they look: the one place with a plot's colours and type."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

#: How plots look, within an element that sets the colours; see ``COLOURS`` for what they are by themselves.
STYLE = """\
.plot { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { font: 12px var(--sans); fill: var(--soft); font-variant-numeric: tabular-nums; }
.plot .name { fill: var(--ink); font-weight: 600; font-size: 12.5px; paint-order: stroke; stroke: var(--paper); \
stroke-width: 4px; stroke-linejoin: round; }
.plot .heading { fill: var(--ink); font-weight: 600; font-size: 13.5px; }
.plot .grid line { stroke: var(--line); }
.plot .axis { stroke: var(--faint); }
.front { fill: none; stroke: var(--faint); stroke-width: 1.25; stroke-dasharray: 3 4; }
.budgets { fill: none; stroke-width: 1.75; stroke-linejoin: round; opacity: .75; }
.budgets.int8 { stroke: var(--int8); } .budgets.other { stroke: var(--fp16); }
.mark { stroke: var(--paper); stroke-width: 1.5; }
.mark.int8 { fill: var(--int8); } .mark.other { fill: var(--fp16); }
.mark.float32 { fill: var(--paper); stroke: var(--float32); stroke-width: 2.25; }
.whisker { fill: none; stroke-width: 1.25; opacity: .75; }
.whisker.int8 { stroke: var(--int8); } .whisker.other { stroke: var(--fp16); }
.whisker.float32 { stroke: var(--float32); }
.curve { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.curve.c0 { stroke: var(--float32); } .curve.c1 { stroke: var(--int8); } .curve.c2 { stroke: var(--fp16); }
.dot.c0 { fill: var(--float32); } .dot.c1 { fill: var(--int8); } .dot.c2 { fill: var(--fp16); }
.dot.k0, .key .dot.k0 { fill: var(--int8); } .curve.k0, .ring.k0 { stroke: var(--int8); }
.dot.k1, .key .dot.k1 { fill: var(--fp16); } .curve.k1, .ring.k1 { stroke: var(--fp16); }
.dot.k2, .key .dot.k2 { fill: var(--violet); } .curve.k2, .ring.k2 { stroke: var(--violet); }
.dot.k3, .key .dot.k3 { fill: var(--float32); } .curve.k3, .ring.k3 { stroke: var(--float32); }
.dot.k9 { fill: var(--ink); } .ring.k9 { stroke: var(--ink); }
.ring { fill: var(--paper); stroke-width: 2; } .curve.thin { stroke-width: 1.1; opacity: .55; }
.cell { fill: var(--int8); }
.plot .count { fill: var(--ink); } .plot .count.dense { fill: var(--paper); }
"""

#: The colours of a plot that stands alone, on light and on dark screens.
COLOURS = """\
svg { --paper: #ffffff; --ink: #171a1f; --soft: #5a626e; --faint: #8a93a0; --line: #e1e4e8;
  --int8: #0b6e6e; --float32: #6a7482; --fp16: #a2570e; --violet: #6b4fb3;
  --sans: "Inter", system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #14171b; --ink: #e8eaed; --soft: #a5adb8; --faint: #7b8491; --line: #2c323a;
    --int8: #4fc4bf; --float32: #9aa4b2; --fp16: #e5a04f; --violet: #b39df0; }
}
.paper { fill: var(--paper); }
"""


def element(tag: str, *inner: str, **attributes: str | float) -> str:
    """Return the text of an element around ``inner``, which is SVG already; ``class_`` and ``text_anchor`` are names.

    Values of attributes are escaped, and numbers rounded to what can be seen.
    """
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_plain(value))}"' for name, value in attributes.items()
    )
    return f"<{tag}{said}>{''.join(inner)}</{tag}>" if inner else f"<{tag}{said}/>"


def text_element(words: str, x: float, y: float, **attributes: str | float) -> str:
    """Return the text of a line of words, whatever is in them."""
    return element("text", html.escape(_visible(words)), x=x, y=y, **attributes)


def xml_escaped(words: str) -> str:
    """Return words as they stand between tags, whatever is in them."""
    return html.escape(_visible(words))


def plot(parts: Iterable[str], width: int, height: int, label: str, name: str = "") -> str:
    """Return a whole plot; ``label`` says what it shows to those who cannot see it."""
    size = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria_label": _visible(label)}
    return element("svg", "\n", *(f"{part}\n" for part in parts), class_=f"plot {name}".strip(), **size)


def standalone(plot: str, width: int, height: int) -> bytes:
    """Return the content of a file that shows ``plot``, which has ``width`` by ``height`` pixels."""
    style = element("style", f"\n{COLOURS}{STYLE}")
    paper = element("rect", class_="paper", width=width, height=height)
    opening, _, rest = plot.partition(">")
    size = f' xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    return f"{opening}{size}\n{style}\n{paper}{rest}\n".encode()


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _visible(words: str) -> str:
    """Replace what XML does not take: control characters, and what stands for bytes that are no UTF-8.

    Characters that only shape others (Cf) stay: names in Persian and emoji have them.
    """
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Cf" else "\N{REPLACEMENT CHARACTER}"
        for letter in words
    )
