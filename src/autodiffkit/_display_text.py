"""What results show: titles, tables and lines; and how that is laid out as text."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from autodiffkit._fitting import (
    narrowest,
    padded,
    printable,
    shortened,
    told_apart,
    width_of,
    wrapped,
)

# A name may be cut in the middle; a note may go to the lines below; an extra may be left out; a
# text, which comes last, is wrapped where it is.
Kind = Literal["name", "fixed", "note", "extra", "text"]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: its head, what may happen to it, and its head where that is too long."""

    head: str
    kind: Kind = "fixed"
    short: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells.

    Args:
        columns: What they are; a table whose heads are all empty has no line of heads.
        rows: The cells.
        more: A line for what was cut off.
        faint: The rows that are there for completeness only.
        margin: By how much it is indented.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    more: str = ""
    faint: frozenset[int] = frozenset()
    margin: int = 0


@dataclasses.dataclass(frozen=True)
class Section:
    """Lines and tables with a name at their side."""

    name: str
    parts: "tuple[str | Table, ...]"
    margin: int = 0


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where blocks are, for a picture.

    Args:
        rows: The name and the size of each row.
        columns: The same of the columns.
        blocks: The blocks there are, with what is said of each.
        zeros: Those of them that are zero.
        note: A line below the picture.
    """

    rows: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, int], ...]
    blocks: tuple[tuple[int, int, str], ...]
    zeros: frozenset[tuple[int, int]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Display:
    """What there is to see.

    Args:
        title: The first line.
        parts: What is below it.
        grid: A picture of the blocks, where pictures are shown.
        more: Displays below this one, such as one for each finding of a report.
    """

    title: str
    parts: tuple[str | Table | Section, ...] = ()
    grid: Grid | None = None
    more: "tuple[Display, ...]" = ()


def plain_table(rows: Sequence[Sequence[str]], *kinds: Kind) -> Table:
    """A table without heads; all columns are as wide as they are if no kinds are given."""
    width = len(rows[0]) if rows else 0
    columns = tuple(Column("", kind) for kind in kinds) or (Column(""),) * width
    return Table(columns, tuple(map(tuple, rows)))


def shown_cells(table: Table) -> list[list[str]]:
    """The cells without line breaks, and such that two that differ look different."""
    cells = [[printable(cell) for cell in row] for row in table.rows]
    if all(cell.isascii() for row in cells for cell in row):
        return cells
    looks = [told_apart(column) for column in zip(*cells, strict=True)]
    return [list(row) for row in zip(*looks, strict=True)]


# As text ------------------------------------------------------------------------

_GAP = "  "
_NAME = 8  # columns for the name of a section
_READABLE = 16  # columns that names are left while there are other ways to save some
_LEAST = 8
_WORDS = 20  # columns for a text beside its names


def as_text(display: Display, width: int) -> str:
    """The display in lines that are no longer than so many columns, as far as that is possible."""
    lines = wrapped(printable(display.title), width, 4)
    for part in display.parts:
        lines += [f"  {line}" for line in _lines(part, width - 2)]
    text = "\n".join(lines)
    return "\n\n".join([text, *(as_text(more, width) for more in display.more)])


def _lines(part: str | Table | Section, width: int) -> list[str]:
    if isinstance(part, str):
        return wrapped(part, width, 2)
    if isinstance(part, Table):
        return table_lines(part, width)
    room = max(width - _NAME - part.margin, 12)
    lines = [line for inner in part.parts for line in _lines(inner, room)]
    heads = [part.name, *[""] * (len(lines) - 1)]
    margin = " " * part.margin
    return [f"{margin}{padded(head, _NAME)}{x}" for head, x in zip(heads, lines, strict=True)]


def table_lines(table: Table, width: int) -> list[str]:
    """The lines of a table, in the layout that says most of those that fit."""
    cells = shown_cells(table)
    lines = _layout(table.columns, cells, width - table.margin)
    lines += wrapped(table.more, width - table.margin, 2) if table.more else []
    return [" " * table.margin + line for line in lines]


def _layout(columns: Sequence[Column], cells: list[list[str]], width: int) -> list[str]:
    if not cells:
        return []
    if columns[-1].kind == "text":
        return _with_text(columns, cells, width)
    kept = [k for k, column in enumerate(columns) if column.kind != "extra"]
    inline = [k for k in kept if columns[k].kind != "note"]
    notes = [k for k in kept if columns[k].kind == "note"]
    long = [column.head for column in columns]
    short = [column.short or column.head for column in columns]
    everything = range(len(columns))
    for chosen, heads in ((everything, long), (everything, short), (kept, long), (kept, short)):
        grid = _grid([[heads[k] for k in chosen], *([row[k] for k in chosen] for row in cells)])
        if max(map(width_of, grid)) <= width:
            return grid
    for chosen, below, least in ((kept, [], _READABLE), (inline, notes, _LEAST)):
        fitted = _fitted([columns[k] for k in chosen], [[row[k] for k in chosen] for row in cells],
                         [short[k] for k in chosen], width, least)  # fmt: skip
        if fitted is not None:
            return _with_notes(fitted, [[row[k] for k in below] for row in cells], width)
    return _stacked([columns[k] for k in inline], cells, inline, notes, width)


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned columns; without the line of heads if that is empty."""
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    shown = rows if any(rows[0]) else rows[1:]
    return [
        _GAP.join(padded(cell, w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def _fitted(
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    heads: Sequence[str],
    width: int,
    least: int,
) -> list[str] | None:
    """The table with its names shortened, `None` if that is not enough."""
    texts = [list(column) for column in zip(*cells, strict=True)]
    natural = [max(map(width_of, column)) for column in texts]
    names = [k for k, column in enumerate(columns) if column.kind == "name"]
    rest = [max(w, width_of(h)) for w, h in zip(natural, heads, strict=True)]
    room = width - len(_GAP) * (len(columns) - 1)
    room -= sum(w for k, w in enumerate(rest) if k not in names)
    floors = [max(min(least, natural[k]), width_of(heads[k])) for k in names]
    floors = [
        max(floor, narrowest(texts[k], min(floor, natural[k])))
        for k, floor in zip(names, floors, strict=True)
    ]
    if sum(floors) > room or (not names and room < 0):
        return None
    for k, given in zip(names, _shared(floors, [rest[k] for k in names], room), strict=True):
        # What stands in one column is not to look like something else in another.
        others = [text for j in names if j != k for text in (row[j] for row in cells)]
        found = shortened([*texts[k], *others], given)
        found = shortened(texts[k], given) if found is None else found[: len(cells)]
        if found is None:  # more room need not make it easier
            found = shortened(texts[k], narrowest(texts[k], min(least, natural[k])))
        assert found is not None
        texts[k] = found
    return _grid([list(heads), *map(list, zip(*texts, strict=True))])


def _shared(floors: Sequence[int], wanted: Sequence[int], room: int) -> list[int]:
    """Room for each, at least its floor, where those that want little get what they want."""
    given = list(floors)
    left = room - sum(given)
    open_ones = [k for k in range(len(given)) if given[k] < wanted[k]]
    while left > 0 and open_ones:
        k = min(open_ones, key=lambda k: given[k])
        given[k] += 1
        left -= 1
        open_ones = [k for k in open_ones if given[k] < wanted[k]]
    return given


def _with_notes(lines: list[str], notes: Sequence[Sequence[str]], width: int) -> list[str]:
    """A table with a note below each of its rows."""
    heads = len(lines) - len(notes)
    found = lines[:heads]
    for line, cells in zip(lines[heads:], notes, strict=True):
        found += [line] if line else []
        found += _below(cells, width)
    return found


def _below(notes: Sequence[str], width: int) -> list[str]:
    """Notes below a row, each part of one on lines of its own."""
    parts = [part for note in notes if note for part in note.split("; ")]
    return [f"    {line}" for part in parts for line in wrapped(part, width - 4, 2)]


def _with_text(columns: Sequence[Column], cells: list[list[str]], width: int) -> list[str]:
    """A table whose last column goes on in the lines below."""
    before = [max(map(width_of, column)) for column in zip(*cells, strict=True)][:-1]
    room = width - sum(before) - len(_GAP) * len(before)
    if room < _WORDS:
        inline = list(range(len(columns) - 1))
        return _stacked(columns[:-1], cells, inline, [len(columns) - 1], width)
    rows: list[list[str]] = []
    for row in cells:
        first, *others = wrapped(row[-1], room)
        rows.append([*row[:-1], first])
        rows += [[*[""] * len(before), line] for line in others]
    return _grid([[""] * len(columns), *rows])


def _stacked(
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    inline: Sequence[int],
    notes: Sequence[int],
    width: int,
) -> list[str]:
    """Each row in lines of its own: names in full, and below them what belongs to them."""
    lines: list[str] = []
    for row in cells:
        names: list[str] = []
        others: list[str] = []
        for k, column in zip(inline, columns, strict=True):
            head = column.short or column.head
            text = f"{head} {row[k]}" if head else row[k]
            (names if column.kind == "name" else others).append(text)
        if any(column.head for column in columns):
            lines += _filled(names, width)
            lines += [f"    {line}" for line in _filled(others, width - 4)]
        else:
            lines += _filled([*names, *others], width, 4)
        lines += _below([row[k] for k in notes], width)
    return lines


def _filled(texts: Sequence[str], width: int, indent: int = 0) -> list[str]:
    """Texts next to each other, as many on a line as it holds, later lines indented."""
    lines: list[str] = []
    for text in filter(None, texts):
        if lines and width_of(lines[-1]) + len(_GAP) + width_of(text) <= width:
            lines[-1] += _GAP + text
        else:
            margin = indent if lines else 0
            lines += [" " * margin + line for line in wrapped(text, width - margin, 2)]
    return lines
