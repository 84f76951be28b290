"""Makes a notebook of a page: its prose, and the blocks of code that are executed and shown."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nbformat.v4

_FENCE = re.compile(r"^```python (?P<options>[^\n]*)\n(?P<code>.*?)^```$\n?", re.M | re.S)
_HIDDEN = re.compile(r"#\s*markdown-exec:\s*hide\s*$")
_ATTRIBUTES = re.compile(r"[ ]*\{:?[ ]+[^{}\n]*\}|\{:[^{}\n]*\}")
_LINK = re.compile(r"\[(?P<text>[^][]+)\](?:\((?P<target>[^()\s]+)\)|\[[^][]*\])")
_ABOUT_THE_PAGE = re.compile(r"<!-- of the page -->.*?<!-- end -->\s*", re.S)
_INTRODUCTION = """\
*This notebook was made of a page of autodiffkit's documentation. Other pages are named in italics.
It needs `autodiffkit[plot]`.*
"""


@dataclass(frozen=True)
class Prose:
    """Text between two blocks of code."""

    text: str


@dataclass(frozen=True)
class Code:
    """A block that is executed, without the lines that the page does not show."""

    text: str


def notebook(page: str) -> Any:
    """The notebook of a page.

    Args:
        page: The page, as Markdown for the site.

    Returns:
        A notebook of format 4.5 without outputs. The same page gives the same notebook.
    """
    cells: list[Any] = []
    for part in parts(page):
        if isinstance(part, Code):
            cells.append(nbformat.v4.new_code_cell(_displayed(part.text)))
        else:
            cells.append(nbformat.v4.new_markdown_cell(_plain(part.text)))
    heading, *rest = cells[0].source.split("\n", 1)
    cells[0].source = "\n\n".join([heading, _INTRODUCTION.strip(), *map(str.strip, rest)])
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py"},
    }
    made = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(made)
    return made


def written(page: str) -> str:
    """The notebook of a page as the text of a file."""
    return nbformat.v4.writes(notebook(page)) + "\n"


def parts(page: str) -> Iterator[Prose | Code]:
    """The parts of a page in order; blocks that show no source are left out.

    Args:
        page: The page, as Markdown for the site.

    Yields:
        Prose and code.

    Raises:
        ValueError: If code is in a place where it would not be found.
    """
    if re.search(r"^[ \t]+```python [^\n]*exec", page, re.M):
        raise ValueError("a block that is executed is indented; only those at the margin are found")
    page = _ABOUT_THE_PAGE.sub("", page)
    at = 0
    for found in _FENCE.finditer(page):
        if prose := page[at : found.start()].strip():
            yield Prose(prose)
        at = found.end()
        if re.search(r'\bexec="(on|1)"', found["options"]) is None:
            raise ValueError(f"this block is not executed: {found['code']}")
        # What draws figures into the page is no part of what a reader runs.
        if re.search(r'\bsource="', found["options"]):
            lines = found["code"].rstrip().split("\n")
            yield Code("\n".join(line for line in lines if not _HIDDEN.search(line)))
    if prose := page[at:].strip():
        yield Prose(prose)


def _plain(text: str) -> str:
    """Markdown as notebooks read it: without attributes, and without links into the site."""
    return _LINK.sub(_without_link, _ATTRIBUTES.sub("", text))


def _without_link(found: re.Match[str]) -> str:
    absolute = found["target"] is not None and re.match(r"[a-z]+:", found["target"])
    return found[0] if absolute else f"*{found['text']}*"


def _displayed(code: str) -> str:
    """Code that displays results where the page can only print them, and nothing else."""
    # A notebook shows the last expression of a cell, which a page does not.
    lines = code.encode().split(b"\n")  # positions in a tree are those of bytes
    statements = ast.parse(code).body
    for statement in reversed(statements):
        if not isinstance(statement, ast.Expr):
            continue
        last = (statement.end_lineno or statement.lineno) - 1
        end = statement.end_col_offset or 0
        is_last = statement is statements[-1]
        if (shown := _result(statement.value)) is not None:
            text = ast.get_source_segment(code, shown) or ""
            made = (text if is_last else f"display({text})").encode()
            lines[statement.lineno - 1 : last + 1] = [made + lines[last][end:]]
        elif is_last and not _is_print(statement.value):
            lines[last] = lines[last][:end] + b";" + lines[last][end:]
    return b"\n".join(lines).decode()


def _is_print(call: ast.expr) -> bool:
    return (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"
    )


def _result(call: ast.expr) -> ast.expr | None:
    """What a call prints, if that is all of a result, under its name, or a plan."""
    match call:
        case ast.Call(func=ast.Name(id="print"), args=[ast.Name() as name], keywords=[]):
            return name
        case ast.Call(
            func=ast.Name(id="print"),
            args=[ast.Call(func=ast.Attribute(attr="plan")) as plan],
            keywords=[],
        ):
            return plan
        case _:
            return None
