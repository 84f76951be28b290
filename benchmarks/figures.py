"""Figures of the benchmarks for the documentation, drawn from the JSON that they write.

They are SVG to be put into a page, whose text has the color of the page's.
"""

import io
import itertools
import json
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_TEXT = "#123456"  # replaced by the color of text on the page
_COLORS = {
    "adk": "#4c6ef5",
    "fwd": "#e8890c",
    "rev": "#2f9e62",
    "JAX": "#8a8f98",
    "equinox": "#e8890c",
    "lineax": "#2f9e62",
    "asdex": "#d6336c",
    "sparsejac": "#9c5fd6",
}
_MARKERS = {"JAX": "o", "equinox": "s", "lineax": "D", "asdex": "^", "sparsejac": "v"}
_NAMES = {"adk": "autodiffkit", "fwd": "jax.jacfwd", "rev": "jax.jacrev"}
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # of ratios
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "autodiffkit",
    "font.size": 9,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "legend.frameon": False,
}


def peers_figure(path: str | Path) -> str:
    """Run times of other packages over ours, a row for each function."""
    problems = _read(path)["problems"]
    rows = {name: row["peers"] for name, row in problems.items() if row["peers"]}
    order = sorted(rows, key=lambda name: min(p["ratio"]["median"] for p in rows[name].values()))
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 0.24 * len(order) + 1), layout="constrained")
        axes = figure.add_subplot()
        for library, marker in _MARKERS.items():
            places = [i for i, name in enumerate(order) if library in rows[name]]
            ratios = [rows[order[i]][library]["ratio"] for i in places]
            middle = [ratio["median"] for ratio in ratios]
            axes.errorbar(
                middle,
                places,
                xerr=[
                    [m - ratio["low"] for m, ratio in zip(middle, ratios, strict=True)],
                    [ratio["high"] - m for m, ratio in zip(middle, ratios, strict=True)],
                ],
                fmt=marker,
                markersize=4.5,
                elinewidth=0.8,
                color=_COLORS[library],
                label=library,
                alpha=0.85,
            )
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.set_xscale("log")
        left, right = axes.get_xlim()
        axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.set_xlim(left, right)
        axes.minorticks_off()
        axes.axvline(1, color=_TEXT, linewidth=0.8)
        axes.set_xlabel("run time over that of autodiffkit (right of the line: faster here)")
        axes.grid(axis="x", alpha=0.2)
        figure.legend(loc="outside upper center", ncols=5)
        return _svg(figure, "Run times of other packages over those of autodiffkit")


def scaling_figure(path: str | Path) -> str:
    """Run times and first calls by the number of inputs, outputs, leaves and examples."""
    points = _read(path)["points"]
    families = [
        (family, list(members))
        for family, members in itertools.groupby(points, key=lambda point: point["family"])
    ]
    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        grid: Any = figure.subplots(2, len(families), sharex="col", sharey="row")
        for (family, members), (above, below) in zip(families, grid.T, strict=True):
            _lines(above, members, "warm")
            _lines(below, members, "first")
            below.set_xlabel(family)
        grid[0, 0].set_ylabel("run time in s")
        grid[1, 0].set_ylabel("first call in s")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        return _svg(figure, "Run times and first calls as problems grow")


def _lines(axes: Axes, members: list[dict[str, Any]], what: str) -> None:
    for way, name in _NAMES.items():
        axes.plot(
            [point["size"] for point in members],
            [point["result"]["timings"][way][what] for point in members],
            marker="o",
            markersize=3,
            color=_COLORS[way],
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.2)


def _read(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _svg(figure: Figure, title: str) -> str:
    drawn = io.StringIO()
    # The font of the page may be wider than the one that is measured here.
    figure.savefig(
        drawn,
        format="svg",
        transparent=True,
        metadata={"Date": None},
        bbox_inches="tight",
        pad_inches=0.3,
    )
    text = drawn.getvalue().replace(_TEXT, "currentColor")
    text = text[text.index("<svg") :]
    return f'<figure class="benchmark" role="img" aria-label="{title}">{text}</figure>'
