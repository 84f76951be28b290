"""Checks of derivatives as a chart: errors beside what is tolerated, block by block."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autodiffkit._fitting import width_of
from autodiffkit._plotting import (
    FAILED,
    LINE,
    PUSHED,
    axes_for,
    below,
    cell,
    font_size,
    inches,
    literal,
    need_matplotlib,
    set_title,
    short_names,
    title_width,
    with_fonts,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = 40
_LEAST_FONT, _SPACING = 6.0, 1.2  # points of letters, and sizes from one row to the next
_NAMES = 0.5  # the part of the width that names may take
_TITLE, _WIDE = 6.5, 3.8  # inches
_LEAST = 1e-18  # errors and tolerances below this are at the left end


class Bar(NamedTuple):
    """What is drawn of a block.

    Args:
        names: The output, and the inputs that it is differentiated by.
        finding: What was found.
        error: By how much two ways disagree.
        tolerance: By how much they may.
        passed: Whether nothing is wrong.
    """

    names: tuple[str, ...]
    finding: str
    error: float
    tolerance: float
    passed: bool


def draw_report(call: str, title: str, bars: Sequence[Bar], ax: Any) -> "Axes":
    """Draws the errors of blocks and their tolerances.

    Args:
        call: The call, for messages.
        title: What was checked.
        bars: The blocks, the worst one first.
        ax: Axes, or `None` for new ones.

    Returns:
        The axes.
    """
    need_matplotlib(call)
    font, point = font_size("ytick.labelsize"), 27.0
    shown = bars[:_ROWS]
    labels = _labels(shown)
    letters = max(map(width_of, labels), default=0)
    width = max(5.0 + 0.6 * letters * font / 72, min(title_width(title), _TITLE))
    axes = axes_for(call, ax, (width, 0.27 * max(len(shown), 1) + 1.4))
    if ax is not None:
        width, height = _room(axes)
        shown = shown[: max(1, int(72 * height / (_SPACING * _LEAST_FONT)))]
        point = 72 * height / max(len(shown), 1)
        font = min(font, max(point / _SPACING, _LEAST_FONT))
        labels = _fitted(shown, int(_NAMES * 72 * width / (0.6 * font)))
    set_title(axes, title, width - 0.2)
    if not shown:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "nothing was compared", ha="center", va="center")
        return axes
    least, most = _limits(shown)
    axes.set_xscale("log")
    axes.set_xlim(least, most)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    for passed, colour, label in (
        (True, PUSHED, "error"),
        (False, FAILED, "error of a block that fails"),
    ):
        rows = [i for i, bar in enumerate(shown) if bar.passed == passed]
        if not rows:
            continue
        places = [_place(shown[i].error, least, most) for i in rows]
        axes.hlines(rows, least, places, color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(
            places,
            rows,
            "o",
            color=colour,
            label=label,
            clip_on=False,
            markersize=min(6, 0.6 * point),
        )
    axes.plot(
        [_place(bar.tolerance, least, most) for bar in shown],
        range(len(shown)),
        linestyle="none",
        marker="|",
        markersize=min(13, 0.9 * point),
        markeredgewidth=2,
        color=LINE,
        label="tolerance",
    )
    for i, bar in enumerate(shown):
        if not math.isfinite(bar.error):
            axes.annotate(
                f"{bar.error}",
                (most, i),
                xytext=(-8, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color=FAILED,
                fontsize=font,
            )
    axes.set_yticks(range(len(shown)), [literal(label) for label in labels], fontsize=font)
    for tick, bar in zip(axes.get_yticklabels(), shown, strict=True):
        if not bar.passed:
            tick.set_color(FAILED)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    hidden = len(bars) - len(shown)
    gap = " " if width > _WIDE else "\n"
    more = f"{gap}({hidden} more {'blocks are' if hidden > 1 else 'block is'} not drawn)"
    axes.set_xlabel("disagreement" + (more if hidden else ""))
    small = 0.9 * font_size("axes.labelsize")
    lower = 1.2 * font_size("axes.labelsize") * axes.get_xlabel().count("\n")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below(axes, 1.8 * (font_size("xtick.labelsize") + small) + lower),
        borderaxespad=0.4,
        ncols=3 if width > _WIDE else 1,
        frameon=False,
        fontsize=small,
    )
    return with_fonts(axes)


def _room(axes: "Axes") -> tuple[float, float]:
    """The width of all that is drawn in inches, and the height that rows have of it."""
    figure: Any = axes.figure
    width, height = cell(axes)
    if figure.get_layout_engine() is not None:
        return width, max(height - 1.2, 0.3 * height)
    return width, inches(axes)[1]


def _fitted(bars: Sequence[Bar], letters: int) -> list[str]:
    """Labels of at most so many letters, if they can be that short and stay different."""
    labels = _labels(bars)
    for width in (20, 16, 12, 10, 8, 6):
        if max(map(width_of, labels), default=0) <= letters:
            break
        labels = _labels(bars, width)
    return labels


def _labels(bars: Sequence[Bar], width: int = 26) -> list[str]:
    """`energy by x and y`, with each name shortened by itself, so that no two are alike."""
    outputs = list(dict.fromkeys(bar.names[0] for bar in bars))
    inputs = list(dict.fromkeys(name for bar in bars for name in bar.names[1:]))
    of = dict(zip(outputs, short_names(outputs, width), strict=True))
    by = dict(zip(inputs, short_names(inputs, width), strict=True))
    return [
        f"{of[bar.names[0]]} by {' and '.join(by[name] for name in bar.names[1:])}"
        + ("" if bar.passed else f": {bar.finding}")
        for bar in bars
    ]


def _limits(bars: Sequence[Bar]) -> tuple[float, float]:
    """The ends of the scale, around all that is positive and finite."""
    known = [x for bar in bars for x in (bar.error, bar.tolerance) if _LEAST < x < math.inf]
    return 0.3 * min(known, default=1e-8), 10 * max(known, default=1.0)


def _place(number: float, least: float, most: float) -> float:
    """Where a number is: zero at the left end, and what is not finite at the right one."""
    return max(number, least) if math.isfinite(number) else most
