"""Sweeps of maps with named axes through a linear program, with arrays or only counted."""

import functools
import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Protocol, runtime_checkable

from autodiffkit._algebra import added, aligned, compose, regrouped, unshared
from autodiffkit._leaves import promote
from autodiffkit._maps import Arithmetic, Axis, Data, Map, axes_of, flat, identity, in_order
from autodiffkit._network import Network, Step
from autodiffkit._rule_kinds import Entrywise, Factor, Lines, Reshape, Rule
from autodiffkit._rules import rule_of


@runtime_checkable
class Equations(Arithmetic, Protocol):
    """Arithmetic that also knows the equations of a program."""

    def constant(self, equation: Any, factor: Factor) -> Data:
        """The data of a factor."""
        ...

    def entrywise(
        self, equation: Any, operand: int, given: Map, dtype: Any, *, forward: bool
    ) -> Data:
        """The equation applied to the data of a map, whatever their axes are."""
        ...

    def apply(
        self,
        equation: Any,
        arrays: Mapping[int, tuple[Data, Axis]],
        directions: Axis,
        wanted: Sequence[int],
        *,
        forward: bool,
    ) -> list[Any]:
        """The equation, or its transpose, applied to a batch of directions.

        Args:
            equation: The equation.
            arrays: By number of operand, or of result: data, and the labels of the array.
            directions: The labels of the batch.
            wanted: The results, or operands, to return.
            forward: Whether it is pushed through.

        Returns:
            Arrays with the batch along the first axis, if there is one, and then the axes of the
            result or operand.
        """
        ...


class Sweeper:
    """Pushes and pulls maps through the steps of a network.

    Args:
        arithmetic: What it is done with.
        network: The program.
    """

    def __init__(self, arithmetic: Equations, network: Network) -> None:
        self._arithmetic = arithmetic
        self._network = network

    def push(self, start: int, unit: Data, steps: Collection[int]) -> dict[int, Map]:
        """The maps from a variable to all that these steps compute from it."""
        found = {start: self._identity(start, unit)}
        waiting = _Waiting(self._network.readers, steps)
        waiting.add(start)
        for i in waiting:
            step = self._network.steps[i]
            maps = {k: found[v] for k, v in step.operands.items() if v in found}
            out = self.through(step, maps, list(step.results), forward=True)
            for r, result in out.items():
                v = step.results[r]  # a variable may be pushed from and computed, too
                found[v] = self._sum([found[v], result]) if v in found else result
                waiting.add(v)
            last = waiting.alone
            if last in step.outputs and len(step.inputs) > 1:  # other maps lead to it, too
                assert last is not None
                rest = self._rest(last, found[last], found)
                if rest is not None:
                    return found | rest
        return found

    def pull(
        self, stop: int, unit: Data, steps: Collection[int], apart: Collection[int] = ()
    ) -> dict[int, Map]:
        """The maps to a variable from all that these steps compute it from.

        Args:
            stop: The variable.
            unit: What to pull.
            steps: The steps.
            apart: Variables that count as zero where they are read.

        Returns:
            The maps by variable.
        """
        pending = {stop: [self._identity(stop, unit)]}
        found: dict[int, Map] = {}

        def total(v: int) -> Map:
            if v not in found:
                found[v] = self._sum(pending[v])
            return found[v]

        waiting = _Waiting(self._network.makers, steps, last_first=True)
        waiting.add(stop)
        for i in waiting:
            step = self._network.steps[i]
            maps = {r: total(v) for r, v in step.results.items() if v in pending}
            wanted = [k for k, v in step.operands.items() if v not in apart]
            if wanted:
                back = self.through(step, maps, wanted, forward=False)
                for k, result in back.items():
                    pending.setdefault(step.operands[k], []).append(result)
                    waiting.add(step.operands[k])
            v = waiting.alone
            if v is not None and len(self._network.readers[v]) > 1:
                rest = self._rest(v, total(v), pending)
                if rest is not None:
                    return {v: total(v) for v in pending} | rest
        return {v: total(v) for v in pending}

    def _identity(self, variable: int, unit: Data) -> Map:
        aval = self._network.variables[variable].aval
        return identity(aval.shape, aval.dtype, unit)

    def _rest(self, variable: int, given: Map, before: Collection[int]) -> dict[int, Map] | None:
        """What the only map that is left leads to, if that is known already.

        Args:
            variable: The one variable that the remaining steps depend on.
            given: Its map.
            before: The variables that maps are known of.

        Returns:
            The maps by variable; `None` if they have to be swept.
        """
        return None

    def _sum(self, maps: Sequence[Map]) -> Map:
        return added(self._arithmetic, maps)

    def through(
        self,
        step: Step,
        maps: Mapping[int, Map],
        wanted: Sequence[int],
        *,
        forward: bool,
    ) -> dict[int, Map]:
        """Takes maps through a step.

        Args:
            step: The step.
            maps: Maps to operands, by number; or from results, if they are pulled.
            wanted: The results to push to, or the operands to pull to, by number.
            forward: Whether to push.

        Returns:
            Maps by number of the wanted ones.
        """
        equation = self._network.program.jaxpr.eqns[step.equation]
        rules = functools.partial(self._rule_of, step, equation)
        return _through(self._arithmetic, equation, rules, maps, wanted, forward=forward)

    def _rule_of(self, step: Step, equation: Any, moving: Sequence[int]) -> Rule:
        """That of all steps of the kind: the labels in it are names, which products replace."""
        known, key = self._network.rules, (step.kind, *moving)
        if key not in known:
            known[key] = rule_of(equation, moving)
        return known[key]


class _Waiting:
    """Steps that are to be taken, in order, and the variables that they wait for.

    Args:
        steps_of: The steps from, or to, each variable.
        steps: Those that may be taken.
        last_first: Whether the order is that of pulling.
    """

    def __init__(
        self,
        steps_of: Sequence[Sequence[int]],
        steps: Collection[int],
        *,
        last_first: bool = False,
    ) -> None:
        self._steps_of = steps_of
        self._steps = steps if isinstance(steps, Set | range) else frozenset(steps)
        self._sign = -1 if last_first else 1
        self._queue: list[int] = []
        self._variables: dict[int, list[int]] = {}  # by step that waits
        self._awaited: dict[int, int] = {}  # how many steps wait for each variable

    def add(self, variable: int) -> None:
        """Lets the steps of a variable wait for it."""
        for i in self._steps_of[variable]:
            if i not in self._steps:
                continue
            if i not in self._variables:
                heapq.heappush(self._queue, self._sign * i)
            self._variables.setdefault(i, []).append(variable)
            self._awaited[variable] = self._awaited.get(variable, 0) + 1

    def __iter__(self) -> Iterator[int]:
        while self._queue:
            i = self._sign * heapq.heappop(self._queue)
            for v in self._variables.pop(i):
                self._awaited[v] -= 1
                if not self._awaited[v]:
                    del self._awaited[v]
            yield i

    @property
    def alone(self) -> int | None:
        """The variable that all steps wait for, if there is just one."""
        return next(iter(self._awaited)) if len(self._awaited) == 1 else None


def _through(
    arithmetic: Equations,
    equation: Any,
    rules: Callable[[Sequence[int]], Rule],
    maps: Mapping[int, Map],
    wanted: Sequence[int],
    *,
    forward: bool,
) -> dict[int, Map]:
    """Takes maps through an equation of which it is said what is known of its axes."""
    moving = sorted(maps) if forward else list(wanted)
    rule = rules(moving)
    if isinstance(rule, Lines):
        if forward:
            wanted = [r for r in wanted if rule.reaches(r)]
        elif rule.results is not None and len(wanted) > 1:
            wanted = [k for k in wanted if _reaches(rules([k]), maps)]
            rule = rules(wanted)
            assert isinstance(rule, Lines)
        if not wanted:
            return {}
        return _along_lines(arithmetic, equation, maps, rule, wanted, forward=forward)
    if not forward:
        return {
            k: _through_one(arithmetic, equation, k, rule[k], maps[0], forward=forward)
            for k in moving
        }
    terms = [
        _through_one(arithmetic, equation, k, rule[k], maps[k], forward=forward) for k in moving
    ]
    return {0: added(arithmetic, terms)}


def _reaches(rule: Rule, results: Iterable[int]) -> bool:
    return not isinstance(rule, Lines) or any(map(rule.reaches, results))


def _through_one(
    arithmetic: Equations,
    equation: Any,
    operand: int,
    rule: Factor | Entrywise | Reshape,
    given: Map,
    *,
    forward: bool,
) -> Map:
    aval = (equation.outvars[0] if forward else equation.invars[operand]).aval
    if isinstance(rule, Reshape):
        return regrouped(arithmetic, given, "outs" if forward else "ins", aval.shape)
    if isinstance(rule, Entrywise):
        data = arithmetic.entrywise(equation, operand, given, aval.dtype, forward=forward)
        return Map(given.outs, given.ins, data, aval.dtype)
    template = rule.map
    if template.is_identity and given.dtype == aval.dtype:
        return given
    constant = Map(template.outs, template.ins, arithmetic.constant(equation, rule), template.dtype)
    # What is pulled may be of a wider dtype than the operand, and complex where that is real.
    dtype = aval.dtype if forward else promote([given.dtype, aval.dtype])
    found = compose(
        arithmetic,
        given,
        constant,
        dtype,
        constant_first=forward,
        kind=rule.kind,
        precision=rule.precision,
    )
    if dtype == aval.dtype:
        return found
    order = in_order(found.outs, found.ins)
    data = arithmetic.narrowed(found.data, order, dtype, aval.dtype)
    return Map(found.outs, found.ins, data, aval.dtype)


def _along_lines(
    arithmetic: Equations,
    equation: Any,
    maps: Mapping[int, Map],
    rule: Lines,
    wanted: Sequence[int],
    *,
    forward: bool,
) -> dict[int, Map]:
    """Batches an equation over directions, and leaves alone what it leaves alone."""
    if not forward:
        maps = {r: given.transposed for r, given in maps.items()}
    ends = [(line.operands, line.results) for line in rule.lines]
    lines = [(near, far) if forward else (far, near) for near, far in ends]
    lines = [
        (near, far)
        for near, far in lines
        if all(k in near for k in maps) and all(r in far for r in wanted)
    ]
    arranged: dict[int, Map] = {}
    for k, given in maps.items():
        mixed = [i for i in range(len(given.outs)) if i not in [near[k] for near, _ in lines]]
        lost = [label for i in mixed for label in given.outs[i]]
        arranged[k] = unshared(arithmetic, given, lost)
    first = next(iter(arranged))
    for _ in range(2):  # the second time, the first map has changed for the last time
        for k in list(arranged)[1:]:
            axes = [(near[first], near[k]) for near, _ in lines]
            pair = aligned(arithmetic, arranged[first], arranged[k], axes)
            arranged[first], arranged[k] = pair
    outputs = {label for given in arranged.values() for label in flat(given.outs)}
    there = {label for given in arranged.values() for label in given.data.axes}
    inputs = flat(arranged[first].ins)
    directions = tuple(x for x in inputs if x in there and x not in outputs)
    arrays = {k: (given.data, tuple(flat(given.outs))) for k, given in arranged.items()}
    results = arithmetic.apply(equation, arrays, directions, wanted, forward=forward)
    ends_of = equation.outvars if forward else equation.invars
    found: dict[int, Map] = {}
    for r, array in zip(wanted, results, strict=True):
        aval = ends_of[r].aval
        outs = list(axes_of(aval.shape))
        for near, far in lines:
            outs[far[r]] = arranged[first].outs[near[first]]
        data = arithmetic.labelled(array, (*directions, *flat(outs)))
        result = Map(tuple(outs), arranged[first].ins, data, aval.dtype)
        found[r] = result if forward else result.transposed
    return found
