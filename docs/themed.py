"""Figures for pages that are read light or dark: SVG without a background.

What is black in a figure, as text and ticks are by default, has the color of the page's text.
"""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.spines import Spine
from matplotlib.text import Text

_TEXT = "#123456"  # replaced by the color of text on the page
_BLACK = "#000000"


def svg(figure: Any, label: str) -> str:
    """A figure as an element of a page.

    Args:
        figure: The figure.
        label: What it shows, for those who do not see it.

    Returns:
        The element.
    """
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # makes the ticks
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        axes.tick_params(which="both", color=_TEXT)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if to_hex(text.get_color()) == _BLACK:
            text.set_color(_TEXT)
    for spine in figure.findobj(Spine):
        assert isinstance(spine, Spine)
        spine.set_edgecolor(_TEXT)
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "autodiffkit"}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue().replace(_TEXT, "currentColor")
    attributes = f'class="plot" role="img" aria-label="{label}"'
    return text[text.index("<svg") :].replace("<svg", f"<svg {attributes}", 1)
