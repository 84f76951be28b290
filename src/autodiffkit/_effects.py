"""Callbacks in linear programs: those that ran with the function do not run again in a sweep."""

from collections.abc import Sequence
from typing import Any

import jax.extend.core as jex
from jax.extend.core import primitives

from autodiffkit._errors import RefusalError
from autodiffkit._jaxprs import among

# A callback without results, by the names of their primitives.
_CALLBACKS = frozenset({"debug_callback", "debug_print", "io_callback"})


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
    count = len(jaxpr.invars)
    result, _ = _silenced(jaxpr, [k >= count - arity for k in range(count)])
    if _count(result, in_scans=False):
        raise RefusalError(
            "an io_callback that returns something would run again with each sweep; use "
            "jax.pure_callback, or call it outside of the loop or the checkpoint"
        )
    return result


def loses_callbacks(before: Any, after: Any) -> bool:
    """Whether an `io_callback` in a `scan` is missing in a program that was made of another one.

    JAX leaves them out, or takes them out of the loop, where it divides a `scan` into what is
    known and what is linear; calls for debugging it keeps.
    """
    return _count(after, in_scans=True) < _count(before, in_scans=True)


def _count(jaxpr: Any, *, in_scans: bool) -> int:
    """How often `io_callback` is called, a `while_loop` counted as one turn."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "io_callback":
            found += not in_scans
            continue
        is_scan = equation.primitive is primitives.scan_p
        turns = equation.params["length"] if is_scan else 1
        for body in jex.jaxprs_in_params(equation.params):
            found += turns * _count(body, in_scans=in_scans and not is_scan)
    return found


def _silenced(jaxpr: Any, flags: Sequence[bool]) -> tuple[Any, list[bool]]:
    """The program, and which of its outputs depend on the inputs that have a flag."""
    moving = {x for x, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    equations: list[Any] = []
    dropped = False
    for equation in jaxpr.eqns:
        given = among(equation.invars, moving)
        if _is_silent(equation) and not any(given):
            dropped = True
            continue
        new, results = _equation(equation, given) if equation.effects else (equation, None)
        dropped |= new is not equation
        equations.append(new)
        results = [any(given)] * len(equation.outvars) if results is None else results
        moving.update(x for x, flag in zip(equation.outvars, results, strict=True) if flag)
    outputs = among(jaxpr.outvars, moving)
    if not dropped:
        return jaxpr, outputs
    left = frozenset[Any]().union(*(equation.effects for equation in equations))
    gone = frozenset[Any]().union(*(equation.effects for equation in jaxpr.eqns)) - left
    return jaxpr.replace(eqns=equations, effects=frozenset(jaxpr.effects) - gone), outputs


def _is_silent(equation: Any) -> bool:
    return equation.primitive.name in _CALLBACKS and not equation.outvars


def _equation(equation: Any, flags: list[bool]) -> tuple[Any, list[bool] | None]:
    """An equation that holds programs; which results depend on what has a flag, if it is known."""
    parameters = equation.params
    if equation.primitive is primitives.scan_p:
        first, count = parameters["num_consts"], parameters["num_carry"]
        body, results = _loop(parameters["jaxpr"].jaxpr, flags, slice(first, first + count))
        return _replaced(equation, jaxpr=_closed(parameters["jaxpr"], body)), results
    if equation.primitive is primitives.while_p:
        tests, consts = parameters["cond_nconsts"], parameters["body_nconsts"]
        closed = parameters["body_jaxpr"]
        body, results = _loop(closed.jaxpr, flags[tests:], slice(consts, None))
        test, _ = _silenced(parameters["cond_jaxpr"].jaxpr, flags[:tests] + results)
        changed = _replaced(
            equation,
            body_jaxpr=_closed(closed, body),
            cond_jaxpr=_closed(parameters["cond_jaxpr"], test),
        )
        return changed, results
    if equation.primitive is primitives.cond_p:
        found = [_silenced(branch.jaxpr, flags[1:]) for branch in parameters["branches"]]
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
    new, results = _silenced(body, flags)
    return _replaced(equation, **{name: new if held is body else _closed(held, new)}), results


def _loop(body: Any, flags: Sequence[bool], carried: slice) -> tuple[Any, list[bool]]:
    """The body of a loop, whose first outputs are the carried inputs of the next turn."""
    flags = list(flags)
    while True:
        new, results = _silenced(body, flags)
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
