"""Callbacks: in a function that is linearised none is lost, and in its sweeps none is repeated."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.extend.core as jex
import jax.extend.source_info_util as source_info
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import primitives

from autodiffkit._errors import RefusalError
from autodiffkit._interpret import bind, interpret
from autodiffkit._jax_compat import Operation, is_reference, struct_of, with_operations
from autodiffkit._jaxprs import among, called_by, descendants, inlined
from autodiffkit._leaves import is_inexact
from autodiffkit._naming import calls_custom_rules, describe
from autodiffkit._silencing import callbacks, is_callback, silenced, without_callbacks_of


def with_callbacks(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays of which JAX loses or repeats no callback where it linearises it.

    What a `scan` computes is divided by JAX into what is the same in each turn, what is known and
    what is linear. An `io_callback` whose results nothing needs is left out of all three, and a
    call for debugging happens once, or in two of them. Here an operation with such a `scan` in it
    runs once on values that are held constant, for what it says, and once more without its
    callbacks, to be differentiated. One that must not run twice is refused, unless JAX makes the
    same calls of it.
    """
    return with_operations(function, _may_call, _run)


def _may_call(operation: Operation) -> bool:
    _, _, parameters = operation
    return any(body.effects for body in jex.jaxprs_in_params(parameters))


def _run(operation: Operation) -> list[Any]:
    """The results of an operation, and its calls as often as the function makes them."""
    _, operands, parameters = operation
    closed = _traced(operation)
    (equation,) = closed.jaxpr.eqns
    if not _has_callback_in_scan(equation):
        return _bound(operation)
    if called_by(equation) is not None:
        # One operation in there may do what another may not.
        return with_callbacks(jex.jaxpr_as_fun(parameters["jaxpr"]))(*operands)
    followed = _followed(operands)
    writes = any(map(is_reference, equation.invars))  # what does is divided in any case
    if not (writes or any(followed)):
        return _bound(operation)
    if not (writes or _is_answered(equation)):
        _say(closed, [jax.lax.stop_gradient(x) for x in operands], followed)
        return _quiet(closed)(*operands)
    if _calls(_known(closed, operands, followed)) == _calls(closed.jaxpr):
        return _bound(operation)
    raise RefusalError(
        f"JAX would lose or repeat a callback in {describe(equation)}, which cannot run a second "
        "time for it because it needs what an io_callback returns or writes to a jax.new_ref; "
        "take the one or the other out of the loop"
    )


def _bound(operation: Operation) -> list[Any]:
    primitive, operands, parameters = operation
    results = primitive.bind(*operands, **parameters)
    return results if primitive.multiple_results else [results]


def _has_callback_in_scan(equation: Any) -> bool:
    """Whether there is a callback in a `scan`."""
    return any(True for body in _scanned([equation]) for _ in callbacks(body))


def _traced(operation: Operation) -> Any:
    """The operation as a program of one equation."""
    primitive, operands, parameters = operation
    here = source_info.current()  # a trace sees no lines outside of it
    closed = jax.make_jaxpr(functools.partial(primitive.bind, **parameters))(*operands)
    equations = [equation.replace(source_info=here) for equation in closed.jaxpr.eqns]
    return jex.ClosedJaxpr(closed.jaxpr.replace(eqns=equations), closed.consts)


def _followed(operands: Sequence[Any]) -> list[bool]:
    """By which operands an operation is differentiated, here or in a transformation outside."""
    found = [False] * len(operands)
    places = [
        k for k, x in enumerate(operands) if isinstance(x, jax.core.Tracer) and not is_reference(x)
    ]
    # No tracer says it publicly, but a rule is told.
    ask = jax.custom_jvp(lambda *xs: xs)

    def rule(primals: Any, tangents: Any) -> Any:
        for k, tangent in zip(places, tangents, strict=True):
            found[k] |= not isinstance(tangent, SymbolicZero)
        return primals, tangents

    ask.defjvp(rule, symbolic_zeros=True)
    ask(*(operands[k] for k in places))
    return found


# Running twice --------------------------------------------------------------------


def _say(closed: Any, operands: Sequence[Any], followed: Sequence[bool]) -> None:
    """Makes the calls of a program that is differentiated by some of its inputs.

    Where it calls a rule, what the rule says of the primals is said, and not what the function
    says that has the rule.
    """
    tangents: list[Any] = []
    if calls_custom_rules(closed.jaxpr):
        moving = [x for x, flag in zip(operands, followed, strict=True) if flag]
        closed = _pushed(closed, operands, followed)
        closed = jex.ClosedJaxpr(without_callbacks_of(closed.jaxpr, len(moving)), closed.consts)
        tangents = [jnp.zeros_like(x) for x in moving]
    _run_entered(closed, [*operands, *tangents])


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


def _quiet(closed: Any) -> Callable[..., Any]:
    """The function of a program without its callbacks, nor those of the rules that it calls."""

    @jax.custom_jvp
    def quiet(*primals: Any) -> Any:
        jaxpr = silenced(closed.jaxpr, 0)
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, closed.consts))(*primals)

    def rule(primals: Any, tangents: Any) -> Any:
        flags = [not isinstance(x, SymbolicZero) for x in tangents]
        moving = [x for x, flag in zip(tangents, flags, strict=True) if flag]
        pushed = _pushed(closed, primals, flags)
        jaxpr = silenced(pushed.jaxpr, len(moving))
        results = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, pushed.consts))(*primals, *moving)
        count = len(closed.out_avals)
        moved = among(jaxpr.outvars, descendants(jaxpr, jaxpr.invars[len(primals) :]))
        pushes = zip(results[count:], moved[count:], strict=True)
        return results[:count], [_tangent(x, pushes) for x in results[:count]]

    quiet.defjvp(rule, symbolic_zeros=True)
    return quiet


def _tangent(out: Any, pushes: Iterator[tuple[Any, bool]]) -> Any:
    """The tangent of an output, the next one of those that are for floating-point numbers."""
    if not is_inexact(out.dtype):
        return np.zeros(out.shape, jax.dtypes.float0)
    tangent, is_moved = next(pushes)
    return tangent if is_moved else SymbolicZero(jax.typeof(out))


def _pushed(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> Any:
    """The program and its derivative by the inputs that have a flag, rules and all.

    Returns:
        A program of the inputs and the tangents of those, which gives the outputs and a tangent
        for each of them that is of floating-point numbers.
    """

    def pushed(primals: Any, tangents: Any) -> Any:
        moving = [x for x, flag in zip(primals, flags, strict=True) if flag]
        outs, pushes = jax.jvp(_by(closed, primals, flags), moving, tangents)
        return outs, [t for x, t in zip(outs, pushes, strict=True) if is_inexact(x.dtype)]

    moving = [x for x, flag in zip(operands, flags, strict=True) if flag]
    return jax.make_jaxpr(pushed)(list(operands), moving)


def _by(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> Callable[..., list[Any]]:
    """The program as a function of the inputs that have a flag."""

    def function(*moving: Any) -> list[Any]:
        given = iter(moving)
        every = [next(given) if flag else x for x, flag in zip(operands, flags, strict=True)]
        return jex.jaxpr_as_fun(closed)(*every)

    return function


# What must not run twice ---------------------------------------------------------------------


def _is_answered(equation: Any) -> bool:
    """Whether what an equation holds needs what a callback returns."""
    bodies = jex.jaxprs_in_params(equation.params)
    return any(is_used for body in bodies for _, is_used in callbacks(body))


def _known(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> Any:
    """What JAX runs of a program when it linearises it by the inputs that have a flag."""
    moving = [x for x, flag in zip(operands, flags, strict=True) if flag]
    function = _by(closed, operands, flags)
    return jax.make_jaxpr(lambda *xs: jax.linearize(function, *xs)[0])(*moving).jaxpr


def _calls(jaxpr: Any, *loops: str) -> Counter[tuple[str, ...]]:
    """How many callbacks there are in a program, by the loops that they are in."""
    found: Counter[tuple[str, ...]] = Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if is_callback(equation):
            found[*loops, name] += 1
        inside = (*loops, name) if equation.primitive in _LOOPS else loops
        for body in jex.jaxprs_in_params(equation.params):
            found.update(_calls(body, *inside))
    return found


_LOOPS = (primitives.scan_p, primitives.while_p)


def _scanned(equations: Iterable[Any]) -> Iterator[Any]:
    """The bodies of the `scan`s in a program."""
    for equation in equations:
        for body in jex.jaxprs_in_params(equation.params) if equation.effects else ():
            if equation.primitive is primitives.scan_p:
                yield body
            else:
                yield from _scanned(body.eqns)
