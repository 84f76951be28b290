"""Which sweeps compute a derivative: the choice, asked about until nothing stands in its way."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from autodiffkit._block_table import worth_packing
from autodiffkit._choice import Blocked, choose
from autodiffkit._chunking import keeps_maps, temporaries, within
from autodiffkit._errors import ModeError, SelectionError, listed
from autodiffkit._estimate import Maps
from autodiffkit._jaxprs import has_body
from autodiffkit._leaves import Ends
from autodiffkit._limits import NO_LIMITS, Limits
from autodiffkit._memory import too_little
from autodiffkit._naming import describe
from autodiffkit._network import Network
from autodiffkit._paths import show
from autodiffkit._plan import NAMES, Plan
from autodiffkit._program import Obstacles, Program, reason
from autodiffkit._schedule import Choice, Pairs, Schedule

Mode = Literal["auto", "fwd", "rev"]
MODES: tuple[Mode, ...] = ("auto", "fwd", "rev")

Layout = Literal["dense", "compact"]
LAYOUTS: tuple[Layout, ...] = ("dense", "compact")

# By how much symmetry has to save before it is used.
_MIRROR = 1.05


@runtime_checkable
class Sweepable(Protocol):
    """What is planned for: a linear program, and whether its sweeps can run."""

    ends: Ends

    @property
    def program(self) -> Program:
        """The linear program."""
        ...

    @property
    def kept(self) -> int:
        """The bytes of residuals that plain forward mode would not store."""
        ...

    def obstacle(self, schedule: Schedule) -> Exception | None:
        """Why sweeps are impossible, `None` if they are possible."""
        ...


def check_mode(call: str, mode: Any) -> None:
    """Refuses a mode that there is not.

    Raises:
        ModeError: Naming the modes there are.
    """
    if not isinstance(mode, str) or mode not in MODES:  # an array compares by entries
        raise ModeError(f"{call}: there is no mode {mode!r}; it is one of 'auto', 'fwd', 'rev'.")


def check_layout(call: str, layout: Any, *, has_blocks: bool) -> None:
    """Refuses a layout that there is not.

    Raises:
        SelectionError: Naming the layouts there are.
    """
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise SelectionError(
            f"{call}: there is no layout {layout!r}; it is one of 'dense', 'compact'."
        )
    if layout != "dense" and not has_blocks:
        raise SelectionError(
            f"{call}: a linear map has no blocks to lay out. adk.jacobian and adk.hessian take "
            f"layout={layout!r}."
        )


def make_plan(
    call: str,
    sweeps: Sweepable,
    mode: str,
    *,
    tie: Literal["fwd", "rev"] = "fwd",
    held: Sequence[tuple[str, str]] = (),
    gradient: Plan | None = None,
    symmetric: bool = False,
    abstract: bool = False,
    limits: Limits = NO_LIMITS,
) -> tuple[Plan, Schedule]:
    """Chooses the cheapest sweeps of those that are possible.

    Args:
        call: The call, for messages.
        sweeps: The linear program with its ends.
        mode: What the user asked for.
        tie: The plain mode to take when both cost about the same.
        held: Names of what is held constant, with the reasons.
        gradient: The plan of the first derivative, when this one is of a second.
        symmetric: Whether, for each output, the blocks form a symmetric matrix.
        abstract: Whether the plan is all that is wanted. Then every equation is asked
            whether it can be swept; otherwise only those of sweeps that turned out not to.
        limits: What the sweeps may take.

    Returns:
        The plan for people, and the schedule to run.

    Raises:
        ModeError: If the mode is impossible, or with `"auto"` all are.
        ResultTooLargeError: If one direction takes more than the limits allow.
    """
    planner = _Planner(call, sweeps, mode, tie)
    if symmetric and mode == "auto":
        planner.mirror()
    if abstract:
        planner.ask()
    while True:
        found = planner.choose()
        if found is None:
            raise planner.impossible()
        choice, schedule = found
        if limits != NO_LIMITS and not sweeps.ends.compact:
            choice, schedule = planner.within(choice, schedule, limits)
        equations = [schedule.network.steps[i].equation for i in schedule.steps]
        error: Exception | None = None
        if not abstract:
            if planner.without_bodies(equations):  # what is known of these needs no trial
                if planner.ask(equations):
                    continue
            else:
                error = sweeps.obstacle(schedule)
        if error is None:
            return planner.plan(choice, schedule, held, gradient), schedule
        if not planner.ask(equations):
            raise ModeError(
                f"{call}: {NAMES[schedule.sweeps.mode]} mode fails, although each equation of the "
                "function can be differentiated. Use mode='auto' or another one, or differentiate "
                "the parts of the function separately." + listed([reason(error)])
            ) from error


class _Planner:
    """A choice that is made again whenever an equation turns out to be impossible."""

    def __init__(self, call: str, sweeps: Sweepable, mode: str, tie: Literal["fwd", "rev"]) -> None:
        self._call = call
        self._mode = mode
        self._tie: Literal["fwd", "rev"] = tie
        self._ends = sweeps.ends
        self._kept = sweeps.kept
        self._program = sweeps.program
        self._directions = 1 if sweeps.ends.holomorphic else 2
        self._network = self._without()
        self._maps: Maps = "worthwhile"
        if self._program.asks_of_tangents:  # of what is a part of a direction, say, all ones
            self._maps = "none"
        elif sweeps.ends.compact:
            self._maps = "all"
        elif sweeps.program.is_placed or worth_packing(sweeps.ends.targets, sweeps.ends.sources):
            self._maps = "none"
        # Programs to sweep, with the blocks that are left out.
        self._variants: list[tuple[Network, Pairs]] = [(self._network, frozenset())]
        self._symmetric = False
        self._obstacles: dict[int, Obstacles] = {}  # by number of equation

    def _without(self, sources: Collection[int] = (), targets: Collection[int] = ()) -> Network:
        ends = self._ends
        return Network(
            self._program, self._directions, sources, targets, columns=ends.columns, rows=ends.rows
        )

    def mirror(self) -> None:
        """Considers to take some columns, or rows, from the other side of the diagonal.

        That can be done for leaves among which all blocks are zero: their other blocks are
        found in the rows, or columns, of the leaves that remain. What is swept as maps leaves out
        one block of each pair.
        """
        self._symmetric = True
        width = len(self._ends.sources)
        outputs = range(0, len(self._ends.targets), width)
        joined = {
            (i, j)
            for output in outputs
            for i in range(width)
            for j in range(width)
            if self._network.connected(output + i, j)
        }
        chosen: set[int] = set()
        for j in sorted(range(width), key=lambda j: -self._ends.sources[j].size):
            if not any((i, j) in joined or (j, i) in joined for i in (*chosen, j)):
                chosen.add(j)
        chosen = {j for j in chosen if any((i, j) in joined for i in range(width))}
        if not chosen:
            return
        rows = {output + i for output in outputs for i in chosen}
        pairs = [(i, j) for i in chosen for j in range(width) if j not in chosen]
        self._variants += [
            (
                self._without(sources=chosen),
                frozenset((j, i) for i, j in pairs),
            ),
            (
                self._without(targets=rows),
                frozenset(pairs),
            ),
        ]

    def ask(self, equations: Iterable[int] | None = None) -> bool:
        """Asks equations for what stands in the way of sweeps; whether there is news."""
        news = False
        if equations is None:
            equations = (step.equation for step in self._network.steps)
        for number in equations:
            if number not in self._obstacles:
                self._obstacles[number] = self._program.equation_obstacles(number)
                news |= any(self._obstacles[number])
        return news

    def without_bodies(self, equations: Iterable[int]) -> bool:
        """Whether none of the equations holds a program or a function."""
        return not any(has_body(self._program.jaxpr.eqns[number]) for number in equations)

    def choose(self, mode: str | None = None) -> tuple[Choice, Schedule] | None:
        """The cheapest of what is not known to be impossible."""
        mode = mode or self._mode
        modes: tuple[str, ...] = (mode,) if mode != "auto" else ("fwd", "rev", "mixed", "chain")
        if self._ends.holomorphic and not self._program.is_complex_linear:
            # Between real variables, or after conjugation, one direction an entry is not
            # enough; the derivative as a whole takes one all the same.
            modes = tuple(m for m in modes if m != "mixed")
        best: tuple[Choice, Schedule] | None = None
        for network, mirrored in self._variants:
            choice = choose(
                network,
                self._blocked(network),
                modes=modes,
                tie=self._tie,
                kept=self._kept,
                # Some rules clip what they pull: from a cut, they would pull something else.
                cautious=self._program.has_rules,
                maps=self._maps,
                symmetric=self._symmetric and not mirrored,
            )
            if choice is None:
                continue
            found = choice.chosen
            if best is None or found.work.time() * _MIRROR < best[0].chosen.work.time():
                best = choice, Schedule(found.sweeps, network, mirrored | found.mirrored)
        return best

    def within(self, choice: Choice, schedule: Schedule, limits: Limits) -> tuple[Choice, Schedule]:
        """The choice in chunks that keep to limits; another mode where it cannot.

        Returns:
            The choice and its schedule.

        Raises:
            too_little: If no mode can.
        """
        if self._maps != "none":
            if keeps_maps(choice.chosen, limits):
                fitting = within(choice.chosen, schedule, self._ends, limits, self._call)
                if fitting is not None:
                    return choice, fitting
            self._maps = "none"
        others = [m for m in choice.plain if m != self._mode] if self._mode == "auto" else []
        least: list[int] = []
        for mode in (self._mode, *others):
            found = self.choose(mode)
            if found is None:
                continue
            candidate, network = found[0].chosen, found[1].network
            fitting = within(candidate, found[1], self._ends, limits, self._call)
            if fitting is not None:
                return found[0], fitting
            least.append(temporaries(candidate, network, self._ends).of(1))
        raise too_little(self._call, min(least), limits.memory_limit)

    def _blocked(self, network: Network) -> Blocked:
        found = [(i, self._obstacles.get(step.equation)) for i, step in enumerate(network.steps)]
        return Blocked(
            frozenset(i for i, x in found if x is not None and x.push is not None),
            frozenset(i for i, x in found if x is not None and x.pull is not None),
        )

    def plan(
        self,
        choice: Choice,
        schedule: Schedule,
        held: Sequence[tuple[str, str]],
        gradient: Plan | None,
    ) -> Plan:
        """What was chosen, for people."""
        chosen = choice.chosen
        counts = {mode: _count(self._network, mode) for mode in ("fwd", "rev")}
        directions = schedule.directions
        size = directions if schedule.chunks is None else schedule.chunks.size
        maps = (*chosen.pushes.values(), *chosen.pulls.values())
        return Plan(
            mode=chosen.sweeps.mode if chosen.directions or self._mode != "rev" else "rev",
            forward_sweeps=chosen.forward,
            reverse_sweeps=chosen.reverse,
            cut_size=choice.capacity if self._mode == "auto" else counts[self._mode],
            reason=self._why(choice, schedule, counts),
            zeros=self._zeros(),
            flops=chosen.work.flops,
            bytes_moved=chosen.work.moved,
            chunk_size=max([size, *(x.directions for x in maps)]),
            temporaries=temporaries(chosen, schedule.network, self._ends).of(size),
            gradient=gradient,
            _call=self._call,
            _ends=self._ends,
            _held=tuple(held),
            _choice=choice,
            _schedule=schedule,
            _obstacles=tuple(self._lines(self._obstacles)),
        )

    def _why(self, choice: Choice, schedule: Schedule, counts: dict[str, int]) -> str:
        plain = choice.plain
        left = {
            mode: plain[mode].directions if mode in plain else count
            for mode, count in counts.items()
        }
        against = f"{left['fwd']} forward against {left['rev']} reverse directions"
        if left != counts and not schedule.mirrored:
            against += f", of {counts['fwd']} and {counts['rev']}"
        if self._mode != "auto":
            return f"mode={self._mode!r} was asked for ({against})"
        if not any(counts.values()):
            return "no output depends on an input"
        stops = {
            mode: next((n for n, x in sorted(self._obstacles.items()) if getattr(x, kind)), None)
            for mode, kind in (("fwd", "push"), ("rev", "pull"))
        }
        blocked = [
            f"{NAMES[mode]} mode is impossible: it stops at {self._place(number)}"
            for mode, number in stops.items()
            if number is not None
        ]
        if blocked:
            return "; ".join(blocked)
        if schedule.mirrored:
            count = choice.chosen.directions
            if count < min(left.values()):
                against += f", of which symmetry leaves {count}"
        elif choice.chosen.sweeps.mode == "mixed":
            against = f"a cut of {choice.capacity} where plain modes take {against}"
        elif choice.capacity < min(counts.values()):
            against += f"; a cut of {choice.capacity} would save nothing"
        return against

    def _place(self, number: int) -> str:
        return describe(self._program.jaxpr.eqns[number])

    def _zeros(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            (show(target.path), show(source.path))
            for i, target in enumerate(self._ends.targets)
            for j, source in enumerate(self._ends.sources)
            if not self._network.connected(i, j)
        )

    def _lines(
        self, equations: Iterable[int], kinds: Sequence[str] = ("push", "pull")
    ) -> list[str]:
        """What is impossible, an equation with its line of source and the reason each."""
        lines: list[str] = []
        for number in sorted(equations):
            for kind in kinds:
                error = getattr(self._obstacles[number], kind)
                if error is not None:
                    lines.append(f"{kind} through {self._place(number)}: {reason(error)}")
        return lines

    def impossible(self) -> ModeError:
        """The error for what has no sweeps: the equations, their lines, and why."""
        self.ask()
        push = {n for n, found in self._obstacles.items() if found.push is not None}
        pull = {n for n, found in self._obstacles.items() if found.pull is not None}
        ways = [m for m in ("auto", "fwd", "rev") if m != self._mode and self.choose(m)]
        if ways:
            equations, kinds = (push, ["push"]) if self._mode == "fwd" else (pull, ["pull"])
            message = (
                f"{self._call}: mode={self._mode!r} is impossible for this function. Use "
                f"{' or '.join(f'mode={m!r}' for m in ways)}."
            )
        else:
            equations, kinds = push & pull or push | pull, ["push", "pull"]
            if self._mode == "rev":
                kinds.reverse()
            message = (
                f"{self._call}: neither mode can differentiate this function, nor can both "
                "together. Give what blocks them a rule that serves both (jax.custom_jvp), hold "
                "constant what enters it (wrt=, jax.lax.stop_gradient), or differentiate the parts "
                "of the function separately."
            )
        causes = [getattr(self._obstacles[n], kind) for n in sorted(equations) for kind in kinds]
        lines = [f"cannot {line}" for line in self._lines(equations, kinds)]
        error = ModeError(message + listed(lines))
        error.__cause__ = next(cause for cause in causes if cause is not None)
        return error


def _count(network: Network, mode: str) -> int:
    return network.directions(network.ends[0 if mode == "fwd" else 1])
