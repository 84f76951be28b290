"""A linear program as a network of variables, and its minimum vertex cuts.

Every path from an input to an output has to be cut at some variable, at the price of its
size. The variables are split into two nodes with an edge of that capacity between them;
what cannot be separated is joined by edges that no flow can fill. The cut is where a
maximum flow fills the edges (Ford and Fulkerson, *Maximal flow through a network*, 1956).
"""

import dataclasses
import functools
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax.extend.core as jex
import numpy as np

from autodiffkit._cost import Cost, equation_costs, size, trailing_batch
from autodiffkit._flow import Flow
from autodiffkit._jaxprs import among, equation_key
from autodiffkit._leaves import is_complex, is_inexact
from autodiffkit._program import Program
from autodiffkit._rule_kinds import Rule


@dataclasses.dataclass(frozen=True)
class Step:
    """A linear equation between live variables.

    Args:
        number: Its number among the steps.
        equation: Its number in the program.
        inputs: The live variables that it reads.
        outputs: The live variables that it computes.
        operands: Those that it reads by number of operand, with repetitions.
        results: Those that it computes by number of result.
        push: What it costs to push through it.
        pull: What it costs to pull.
        trailing: How much it suits it, pushing, that directions lie along the last axis.
        kind: Steps of the same kind do the same to variables of the same types.
    """

    number: int
    equation: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operands: Mapping[int, int]
    results: Mapping[int, int]
    push: Cost
    pull: Cost
    trailing: float
    kind: int


@dataclasses.dataclass(frozen=True)
class Cut:
    """Variables that every path crosses.

    Args:
        variables: The variables of the cut.
        inside: The other variables on the side of the sources.
        before: The steps on the side of the sources.
    """

    variables: frozenset[int]
    inside: frozenset[int]
    before: frozenset[int]


class Network:
    """The variables of a linear program that lie on a path from a source to a target.

    Attributes:
        complex_directions: The directions of an entry of a complex variable: 2 where the
            map is only R-linear.
        variables: The variables of the program, in its order.
        sizes: The entries of each.
        capacities: The directions of each: its entries, two for a complex one.
        steps: The equations between them, in the order of the program.
        sources: The variable of each source leaf; `None` where no path begins.
        targets: The variable of each target leaf; `None` where no path ends.
        rules: What has been found of the axes of steps, by kind and moving operands.

    Args:
        program: The linear program.
        complex_directions: As above.
        without_sources: Source leaves, by number, that nothing is asked of.
        without_targets: Target leaves that are not asked for.
        columns: The inputs of the program that are the source leaves; `None` means all.
        rows: The outputs that are the target leaves.
    """

    def __init__(
        self,
        program: Program,
        complex_directions: int,
        without_sources: Collection[int] = (),
        without_targets: Collection[int] = (),
        *,
        columns: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.program = program
        self.complex_directions = complex_directions
        self.rules: dict[Hashable, Rule] = {}
        self._without = without_sources, without_targets
        self._picked = columns, rows
        equations = program.jaxpr.eqns
        sources = program.jaxpr.invars[len(program.residuals) :]
        outputs = program.jaxpr.outvars
        sources = sources if columns is None else [sources[j] for j in columns]
        outputs = outputs if rows is None else [outputs[i] for i in rows]
        sources = [None if i in without_sources else v for i, v in enumerate(sources)]
        outputs = [None if i in without_targets else v for i, v in enumerate(outputs)]
        live = _live(program, sources, outputs)
        self.variables: list[Any] = [v for v in dict.fromkeys(sources) if v in live]
        pairs = [
            (number, equation)
            for number, equation in enumerate(equations)
            if any(variable in live for variable in equation.outvars)
        ]
        self.variables += [v for _, equation in pairs for v in equation.outvars if v in live]
        numbers = {variable: i for i, variable in enumerate(self.variables)}
        self.capacities = [
            size(v) * (complex_directions if is_complex(v.aval.dtype) else 1)
            for v in self.variables
        ]
        self.sizes = [size(v) for v in self.variables]
        self.steps: list[Step] = []
        linear, kinds = program.linear, _Kinds()
        for number, equation in pairs:
            flags = among(equation.invars, linear)
            operands = {
                k: numbers[x]
                for k, (x, flag) in enumerate(zip(equation.invars, flags, strict=True))
                if flag and x in numbers
            }
            results = {r: numbers[x] for r, x in enumerate(equation.outvars) if x in numbers}
            self.steps.append(
                Step(
                    len(self.steps),
                    number,
                    tuple(dict.fromkeys(operands.values())),
                    tuple(results.values()),
                    operands,
                    results,
                    *kinds.of(equation, flags),
                )
            )
        self.sources = tuple(map(numbers.get, sources))
        self.targets = tuple(
            None if isinstance(x, jex.Literal) else numbers.get(x) for x in outputs
        )

    @functools.cached_property
    def over_reals(self) -> "Network":
        """The same with two directions an entry of a complex variable, whatever the function."""
        if self.complex_directions == 2:
            return self
        columns, rows = self._picked
        return Network(self.program, 2, *self._without, columns=columns, rows=rows)

    @functools.cached_property
    def reached(self) -> list[int]:
        """From which source leaves each variable is reached, as the bits of a number."""
        found = [0] * len(self.variables)
        for leaf, variable in enumerate(self.sources):
            if variable is not None:
                found[variable] |= 1 << leaf
        for step in self.steps:
            union = functools.reduce(int.__or__, (found[v] for v in step.inputs), 0)
            for variable in step.outputs:
                found[variable] |= union
        return found

    @functools.cached_property
    def step_of(self) -> dict[int, Step]:
        """The step of each equation of the program, by identity."""
        equations = self.program.jaxpr.eqns
        return {id(equations[step.equation]): step for step in self.steps}

    @functools.cached_property
    def readers(self) -> list[list[int]]:
        """The steps that read each variable, in order."""
        found: list[list[int]] = [[] for _ in self.variables]
        for step in self.steps:
            for v in step.inputs:
                found[v].append(step.number)
        return found

    @functools.cached_property
    def makers(self) -> list[list[int]]:
        """The step that computes each variable; of a source, none."""
        found: list[list[int]] = [[] for _ in self.variables]
        for step in self.steps:
            for v in step.outputs:
                found[v].append(step.number)
        return found

    def connected(self, target: int, source: int) -> bool:
        """Whether there is a path from a source leaf to a target leaf."""
        variable = self.targets[target]
        return variable is not None and bool(self.reached[variable] >> source & 1)

    def path(self, target: int, source: int) -> tuple[int, int] | None:
        """The variables of a target leaf and of a source leaf, if one leads to the other."""
        t, s = self.targets[target], self.sources[source]
        if t is None or s is None or not self.connected(target, source):
            return None
        return t, s

    def directions(self, variables: Iterable[int]) -> int:
        """How many directions span these variables."""
        return sum(self.capacities[v] for v in variables)

    def direction_axis(self, steps: Iterable[int]) -> int:
        """Along which axis directions are best pushed through these steps, 0 or -1."""
        return -1 if sum(self.steps[i].trailing for i in steps) > 0 else 0

    @functools.cached_property
    def ends(self) -> tuple[list[int], list[int]]:
        """The variables of the live sources and of the live targets, without repetition."""
        return (
            list(dict.fromkeys(v for v in self.sources if v is not None)),
            list(dict.fromkeys(v for v in self.targets if v is not None)),
        )

    def after(self, variables: Iterable[int]) -> frozenset[int]:
        """The steps that depend on these variables."""
        return self._follow(variables, range(len(self.steps)))[1]

    def toward(self, variables: Iterable[int]) -> frozenset[int]:
        """The steps that these variables depend on."""
        wanted = set(variables)
        taken: set[int] = set()
        for step in reversed(self.steps):
            if not wanted.isdisjoint(step.outputs):
                wanted.update(step.inputs)
                taken.add(step.number)
        return frozenset(taken)

    def computed(self, variables: Iterable[int], steps: Collection[int]) -> set[int]:
        """The variables, and what these steps compute from them."""
        return self._follow(variables, sorted(steps))[0]

    def _follow(
        self, variables: Iterable[int], steps: Iterable[int]
    ) -> tuple[set[int], frozenset[int]]:
        """What is computed from variables, and the steps that do so, of these in order."""
        found = set(variables)
        taken: set[int] = set()
        for i in steps:
            if not found.isdisjoint(self.steps[i].inputs):
                found.update(self.steps[i].outputs)
                taken.add(i)
        return found, frozenset(taken)

    def before(self, variables: Iterable[int], cut: Cut) -> frozenset[int]:
        """The steps between the sources and these variables that come before a cut."""
        wanted = set(variables)
        steps: set[int] = set()
        for i in sorted(cut.before, reverse=True):
            step = self.steps[i]
            if not wanted.isdisjoint(step.outputs):
                wanted.update(v for v in step.inputs if v in cut.inside)
                steps.add(i)
        return frozenset(steps)

    def minimum_cuts(
        self,
        capacities: Sequence[int],
        only_before: Collection[int] = (),
        only_after: Collection[int] = (),
    ) -> tuple[int, list[Cut]]:
        """The minimum cuts that are nearest to the sources and nearest to the targets.

        Args:
            capacities: The price of each variable.
            only_before: Steps that no variable of the cut may come before.
            only_after: Steps that have to come after a variable of the cut on every path.

        Returns:
            The capacity, and one or two cuts; none if there is no such cut.
        """
        if not self.variables:
            return 0, [Cut(frozenset(), frozenset(), frozenset())]
        flow = self._flow(capacities, only_before, only_after)
        while True:
            sides = flow.sides()
            if sides is None:
                return 0, []
            cuts = list(dict.fromkeys(self._cut(side) for side in sides))
            capacity = min(sum(capacities[v] for v in cut.variables) for cut in cuts)
            if flow.exact or capacity + 1 >= flow.bound:
                return capacity, cuts
            flow.bound = capacity + 1  # which makes for a finer unit

    def _flow(
        self, capacities: Sequence[int], only_before: Collection[int], only_after: Collection[int]
    ) -> Flow:
        """Nodes for what goes into each variable, for what comes out of it, and for steps."""
        count = len(self.variables)
        flow = Flow(2 * count + len(self.steps), 1 + sum(capacities))
        sources, targets = self.ends
        if not (only_before or only_after):
            # No more than this will flow, and what is as large is as good as infinite.
            flow.bound = 1 + min(sum(capacities[v] for v in end) for end in (sources, targets))
        for v, capacity in enumerate(capacities):
            flow.join(v, count + v, capacity)
        for i, step in enumerate(self.steps):
            node = 2 * count + i
            for v in step.inputs:
                flow.join(count + v, node)
            for v in step.outputs:
                flow.join(node, v)
        for v in sources:
            flow.join(flow.source, v)
        for v in targets:
            flow.join(count + v, flow.sink)
        for i in only_after:
            flow.join(2 * count + i, flow.sink)
        # What comes before a step that has to stay before the cut has to stay there too.
        for i in self._closure(only_before):
            flow.join(flow.source, 2 * count + i)
            for v in self.steps[i].inputs:
                flow.join(flow.source, count + v)
        return flow

    def minimum_partition(
        self, before: Collection[int], after: Collection[int]
    ) -> tuple[frozenset[int], frozenset[int]]:
        """Divides the steps in two, the second of which only follow, with little in between.

        Args:
            before: Steps of the first half, with all that they depend on.
            after: Steps of the second half, with all that depend on them.

        Returns:
            The variables that are sources, or computed in the first half, and that are
            targets, or read in the second; and the steps of the first half.
        """
        count = len(self.variables)
        flow = Flow(count + len(self.steps), 1 + sum(self.capacities))
        sources, targets = self.ends
        producers = {v: count + i for i, step in enumerate(self.steps) for v in step.outputs}
        for v in range(count):
            flow.join(producers.get(v, flow.source), v, self.capacities[v])
        for i, step in enumerate(self.steps):
            for v in step.inputs:
                flow.join(v, count + i)
                if v in producers:
                    flow.join(count + i, producers[v])
        for v in targets:
            flow.join(v, flow.sink)
        for i in before:
            flow.join(flow.source, count + i)
        for i in after:
            flow.join(count + i, flow.sink)
        sides = flow.sides()
        assert sides is not None  # the order of the program is such a partition
        side = sides[0]
        first = frozenset(i for i in range(len(self.steps)) if side[count + i])
        crossing = frozenset(
            v
            for v in range(count)
            if not side[v] and (v in sources or producers[v] - count in first)
        )
        return crossing, first

    def _closure(self, steps: Collection[int]) -> set[int]:
        """The steps, and all that their inputs are computed by."""
        found: set[int] = set()
        wanted: set[int] = set()
        for i in range(len(self.steps) - 1, -1, -1):
            step = self.steps[i]
            if i in steps or not wanted.isdisjoint(step.outputs):
                found.add(i)
                wanted.update(step.inputs)
        return found

    def _cut(self, side: np.ndarray) -> Cut:
        count = len(self.variables)
        return Cut(
            frozenset(v for v in range(count) if side[v] and not side[count + v]),
            frozenset(v for v in range(count) if side[v] and side[count + v]),
            frozenset(i for i in range(len(self.steps)) if side[2 * count + i]),
        )


class _Kinds:
    """What is counted of equations: once of all that do the same, of which a program has many."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Cost, Cost, float, int]] = {}

    def of(self, equation: Any, linear: Sequence[bool]) -> tuple[Cost, Cost, float, int]:
        """What it costs to push and to pull through it, how directions lie, and its kind."""
        key = equation_key(equation)
        key = len(self._known) if key is None else (key, *linear)
        if key not in self._known:
            costs = equation_costs(equation, linear)
            self._known[key] = *costs, trailing_batch(equation, linear), len(self._known)
        return self._known[key]


def _live(program: Program, sources: Iterable[Any], targets: Iterable[Any]) -> set[Any]:
    """The linear variables with entries on a path from a source to a target."""
    linear = program.linear

    def carries(atom: Any) -> bool:
        return not isinstance(atom, jex.Literal) and atom in linear and _may_carry(atom)

    wanted = {atom for atom in targets if atom is not None and carries(atom)}
    for equation in reversed(program.jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            wanted.update(filter(carries, equation.invars))
    live = wanted.intersection(variable for variable in sources if variable is not None)
    for equation in program.jaxpr.eqns:
        if any(among(equation.invars, live)):
            live.update(x for x in equation.outvars if x in wanted)
    return live


def _may_carry(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    return dtype is not None and is_inexact(dtype) and size(variable) > 0
