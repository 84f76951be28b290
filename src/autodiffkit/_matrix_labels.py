"""Names of blocks beside the rows and the columns of a matrix, as far as they do not overlap."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from autodiffkit._fitting import width_of
from autodiffkit._plotting import font_size, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Label(NamedTuple):
    """A name, and the rows or columns from `start` to `stop` that it is of.

    Args:
        name: As it is shown, on one line.
        start: The first row or column.
        stop: The one after the last.
        argument: The argument or the part of the output that it belongs to.
    """

    name: str
    start: float
    stop: float
    argument: str = ""

    @property
    def middle(self) -> float:
        """Its place in axes where an entry is in the middle of its unit."""
        return (self.start + self.stop - 1) / 2


def longest(labels: Sequence[Label]) -> int:
    """The letters of the longest name."""
    return max((width_of(label.name) for label in labels), default=0)


def label_rows(axes: "Axes", labels: Sequence[Label], unit: float) -> None:
    """Writes names at the left.

    Args:
        axes: The axes.
        labels: The names.
        unit: The height of a row in inches.
    """
    line = 1.25 * font_size("ytick.labelsize") / 72
    shown = _thinned(labels, [line] * len(labels), unit)
    axes.set_yticks([x.middle for x in shown], [literal(x.name) for x in shown], minor=False)
    axes.tick_params(axis="y", left=True, right=False, labelleft=True, labelright=False, length=2)
    axes.minorticks_off()


def label_columns(axes: "Axes", labels: Sequence[Label], unit: float) -> None:
    """Writes names at the top: level, or slanted or upright where they would overlap.

    Args:
        axes: The axes.
        labels: The names.
        unit: The width of a column in inches.
    """
    letter = 0.62 * font_size("xtick.labelsize") / 72
    line = 1.25 * font_size("xtick.labelsize") / 72
    widths = [letter * (width_of(x.name) + 1.5) for x in labels]
    shown, angle = _thinned(labels, widths, unit), 0
    for spacing, slant in ((1.45 * line, 45), (line, 90)):
        if len(shown) == len(labels):
            break
        shown, angle = _thinned(labels, [spacing] * len(labels), unit), slant
    axes.xaxis.set_ticks_position("top")
    axes.set_xticks([x.middle for x in shown], [literal(x.name) for x in shown], minor=False)
    axes.tick_params(axis="x", top=True, bottom=False, length=2)
    for tick in axes.get_xticklabels():
        tick.set_rotation(angle)
        tick.set_rotation_mode("anchor" if angle == 45 else "default")
        tick.set_horizontalalignment("left" if angle == 45 else "center")


def _thinned(labels: Sequence[Label], needs: Sequence[float], unit: float) -> list[Label]:
    """The labels of the largest blocks, as many as have room beside one another."""
    order = sorted(range(len(labels)), key=lambda i: labels[i].start - labels[i].stop)
    taken: list[int] = []
    for i in order:
        if labels[i].stop > labels[i].start and all(
            abs(labels[i].middle - labels[k].middle) * unit >= (needs[i] + needs[k]) / 2
            for k in taken
        ):
            taken.append(i)
    return [labels[i] for i in sorted(taken)]
