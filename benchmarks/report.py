"""Results as text: a line for the terminal, a table for the documentation, missed targets."""

import itertools
import os
import platform
import statistics
from collections.abc import Iterable, Sequence

import jax
from measure import BY_HAND, OURS, Result
from problem import COMPILATION, ByHand, Problem

_TOLERANCE = 1e-3  # of the largest entry; the modes round differently, in float32
_FIRST_CALL = 1.5  # times that of the faster plain mode at most, on any problem
_MEDIAN_FIRST_CALL = 1.25  # in the median of all problems

_HEADS = ("problem", "JAX", "here", "ratio", "quartiles", "first call", "plan", "target")
_HAND_HEADS = ("problem", "written by hand", "its time", "here", "over it", "quartiles", "at most")
_FIRST_HEADS = ("problem", "JAX's first call", "first call here", "plan", "target")
_WIDTHS = (42, 20, 11, 8, 15, 11, 18, 8)
_FIRST_WIDTHS = (42, 18, 18, 18, 8)

_CAPTION = (
    "JAX is the plain mode that ran faster, or of Hessians, the way in plain JAX that did; where "
    "it has none, what was written by hand. Its time over ours is the ratio, "
    "whose median and quartiles are those of the pairs within a repeat. The first call is ours "
    "over that mode's: tracing, lowering and compiling."
)

_HAND_CAPTION = (
    "The same beside the derivative written by hand: what it was, and how many times as long ours "
    "took; below 1 it was faster."
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
    """A result in the terminal; a second line where there is something written by hand."""
    _, widths = _columns(problem.group)
    missed = "   missed" if misses(problem, result) else ""
    lines = [_aligned(_cells(problem, result), widths) + missed]
    if problem.by_hand is not None:
        _, name, hand, ours, ratio, quartiles, limit = _hand_cells(problem.by_hand, problem, result)
        cells = (f"  over {name}", hand, ours, ratio, quartiles, "", "", f"<= {limit}")
        lines.append(_aligned(cells, widths))
    return "\n".join(lines)


def markdown(rows: Sequence[tuple[Problem, Result]]) -> str:
    """The results as a fragment of a page: a table for each group, others for what is by hand."""
    parts = [f"{setting()}. {_CAPTION}\n"]
    for group, members in itertools.groupby(rows, key=lambda row: row[0].group):
        heads, _ = _columns(group)
        together = list(members)
        body = [_cells(problem, result) for problem, result in together]
        parts.append(f"**{group[0].upper()}{group[1:]}**\n\n{table(heads, body)}")
        by_hand = [
            _hand_cells(problem.by_hand, problem, result)
            for problem, result in together
            if problem.by_hand is not None
        ]
        if by_hand:
            parts.append(f"{_HAND_CAPTION}\n\n{table(_HAND_HEADS, by_hand)}")
    return "\n".join([*parts, *(f"{text}\n" for text in first_calls_in_short(rows))])


def first_calls_in_short(rows: Iterable[tuple[Problem, Result]]) -> list[str]:
    """The first calls of all problems in one sentence, if there were any to compare with."""
    ratios = _first_ratios(rows)
    if not ratios:
        return []
    return [
        f"First calls took {statistics.median(ratios):.2f} times as long as JAX's in the median "
        f"and {max(ratios):.2f} times at most, where {_MEDIAN_FIRST_CALL:g} and {_FIRST_CALL:g} "
        "are promised."
    ]


def misses(problem: Problem, result: Result) -> list[str]:
    """What was promised and is not so."""
    missed: list[str] = []
    if result.deviation is not None and not result.deviation <= _TOLERANCE:
        missed.append(f"{problem.name}: differs from JAX by {result.deviation:.1e}")
    limit = None if problem.by_hand is None else problem.by_hand.at_most
    if limit is not None and result.over_hand is not None and result.over_hand.median > limit:
        missed.append(
            f"{problem.name}: {result.over_hand.median:.2f} times the time of what is written "
            f"by hand, more than {limit:g}"
        )
    ratios = _first_ratios([(problem, result)])
    if any(ratio > _FIRST_CALL for ratio in ratios):
        missed.append(
            f"{problem.name}: first call {ratios[0]:.2f} times JAX's, more than {_FIRST_CALL:g}"
        )
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


def misses_together(rows: Iterable[tuple[Problem, Result]]) -> list[str]:
    """What was promised of all problems together and is not so."""
    ratios = _first_ratios(rows)
    if not ratios or statistics.median(ratios) <= _MEDIAN_FIRST_CALL:
        return []
    return [
        f"first calls: {statistics.median(ratios):.2f} times JAX's in the median, "
        f"more than {_MEDIAN_FIRST_CALL:g}"
    ]


def _first_ratios(rows: Iterable[tuple[Problem, Result]]) -> list[float]:
    """Our first calls over JAX's, where both were timed and run times are compared."""
    return [
        result.first_ratio
        for problem, result in rows
        if problem.group != COMPILATION and result.first_ratio is not None
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
    if theirs is None or result.ratio is None:
        return [
            problem.name,
            "raises",
            milliseconds(ours.warm),
            "",
            "",
            "",
            str(result.plan),
            target,
        ]
    low, ratio, high = result.ratio
    best = result.best
    if best == BY_HAND and problem.by_hand is not None:
        best = problem.by_hand.name
    return [
        problem.name,
        f"{best} {milliseconds(theirs.warm)}",
        milliseconds(ours.warm),
        f"{ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{result.first_ratio:.2f}",
        str(result.plan),
        target,
    ]


def _hand_cells(by_hand: ByHand, problem: Problem, result: Result) -> list[str]:
    assert result.over_hand is not None
    low, ratio, high = result.over_hand
    return [
        problem.name,
        f"`{by_hand.name}`",
        milliseconds(result.timings[BY_HAND].warm),
        milliseconds(result.timings[OURS].warm),
        f"{ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{by_hand.at_most:g}",
    ]


def milliseconds(seconds: float | None) -> str:
    """The time of a call."""
    assert seconds is not None
    return f"{seconds * 1e3:.3f} ms"


def table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """In markdown, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *body))


def _aligned(cells: Iterable[str], widths: Sequence[int]) -> str:
    """The first cell to the left, the others to the right."""
    first, *others = cells
    padded = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
    return f"{first:{widths[0]}}" + "".join(padded)
