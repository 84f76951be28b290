"""Results as text: a line for the terminal, a table for the documentation, missed targets."""

import itertools
import os
import platform
from collections.abc import Iterable, Sequence

import jax
from measure import OURS, Result
from problems import COMPILATION, Problem

_TOLERANCE = 1e-3  # of the largest entry; the modes round differently, in float32

_HEADS = ("problem", "JAX", "here", "ratio", "quartiles", "first call", "plan", "target")
_FIRST_HEADS = ("problem", "JAX's first call", "first call here", "plan", "target")
_WIDTHS = (39, 15, 11, 8, 15, 11, 18, 8)
_FIRST_WIDTHS = (39, 18, 18, 18, 8)

_CAPTION = (
    "JAX is the plain mode that ran faster, or `jax.hessian`; its time over ours is the ratio, "
    "whose median and quartiles are those of the pairs within a repeat. The first call is ours "
    "over that mode's: tracing, lowering and compiling."
)


def setting() -> str:
    """Where and with what the numbers were taken."""
    kind = jax.devices()[0].device_kind
    return (
        f"JAX {jax.__version__} on {kind} ({platform.machine()}, {os.cpu_count()} cores), float32"
    )


def title(group: str) -> str:
    """The heading of a group in the terminal."""
    return f"\n{group}\n{_aligned(*_columns(group))}"


def line(problem: Problem, result: Result) -> str:
    """A result in the terminal."""
    _, widths = _columns(problem.group)
    missed = misses(problem, result)
    return _aligned(_cells(problem, result), widths) + ("   missed" if missed else "")


def markdown(rows: Sequence[tuple[Problem, Result]]) -> str:
    """The results as a fragment of a page: a table for each group."""
    parts = [f"{setting()}. {_CAPTION}\n"]
    for group, members in itertools.groupby(rows, key=lambda row: row[0].group):
        heads, _ = _columns(group)
        together = list(members)
        body = [_cells(problem, result) for problem, result in together]
        rule = ["---", *["---:"] * (len(heads) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (heads, rule, *body)]
        parts.append("\n".join([f"**{group[0].upper()}{group[1:]}**", "", *lines, ""]))
        parts += [f"{remark}\n" for remark in _remarks(together)]
    return "\n".join(parts)


def misses(problem: Problem, result: Result) -> list[str]:
    """What was promised and is not so."""
    missed: list[str] = []
    if result.deviation is not None and not result.deviation <= _TOLERANCE:
        missed.append(f"{problem.name}: differs from JAX by {result.deviation:.1e}")
    if problem.target is None:
        return missed
    if problem.group == COMPILATION:
        seconds = result.timings[OURS].first
        if seconds > problem.target:
            missed.append(
                f"{problem.name}: first call in {seconds:.2f} s, more than {problem.target:g} s"
            )
    elif result.ratio is not None and result.ratio.median < problem.target:
        missed.append(
            f"{problem.name}: ratio {result.ratio.median:.2f}, less than {problem.target:g}"
        )
    return missed


def _remarks(members: Iterable[tuple[Problem, Result]]) -> list[str]:
    """What else there is to say of the results of a group."""
    return [
        f"{problem.name}: reverse mode of reverse mode took {result.twice_reverse:.2f} times as "
        "long as this."
        for problem, result in members
        if result.twice_reverse is not None
    ]


def _columns(group: str) -> tuple[Sequence[str], Sequence[int]]:
    return (_FIRST_HEADS, _FIRST_WIDTHS) if group == COMPILATION else (_HEADS, _WIDTHS)


def _cells(problem: Problem, result: Result) -> list[str]:
    ours = result.timings[OURS]
    theirs = None if result.best is None else result.timings[result.best]
    target = "" if problem.target is None else f"{problem.target:g}"
    if problem.group == COMPILATION:
        first = "not timed" if theirs is None else f"{theirs.first:.2f} s"
        return [problem.name, first, f"{ours.first:.2f} s", str(result.plan), f"{target} s"]
    assert theirs is not None
    assert result.ratio is not None
    low, ratio, high = result.ratio
    return [
        problem.name,
        f"{result.best} {_time(theirs.warm)}",
        _time(ours.warm),
        f"{ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{result.first_ratio:.2f}",
        str(result.plan),
        target,
    ]


def _time(seconds: float | None) -> str:
    assert seconds is not None
    return f"{seconds * 1e3:.3f} ms"


def _aligned(cells: Iterable[str], widths: Sequence[int]) -> str:
    """The first cell to the left, the others to the right."""
    first, *others = cells
    padded = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
    return f"{first:{widths[0]}}" + "".join(padded)
