"""Rules of equations that hold programs: axes that are kept apart all the way through.

Each axis of each moving variable of a body belongs to a class, which grows as equations keep
axes, and dies where one mixes it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.extend.core as jex

from autodiffkit._algebra import refined
from autodiffkit._jax_compat import scan_counts
from autodiffkit._jaxprs import among, descendants
from autodiffkit._rule_kinds import DENSE, Factor, Line, Lines, Reshape, Rule, RuleOf

# A variable, or an end of the equation by kind and number; and the axis.
_Place = tuple[Any, int]


class _Classes:
    """Axes that belong together."""

    def __init__(self, rule_of: RuleOf) -> None:
        self._rule_of = rule_of
        self._parents: dict[_Place, _Place] = {}
        self._dead: set[_Place] = set()

    def _root(self, place: _Place) -> _Place:
        parent = self._parents.setdefault(place, place)
        if parent != place:
            parent = self._parents[place] = self._root(parent)
        return parent

    def join(self, one: _Place, other: _Place) -> None:
        """Says that two axes are the same."""
        first, second = self._root(one), self._root(other)
        if first != second:
            self._parents[second] = first
            if second in self._dead:
                self._dead.add(first)

    def kill(self, place: _Place) -> None:
        """Says that an axis is mixed."""
        self._dead.add(self._root(place))

    def tie(self, one: Any, other: Any, rank: int, shift: int = 0) -> None:
        """Says that all axes of two variables are the same, those of the first later by a shift."""
        for axis in range(rank):
            self.join((one, axis + shift), (other, axis))

    def follow(self, jaxpr: Any, moving: Iterable[Any]) -> set[Any]:
        """Goes through a body; returns the variables that move."""
        found = set(moving)
        for equation in jaxpr.eqns:
            numbers = [k for k, flag in enumerate(among(equation.invars, found)) if flag]
            if numbers:
                found.update(equation.outvars)
                self._equation(equation, numbers)
        return found

    def _equation(self, equation: Any, moving: Sequence[int]) -> None:
        rule = self._rule_of(equation, moving)
        met: dict[_Place, set[int]] = {}
        kept: set[_Place] = set()
        for k, i, r, j in _pairs(equation, rule):
            operand, result = (equation.invars[k], i), (equation.outvars[r], j)
            self.join(operand, result)
            kept.add((k, i))
            met.setdefault((r, j), set()).add(k)
        for k in moving:
            variable = equation.invars[k]
            for i in range(variable.aval.ndim):
                if (k, i) not in kept:
                    self.kill((variable, i))
        for r, variable in enumerate(equation.outvars):
            for j in range(getattr(variable.aval, "ndim", 0)):
                if met.get((r, j)) != set(moving):
                    self.kill((variable, j))

    def lines(self, results: Iterable[int]) -> Lines:
        """The classes that live, by the ends of the equation; and the results that move."""
        found: dict[_Place, tuple[dict[int, int], dict[int, int]]] = {}
        twice: set[_Place] = set()
        for place in list(self._parents):
            end, axis = place
            if not isinstance(end, tuple):
                continue
            root = self._root(place)
            kind, number = end
            ends = found.setdefault(root, ({}, {}))[kind == "result"]
            if number in ends:
                twice.add(root)
            ends[number] = axis
        return Lines(
            tuple(
                Line(operands, results)
                for root, (operands, results) in found.items()
                if root not in self._dead and root not in twice
            ),
            frozenset(results),
        )


def _pairs(equation: Any, rule: Rule) -> Iterable[tuple[int, int, int, int]]:
    """The axes that an equation keeps: operand, its axis, result, its axis."""
    if isinstance(rule, Lines):
        for line in rule.lines:
            for k, i in line.operands.items():
                for r, j in line.results.items():
                    yield k, i, r, j
        return
    for k, how in rule.items():
        shape, out = equation.invars[k].aval.shape, equation.outvars[0].aval.shape
        if isinstance(how, Factor):
            places = {axis: j for j, axis in enumerate(how.map.outs) if axis}
            pairs = [(i, places[axis]) for i, axis in enumerate(how.map.ins) if axis in places]
        elif isinstance(how, Reshape):
            pairs = list(_kept_by_reshape(shape, out))
        else:
            pairs = [(i, i) for i in range(len(shape))]
        for i, j in pairs:
            yield k, i, 0, j


def _kept_by_reshape(before: Sequence[int], after: Sequence[int]) -> Iterable[tuple[int, int]]:
    """The axes that a reshape leaves whole."""
    ours = [i for i, n in enumerate(before) if n != 1]
    theirs = [j for j, n in enumerate(after) if n != 1]
    parts = refined([before[i] for i in ours], [after[j] for j in theirs])
    if parts is None:
        return
    starts: dict[int, int] = {}
    position = 0
    for i, factors in zip(ours, parts[0], strict=True):
        if len(factors) == 1:
            starts[position] = i
        position += len(factors)
    position = 0
    for j, factors in zip(theirs, parts[1], strict=True):
        if len(factors) == 1 and position in starts:
            yield starts[position], j
        position += len(factors)


# Equations ------------------------------------------------------------------------


def _tie_results(classes: _Classes, jaxpr: Any, moving: set[Any]) -> list[int]:
    """Ties the results that move, and says which they are."""
    found = [r for r, flag in enumerate(among(jaxpr.outvars, moving)) if flag]
    for r in found:
        atom = jaxpr.outvars[r]
        classes.tie(("result", r), atom, atom.aval.ndim)
    return found


def called(equation: Any, moving: Sequence[int], rule_of: RuleOf) -> Rule:
    """A program that is called once with the operands."""
    bodies = [
        body
        for body in jex.jaxprs_in_params(equation.params)
        if len(body.invars) == len(equation.invars)
    ]
    return _any_of(bodies[:1], 0, moving, rule_of)


def _any_of(bodies: Sequence[Any], skipped: int, moving: Sequence[int], rule_of: RuleOf) -> Rule:
    """One of several programs, called with the operands after the first ones."""
    if not bodies or any(k < skipped for k in moving):
        return DENSE
    classes = _Classes(rule_of)
    results: set[int] = set()
    for body in bodies:
        inputs = [body.invars[k - skipped] for k in moving]
        for k, variable in zip(moving, inputs, strict=True):
            classes.tie(("operand", k), variable, variable.aval.ndim)
        found = classes.follow(body, inputs)
        results.update(_tie_results(classes, body, found))
    return classes.lines(results)


def _cond(equation: Any, moving: Sequence[int], rule_of: RuleOf) -> Rule:
    return _any_of([x.jaxpr for x in equation.params["branches"]], 1, moving, rule_of)


def _linear_solve(equation: Any, moving: Sequence[int], rule_of: RuleOf) -> Rule:
    body = equation.params["jaxprs"].solve.jaxpr
    skipped = len(equation.invars) - len(equation.outvars)
    if any(k < skipped for k in moving):
        return DENSE
    start = len(body.invars) - len(equation.outvars)
    classes = _Classes(rule_of)
    inputs = {k: body.invars[start + k - skipped] for k in moving}
    for k, variable in inputs.items():
        classes.tie(("operand", k), variable, variable.aval.ndim)
    found = classes.follow(body, inputs.values())
    return classes.lines(_tie_results(classes, body, found))


def _scan(equation: Any, moving: Sequence[int], rule_of: RuleOf) -> Rule:
    body = equation.params["jaxpr"].jaxpr
    start, carried = scan_counts(equation)
    stop = start + carried
    shifts = {k: int(k >= stop) for k in range(len(body.invars))}
    rule = _loop(body, moving, shifts, range(start, stop), rule_of)
    assert rule.results is not None
    if any(r < carried for r in rule.results):
        return rule
    # Nothing is carried: each step is on its own.
    steps = Line(
        {k: 0 for k in moving if shifts[k]},
        dict.fromkeys(rule.results, 0),
    )
    return Lines((*rule.lines, steps), rule.results)


def _while(equation: Any, moving: Sequence[int], rule_of: RuleOf) -> Rule:
    parameters = equation.params
    body, condition = parameters["body_jaxpr"].jaxpr, parameters["cond_jaxpr"].jaxpr
    skipped = parameters["cond_nconsts"]
    start = parameters["body_nconsts"]
    if any(k < skipped for k in moving):
        return DENSE
    carry = range(start, len(body.invars))
    flags = _moving_in_loop(body, [k - skipped for k in moving], carry)
    moved = [condition.invars[skipped + k - start] for k in flags if k in carry]
    if any(among(condition.outvars, descendants(condition, moved))):
        return DENSE
    rule = _loop(body, [k - skipped for k in moving], {}, carry, rule_of)
    return Lines(
        tuple(
            Line({k + skipped: axis for k, axis in line.operands.items()}, line.results)
            for line in rule.lines
        ),
        rule.results,
    )


def _moving_in_loop(body: Any, moving: Sequence[int], carry: range) -> list[int]:
    """The inputs that move at the start or later."""
    found = set(moving)
    while True:
        variables = descendants(body, [body.invars[k] for k in found])
        flags = among(body.outvars[: len(carry)], variables)
        more = {k for k, flag in zip(carry, flags, strict=True) if flag} - found
        if not more:
            return sorted(found)
        found |= more


def _loop(
    body: Any,
    moving: Sequence[int],
    shifts: dict[int, int],
    carry: range,
    rule_of: RuleOf,
) -> Lines:
    """A program that is called again with what it returns.

    Args:
        body: The program.
        moving: The operands that move at the start.
        shifts: By how much axes of an operand come after those of the body's input.
        carry: The inputs that are carried, which are the first results.
        rule_of: What finds the rule of an equation.
    """
    classes = _Classes(rule_of)
    everywhere = _moving_in_loop(body, moving, carry)
    for k in moving:
        variable = body.invars[k]
        classes.tie(("operand", k), variable, variable.aval.ndim, shifts.get(k, 0))
    found = classes.follow(body, [body.invars[k] for k in everywhere])
    carried = [k for k in carry if k in everywhere]
    for k in carried:
        atom, variable = body.outvars[k - carry.start], body.invars[k]
        classes.tie(("result", k - carry.start), variable, variable.aval.ndim)
        if any(among([atom], found)):
            classes.tie(atom, variable, atom.aval.ndim)
    stacked = [
        r for r in range(len(carry), len(body.outvars)) if any(among([body.outvars[r]], found))
    ]
    for r in stacked:
        atom = body.outvars[r]
        classes.tie(("result", r), atom, atom.aval.ndim, 1)
    return classes.lines([*(k - carry.start for k in carried), *stacked])


BODIES: dict[str, Callable[[Any, Sequence[int], RuleOf], Rule]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "custom_lin": lambda *_: DENSE,
    "shard_map": lambda *_: DENSE,
    "pallas_call": lambda *_: DENSE,
}
