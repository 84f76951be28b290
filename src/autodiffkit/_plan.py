"""The plan of a derivative: which sweeps compute it and why, for programs and for people."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from autodiffkit._cost import Work
from autodiffkit._display import Displayed
from autodiffkit._display_text import Display, Kind, Section, Table, plain_table
from autodiffkit._errors import StructureError, shown_of
from autodiffkit._leaves import Ends, describe_array
from autodiffkit._memory import show_bytes
from autodiffkit._naming import describe
from autodiffkit._network import Network
from autodiffkit._paths import legible
from autodiffkit._plot_plan import Part, draw_plan
from autodiffkit._schedule import Chain, Choice, Schedule, Sketch, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"fwd": "forward", "rev": "reverse", "mixed": "mixed"}
_ROWS = 12  # that are swept from
_STOPS = 3  # that are swept to
_SOME = 4
_PARTS = 4  # of a plan, up to which all are plotted
_VARIABLE: tuple[Kind, ...] = ("fixed", "fixed", "note")

_logger = logging.getLogger("autodiffkit")


@dataclasses.dataclass(frozen=True, repr=False)
class Plan(Displayed):
    """The sweeps that compute a derivative, and why these.

    `print(plan)` explains it to a person; the fields are for programs.

    Attributes:
        mode: `"fwd"`, `"rev"`, or `"mixed"` where some directions are pushed and some pulled.
        forward_sweeps: How many directions are pushed forward.
        reverse_sweeps: How many directions are pulled back.
        cut_size: The capacity of the minimum cut, which each path from an input to an output
            crosses: the number of entries of its variables, complex ones counting twice
            unless the function is holomorphic. Where a mode was asked for, the number of
            entries that this mode starts from.
        reason: Why this mode was chosen, in a sentence.
        zeros: Pairs of an output's and an input's path with no way from one to the other:
            blocks that are zero whatever the arguments are, and that are not swept.
        flops: Floating-point operations that the sweeps are estimated to take.
        bytes_moved: Bytes that they are estimated to read and write.
        chunk_size: How many directions are swept together at most.
        temporaries: The bytes that the sweeps are expected to hold at a time, besides the result
            and the residuals of the function. Where axes are kept apart it is a bound.
        gradient: For second derivatives, the plan of the first derivative, whose program
            is the one that this plan sweeps.
        parts: Where blocks are swept in several parts, the plan of each; the numbers above are
            those of all parts together.
    """

    mode: Literal["fwd", "rev", "mixed"]
    forward_sweeps: int
    reverse_sweeps: int
    cut_size: int
    reason: str
    zeros: tuple[tuple[str, str], ...]
    flops: float
    bytes_moved: float
    chunk_size: int
    temporaries: int
    gradient: "Plan | None"
    _call: str
    _ends: Ends
    _held: tuple[tuple[str, str], ...]
    _choice: Choice
    _schedule: Schedule
    _obstacles: tuple[str, ...]
    parts: "tuple[Plan, ...]" = ()
    _shown: Display | None = None  # of a plan that was pickled, which has lost its program

    def __copy__(self) -> "Plan":
        return self  # a plan does not change

    def __deepcopy__(self, memo: dict[int, Any]) -> "Plan":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # What is swept is a program, which cannot be pickled; what is said of it can.
        lost = {"_choice": None, "_schedule": None, "_shown": self._display()}
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _restored, (state | lost,)

    def _display(self) -> Display:
        if self._shown is not None:
            return self._shown
        if self.parts:
            title = f"Plan of {self._call}: {len(self.parts)} parts"
            parts: list[str | Table | Section] = []
            for i, part in enumerate(self.parts, 1):
                shown = part._display()
                parts.append(f"part {i}: {shown.title.split(': ', 1)[1]}")
                sections = [x for x in shown.parts if isinstance(x, Section)]
                parts += [dataclasses.replace(section, margin=2) for section in sections]
            return Display(title, tuple(parts))
        sections = [Section("why", (self.reason,)), *self._sweeps()]
        if self._schedule.mirrored:
            sections.append(Section("equal", self._mirrored_lines()))
        sections += [
            Section("zeros", self._zero_lines()),
            Section("cannot", _first(self._obstacles)),
            Section("work", (self._work(),)),
            Section("memory", self._memory_lines()),
            Section("held", self._held_lines()),
        ]
        if self.gradient is not None:
            first = self.gradient
            line = (
                f"the first derivative, itself by {NAMES[first.mode]} mode "
                f"({first.forward_sweeps} forward, {first.reverse_sweeps} reverse)"
            )
            sections.append(Section("of", (line,)))
        title = f"Plan of {self._call}: {NAMES[self.mode]} mode"
        return Display(title, tuple(section for section in sections if section.parts))

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the linear program from inputs to outputs with the cut and the sweeps.

        Boxes are variables, by what computes them, with their shapes; those that sweeps start
        from are coloured, with the number of directions. Arrows go the way of the sweeps, in one
        colour where directions are pulled back and in another where they are pushed forward. A
        program of more than two dozen variables, or than can be read in small axes, is condensed:
        chains are one box, and then what is near or alike.

        Args:
            ax: Axes to draw into, whose ticks and frame are turned off. `None` makes a figure.

        Returns:
            The axes.

        Raises:
            MissingPackageError: If matplotlib is not installed.
            SelectionError: If `ax` is something else.
            StructureError: If the plan was pickled, which loses its program.
        """
        call = f"{self._call}.plan(...).plot"
        if self._shown is not None:
            raise StructureError(
                f"{call}: a plan that was pickled has kept its text and lost its program. Plot "
                "before it is pickled, or make it again with .plan(...)."
            )
        title = f"Plan of {self._call}: {NAMES[self.mode]} mode"
        if not self.parts:
            return draw_plan(call, title, [self._drawn("")], ax)
        if len(self.parts) > _PARTS:
            raise StructureError(
                f"{call}: the derivative is swept in {len(self.parts)} parts, each with a program "
                "of its own. Plot one of them: plan.parts[0].plot()."
            )
        shown = [
            plan._drawn(f"part {i}: {NAMES[plan.mode]} mode")
            for i, plan in enumerate(self.parts, 1)
        ]
        return draw_plan(call, title, shown, ax)

    def _drawn(self, title: str) -> Part:
        network = self._schedule.network
        return Part(title, self._schedule, self._choice, lambda v: self._row(network, v)[0])

    # Sweeps -----------------------------------------------------------------------

    def _sweeps(self) -> list[Section]:
        sweeps, network = self._schedule.sweeps, self._schedule.network
        if isinstance(sweeps, Chain):
            sections: list[Section] = []
            for link in sweeps.links:
                starts, stops = link.inputs, link.outputs
                if link.mode == "rev":
                    starts, stops = stops, starts
                sections += self._sweep(link.mode, starts, stops)
            return [*sections, Section("join", ("by the product of these",))]
        sections = []
        for mode, origins in (
            ("rev", (*sweeps.middle, *sweeps.pulled)),
            ("fwd", (*sweeps.pushed, *sweeps.middle)),
        ):
            swept, reached = self._reached(sweeps, origins, forward=mode == "fwd")
            if swept:
                sections += self._sweep(mode, swept, reached)
        if not sections:
            sections.append(Section("sweeps", ("none",)))
        if sweeps.middle:
            count = network.directions(sweeps.middle)
            sections.append(Section("join", (f"by a product over the {count} in between",)))
        return sections

    def _reached(
        self, split: Split, starts: Sequence[int], *, forward: bool
    ) -> tuple[list[int], list[int]]:
        """What is really swept from, which symmetry may make needless, and the ends it leads to."""
        network = self._schedule.network
        sources, targets = network.ends
        narrowed = dict(split.narrowed)
        starts = [v for v in starts if narrowed.get(v, True)]
        by_steps: dict[frozenset[int], list[int]] = {}
        for v in starts:
            by_steps.setdefault(split.steps_of(v, forward=forward), []).append(v)
        found: set[int] = set()
        for steps, group in by_steps.items():
            if forward:
                found |= network.computed(group, steps)
            else:
                found |= {s for s in sources if not network.computed([s], steps).isdisjoint(group)}
        ends = targets if forward else [v for v in sources if v not in split.pushed]
        return starts, [v for v in ends if v in found]

    def _sweep(self, mode: str, starts: Sequence[int], stops: Sequence[int]) -> list[Section]:
        network, chosen = self._schedule.network, self._choice.chosen
        moved = "pushed forward from" if mode == "fwd" else "pulled back from"
        sketches = chosen.pushes if mode == "fwd" else chosen.pulls
        notes = [
            self._axes_note(v, sketches.get(v)) for v in starts[: shown_of(len(starts), _ROWS)]
        ]
        rows = [(*self._row(network, v), note) for v, note in zip(starts, notes, strict=False)]
        entries = _plural(sum(network.sizes[v] for v in stops), "entry", "entries")
        where = [self._row(network, v) for v in stops[: shown_of(len(stops), _STOPS)]]
        count = sum(
            sketches[v].directions if v in sketches else network.capacities[v] for v in starts
        )
        directions = f"{_plural(count, 'direction', 'directions')} {moved}"
        return [
            Section("sweeps", (directions, _cut_table(rows, len(starts)))),
            Section(
                "to" if mode == "fwd" else "onto", (f"{entries} of", _cut_table(where, len(stops)))
            ),
        ]

    def _axes_note(self, variable: int, sketch: Sketch | None) -> str:
        """Which axes of what is swept from stay apart, and what mixes the others."""
        network = self._schedule.network
        if sketch is None or network.sizes[variable] == 1:
            return ""
        notes: dict[str, list[int]] = {}
        for axis, kept, step in sketch.axes(network):
            note = "kept apart" if kept else ""
            if kept and step is not None:
                note += f" up to {_some([self._row(network, v)[0] for v in kept])}"
            elif step is not None:
                note = f"mixed by {self._step(step)}"
            notes.setdefault(note, []).append(axis)
        return "; ".join(f"{_axes(axes)} {note}" for note, axes in notes.items() if note)

    def _step(self, number: int) -> str:
        network = self._schedule.network
        return describe(network.program.jaxpr.eqns[network.steps[number].equation])

    @property
    def mixing(self) -> list[str]:
        """What mixes the axes of what is swept from, a line each."""
        chosen, network = self._choice.chosen, self._schedule.network
        return [
            f"axis {axis} of {self._row(network, v)[0]} is mixed by {self._step(step)}"
            for v, sketch in (*chosen.pushes.items(), *chosen.pulls.items())
            for axis, _, step in sketch.axes(network)
            if step is not None
        ]

    def _row(self, network: Network, variable: int) -> tuple[str, str]:
        """A variable by the path of its leaf, or by the equation that computes it."""
        aval = network.variables[variable].aval
        shape = describe_array(aval.shape, aval.dtype)
        for numbers, specs, bare in (
            (network.sources, self._ends.sources, "input"),
            (network.targets, self._ends.targets, "output"),
        ):
            if variable in numbers:
                return legible(specs[numbers.index(variable)].path) or bare, shape
        equation = next(step.equation for step in network.steps if variable in step.outputs)
        return describe(network.program.jaxpr.eqns[equation]), shape

    # What else there is to say -----------------------------------------------------

    def _mirrored_lines(self) -> tuple[str, ...]:
        names = [legible(source.path) for source in self._ends.sources]
        rows = [f"{names[i]} by {names[j]}" for i, j in sorted(self._schedule.mirrored)]
        return (f"{_some(rows)}: by symmetry, not swept",)

    def _zero_lines(self) -> tuple[str, ...]:
        network = self._schedule.network
        rows = [
            f"{legible(target.path) or 'output'} by {legible(source.path)}"
            for i, target in enumerate(self._ends.targets)
            for j, source in enumerate(self._ends.sources)
            if not network.connected(i, j)
        ]
        return (f"{_some(rows)}: no path",) if rows else ()

    def _work(self) -> Table:
        lines = [("this plan", *amounts(self._choice.chosen.work))]
        lines += [
            (f"{NAMES[mode]} mode alone", *amounts(candidate.work))
            for mode, candidate in sorted(self._choice.plain.items())
            if mode != self.mode
        ]
        return plain_table(lines)

    def _memory_lines(self) -> tuple[str, ...]:
        if self._schedule.chunks is None:
            return ()
        count = -(-self._schedule.directions // self.chunk_size)
        directions = _plural(self.chunk_size, "direction", "directions")
        held = f"about {show_bytes(self.temporaries)} of temporaries"
        return (f"{directions} at a time, in up to {_plural(count, 'chunk', 'chunks')}; {held}",)

    def _held_lines(self) -> tuple[str, ...]:
        """What is held constant, by reason."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self._held:
            by_reason.setdefault(why, []).append(name)
        return tuple(f"{why}: {_some(names)}" for why, names in by_reason.items())

    @property
    def summary(self) -> str:
        """One line for the log."""
        return (
            f"{self._call}: {NAMES[self.mode]} mode, {self.forward_sweeps} forward "
            f"and {self.reverse_sweeps} reverse sweeps; {self.reason}"
            + (f"; of the first derivative, {self.gradient.summary}" if self.gradient else "")
        )


def _restored(state: dict[str, Any]) -> Plan:
    """A plan from its pickle."""
    return Plan(**state)


def joined_plans(plans: Sequence[Plan]) -> Plan:
    """Parts that are swept one after the other, as one plan."""
    if len(plans) == 1:
        return plans[0]
    modes = {plan.mode for plan in plans}
    return dataclasses.replace(
        plans[0],
        mode=plans[0].mode if len(modes) == 1 else "mixed",
        forward_sweeps=sum(plan.forward_sweeps for plan in plans),
        reverse_sweeps=sum(plan.reverse_sweeps for plan in plans),
        cut_size=sum(plan.cut_size for plan in plans),
        reason="; ".join(dict.fromkeys(plan.reason for plan in plans)),
        zeros=tuple(pair for plan in plans for pair in plan.zeros),
        flops=sum(plan.flops for plan in plans),
        bytes_moved=sum(plan.bytes_moved for plan in plans),
        chunk_size=max(plan.chunk_size for plan in plans),
        temporaries=max(plan.temporaries for plan in plans),
        parts=tuple(plans),
    )


def log(plan: Plan) -> None:
    """Logs what was chosen."""
    if _logger.isEnabledFor(logging.DEBUG):
        _logger.debug("%s", plan.summary)


def _first(lines: Sequence[str]) -> tuple[str, ...]:
    shown = shown_of(len(lines), _SOME)
    more = [f"and {len(lines) - shown} more"] if len(lines) > shown else []
    return (*lines[:shown], *more)


def _cut_table(rows: Sequence[tuple[str, ...]], count: int) -> Table:
    """Variables that are swept from or to, with what is said of them."""
    table = plain_table(rows, *_VARIABLE[: len(rows[0])])
    more = f"and {count - len(rows)} more" if count > len(rows) else ""
    return dataclasses.replace(table, more=more, margin=2)


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _axes(numbers: Sequence[int]) -> str:
    return f"{'axis' if len(numbers) == 1 else 'axes'} {' and '.join(map(str, numbers))}"


def _some(names: Sequence[str]) -> str:
    shown = shown_of(len(names), _SOME)
    return ", ".join(names[:shown]) + (f", ... ({len(names)})" if len(names) > shown else "")


def amounts(work: Work) -> tuple[str, str]:
    """Operations and bytes, for people."""
    return _amount(work.flops, "flop"), _amount(work.moved, "B moved")


def _amount(number: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.5 or prefix == "T":
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    raise AssertionError
