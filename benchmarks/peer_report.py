"""What other packages take, over what is taken here: tables for the documentation."""

import math
import statistics
from collections.abc import Callable, Sequence

from measure import JAX, OURS, Peer, Result, Timing
from peers import PACKAGES, package, versions
from problem import Problem
from report import milliseconds, setting, table

_LIBRARIES = (JAX, *PACKAGES)
_SAME = 1.05  # a ratio nearer to 1 than this is neither a win nor a loss

_Rows = Sequence[tuple[Problem, Result]]
_Cell = Callable[[Peer], str]
_Here = Callable[[Timing], str]


def in_short(rows: _Rows) -> str:
    """A line for each package: ratios in the middle and at the ends, wins and losses."""
    heads = (
        "package", "functions", "run time", "from", "to", "faster here", "slower here",
        "first call", "temporaries", "raises",
    )  # fmt: skip
    return table(heads, [_summary(library, rows) for library in _LIBRARIES])


def markdown(rows: _Rows) -> str:
    """All numbers: run times with quartiles, first calls and temporaries, problem by problem."""
    parts = [f"{setting()}; {versions()}."]
    for title, here, cell in (
        (
            "Run time over that here: the median, and the quartiles",
            lambda ours: milliseconds(ours.warm),
            _run_time,
        ),
        ("First call over that here", lambda ours: f"{ours.first:.2f} s", _first_call),
        ("Temporaries over those here", lambda ours: _bytes(ours.temporaries), _temporaries),
    ):
        heads = ("function", "here", *_LIBRARIES)
        parts.append(f"**{title}**\n\n{table(heads, [_cells(*row, here, cell) for row in rows])}")
    return "\n\n".join(parts)


def _summary(library: str, rows: _Rows) -> list[str]:
    found = [r.peers[library] for _, r in rows if r.peers is not None and library in r.peers]
    raising = sum(_raises(result, library) for _, result in rows)
    if not found:
        return [library, "0", *[""] * 7, str(raising)]
    ratios = [peer.ratio.median for peer in found]
    temporaries = [p.temporaries_ratio for p in found if p.temporaries_ratio is not None]
    return [
        library,
        str(len(found)),
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f}",
        f"{max(ratios):.2f}",
        str(sum(ratio > _SAME for ratio in ratios)),
        str(sum(ratio < 1 / _SAME for ratio in ratios)),
        f"{statistics.median(peer.first_ratio for peer in found):.2f}",
        f"{statistics.median(temporaries):.2f}" if temporaries else "",
        str(raising),
    ]


def _raises(result: Result, library: str) -> bool:
    """Whether no way of a library could differentiate the function, though it has one."""
    if result.peers is not None and library in result.peers:
        return False
    if library == JAX:
        return len(result.timings) == 1
    return any(package(name) == library for name in result.raised)


def _cells(problem: Problem, result: Result, here: _Here, cell: _Cell) -> list[str]:
    ours = result.timings[OURS]
    found = result.peers or {}
    return [
        problem.name,
        here(ours),
        *(
            cell(found[library])
            if library in found
            else "raises"
            if _raises(result, library)
            else ""
            for library in _LIBRARIES
        ),
    ]


def _run_time(peer: Peer) -> str:
    low, ratio, high = peer.ratio
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _first_call(peer: Peer) -> str:
    return f"{peer.first_ratio:.2f}"


def _temporaries(peer: Peer) -> str:
    return "" if peer.temporaries_ratio is None else f"{peer.temporaries_ratio:.2f}"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    unit = min(int(math.log(max(count, 1), 1024)), 2)
    return f"{count / 1024**unit:.3g} {('B', 'KiB', 'MiB')[unit]}"
