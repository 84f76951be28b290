"""Callbacks of an operation that is linearised, each made as often as by the operation itself."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.core
import jax.extend.core as jex
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import primitives

from autodiffkit._interpret import bind, interpret
from autodiffkit._jax_compat import is_reference, struct_of, typed
from autodiffkit._jaxprs import alone, inlined, is_floating
from autodiffkit._naming import calls_custom_rule, calls_custom_rules, is_custom_rule
from autodiffkit._rewriting import of_some, pushed, rebound, traced, with_calls, written_out
from autodiffkit._silencing import callbacks, is_callback, silenced, without_callbacks_of


def has_callback_in_scan(equation: Any) -> bool:
    """Whether there is a `scan` that calls back, in the equation or in what it holds."""
    return any(True for body in _scanned([equation]) for _ in callbacks(body))


def may_call_in_scan(jaxpr: Any, is_scanned: bool = False) -> bool:
    """Whether a rule in a program that makes no calls may call back in a `scan`.

    Each rule is traced for that, once for each program that JAX keeps; those of JAX are not.

    Args:
        jaxpr: The program.
        is_scanned: Whether it is in a `scan` itself.
    """
    known = _MAY_CALL.setdefault(jaxpr, {})
    if is_scanned not in known:
        known[is_scanned] = any(_rule_may_call(x, is_scanned) for x in jaxpr.eqns)
    return known[is_scanned]


# Of programs, as long as JAX keeps them.
_MAY_CALL: WeakKeyDictionary[Any, dict[bool, bool]] = WeakKeyDictionary()
_CALLS: WeakKeyDictionary[Any, dict[tuple[bool, ...], bool]] = WeakKeyDictionary()


def _rule_may_call(equation: Any, is_scanned: bool) -> bool:
    if is_custom_rule(equation):
        if equation.params.get("symbolic_zeros"):  # what it does depends on which these are
            return True
        jaxpr, _ = alone(equation, lambda _: True)
        structs, flags = map(_struct, jaxpr.invars), map(is_floating, jaxpr.invars)
        try:
            rule = pushed(jex.ClosedJaxpr(jaxpr, ()), list(structs), list(flags))
        except Exception:  # it may fail alone, and need not be differentiated
            return True
        if is_scanned:
            return next(callbacks(rule.jaxpr), None) is not None
        return any(map(has_callback_in_scan, rule.jaxpr.eqns))
    is_scanned = is_scanned or equation.primitive is primitives.scan_p
    return any(may_call_in_scan(x, is_scanned) for x in jex.jaxprs_in_params(equation.params))


def calls_in_scan(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> bool:
    """Whether a `scan` calls back in a program that is differentiated, or in a rule of its."""
    if any(map(has_callback_in_scan, closed.jaxpr.eqns)):
        return True
    if not any(flags) or not may_call_in_scan(closed.jaxpr):
        return False
    known, key = _CALLS.setdefault(closed.jaxpr, {}), tuple(flags)
    if key not in known:
        known[key] = any(map(has_callback_in_scan, pushed(closed, operands, flags).jaxpr.eqns))
    return known[key]


def _scanned(equations: Iterable[Any]) -> Iterator[Any]:
    """The bodies of the `scan`s in a program."""
    for equation in equations:
        for body in jex.jaxprs_in_params(equation.params) if equation.effects else ():
            if equation.primitive is primitives.scan_p:
                yield body
            else:
                yield from _scanned(body.eqns)


def followed(operands: Sequence[Any]) -> list[bool]:
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


# What runs twice -------------------------------------------------------------------


def say(closed: Any, operands: Sequence[Any]) -> None:
    """Makes the calls of a program that is about to be differentiated.

    Where it calls a rule, what the rule says of the primals is said, and not what the function
    says that has the rule.
    """
    held = [jax.lax.stop_gradient(x) for x in operands]
    if calls_custom_rules(closed.jaxpr):
        say_known(pushed(closed, operands, followed(operands)), held)
    else:
        _run_entered(closed, held)


def say_known(closed: Any, operands: Sequence[Any] = ()) -> None:
    """Makes the calls of a program that do not depend on tangents.

    Args:
        closed: A program whose last inputs are tangents.
        operands: Its other inputs.
    """
    structs = [_struct(x) for x in closed.jaxpr.invars[len(operands) :]]
    jaxpr = without_callbacks_of(closed.jaxpr, len(structs))
    zeros = [typed(jnp.zeros(x.shape, x.dtype), x) for x in structs]
    _run_entered(jex.ClosedJaxpr(jaxpr, closed.consts), [*operands, *zeros])


def _run_entered(closed: Any, operands: Sequence[Any]) -> list[Any]:
    """Evaluates a program, entering what JAX drops with its callbacks if nothing needs it.

    Tangents in it are zero, and stay so where a rule is only meant to be transposed.
    """

    def apply(equation: Any, values: list[Any]) -> list[Any]:
        if equation.primitive is primitives.custom_lin_p:
            return [typed(jnp.zeros(x.shape, x.dtype), x) for x in map(_struct, equation.outvars)]
        if equation.effects or calls_custom_rule(equation):
            return rebound(equation, values, _entered)
        return bind(equation, values)

    jaxpr, constants = inlined(closed)
    return interpret(jaxpr, [*constants, *operands], apply)


def _entered(closed: Any) -> Any:
    return traced(closed, lambda *xs: _run_entered(closed, xs))


def _struct(variable: Any) -> Any:
    return struct_of(variable.aval)


def quiet(closed: Any) -> Any:
    """The function of a program without its callbacks, nor those of the rules that it calls."""

    def run(closed: Any, operands: Sequence[Any], tangents: int) -> list[Any]:
        program = jex.ClosedJaxpr(silenced(closed.jaxpr, tangents), closed.consts)
        if tangents:
            return with_calls(program, operands, calls_custom_rule, _hushed)
        return jex.jaxpr_as_fun(program)(*operands)

    return written_out(closed, run)


def _hushed(equation: Any, values: Sequence[Any]) -> list[Any]:
    """Calls a rule that says nothing if it is differentiated later."""
    jaxpr, places = alone(equation, lambda _: True)
    return quiet(jex.ClosedJaxpr(jaxpr, ()))(*(values[k] for k in places))


# What must not run twice -----------------------------------------------------------


def is_answered(equation: Any) -> bool:
    """Whether what an equation holds needs what a callback returns."""
    bodies = jex.jaxprs_in_params(equation.params)
    return any(is_used for body in bodies for _, is_used in callbacks(body))


def keeps_calls(closed: Any, operands: Sequence[Any], flags: Sequence[bool]) -> bool:
    """Whether JAX makes the calls of a program that it linearises by the inputs with a flag."""
    moving = list(compress(operands, flags))
    function = of_some(jex.jaxpr_as_fun(closed), operands, flags)
    known = jax.make_jaxpr(lambda *xs: jax.linearize(function, *xs)[0])(*moving)
    whole = without_callbacks_of(pushed(closed, operands, flags).jaxpr, len(moving))
    return _calls(known.jaxpr) == _calls(whole)


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
