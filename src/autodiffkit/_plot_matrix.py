"""Matrices of blocks as heat maps and spy plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.core
import numpy as np

from autodiffkit._block_table import BlockTable
from autodiffkit._errors import SelectionError, StructureError
from autodiffkit._jax_compat import is_deleted
from autodiffkit._leaves import LeafSpec, describe_leaf, slices
from autodiffkit._matrix_drawing import Drawing, Kind, Style
from autodiffkit._matrix_labels import Label, longest
from autodiffkit._paths import show
from autodiffkit._plotting import (
    axes_for,
    cell,
    font_size,
    inches,
    need_matplotlib,
    set_title,
    short_names,
    title_width,
    with_fonts,
)
from autodiffkit._raster import Sides, raster

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS: tuple[Kind, ...] = ("auto", "heatmap", "spy")

_PANELS = 6
_WRITTEN_IF_ASKED = 2500
_NARROW = 6  # the ratio of sides up to which entries are square
_BAR, _TITLE = 0.7, 4.5  # inches of the colour bar, and of a line of the title
_THINNEST = 4.0  # points of a block at least, so that the lines beside it do not cover it
_ENTRY, _WIDTH, _HEIGHT = 0.6, 6.0, 5.5  # inches of an entry, and of a matrix at most


def draw_matrix(  # noqa: PLR0917  # what a method passes on
    call: str, title: str, blocks: BlockTable, sides: Sides, ax: Any, style: Style
) -> "Axes":
    """Draws a matrix of blocks.

    Args:
        call: The call, for messages.
        title: What the matrix is.
        blocks: Its blocks.
        sides: What belongs to its rows and columns.
        ax: Axes, or `None` for new ones.
        style: How.

    Returns:
        The axes.
    """
    _check(call, blocks, sides, style)
    need_matplotlib(call)
    rows, columns = _labels(sides)
    wanted, margins = _size(sides, rows, columns)
    # The title is above the middle of the matrix, which is not that of the figure.
    aside = abs(margins[0] - 1.3 - _BAR)
    wide = max(wanted[0] + margins[0], min(title_width(title), _TITLE) + aside + 0.2)
    axes = axes_for(call, ax, (wide, wanted[1] + margins[1]))
    height, width = sides.shape
    set_title(axes, title, (wide if ax is None else cell(axes)[0]) - aside - 0.2)
    if not height or not width:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"{height} by {width}: no entries", ha="center", va="center")
        return axes
    is_square = max(height, width) <= _NARROW * min(height, width)
    room = wanted if ax is None else _room(axes, margins, sides if is_square else None)
    figure: Any = axes.figure
    across, down = (_THINNEST / (72 * x) for x in room)
    image = raster(blocks, sides, _limits(room, figure.dpi), (down, across))
    return with_fonts(
        Drawing(axes, image, sides, room, style).draw(rows, columns, is_square=is_square)
    )


# What cannot be drawn --------------------------------------------------------------------


def _check(call: str, blocks: BlockTable, sides: Sides, style: Style) -> None:
    """Refuses what has no values and what makes no sense.

    Raises:
        SelectionError: For an option.
        StructureError: For the arrays.
    """
    kind: Any = style.kind
    if not isinstance(kind, str) or kind not in KINDS:  # an array compares by entries
        raise SelectionError(
            f"{call}: there is no kind {kind!r} of plot; it is one of 'auto', 'heatmap', 'spy'."
        )
    height, width = sides.shape
    if style.values and height * width > _WRITTEN_IF_ASKED:
        raise SelectionError(
            f"{call}: {height * width} values would not be read. Leave out values=True, or select "
            "a part with wrt= and of=."
        )
    if sides.panels > _PANELS:
        raise StructureError(
            f"{call}: the outputs have {sides.panels} entries, each with a matrix of its own. "
            f"Select at most {_PANELS} of them with .of(path), or differentiate a function that "
            "returns one."
        )
    for array, shape in blocks.arrays:
        _check_array(call, array, shape)


def _check_array(call: str, array: Any, shape: tuple[int, ...]) -> None:
    if isinstance(array, jax.core.Tracer):
        raise StructureError(
            f"{call}: while JAX traces a function, under jax.jit, jax.vmap or jax.grad, there are "
            "no values to draw. Return the derivative from that function, and plot it outside."
        )
    if not isinstance(array, (jax.Array, np.ndarray)):
        raise StructureError(
            f"{call}: values are drawn, and there is {describe_leaf(array)} in the place of a "
            "block. Plot a result with arrays."
        )
    if is_deleted(array):
        raise StructureError(
            f"{call}: a block has been donated or deleted. Plot before the result is donated "
            "(donate_argnums)."
        )
    if array.shape != shape:
        raise StructureError(
            f"{call}: a block has the shape {list(array.shape)} where the structure of the result "
            f"says {list(shape)}. Take one out of what jax.vmap has batched: "
            "jax.tree.map(lambda a: a[0], result).plot()."
        )
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        raise StructureError(
            f"{call}: parts of a block are on devices of other hosts. Gather the result on one "
            "(jax.experimental.multihost_utils.process_allgather), and plot it there."
        )


# Sizes -----------------------------------------------------------------------------------


def _labels(sides: Sides) -> tuple[list[Label], list[Label]]:
    """Names of rows and of columns, with their slices."""

    def labels(specs: Sequence[LeafSpec], shift: int = 0) -> list[Label]:
        names = short_names([show(spec.path) or "output" for spec in specs])
        return [
            Label(name, shift + part.start, shift + part.stop, show(spec.path[:1]))
            for name, spec, part in zip(names, specs, slices(specs), strict=True)
        ]

    rows = labels(sides.rows)
    width = sum(spec.size for spec in sides.columns)
    columns = [x for k in range(sides.panels) for x in labels(sides.columns, k * width)]
    return rows, columns


def _size(
    sides: Sides, rows: Sequence[Label], columns: Sequence[Label]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The size of the matrix in inches, and what is around it."""
    height, width = (max(n, 1) for n in sides.shape)
    if max(height, width) <= _NARROW * min(height, width):
        scale = min(_ENTRY, _WIDTH / width, _HEIGHT / height)
        room = max(width * scale, 1.2), max(height * scale, 1.2)
    else:
        room = (
            min(max(width * _ENTRY, 1.2), _WIDTH),
            min(max(height * _ENTRY, 0.7), _HEIGHT),
        )
    letter = 0.6 * font_size("xtick.labelsize") / 72
    around = 1.3 + letter * longest(rows), 1.3 + 0.7 * letter * longest(columns)
    return room, around


def _room(axes: "Axes", margins: tuple[float, float], sides: Sides | None) -> tuple[float, float]:
    """The size of what is drawn in axes, in inches, with square entries or over all of it."""
    width, height = inches(axes)
    figure: Any = axes.figure
    if figure.get_layout_engine() is not None and axes.get_subplotspec() is not None:
        # When the figure is drawn, names and the colour bar take what they need of a cell.
        width, height = (
            max(0.25 * x, x - margin) for x, margin in zip(cell(axes), margins, strict=True)
        )
    if sides is None:
        return width, height
    scale = min(height / sides.shape[0], width / sides.shape[1])
    return sides.shape[1] * scale, sides.shape[0] * scale


def _limits(room: tuple[float, float], dpi: float) -> tuple[int, int]:
    """How many pixels of the image there may be, down and across."""
    # Fewer than the figure has, so that none is left out where the layout makes it smaller.
    width, height = (max(16, int(0.8 * x * dpi)) for x in room)
    return height, width
