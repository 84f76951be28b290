"""A matrix of blocks as an image: entry by entry, or the largest of as many as share a pixel.

The matrix itself is not formed. Blocks are read one after the other, a few rows at a time, so that
it takes no more memory than one block and the image.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autodiffkit._block_table import BlockTable
from autodiffkit._compact import Shared
from autodiffkit._leaves import LeafSpec, is_complex, slices
from autodiffkit._pixels import Pixels

_CHUNK = 1 << 18  # entries that are looked at together

Numbers = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Sides:
    """What belongs to the rows and the columns of a matrix of blocks.

    Of second derivatives there is a panel for each entry of the output, one beside the other.

    Args:
        rows: The leaves of the rows.
        columns: The leaves of the columns, of each panel.
        outputs: The outputs of second derivatives.
    """

    rows: tuple[LeafSpec, ...]
    columns: tuple[LeafSpec, ...]
    outputs: tuple[LeafSpec, ...] = ()

    @property
    def panels(self) -> int:
        """How many panels there are."""
        return sum(spec.size for spec in self.outputs) if self.outputs else 1

    @property
    def shape(self) -> tuple[int, int]:
        """The entries of rows and columns."""
        height, width = (sum(x.size for x in specs) for specs in (self.rows, self.columns))
        return height, width * self.panels


class Rectangle(NamedTuple):
    """A part of the matrix: rows from `top` to `bottom`, columns from `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int


@dataclasses.dataclass(frozen=True)
class Raster:
    """A matrix in pixels, each of which stands for some rows and columns.

    Args:
        values: The entry of largest modulus in each pixel, with its sign; NaN or infinite if one of
            them is. Of complex blocks, the modulus.
        covered: Where there is an entry that is not zero by structure.
        pixels: Which rows and columns they stand for, and where they are drawn.
        shape: Those of the matrix.
        nonzero: How many entries are not zero.
        not_finite: How many are not finite.
        zeros: Other blocks with nothing but zeros.
        structural: What is zero whatever the arguments are: blocks that the program says so of, and
            compact blocks off their shared axes, where `covered` says no.
        missing: The blocks that were not computed.
        is_modulus: Whether there are complex blocks.
    """

    values: Numbers
    covered: Numbers
    pixels: tuple[Pixels, Pixels]
    shape: tuple[int, int]
    nonzero: int
    not_finite: int
    zeros: tuple[Rectangle, ...]
    structural: tuple[Rectangle, ...]
    missing: tuple[Rectangle, ...]
    is_modulus: bool

    @property
    def step(self) -> tuple[int, int]:
        """The rows and the columns of a pixel."""
        return self.pixels[0].step, self.pixels[1].step

    @property
    def is_exact(self) -> bool:
        """Whether each pixel is an entry."""
        return self.step == (1, 1)

    @property
    def limit(self) -> float:
        """The largest modulus of finite entries; 1 if there is none other than zero."""
        known = np.abs(self.values[self.covered & np.isfinite(self.values)])
        largest = float(known.max()) if known.size else 0.0
        # The difference of both ends of a scale has to be a number, and so has its inverse.
        return min(max(largest, 1e-300), 8e307) if largest else 1.0


class _Block(NamedTuple):
    """A block, and where it lies.

    Args:
        array: Its entries, in the shape that is stored.
        shared: The axes that are stored once and first.
        is_known: Whether the program said that it is zero.
        row: The leaf of its rows.
        column: The leaf of its columns.
        outputs: The entries of the output that it has, a panel each; 1 of a first derivative.
        top: Its first row.
        lefts: Its first column in each panel.
    """

    array: Any
    shared: Shared
    is_known: bool
    row: LeafSpec
    column: LeafSpec
    outputs: tuple[int, ...]
    top: int
    lefts: tuple[int, ...]

    @property
    def rectangles(self) -> list[Rectangle]:
        """What it takes of the matrix."""
        height, width = self.row.size, self.column.size
        return [Rectangle(self.top, self.top + height, x, x + width) for x in self.lefts]


def raster(
    blocks: BlockTable,
    sides: Sides,
    limits: tuple[int, int],
    least: tuple[float, float] = (0.0, 0.0),
) -> Raster:
    """The matrix of blocks in pixels.

    Args:
        blocks: Blocks with values.
        sides: What belongs to rows and columns.
        limits: How many pixels there may be down and across.
        least: The part of the height and of the width that a block has at least.

    Returns:
        The image.
    """
    heights = [spec.size for spec in sides.rows]
    widths = [spec.size for spec in sides.columns] * sides.panels
    pixels = Pixels(heights, limits[0], least[0]), Pixels(widths, limits[1], least[1])
    return _Painter(blocks, sides, pixels).paint()


class _Painter:
    """An image that blocks are drawn into."""

    def __init__(self, blocks: BlockTable, sides: Sides, grid: tuple[Pixels, Pixels]) -> None:
        self._blocks, self._sides, self._grid = blocks, sides, grid
        pixels = [len(side) for side in grid]
        dtypes = [array.dtype for array, _ in blocks.arrays]
        self._is_modulus = any(is_complex(dtype) for dtype in dtypes)
        kind: Any = np.float64 if any(x.itemsize > 4 for x in dtypes) else np.float32
        self._high = np.full(pixels, -np.inf, kind)
        self._low = np.full(pixels, np.inf, kind)
        self._covered = np.zeros(pixels, bool)
        self._nonzero = self._not_finite = 0

    def paint(self) -> Raster:
        zeros: list[Rectangle] = []
        structural: list[Rectangle] = []
        missing: list[Rectangle] = []
        for block in self._found():
            empty = structural if block.is_known else zeros
            if block.array is None:
                missing += block.rectangles
            elif block.shared:
                array = np.asarray(block.array)
                if not np.any(array):
                    empty += block.rectangles
                    continue
                self._paint_compact(block, array)
                if array.size < len(block.lefts) * block.row.size * block.column.size:
                    structural += block.rectangles
            else:
                empty += self._paint_dense(block)
        high, low = self._high, self._low
        values = np.where(high >= -low, high, low)
        values[~self._covered] = 0
        return Raster(
            values,
            self._covered,
            self._grid,
            self._sides.shape,
            self._nonzero,
            self._not_finite,
            _joined(zeros),
            _joined(structural),
            _joined(missing),
            self._is_modulus,
        )

    def _found(self) -> Iterator[_Block]:
        """All blocks, and `None` in the place of those that were not computed."""
        sides, table = self._sides, self._blocks
        whole = np.asarray(table._arrays[0]) if table.is_packed else None
        stored, zeros = slices(table._targets), table.zeros
        rows, columns = slices(sides.rows), slices(sides.columns)
        width = sum(x.size for x in sides.columns)
        starts = [part.start for part in slices(sides.outputs)]
        for target in range(len(table)):
            output, i = divmod(target, len(sides.rows))
            shape: tuple[int, ...] = ()
            first = 0
            if sides.outputs:
                shape, first = sides.outputs[output].shape, starts[output]
            count = int(np.prod(shape, dtype=int))
            for j, column in enumerate(sides.columns):
                lefts = tuple((first + o) * width + columns[j].start for o in range(count))
                array = (
                    table.block(target, j) if whole is None else whole[stored[target], columns[j]]
                )
                yield _Block(
                    array,
                    table.shared(target, j),
                    (target, j) in zeros,
                    *(sides.rows[i], column, shape),
                    *(rows[i].start, lefts),
                )

    # Dense blocks ---------------------------------------------------------------------

    def _paint_dense(self, block: _Block) -> list[Rectangle]:
        """Draws a block, but what is zero everywhere; that is returned."""
        height, width = block.row.size, block.column.size
        array = np.asarray(block.array).reshape(len(block.lefts), height, width)
        zeros: list[Rectangle] = []
        for panel, rectangle in zip(array, block.rectangles, strict=True):
            if not np.any(panel):
                zeros.append(rectangle)
                continue
            self._covered[self._pixels(rectangle)] = True
            rows = max(1, _CHUNK // width)
            for start in range(0, height, rows):
                self._paint_rows(panel[start : start + rows], block.top + start, rectangle.left)
        return zeros

    def _paint_rows(self, part: Numbers, top: int, left: int) -> None:
        high, low = self._extremes(part)
        for axis, start in ((1, left), (0, top)):
            starts = self._grid[axis].within(start, part.shape[axis])
            if len(starts) < part.shape[axis]:
                high = np.maximum.reduceat(high, starts, axis=axis)
                low = np.minimum.reduceat(low, starts, axis=axis)
        down, across = self._grid[0].of(top), self._grid[1].of(left)
        place = slice(down, down + high.shape[0]), slice(across, across + high.shape[1])
        np.maximum(self._high[place], high, out=self._high[place])
        np.minimum(self._low[place], low, out=self._low[place])

    def _extremes(self, entries: Numbers) -> tuple[Numbers, Numbers]:
        """The entries, counted, as what is compared for the largest and for the smallest."""
        self._nonzero += int(np.count_nonzero(entries))
        if is_complex(entries.dtype):
            entries = np.abs(entries)
        elif self._is_modulus:
            entries = np.abs(entries.astype(self._high.dtype))
        entries = entries.astype(self._high.dtype, copy=False)
        self._not_finite += entries.size - int(np.count_nonzero(np.isfinite(entries)))
        return entries, entries

    def _pixels(self, part: Rectangle) -> tuple[slice, slice]:
        down, across = self._grid
        return (
            slice(down.of(part.top), down.of(part.bottom - 1) + 1),
            slice(across.of(part.left), across.of(part.right - 1) + 1),
        )

    # Compact blocks -------------------------------------------------------------------

    def _paint_compact(self, block: _Block, array: Numbers) -> None:
        """Draws the entries there are: shared axes come first and count for both sides."""
        outs, ins = (*block.outputs, *block.row.shape), block.column.shape
        shared = block.shared
        # Which axis of the block is which of the output's and of the input's.
        out_axes = [i for i, _ in shared] + [
            i for i in range(len(outs)) if i not in {i for i, _ in shared}
        ]
        in_axes = [j for _, j in shared]
        rest = [j for j in range(len(ins)) if j not in in_axes]
        place_of_out = {axis: k for k, axis in enumerate(out_axes)}
        place_of_in = {axis: k for k, axis in enumerate(in_axes)}
        place_of_in |= {axis: len(out_axes) + k for k, axis in enumerate(rest)}
        length = array.shape[0]
        count = max(1, _CHUNK // max(1, array.size // max(length, 1)))
        lefts = np.asarray(block.lefts)
        for start in range(0, length, count):
            part = array[start : start + count]
            target = _numbers(part.shape, outs, place_of_out, start)
            source = _numbers(part.shape, ins, place_of_in, start)
            panel, row = np.divmod(target, max(block.row.size, 1))
            self._paint_entries(part, block.top + row, lefts[panel] + source)

    def _paint_entries(self, part: Numbers, rows: Numbers, columns: Numbers) -> None:
        high, low = self._extremes(part)
        down, across = (
            np.broadcast_to(side.of(x), part.shape)
            for x, side in zip((rows, columns), self._grid, strict=True)
        )
        np.maximum.at(self._high, (down, across), high)
        np.minimum.at(self._low, (down, across), low)
        self._covered[down, across] = True


def _joined(parts: Sequence[Rectangle]) -> tuple[Rectangle, ...]:
    """The same parts, but one for neighbours of a row of blocks, and none without entries."""
    found: list[Rectangle] = []
    for part in parts:
        if part.right == part.left or part.bottom == part.top:
            continue
        last = found[-1] if found else None
        if last is not None and (last.top, last.bottom, last.right) == (*part[:2], part.left):
            found[-1] = last._replace(right=part.right)
        else:
            found.append(part)
    return tuple(found)


def _numbers(
    shape: Sequence[int], axes: Sequence[int], places: dict[int, int], start: int
) -> Numbers:
    """The number in C order of each entry of a part of a block, among the entries of a leaf.

    Args:
        shape: That of the part.
        axes: The shape of the leaf.
        places: Which axis of the part is which of the leaf.
        start: Where the part begins along its first axis.

    Returns:
        The numbers, in a shape that broadcasts to that of the part.
    """
    total = np.zeros((1,) * len(shape), np.int64)
    stride = 1
    for axis in reversed(range(len(axes))):
        place = places[axis]
        index = np.arange(shape[place]) + (start if place == 0 else 0)
        total = total + stride * index.reshape([-1 if k == place else 1 for k in range(len(shape))])
        stride *= axes[axis]
    return total
