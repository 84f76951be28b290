"""Run times and first calls as ratios to plain JAX, from repeats that are interleaved.

A ratio above 1 means that autodiffkit was faster than the better of JAX's plain modes; a
first call above 1, that ours took longer. Losses are printed like wins.
"""

import argparse
import fnmatch
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peer_report
import practice
import scaling
from algebra import measure_algebra
from calls import measure_calls
from measure import Result, compare, compare_first_calls
from planning import measure_planning
from problem import COMPILATION, Problem
from problems import problems
from report import (
    first_calls_in_short,
    line,
    markdown,
    misses,
    misses_together,
    setting,
    title,
)
from scaling import Point, measure_scaling
from typecheck import measure_typecheck


def main() -> None:
    """Measures, prints and writes what was asked for."""
    options = _options()
    print(setting())
    if options.scaling:
        _scaling(options)
    elif options.planning or options.typecheck or options.algebra or options.calls:
        for text in _costs(options):
            print(text, flush=True)
    else:
        _compare(options)


def _compare(options: argparse.Namespace) -> None:
    """Problem by problem, beside plain JAX, and those of practice beside other packages."""
    rows: list[tuple[Problem, Result]] = []
    for problem in practice.problems() if options.practice else problems():
        if not _wanted(problem, options.only):
            continue
        if not rows or rows[-1][0].group != problem.group:
            print(title(problem.group), flush=True)
        if problem.group == COMPILATION:
            result = compare_first_calls(problem, slow=options.slow)
        else:
            result = compare(problem, options.repeats, with_peers=options.practice)
        rows.append((problem, result))
        print(line(problem, result), flush=True)
    if not rows:
        sys.exit(f"No problem's name matches {options.only!r}.")
    print("", *first_calls_in_short(rows), sep="\n")
    if options.practice:
        print("", peer_report.in_short(rows), sep="\n")
    _write(options, rows)
    missed = [miss for problem, result in rows for miss in misses(problem, result)]
    missed += misses_together(rows)
    if options.check and missed:
        sys.exit("\n".join(["", "Missed:", *missed]))


def _write(options: argparse.Namespace, rows: list[tuple[Problem, Result]]) -> None:
    if options.json is not None:
        _write_json(options.json, _as_json(rows))
    if options.markdown is not None:
        options.markdown.write_text(markdown(rows), encoding="utf-8")
    if options.peers is not None:
        text = f"{peer_report.in_short(rows)}\n{peer_report.markdown(rows)}"
        options.peers.write_text(text, encoding="utf-8")


def _scaling(options: argparse.Namespace) -> None:
    """Sizes from small to large."""
    points: list[Point] = []
    for point in measure_scaling(options.repeats):
        points.append(point)
        print(scaling.line(point), flush=True)
    if options.json is not None:
        every = [_fields(point) for point in points]
        _write_json(options.json, {"setting": setting(), "points": every})
    if options.markdown is not None:
        options.markdown.write_text(scaling.markdown(points), encoding="utf-8")


def _costs(options: argparse.Namespace) -> Iterator[str]:
    """What planning, checking and linear algebra cost, in words."""
    if options.planning:
        found = measure_planning(options.repeats)
        yield (
            f"planning {found.equations} linear equations: trace {found.trace:.1f} ms, "
            f"plan {found.plan:.1f} ms, {found.beyond:.1f} ms beyond the trace"
        )
    if options.typecheck:
        for cost in measure_typecheck(options.repeats):
            yield (
                f"{cost.name}: with checks over without, {cost.traced:.2f} traced, "
                f"{cost.compiled:.2f} compiled"
            )
    if options.algebra:
        yield from measure_algebra(options.repeats)
    if options.calls:
        yield from measure_calls(options.repeats)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare with plain JAX.")
    parser.add_argument(
        "--repeats", type=int, help="samples of each variant; as many as fit in 2 s if left out"
    )
    parser.add_argument(
        "--only", metavar="PATTERN", help="problems whose name contains this text or matches it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument(
        "--slow", action="store_true", help="compile JAX's side where that takes long, too"
    )
    parser.add_argument("--planning", action="store_true", help="time planning instead")
    parser.add_argument(
        "--typecheck", action="store_true", help="time the check of annotations instead"
    )
    parser.add_argument(
        "--algebra", action="store_true", help="time products, diagonals and Laplacians instead"
    )
    parser.add_argument(
        "--practice", action="store_true", help="functions of research practice, field by field"
    )
    parser.add_argument(
        "--peers", type=Path, metavar="FILE", help="write tables of other packages here"
    )
    parser.add_argument("--scaling", action="store_true", help="sizes from small to large instead")
    parser.add_argument(
        "--calls", action="store_true", help="time calls without jit and compiled ones instead"
    )
    return parser.parse_args()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _wanted(problem: Problem, pattern: str | None) -> bool:
    return pattern is None or fnmatch.fnmatch(problem.name.lower(), f"*{pattern.lower()}*")


def _as_json(rows: list[tuple[Problem, Result]]) -> dict[str, Any]:
    return {
        "setting": setting(),
        "problems": {
            problem.name: {
                "group": problem.group,
                "layout": problem.layout,
                "target": problem.target,
                "by_hand": None if problem.by_hand is None else problem.by_hand.name,
                "at_most_over_hand": None if problem.by_hand is None else problem.by_hand.at_most,
                **_fields(result),
                "missed": misses(problem, result),
            }
            for problem, result in rows
        },
    }


def _fields(value: Any) -> Any:
    """Named tuples as dictionaries, all the way down."""
    if hasattr(value, "_asdict"):
        return {name: _fields(field) for name, field in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _fields(field) for name, field in value.items()}
    return value


if __name__ == "__main__":
    main()
