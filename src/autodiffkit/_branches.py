"""What a program decides on the way, and the program with these decisions held.

Between the places where they change, a function is the one with its decisions held: which of two
numbers is larger, which branch is taken, what a number is rounded to. That function is smooth, so
its differences are good even where a step of any length crosses some kink, as in a network of
many rectifiers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._interpret import bind, interpret
from autodiffkit._leaves import is_complex, is_inexact
from autodiffkit._products import Flat

# Constant between the places where they jump, so that their derivative is zero.
ROUNDING = frozenset({"argmax", "argmin", "ceil", "floor", "round", "sign"})
COMPARISONS = frozenset({"eq", "ge", "gt", "is_finite", "le", "lt", "ne"})
STOP = "stop_gradient"

Program = tuple[Any, list[Any]]


class _Decision(NamedTuple):
    """How an equation decides, and what it gives with that held."""

    decide: Callable[[Any, list[Any], list[Any]], list[Any]]  # equation, operands, results
    apply: Callable[[Any, list[Any], list[Any]], list[Any]]  # equation, operands, decision


def decides(jaxpr: Any) -> bool:
    """Whether a program decides anything, outside of loops and branches."""
    found = False

    def apply(equation: Any, operands: list[Any]) -> list[Any]:
        nonlocal found
        found = found or _decision(equation, stops=False) is not None
        return bind(equation, operands)

    values = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in jaxpr.invars]
    jax.eval_shape(lambda values: interpret(jaxpr, values, apply), values)
    return found


def decisions(program: Program, point: Sequence[Any]) -> list[tuple[Any, list[Array]]]:
    """The equations that decide, and what each decides at a point."""
    return _recorded(program, point, stops=False)


def held(program: Program, point: Sequence[Any], *, stops: bool) -> Flat:
    """The function with its decisions as at a point.

    Args:
        program: A program without constants, and the values of its first inputs.
        point: Those of the others.
        stops: Whether what stops gradients is held as well.

    Returns:
        The function. Custom rules play no part in it.
    """
    jaxpr, constants = program
    kept = [decision for _, decision in _recorded(program, point, stops=stops)]

    def function(*point: Any) -> list[Any]:
        left: Iterator[list[Any]] = iter(kept)

        def apply(equation: Any, operands: list[Any]) -> list[Any]:
            decision = _decision(equation, stops=stops)
            if decision is None:
                return bind(equation, operands)
            return decision.apply(equation, operands, next(left))

        return interpret(jaxpr, [*constants, *point], apply)

    return function


def _recorded(
    program: Program, point: Sequence[Any], *, stops: bool
) -> list[tuple[Any, list[Array]]]:
    jaxpr, constants = program
    equations: list[Any] = []

    def record(constants: list[Any], point: list[Any]) -> list[list[Any]]:
        found: list[list[Any]] = []

        def apply(equation: Any, operands: list[Any]) -> list[Any]:
            results = bind(equation, operands)
            decision = _decision(equation, stops=stops)
            if decision is not None:
                equations.append(equation)
                found.append(decision.decide(equation, operands, results))
            return results

        interpret(jaxpr, [*constants, *point], apply)
        return found

    found = jax.jit(record)(constants, list(point))
    return list(zip(equations, found, strict=True))


def _decision(equation: Any, *, stops: bool) -> _Decision | None:
    name = equation.primitive.name
    if name == STOP:
        return _AS_IT_IS if stops else None
    dtypes = [getattr(x.aval, "dtype", bool) for x in equation.invars]
    if not any(map(is_inexact, dtypes)) or any(map(is_complex, dtypes)):
        return None
    if name in _DECISIONS:
        return _DECISIONS[name]
    results = (getattr(x.aval, "dtype", bool) for x in equation.outvars)
    return _AS_IT_IS if name in ROUNDING or not any(map(is_inexact, results)) else None


# What comes out is what is held: of comparisons, conversions, and all that rounds.
_AS_IT_IS = _Decision(lambda _, __, results: results, lambda _, __, decision: decision)


def _best(equation: Any, operands: list[Any], results: list[Any]) -> list[Any]:
    best = jnp.expand_dims(results[0], equation.params["axes"])
    return [operands[0] == best]


def _mean_of_best(equation: Any, operands: list[Any], decision: list[Any]) -> list[Any]:
    # At a tie the derivative is shared out, as JAX does.
    axes, where, dtype = equation.params["axes"], decision[0], operands[0].dtype
    total = jnp.sum(jnp.where(where, operands[0], jnp.zeros((), dtype)), axis=axes)
    return [(total / jnp.sum(where, axis=axes).astype(dtype)).astype(dtype)]


def _order(equation: Any, operands: list[Any], _: list[Any]) -> list[Any]:
    axis, keys = equation.params["dimension"], equation.params["num_keys"]
    numbers = jax.lax.broadcasted_iota(jnp.int32, operands[0].shape, axis)
    every = (*operands, numbers)
    return [jax.lax.sort(every, dimension=axis, is_stable=True, num_keys=keys)[-1]]


def _ordered(equation: Any, operands: list[Any], decision: list[Any]) -> list[Any]:
    axis = equation.params["dimension"]
    return [jnp.take_along_axis(x, decision[0], axis=axis) for x in operands]


_DECISIONS = {
    "abs": _Decision(
        lambda _, x, __: [x[0] >= 0], lambda _, x, above: [jnp.where(above[0], x[0], -x[0])]
    ),
    "clamp": _Decision(
        lambda _, x, __: [x[1] < x[0], x[1] > x[2]],
        lambda _, x, out: [jnp.where(out[0], x[0], jnp.where(out[1], x[2], x[1]))],
    ),
    "max": _Decision(
        lambda _, x, __: [x[0] >= x[1]], lambda _, x, first: [jnp.where(first[0], x[0], x[1])]
    ),
    "min": _Decision(
        lambda _, x, __: [x[0] <= x[1]], lambda _, x, first: [jnp.where(first[0], x[0], x[1])]
    ),
    "reduce_max": _Decision(_best, _mean_of_best),
    "reduce_min": _Decision(_best, _mean_of_best),
    "sort": _Decision(_order, _ordered),
}
