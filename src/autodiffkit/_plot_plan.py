"""Plans as graphs: the linear program from inputs to outputs, with the cut and the sweeps."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autodiffkit._fitting import width_of
from autodiffkit._layers import Layout, Point, layered
from autodiffkit._naming import name_of_primitive
from autodiffkit._network import Network
from autodiffkit._plan_graph import Node, PlanGraph, plan_graph
from autodiffkit._plotting import (
    BOX,
    CUT,
    LINE,
    ON_LIGHT,
    PULLED,
    PUSHED,
    axes_for,
    below,
    cell,
    font_size,
    inches,
    literal,
    need_matplotlib,
    set_title,
    short_names,
    title_width,
    with_fonts,
)
from autodiffkit._schedule import Choice, Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST, _LEVELS = 24, 7  # nodes, and nodes in a row
# In small axes, the share of these nodes and how many in a row, until letters can be read.
_SMALLER = ((0.7, 6), (0.5, 5), (0.4, 4), (0.3, 3), (0.2, 2), (0.1, 1))
_LEAST_FONT = 5.5
_TITLE = 6.5  # inches of a line of the title
_NAMED = 2  # operations and leaves, up to which those of a node are named
_BRIEF = 14  # letters of a name that stands for several, if they tell it from the others
_LETTER, _LINE = 0.075, 0.155  # inches, of the font at its full size
_FONT = 8.5
_APART = 0.55  # inches between parts
_COLOURS = {"fwd": PUSHED, "rev": PULLED}


class Part(NamedTuple):
    """What is drawn of a plan, or of a part of one.

    Args:
        title: Its heading; of the only one, empty.
        schedule: What is swept.
        choice: With what directions.
        leaf: The name of a variable that is an input or an output.
    """

    title: str
    schedule: Schedule
    choice: Choice
    leaf: Callable[[int], str]


class _Drawn(NamedTuple):
    """A part with everything that is written in it."""

    part: Part
    graph: PlanGraph
    texts: list[str]
    layout: Layout
    sizes: list[Point]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top."""
        corners = list(zip(self.layout.places, self.sizes, strict=True))
        middles = [y for route in self.layout.routes.values() for _, y in route]
        return (
            min((x - w / 2 for (x, _), (w, _) in corners), default=0.0),
            max((x + w / 2 for (x, _), (w, _) in corners), default=3.0),
            min([*(y - h / 2 for (_, y), (_, h) in corners), *middles], default=0.0),
            max([*(y + h / 2 for (_, y), (_, h) in corners), *middles], default=0.0),
        )


def draw_plan(call: str, title: str, parts: Sequence[Part], ax: Any) -> "Axes":
    """Draws the program of a plan.

    Args:
        call: The call, for messages.
        title: What the plan is of.
        parts: What is swept, one below the other.
        ax: Axes, or `None` for new ones.

    Returns:
        The axes.
    """
    need_matplotlib(call)
    most = max(8, _MOST // len(parts))
    drawn, shifts, (left, right, bottom, top) = _stacked(parts, most, _LEVELS)
    wide = max(right - left, 3.5, min(title_width(title), _TITLE)) + 0.2
    axes = axes_for(call, ax, (wide, top - bottom + 0.9))
    scale = 1.0
    if ax is not None:
        wide = cell(axes)[0]
        width, height = _room(axes)
        for share, levels in _SMALLER:
            scale = min(1.0, width / (right - left), height / (top - bottom))
            if scale * _FONT >= _LEAST_FONT:
                break
            fewer = _stacked(parts, max(3, int(share * most)), levels)
            box = fewer[2]
            if scale < min(width / (box[1] - box[0]), height / (box[3] - box[2])):
                drawn, shifts, (left, right, bottom, top) = fewer
        scale = min(1.0, width / (right - left), height / (top - bottom))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_axis_off()
    set_title(axes, title, wide - 0.2)
    for each, shift in zip(drawn, shifts, strict=True):
        _draw(axes, each, shift, _FONT * scale)
    _legend(axes, drawn, wide)
    return with_fonts(axes)


def _room(axes: "Axes") -> tuple[float, float]:
    """What is left of axes for boxes, in inches."""
    figure: Any = axes.figure
    width, height = inches(axes)
    if figure.get_layout_engine() is None:
        return width, height
    # When the figure is drawn, axes without ticks have all of a cell but for title and legend.
    around = cell(axes)
    return max(width, around[0] - 0.15), max(0.3 * around[1], around[1] - 1.1)


def _stacked(
    parts: Sequence[Part], most: int, levels: int
) -> tuple[list[_Drawn], list[float], tuple[float, float, float, float]]:
    """Parts below one another: how they are laid out, how low each is, and the box of all."""
    drawn = [_laid_out(part, most, levels) for part in parts]
    shifts: list[float] = []
    low = 0.0
    for each in drawn:
        _, _, bottom, top = each.box
        heading = _LINE * 1.6 if each.part.title else 0.0
        shifts.append(low - heading - top)
        low = shifts[-1] + bottom - _APART
    left = min(each.box[0] for each in drawn) - 0.1
    right = max(each.box[1] for each in drawn) + 0.1
    return drawn, shifts, (left, right, low + _APART - 0.1, 0.1)


def _laid_out(part: Part, most: int, levels: int) -> _Drawn:
    graph = plan_graph(part.schedule, part.choice, most=most, levels=levels)
    names = leaf_names(part)
    texts = [_text(part, node, names) for node in graph.nodes]
    gap = 0.55
    if levels < _LEVELS:  # in small axes boxes are higher and closer
        texts = [text.replace(" … ", " …\n").replace(", ", ",\n") for text in texts]
        gap = 0.3
    sizes = [_size(text, node) for text, node in zip(texts, graph.nodes, strict=True)]
    last = [i for i, node in enumerate(graph.nodes) if node.role.is_target]
    return _Drawn(part, graph, texts, layered(sizes, list(graph.edges), last, gap), sizes)


def _size(text: str, node: Node) -> Point:
    """The room of a box with its text, and of the directions below it and as much above."""
    lines = text.split("\n")
    notes = [note for note, _ in _notes(node)]
    letters = max(map(width_of, [*lines, *notes]))
    return letters * _LETTER + 0.2, (len(lines) + 2 * len(notes)) * _LINE + 0.14


# What is written -------------------------------------------------------------------------


def leaf_names(part: Part) -> dict[int, tuple[str, str]]:
    """A name for each input and output, and a shorter one: different ones stay different."""
    variables = [v for ends in part.schedule.network.ends for v in ends]
    names = [part.leaf(v) for v in variables]
    both = short_names(names), short_names(names, _BRIEF)
    return dict(zip(variables, zip(*both, strict=True), strict=True))


def _text(part: Part, node: Node, leaves: dict[int, tuple[str, str]]) -> str:
    """What a node is, and its size."""
    network = part.schedule.network
    entries = [network.sizes[v] for v in node.variables]
    if node.role.is_source or node.role.is_target:
        names = [leaves[v][0] for v in node.variables]
        brief = [leaves[v][1] for v in node.variables]
        what = "inputs" if node.role.is_source else "outputs"
    else:
        names = _operations(network, node.variables)
        brief = short_names(names, _BRIEF)
        what = "operations"
    count, distinct = len(names), list(dict.fromkeys(names))
    if count == 1:
        return f"{names[0]}\n{_shape(network, node.variables[-1])}"
    head = ", ".join(distinct)
    if len(distinct) > _NAMED or len(head) > 24:
        head = f"{brief[0]} … {brief[-1]}"
    if head != ", ".join(names):
        head += f"\n{count} {what}"
    if node.role.is_inner:
        return f"{head}\n{_range(entries)}"
    return f"{head}\n{sum(entries)} entries"


def _operations(network: Network, variables: Sequence[int]) -> list[str]:
    """What computes variables, each once."""
    equations = network.program.jaxpr.eqns
    steps = dict.fromkeys(i for v in variables for i in network.makers[v])
    return [name_of_primitive(equations[network.steps[i].equation]) for i in steps]


def _shape(network: Network, variable: int) -> str:
    shape = network.variables[variable].aval.shape
    return " × ".join(map(str, shape)) if shape else "scalar"


def _range(entries: Sequence[int]) -> str:
    least, most = min(entries), max(entries)
    if least == most:
        return f"{least} {'entry' if least == 1 else 'entries'} each"
    return f"{least} to {most} entries"


def _notes(node: Node) -> list[tuple[str, str]]:
    """The directions that are swept from a node, each with its colour."""
    pushed, pulled = node.directions
    return [
        (text, colour)
        for count, text, colour in (
            (pulled, f"← {pulled} pulled", PULLED),
            (pushed, f"{pushed} pushed →", PUSHED),
        )
        if count
    ]


# What is drawn ---------------------------------------------------------------------------


def _draw(axes: "Axes", drawn: _Drawn, shift: float, font: float) -> None:
    from matplotlib.patches import FancyBboxPatch  # noqa: PLC0415  # an extra

    graph, layout = drawn.graph, drawn.layout
    left, _, _, top = drawn.box
    if drawn.part.title:
        axes.text(left, shift + top + _LINE, drawn.part.title, fontsize=font * 1.1, va="center")
    if not graph.nodes:
        axes.text(left, shift, "nothing is swept: no output depends on an input", fontsize=font)
    for edge, modes in graph.edges.items():
        route = [(x, y + shift) for x, y in layout.routes[edge]]
        _arrows(axes, route, sorted(modes))
    for node, text, (x, y), (width, height) in zip(
        graph.nodes, drawn.texts, layout.places, drawn.sizes, strict=True
    ):
        notes = _notes(node)
        room = len(notes) * _LINE
        box = FancyBboxPatch(
            (x - width / 2 + 0.04, y + shift - height / 2 + room + 0.04),
            width - 0.08,
            height - 2 * room - 0.08,
            boxstyle="round,pad=0.04,rounding_size=0.06",
            facecolor=CUT if node.role.is_cut else BOX,
            edgecolor=LINE,
            linewidth=1.4 if node.role.is_source or node.role.is_target else 0.6,
            zorder=2,
        )
        axes.add_patch(box)
        options: Any = {"ha": "center", "va": "center", "fontsize": font, "zorder": 3}
        axes.text(x, y + shift, literal(text), color=ON_LIGHT, linespacing=1.15, **options)
        for k, (note, colour) in enumerate(notes):
            place = y + shift - height / 2 + room - (k + 0.5) * _LINE
            axes.text(x, place, note, color=colour, fontweight="bold", **options)


def _arrows(axes: "Axes", route: Sequence[Point], modes: Sequence[str]) -> None:
    """An edge, with its head where the sweep goes: to the left if it is pulled back."""
    for number, mode in enumerate(modes or [""]):
        lift = 0.04 * (2 * number - len(modes) + 1) if len(modes) > 1 else 0.0
        points = [(x, y + lift) for x, y in route]
        _arrow(axes, points[::-1] if mode == "rev" else points, _COLOURS.get(mode, LINE))


def _arrow(axes: "Axes", points: Sequence[Point], colour: str) -> None:
    from matplotlib.patches import FancyArrowPatch  # noqa: PLC0415  # an extra
    from matplotlib.path import Path  # noqa: PLC0415  # likewise

    vertices, codes = [points[0]], [Path.MOVETO]
    for (a, b), (c, d) in itertools.pairwise(points):
        if b == d:
            vertices.append((c, d))
            codes.append(Path.LINETO)
        else:
            middle = (a + c) / 2
            vertices += [(middle, b), (middle, d), (c, d)]
            codes += [Path.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=9,
            color=colour,
            linewidth=1.3,
            zorder=1,
        )
    )


def _legend(axes: "Axes", drawn: Sequence[_Drawn], wide: float) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415  # an extra
    from matplotlib.patches import Patch  # noqa: PLC0415  # likewise

    nodes = [node for each in drawn for node in each.graph.nodes]
    modes = {mode for each in drawn for found in each.graph.edges.values() for mode in found}
    handles: list[Any] = []
    if any(node.role.is_cut for node in nodes):
        handles.append(Patch(facecolor=CUT, edgecolor=LINE, label="swept from"))
    for mode, label in (("rev", "pulled back"), ("fwd", "pushed forward")):
        if mode in modes:
            handles.append(Line2D([], [], color=_COLOURS[mode], label=label))
    variables = sum(each.graph.variables for each in drawn)
    words = f"{variables} variables"
    if variables > len(nodes):
        words += f" in {len(nodes)} nodes"
    small = 0.9 * font_size("axes.labelsize")
    axes.text(0.5, 0, words, transform=below(axes, 4), ha="center", va="top", fontsize=small)
    if handles:
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=below(axes, 8 + 1.3 * small),
            borderaxespad=0,
            ncols=max(1, min(len(handles), int(72 * wide / (12 * small)))),
            frameon=False,
            fontsize=small,
        )
