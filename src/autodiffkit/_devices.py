"""Linear programs inside of `jax.shard_map`: derivatives of what one device computes."""

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import jax
from jax.extend.core import primitives

from autodiffkit._errors import RefusalError
from autodiffkit._interpret import interpret, raw
from autodiffkit._jax_compat import struct_of, typed, varying, varying_struct
from autodiffkit._jaxprs import among, descendants, inlined
from autodiffkit._rewriting import again, rebound


def local(jaxpr: Any, arity: int) -> Any:
    """A linear program whose inputs vary from device to device wherever its outputs do.

    Inside of `jax.shard_map` a value may be the same on all devices, as parameters are, and be
    joined with values that differ. Pushed forward, a direction gives the derivative of what each
    device computes. Pulled back, the shares of all devices are added up: JAX's two modes disagree.
    Where the inputs count as the device's own, both modes give what pushing does.

    Args:
        jaxpr: A jaxpr without constants that is linear in its last inputs.
        arity: How many these are.

    Returns:
        The program; the same one where nothing varies, or nothing else does.

    Raises:
        RefusalError: If one output varies along an axis of the mesh and another does not,
            or the program cannot be traced so.
    """
    sources = jaxpr.invars[len(jaxpr.invars) - arity :]
    moved = among(jaxpr.outvars, descendants(jaxpr, sources))
    ends = [varying(x.aval) for x in compress(jaxpr.outvars, moved)]
    every = frozenset[str]().union(*ends)
    if all(every <= varying(x.aval) for x in sources):
        return jaxpr
    axes = ", ".join(map(repr, sorted(every)))
    if any(every != end for end in ends):
        raise RefusalError(
            f"inside jax.shard_map, one output varies along {axes} and another does not, so that "
            "derivatives by what is the same on all devices are of two kinds"
        )
    moving = {x: varying_struct(x.aval, every) for x in sources}
    try:
        closed = jax.make_jaxpr(_evaluated(jaxpr))(
            *(moving.get(x, struct_of(x.aval)) for x in jaxpr.invars)
        )
    except Exception as error:
        raise RefusalError(
            f"inside jax.shard_map, what is the same along {axes} enters a jax.custom_vjp, or "
            "another operation that holds a program; make it vary first with jax.lax.pcast(..., "
            "to='varying')"
        ) from error
    return inlined(closed)[0]


def _evaluated(jaxpr: Any) -> Any:
    """The program as a function that takes inputs that vary along more axes."""

    def run(*inputs: Any) -> list[Any]:
        return interpret(
            jaxpr, inputs, _apply, lambda equation, values, _: _apply(equation, values)
        )

    return run


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    """Evaluates an equation whose operands may vary along more axes than its variables do."""
    if equation.primitive.name == "pvary":
        axes = equation.params["axes"]
        return [
            typed(operand, varying_struct(x.aval, axes))
            for operand, x in zip(operands, equation.invars, strict=True)
        ]
    if equation.primitive is primitives.custom_lin_p:
        if [varying(jax.typeof(x)) for x in operands] != list(map(_axes, equation.invars)):
            raise RefusalError("a rule returns cotangents of the types that it was given")
        return again(equation, raw(equation, operands))
    if equation.primitive in _OF_PROGRAMS:
        return _with_programs(equation, operands)
    return again(equation, _alike(operands))


# Whose programs are typed as their operands are; for pulling back, JAX compares the types.
_OF_PROGRAMS = (primitives.scan_p, primitives.cond_p, primitives.remat_p, primitives.linear_solve_p)


def _with_programs(equation: Any, operands: list[Any]) -> list[Any]:
    """Evaluates an equation with programs of which all ends vary along the same axes."""
    count = equation.primitive is primitives.cond_p  # the branch stays what it is
    every = frozenset[str]().union(*(varying(jax.typeof(x)) for x in operands[count:]))

    def retyped(closed: Any) -> Any:
        jaxpr, constants = inlined(closed)

        def run(*inputs: Any) -> list[Any]:
            return [_varied(x, every) for x in _evaluated(jaxpr)(*constants, *inputs)]

        return jax.make_jaxpr(run)(*(varying_struct(x.aval, every) for x in closed.jaxpr.invars))

    given = [*operands[:count], *(_varied(x, every) for x in operands[count:])]
    return rebound(equation, given, retyped)


def _axes(variable: Any) -> frozenset[str]:
    return varying(variable.aval)


def _varied(x: Any, axes: Iterable[str]) -> Any:
    return typed(x, varying_struct(jax.typeof(x), axes))


def _alike(values: Sequence[Any]) -> list[Any]:
    """Values that vary along the same axes, as the operands of a primitive have to."""
    every = frozenset[str]().union(*(varying(jax.typeof(x)) for x in values))
    return [_varied(x, every) for x in values]
