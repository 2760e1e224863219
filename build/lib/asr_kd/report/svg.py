"""Figures as SVG that follows the reader's light or dark scheme.

Matplotlib draws in the colours of ``LIGHT``; each becomes a CSS variable, which the page (or the file itself)
sets for both schemes.  Text stays text, in the page's font.
"""

import io
import re
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib.figure import Figure

#: Colours of text, lesser text, hairlines and page; then of series that colour-blind readers can tell apart
#: (after Okabe and Ito), darker on white and lighter on black for contrast.
LIGHT = {
    "ink": "#16191d",
    "muted": "#5f6773",
    "hair": "#d5dae1",
    "page": "#fefefe",
    "s0": "#6d7683",
    "s1": "#0868ac",
    "s2": "#9c6a00",
    "s3": "#c4420f",
    "s4": "#8e4585",
    "s5": "#007f5f",
    "s6": "#4b52c4",
}
DARK = {
    "ink": "#eceff3",
    "muted": "#a3acb8",
    "hair": "#353c46",
    "page": "#14171b",
    "s0": "#9aa4b2",
    "s1": "#5ab4f0",
    "s2": "#e5b13a",
    "s3": "#ff8a57",
    "s4": "#dd93d3",
    "s5": "#3fcfa4",
    "s6": "#9aa2ff",
}
INK, MUTED, HAIR, PAGE = (LIGHT[name] for name in ("ink", "muted", "hair", "page"))
SERIES = [colour for name, colour in LIGHT.items() if name.startswith("s")]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', Arial, sans-serif"
SCHEMES = (
    ":root{color-scheme:light dark;"
    + "".join(f"--{name}:{value};" for name, value in LIGHT.items())
    + "}@media (prefers-color-scheme:dark){:root{"
    + "".join(f"--{name}:{value};" for name, value in DARK.items())
    + "}}"
)

#: Matplotlib's settings (typed Any: its stubs list every key).
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": HAIR,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "xtick.major.width": 0.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.constrained_layout.use": True,
}


def render(figure: Figure, name: str) -> str:
    """The ``<svg>`` element of a figure, with CSS variables for colours.

    Args:
        figure: drawn in the colours of ``LIGHT`` under ``STYLE``.
        name: prefix of the ids in it, so that a page can hold several figures.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace("font-family: 'DejaVu Sans'", f"font-family: {FONT}")
    for name_of_colour, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name_of_colour})")
    return text.strip()


def standalone(svg: str) -> str:
    """The result of ``render`` as a whole file."""
    head, rest = svg.split(">", 1)
    ground = '<rect width="100%" height="100%" style="fill: var(--page)"/>'
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>\n <style>{SCHEMES}</style>\n {ground}{rest}\n'
