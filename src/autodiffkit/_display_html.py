"""Displays as HTML for notebooks: plain tables in the colours of the page, light or dark."""

import itertools
import math
from collections.abc import Sequence
from html import escape

from autodiffkit._display_text import Column, Display, Grid, Section, Table, shown_cells
from autodiffkit._fitting import printable

# Nothing has a colour of its own but lines, which are grey enough for either background: what a
# notebook shows inherits the colour of its text.
_LINE = "1px solid rgba(128,128,128,.45)"
_MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.92em"
_TABLE = (
    "border-collapse:collapse;border:none;background:transparent;color:inherit;margin:.3em 0;"
    "width:auto;display:table"
)
_CELL = (
    "padding:.15em 1.2em .15em 0;text-align:left;vertical-align:top;background:transparent;"
    "color:inherit;border:none"
)
_INNER = _TABLE.replace("margin:.3em 0", "margin:0")  # in a cell, on the line of its name
_HEAD = f"{_CELL};font-weight:600;border-bottom:{_LINE}"

_GRID = 220  # the larger side of a picture, in pixels
_CELLS = 24  # rows or columns of a picture, above which there is none
_SIDE = (9, 72)


def as_html(display: Display) -> str:
    """The display as one element, with its styles inside of it."""
    return (
        '<div class="autodiffkit" style="overflow-x:auto;color:inherit;line-height:1.45">'
        f"{_display(display)}</div>"
    )


def _display(display: Display) -> str:
    title = f'<div style="font-weight:600;white-space:pre-wrap">{_text(display.title)}</div>'
    parts = "".join(
        _sections([part for part in group if isinstance(part, Section)])
        if are_sections
        else "".join(map(_part, group))
        for are_sections, group in itertools.groupby(
            display.parts, lambda part: isinstance(part, Section)
        )
    )
    below = "".join(f'<div style="margin-top:.8em">{_display(more)}</div>' for more in display.more)
    if display.grid is None:
        return title + parts + below
    picture = (
        '<div style="display:flex;flex-wrap:wrap;gap:.5em 2.5em;align-items:flex-start">'
        f'<div>{parts}</div><div style="padding-top:.5em">{_picture(display.grid)}</div></div>'
    )
    return title + picture + below


def _text(text: str) -> str:
    return escape(printable(text))


def _part(part: str | Table | Section) -> str:
    if isinstance(part, Section):
        return _sections([part])
    if isinstance(part, Table):
        return _table(part)
    return f'<div style="white-space:pre-wrap">{_text(part)}</div>'


def _sections(sections: Sequence[Section]) -> str:
    """Rows of a name and a cell with all that belongs to it."""
    rows = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{_CELL};font-weight:600">'
        f'{_text(section.name)}</th><td style="{_CELL}">{_cell_parts(section)}</td>'
        "</tr>"
        for section in sections
    )
    return f'<table class="autodiffkit" style="{_TABLE}"><tbody>{rows}</tbody></table>'


def _cell_parts(section: Section) -> str:
    return "".join(
        _table(part, _INNER) if isinstance(part, Table) else _part(part) for part in section.parts
    )


def _table(table: Table, style: str = _TABLE) -> str:
    heads = [column.head for column in table.columns]
    head = ""
    if any(heads):
        cells = "".join(f'<th scope="col" style="{_HEAD}">{_text(name)}</th>' for name in heads)
        head = f'<thead><tr style="background:transparent">{cells}</tr></thead>'
    rows: list[str] = []
    for number, row in enumerate(shown_cells(table)):
        faint = ";opacity:.7" if number in table.faint else ""
        cells = "".join(
            f'<td style="{_CELL};{_style(column, cell, k)}">{escape(cell)}</td>'
            for k, (cell, column) in enumerate(zip(row, table.columns, strict=True))
        )
        rows.append(f'<tr style="background:transparent{faint}">{cells}</tr>')
    more = f"<div>{_text(table.more)}</div>" if table.more else ""
    body = f"<tbody>{''.join(rows)}</tbody>"
    return f'<table class="autodiffkit" style="{style}">{head}{body}</table>{more}'


_LONG = 30  # characters of a name that may be broken where there is no room for it


def _style(column: Column, cell: str, number: int) -> str:
    """How a cell is set: shapes and short names on one line, everything else wrapped."""
    if column.kind == "text":
        return "white-space:pre-wrap;max-width:46em"
    if column.kind == "note":
        return f"white-space:pre-wrap;min-width:12em;overflow-wrap:anywhere;{_MONO}"
    # A row of a plan may begin with an operation and its place in the source.
    if (number == 0 or column.kind == "name") and len(cell) > _LONG:
        return f"white-space:pre-wrap;min-width:12em;overflow-wrap:anywhere;{_MONO}"
    return f"white-space:nowrap;{_MONO}"


# Pictures -----------------------------------------------------------------------


def _picture(grid: Grid) -> str:
    """The blocks as rectangles, larger ones for larger leaves; zeros are left blank."""
    heights, widths = (_sides([n for _, n in names]) for names in (grid.rows, grid.columns))
    tops, lefts = _starts(heights), _starts(widths)
    shapes: list[str] = []
    for i, j, said in grid.blocks:
        is_zero = (i, j) in grid.zeros
        fill = "none" if is_zero else "currentColor"
        note = f"{grid.rows[i][0]} by {grid.columns[j][0]}" + (f": {said}" if said else "")
        shapes.append(
            f'<rect x="{lefts[j] + 1}" y="{tops[i] + 1}" width="{widths[j] - 2}" '
            f'height="{heights[i] - 2}" fill="{fill}" fill-opacity=".45" '
            f'pointer-events="all"><title>{_text(note)}</title></rect>'
        )
    height, width = tops[-1], lefts[-1]
    label = f"Picture of the blocks, {len(heights)} by {len(widths)}"
    note = ""
    if grid.note:
        note = f'<div style="max-width:{max(width, _GRID)}px">{_text(grid.note)}</div>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="-1 -1 {width + 2} {height + 2}" role="img" aria-label="{label}" '
        'style="display:block;color:inherit;background:transparent">'
        f'<rect x="0" y="0" width="{width}" height="{height}" fill="none" '
        'stroke="currentColor" stroke-opacity=".45"/>'
        f"{''.join(shapes)}</svg>{note}"
    )


def _sides(sizes: list[int]) -> list[int]:
    """Sides of rectangles: by the logarithm of what they stand for, so that one is not all."""
    least, most = _SIDE
    wanted = [16 + 12 * math.log2(max(size, 1)) for size in sizes]
    scale = min(1.0, _GRID / sum(wanted))
    return [min(max(round(side * scale), least), most) for side in wanted]


def _starts(sides: list[int]) -> list[int]:
    starts = [0]
    for side in sides:
        starts.append(starts[-1] + side)
    return starts


def worth_drawing(rows: int, columns: int) -> bool:
    """Whether a picture says more than the table: rows and columns, and not too many of them."""
    return min(rows, columns) > 1 and max(rows, columns) <= _CELLS
