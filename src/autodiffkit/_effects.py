"""Callbacks: in a function that is linearised none is lost, and in its sweeps none is repeated."""

import functools
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.extend.core as jex
from jax.extend.core import primitives

from autodiffkit._errors import RefusalError
from autodiffkit._interpret import bind, interpret
from autodiffkit._jax_compat import Operation, is_reference, scan_counts, struct_of, with_operations
from autodiffkit._jaxprs import among, called_by, inlined

# Callbacks, by the names of their primitives.
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
    if any(_is_io(equation) for equation, _ in _callbacks(result)):
        raise RefusalError(
            "an io_callback that returns something would run again with each sweep; use "
            "jax.pure_callback, or call it outside of the loop or the checkpoint"
        )
    return result


def with_callbacks(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays of which JAX loses or repeats no callback where it linearises it.

    What a `scan` computes is divided by JAX into what is the same in each turn, what is known and
    what is linear. An `io_callback` whose results nothing needs is left out of all three, and a
    call for debugging happens once, or in two of them. Here an operation with such a `scan` in it
    runs once on values that are held constant, for what it says, and once more without its
    callbacks, to be differentiated.
    """
    return with_operations(function, _is_lossy, _run_apart)


def _is_lossy(operation: Operation) -> bool:
    """Whether an operation has such a `scan`, and inputs that JAX may follow."""
    _, operands, parameters = operation
    if not any(body.effects for body in jex.jaxprs_in_params(parameters)):
        return False
    if not any(isinstance(x, jax.core.Tracer) for x in operands):
        return False
    return any(map(_has_lossy_scan, _traced(operation).jaxpr.eqns))


def _has_lossy_scan(equation: Any) -> bool:
    called = called_by(equation)
    if called is not None:
        return any(map(_has_lossy_scan, called.jaxpr.eqns))
    inside = [found for body in _scanned([equation]) for found in _callbacks(body)]
    if any(_is_io(callback) and not is_used for callback, is_used in inside):
        return True
    # What may not run twice, JAX says as well as it can.
    return bool(inside) and not _is_answered(equation) and not _has_reference(equation)


def _run_apart(operation: Operation) -> list[Any]:
    """The results of an operation that says what it has to say, but is followed without that."""
    _, operands, parameters = operation
    closed = _traced(operation)
    if all(called_by(equation) is not None for equation in closed.jaxpr.eqns):
        # One operation in there may do what another may not.
        return with_callbacks(jex.jaxpr_as_fun(parameters["jaxpr"]))(*operands)
    if any(map(_has_reference, closed.jaxpr.eqns)):
        raise RefusalError(
            "JAX loses an io_callback in a scan, which cannot run once more for it because it "
            "writes to a jax.new_ref; take one of the two out of the loop"
        )
    quiet = jex.ClosedJaxpr(silenced(closed.jaxpr, 0), closed.consts)
    _run_entered(closed, map(jax.lax.stop_gradient, operands))
    return jex.jaxpr_as_fun(quiet)(*operands)


def _traced(operation: Operation) -> Any:
    """The operation as a program of one equation."""
    primitive, operands, parameters = operation
    return jax.make_jaxpr(functools.partial(primitive.bind, **parameters))(*operands)


def _run_entered(closed: Any, operands: Iterable[Any]) -> list[Any]:
    """Evaluates a program, entering what JAX drops with its callbacks if nothing needs it."""

    def entered(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(entered, value))
        if not isinstance(value, jex.ClosedJaxpr):
            return value
        structs = [struct_of(x.aval) for x in value.jaxpr.invars]
        return jax.make_jaxpr(lambda *xs: _run_entered(value, xs))(*structs)

    def apply(equation: Any, values: list[Any]) -> list[Any]:
        bodies = {
            k: x for k, x in equation.params.items() if isinstance(x, jex.ClosedJaxpr | tuple)
        }
        changes = {k: entered(x) for k, x in bodies.items()} if equation.effects else {}
        return bind(equation, values, **changes)

    jaxpr, constants = inlined(closed)
    return interpret(jaxpr, [*constants, *operands], apply)


def _scanned(equations: Iterable[Any]) -> Iterator[Any]:
    """The bodies of the `scan`s in a program."""
    for equation in equations:
        for body in jex.jaxprs_in_params(equation.params) if equation.effects else ():
            if equation.primitive is primitives.scan_p:
                yield body
            else:
                yield from _scanned(body.eqns)


def _callbacks(jaxpr: Any) -> Iterator[tuple[Any, bool]]:
    """The equations that call back, wherever they are, and whether their results are needed."""
    silent = _silent(jaxpr.eqns, jaxpr.outvars)
    for k, equation in enumerate(jaxpr.eqns):
        if equation.primitive.name in _CALLBACKS:
            yield equation, k not in silent
        for body in jex.jaxprs_in_params(equation.params):
            yield from _callbacks(body)


def _is_io(equation: Any) -> bool:
    return equation.primitive.name == "io_callback"


def _is_answered(equation: Any) -> bool:
    """Whether what an equation holds needs what a callback returns."""
    bodies = jex.jaxprs_in_params(equation.params)
    return any(is_used for body in bodies for _, is_used in _callbacks(body))


def _has_reference(equation: Any) -> bool:
    """Whether an equation may write to a `jax.new_ref` outside of it."""
    return any(map(is_reference, equation.invars))


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
        if equation.primitive.name in _CALLBACKS and k not in kept and not is_needed:
            found.add(k)
        elif is_needed or equation.effects:
            needed.update(x for x in equation.invars if not isinstance(x, jex.Literal))
    return found


def _silenced(jaxpr: Any, flags: Sequence[bool]) -> tuple[Any, list[bool]]:
    """The program, and which of its outputs depend on the inputs that have a flag."""
    moving = {x for x, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    equations: list[Any] = []
    saying: set[int] = set()  # what says something of the inputs that have a flag
    for k, equation in enumerate(jaxpr.eqns):
        given = among(equation.invars, moving)
        if any(given):
            saying.add(k)
        new, results = _equation(equation, given) if equation.effects else (equation, None)
        equations.append(new)
        results = [any(given)] * len(equation.outvars) if results is None else results
        moving.update(x for x, flag in zip(equation.outvars, results, strict=True) if flag)
    outputs = among(jaxpr.outvars, moving)
    silent = _silent(equations, jaxpr.outvars, saying)
    if not silent and all(a is b for a, b in zip(equations, jaxpr.eqns, strict=True)):
        return jaxpr, outputs
    equations = [equation for k, equation in enumerate(equations) if k not in silent]
    left = frozenset[Any]().union(*(equation.effects for equation in equations))
    gone = frozenset[Any]().union(*(equation.effects for equation in jaxpr.eqns)) - left
    return jaxpr.replace(eqns=equations, effects=frozenset(jaxpr.effects) - gone), outputs


def _equation(equation: Any, flags: list[bool]) -> tuple[Any, list[bool] | None]:
    """An equation that holds programs; which results depend on what has a flag, if it is known."""
    parameters = equation.params
    if equation.primitive is primitives.scan_p:
        first, count = scan_counts(equation)
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
