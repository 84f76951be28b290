"""Programs evaluated equation by equation, so that what happens can be seen or changed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.extend.core as jex
import jax.numpy as jnp

from autodiffkit._jax_compat import bind_equation
from autodiffkit._jaxprs import inlined, make_jaxpr
from autodiffkit._naming import is_of_jax

# Equations that only call the program that they hold, and the parameter that holds it.
_CALLS = {
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "remat2": "jaxpr",
}

Apply = Callable[[Any, list[Any]], Sequence[Any]]
Call = Callable[[Any, list[Any], Callable[[], list[Any]]], list[Any]]


def _enter(_: Any, __: list[Any], run: Callable[[], list[Any]]) -> list[Any]:
    return run()


def interpret(jaxpr: Any, values: Sequence[Any], apply: Apply, call: Call = _enter) -> list[Any]:
    """Evaluates a jaxpr without constants, one equation after the other.

    Equations that only call a program, custom rules among them, are entered. Values are whatever
    `apply` takes and gives; those of literals and of constants inside are arrays.

    Args:
        jaxpr: The program.
        values: Those of its inputs.
        apply: Evaluates an equation: takes it and the values of its operands.
        call: Evaluates one that is entered; takes a function, too, which does.

    Returns:
        The values of its outputs.
    """
    found: dict[Any, Any] = dict(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, jex.Literal):
            kind: Any = atom.aval
            return jnp.asarray(atom.val, kind.dtype)
        return found[atom]

    for equation in jaxpr.eqns:
        operands = list(map(read, equation.invars))
        body = body_of(equation)
        if body is None:
            results = apply(equation, operands)
        else:
            inner, constants = body
            given = [*constants, *operands]
            run = functools.partial(interpret, inner, given, apply, call)
            results = call(equation, operands, run)
        found.update(zip(equation.outvars, results, strict=True))
    return list(map(read, jaxpr.outvars))


def body_of(equation: Any) -> tuple[Any, list[Any]] | None:
    """The program that an equation calls, without constants, and these; `None` if it does more."""
    name = _CALLS.get(equation.primitive.name)
    if name is None:
        return None
    called = equation.params[name]
    closed = called if isinstance(called, jex.ClosedJaxpr) else jex.ClosedJaxpr(called, ())
    jaxpr, constants = inlined(closed)
    if is_of_jax(closed.jaxpr):  # lines of JAX, or of another call, say little
        lines = [x.replace(source_info=equation.source_info) for x in jaxpr.eqns]
        jaxpr = make_jaxpr(jaxpr.invars, jaxpr.outvars, lines)
    return jaxpr, constants


def bind(equation: Any, operands: Sequence[Any], **changes: Any) -> list[Any]:
    """Evaluates an equation that is not entered, with some of its parameters changed."""
    return bind_equation(equation, *operands, **changes)


def raw(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Operands with literals as they stand in the program: a rule may ask if one is a `bool`."""
    pairs = zip(equation.invars, operands, strict=True)
    return [x.val if isinstance(x, jex.Literal) else operand for x, operand in pairs]
