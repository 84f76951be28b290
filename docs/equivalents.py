"""Tables of equivalents: what one writes elsewhere and what one writes here.

Both are code, and both are run as a page is built. Where they disagree the build fails, so that
no page can promise what is not so.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """What one writes elsewhere, and what one writes here.

    Attributes:
        there: An expression of the other package.
        here: The equivalent expression.
        expected: What `here` is compared with, where `there` is not Python that can run.
        link: Where the documentation of `there` is.
    """

    there: str
    here: str
    expected: str = ""
    link: str = ""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A call that raises elsewhere.

    Attributes:
        there: An expression of the other package, which raises.
        here: The equivalent expression.
        remark: What comes of it; where it raises as well, a part of the message.
        so: An expression of the `result`, by which the remark is true; empty where it raises.
    """

    there: str
    here: str
    remark: str
    so: str = ""


def equivalents(names: dict[str, Any], rows: Iterable[Row], there: str, here: str = "here") -> str:
    """A table of the rows, each of which has been run.

    Args:
        names: What the expressions may refer to.
        rows: What stands in the table.
        there: The heading of the other package.
        here: The heading of this one.

    Returns:
        The table in Markdown.
    """
    lines = [f"| {there} | {here} |", "|---|---|"]
    for row in rows:
        _compare(row, _value(row.here, names), _value(row.expected or row.there, names))
        linked = f"[{_code(row.there)}]({row.link})" if row.link else _code(row.there)
        lines.append(f"| {linked} | {_code(row.here)} |")
    return _framed(lines)


def refusals(names: dict[str, Any], rows: Iterable[Refusal], there: str, here: str = "here") -> str:
    """A table of calls that raise elsewhere, with what is said there and what comes of it here.

    Args:
        names: What the expressions may refer to.
        rows: What stands in the table.
        there: The heading of the other package.
        here: The heading of this one.

    Returns:
        The table in Markdown.

    Raises:
        AssertionError: A call does not raise, or something else comes of it than the remark says.
    """
    lines = [f"| {there} | {here} |", "|---|---|"]
    for row in rows:
        said = _raised(row.there, names)
        if said is None:
            raise AssertionError(f"{row.there} did not raise")
        if row.so:
            result = _value(row.here, names)
            if not _value(row.so, {**names, "result": result}):
                raise AssertionError(f"{row.so} is not so of {row.here}, which is {result!r}")
            remark = row.remark
        else:
            answer = _raised(row.here, names)
            if row.remark not in str(answer):
                raise AssertionError(f"{row.here} did not say {row.remark!r}, but {answer!r}")
            remark = f"{type(answer).__name__}: {row.remark}"
        message = f"{type(said).__name__}: {_sentence(said)}"
        lines.append(f"| {_code(row.there)}<br>{message} | {_code(row.here)}<br>{_text(remark)} |")
    return _framed(lines)


def _framed(lines: list[str]) -> str:
    """A table that is laid out by the style sheet of the site."""
    return "\n".join(('<div class="equivalents" markdown>', "", *lines, "", "</div>"))


def _compare(row: Row, ours: Any, expected: Any) -> None:
    found, wanted = jax.tree.leaves(ours), jax.tree.leaves(expected)
    if len(found) != len(wanted) or not found:
        raise AssertionError(f"{row.here} has {len(found)} leaves, {row.there} {len(wanted)}")
    for a, b in zip(found, wanted, strict=True):
        if np.shape(a) != np.shape(b):
            raise AssertionError(f"{row.here} is {np.shape(a)}, {row.there} is {np.shape(b)}")
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=row.here)


def _value(source: str, names: dict[str, Any]) -> Any:
    """What the last of the statements is, which `; ` divides."""
    *before, last = source.split("; ")
    names = dict(names)
    exec("\n".join(before), names)  # noqa: S102
    return eval(last, names)  # noqa: S307


def _raised(source: str, names: dict[str, Any]) -> Exception | None:
    try:
        _value(source, names)
    except Exception as error:
        return error
    return None


def _sentence(error: Exception) -> str:
    """The first sentence of a message, as text of a table."""
    text = " ".join(str(error).split())
    text = re.sub(r"<([^<>]*?) object at 0x[0-9a-f]+>", r"<\1 object>", text)
    first = re.match(r".*?[.:](?= [A-Z])|.*", text)
    assert first
    return _text(first.group().rstrip(".:"))


def _text(plain: str) -> str:
    """Text that means no markup."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", plain).replace("<", "&lt;")


def _code(source: str) -> str:
    """Statements below one another."""
    parts = (f"`#!python {part}`" for part in source.split("; "))
    return "<br>".join(parts).replace("|", r"\|")
