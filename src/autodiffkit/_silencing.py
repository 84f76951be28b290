"""Callbacks in programs: where they are, and the programs without them."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

import jax.extend.core as jex
from jax.extend.core import primitives

from autodiffkit._errors import RefusalError
from autodiffkit._jax_compat import scan_counts
from autodiffkit._jaxprs import among

# By the names of their primitives.
_CALLBACKS = frozenset({"debug_callback", "debug_print", "io_callback"})


def is_callback(equation: Any) -> bool:
    """Whether an equation calls back for the sake of it, and not only for what it returns."""
    return equation.primitive.name in _CALLBACKS


def callbacks(jaxpr: Any) -> Iterator[tuple[Any, bool]]:
    """The equations that call back, wherever they are, and whether their results are needed."""
    silent = _silent(jaxpr.eqns, jaxpr.outvars)
    for k, equation in enumerate(jaxpr.eqns):
        if is_callback(equation):
            yield equation, k not in silent
        for body in jex.jaxprs_in_params(equation.params):
            yield from callbacks(body)


def silenced(jaxpr: Any, arity: int) -> Any:
    """A linear program without the callbacks that do not depend on its inputs.

    What the function prints has been printed when it ran. A linear program computes some of
    the function again, the carry of a `while_loop` or what a `checkpoint` did not store, for each
    sweep and chunk; the callbacks in there are left out. What a rule prints of a tangent stays.

    Args:
        jaxpr: A jaxpr without constants that is linear in its last inputs.
        arity: How many these are.

    Returns:
        The program; the same one where there is nothing to leave out.

    Raises:
        RefusalError: If the program needs what an `io_callback` returns, and would call it
            again.
    """
    if not jaxpr.effects:
        return jaxpr
    result = _left_out(jaxpr, arity, of_moving=False)
    if any(_is_io(equation) for equation, _ in callbacks(result)):
        raise RefusalError(
            "an io_callback would run again with each sweep; use jax.pure_callback for what it "
            "returns, or call it outside of the loop or the checkpoint"
        )
    return result


def without_callbacks_of(jaxpr: Any, arity: int) -> Any:
    """A program without the callbacks that do depend on its last inputs.

    Args:
        jaxpr: A jaxpr without constants.
        arity: How many of the inputs these are.
    """
    return _left_out(jaxpr, arity, of_moving=True)


def _left_out(jaxpr: Any, arity: int, of_moving: bool) -> Any:
    count = len(jaxpr.invars)
    result, _ = _silenced(jaxpr, [k >= count - arity for k in range(count)], of_moving)
    return result


def _is_io(equation: Any) -> bool:
    return equation.primitive.name == "io_callback"


def _silent(equations: Sequence[Any], ends: Sequence[Any], kept: Container[int] = ()) -> set[int]:
    """Which equations are callbacks whose results nothing needs, but other such callbacks.

    Args:
        equations: Of a program.
        ends: The outputs of the program.
        kept: Callbacks that are none of these, by their place.
    """
    found: set[int] = set()
    needed = {x for x in ends if not isinstance(x, jex.Literal)}
    for k in reversed(range(len(equations))):
        equation = equations[k]
        is_needed = not needed.isdisjoint(equation.outvars)
        if is_callback(equation) and k not in kept and not is_needed:
            found.add(k)
        elif is_needed or equation.effects:
            needed.update(x for x in equation.invars if not isinstance(x, jex.Literal))
    return found


def _silenced(jaxpr: Any, flags: Sequence[bool], of_moving: bool) -> tuple[Any, list[bool]]:
    """The program, and which of its outputs depend on the inputs that have a flag."""
    moving = {x for x, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    equations: list[Any] = []
    saying: set[int] = set()  # what says something of the inputs that have a flag
    for k, equation in enumerate(jaxpr.eqns):
        given = among(equation.invars, moving)
        if any(given):
            saying.add(k)
        new, results = equation, None
        if equation.effects or any(given):
            new, results = _equation(equation, given, of_moving)
        equations.append(new)
        results = [any(given)] * len(equation.outvars) if results is None else results
        moving.update(x for x, flag in zip(equation.outvars, results, strict=True) if flag)
    outputs = among(jaxpr.outvars, moving)
    kept = set(range(len(equations))) - saying if of_moving else saying
    silent = _silent(equations, jaxpr.outvars, kept)
    if not silent and all(a is b for a, b in zip(equations, jaxpr.eqns, strict=True)):
        return jaxpr, outputs
    equations = [equation for k, equation in enumerate(equations) if k not in silent]
    left = frozenset[Any]().union(*(equation.effects for equation in equations))
    gone = frozenset[Any]().union(*(equation.effects for equation in jaxpr.eqns)) - left
    return jaxpr.replace(eqns=equations, effects=frozenset(jaxpr.effects) - gone), outputs


def _equation(equation: Any, flags: list[bool], of_moving: bool) -> tuple[Any, list[bool] | None]:
    """An equation that holds programs; which results depend on what has a flag, if it is known."""
    parameters = equation.params
    if equation.primitive is primitives.scan_p:
        first, count = scan_counts(equation)
        body, results = _loop(
            parameters["jaxpr"].jaxpr, flags, slice(first, first + count), of_moving
        )
        return _replaced(equation, jaxpr=_closed(parameters["jaxpr"], body)), results
    if equation.primitive is primitives.while_p:
        tests, consts = parameters["cond_nconsts"], parameters["body_nconsts"]
        closed = parameters["body_jaxpr"]
        body, results = _loop(closed.jaxpr, flags[tests:], slice(consts, None), of_moving)
        test, _ = _silenced(parameters["cond_jaxpr"].jaxpr, flags[:tests] + results, of_moving)
        changed = _replaced(
            equation,
            body_jaxpr=_closed(closed, body),
            cond_jaxpr=_closed(parameters["cond_jaxpr"], test),
        )
        return changed, results
    if equation.primitive is primitives.cond_p:
        found = [_silenced(branch.jaxpr, flags[1:], of_moving) for branch in parameters["branches"]]
        branches = tuple(
            _closed(old, new) for old, (new, _) in zip(parameters["branches"], found, strict=True)
        )
        ends = [any(same) or flags[0] for same in zip(*(x for _, x in found), strict=True)]
        return _replaced(equation, branches=branches), ends
    bodies = {k: x for k, x in parameters.items() if isinstance(x, (jex.Jaxpr, jex.ClosedJaxpr))}
    if len(bodies) != 1:
        return equation, None
    ((name, held),) = bodies.items()
    body = getattr(held, "jaxpr", held)
    if len(body.invars) != len(flags):
        return equation, None
    new, results = _silenced(body, flags, of_moving)
    return _replaced(equation, **{name: new if held is body else _closed(held, new)}), results


def _loop(
    body: Any, flags: Sequence[bool], carried: slice, of_moving: bool
) -> tuple[Any, list[bool]]:
    """The body of a loop, whose first outputs are the carried inputs of the next turn."""
    flags = list(flags)
    while True:
        new, results = _silenced(body, flags, of_moving)
        carry = flags[carried]
        again = [a or b for a, b in zip(carry, results, strict=False)]
        if again == carry:
            return new, results
        flags[carried] = again


def _closed(old: Any, body: Any) -> Any:
    return old if body is old.jaxpr else jex.ClosedJaxpr(body, old.consts)


def _replaced(equation: Any, **programs: Any) -> Any:
    """The equation with other programs, and without the effects that these no longer have."""
    if all(_same(equation.params[name], program) for name, program in programs.items()):
        return equation
    params = equation.params | programs
    gone = _effects(equation.params) - _effects(params)
    return equation.replace(params=params, effects=frozenset(equation.effects) - gone)


def _same(old: Any, new: Any) -> bool:
    if isinstance(new, tuple):
        return all(a is b for a, b in zip(old, new, strict=True))
    return old is new


def _effects(params: dict[str, Any]) -> frozenset[Any]:
    return frozenset(effect for body in jex.jaxprs_in_params(params) for effect in body.effects)
