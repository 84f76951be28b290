"""Derivatives along straight lines, of any order: Taylor mode, or pushes inside one another.

Pushes inside one another double the program with each order. XLA finds most of what is computed
twice, so up to the fifth order they run and compile faster (measured on a network of two layers
and on elementwise code: 0.4 to 0.8 of the time at orders 3 to 5; from order 6 on compiling takes 2
to 8 times as long). Taylor mode (`jax.experimental.jet`) carries all derivatives along a line at
once, at a cost that grows with the square of the order (Griewank and Walther, *Evaluating
Derivatives*, 2008, chapter 13). It takes no notice of custom rules and lacks some primitives, so it
serves programs of those primitives alone whose rules are tested.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.experimental.jet import jet
from jaxtyping import Array

from autodiffkit._jax_compat import directions_at, is_staging
from autodiffkit._jaxprs import inlined
from autodiffkit._program import FlatFunction
from autodiffkit._staging import Staged

# Up to this order, pushes inside one another are faster than Taylor mode.
_PUSHED = 5

# What JAX raises where a trace has no value.
NO_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)

# Primitives whose rules for Taylor mode are compared with nested pushes in the tests.
TAYLOR = frozenset({
    "add",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "cos",
    "cosh",
    "div",
    "dot_general",
    "exp",
    "integer_pow",
    "log",
    "log1p",
    "logistic",
    "mul",
    "neg",
    "reduce_sum",
    "reshape",
    "rev",
    "sin",
    "sinh",
    "slice",
    "sqrt",
    "square",
    "squeeze",
    "sub",
    "tanh",
    "transpose",
})


def by_taylor(function: FlatFunction, order: int) -> bool:
    """Whether Taylor mode is worth it, and serves all of a function."""
    if order <= _PUSHED or not isinstance(function, Staged):
        return False
    jaxpr, _ = inlined(function.closed)
    return all(equation.primitive.name in TAYLOR for equation in jaxpr.eqns)


def as_staged(function: FlatFunction, primals: Sequence[Any], order: int) -> FlatFunction:
    """The function as a program, where that is how it runs or what Taylor mode needs.

    Outside a trace, where control flow may depend on values, a function of which a high derivative
    is wanted is traced if it can be.
    """
    if is_staging():
        return Staged(function, primals)
    if order > _PUSHED:
        try:
            return Staged(function, primals)
        except NO_VALUES:
            return function
    return function


def along(
    function: FlatFunction, primals: Sequence[Array], directions: Sequence[Array], order: int
) -> tuple[list[Array], list[Any], list[Array]]:
    """The value of a flat function and its derivative along one line.

    Args:
        function: Returns the outputs and what passes through.
        primals: Where.
        directions: The direction, an array for each primal.
        order: Of the derivative, one or more.

    Returns:
        The outputs, the rest, and the derivatives of the outputs.
    """
    directions = directions_at(primals, directions)
    if isinstance(function, Staged) and by_taylor(function, order):
        return _by_jet(function, primals, directions, order)
    return _by_pushes(function, primals, directions, order)


def _by_jet(
    function: Staged, primals: Sequence[Array], directions: Sequence[Array], order: int
) -> tuple[list[Array], list[Any], list[Array]]:
    series = [[v, *[jnp.zeros_like(v)] * (order - 1)] for v in directions]
    jaxpr, constants = inlined(function.closed)
    evaluate = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))

    def run(*x: Array) -> tuple[Array, ...]:
        return (*evaluate(*constants, *x),)

    results, found = jet(run, (*primals,), (*series,))
    outs, rest = [*results[: function.count]], [*results[function.count :]]
    # What does not depend on the line has no series but a symbol for zero.
    last = [
        terms[-1] if isinstance(terms, (list, tuple)) else jnp.zeros_like(out)
        for terms, out in zip(found, outs, strict=False)
    ]
    return outs, rest, last


def _by_pushes(
    function: FlatFunction, primals: Sequence[Array], directions: Sequence[Array], order: int
) -> tuple[list[Array], list[Any], list[Array]]:
    def pushed(level: int, *x: Array) -> tuple[tuple[list[Array], list[Array]], list[Any]]:
        """The outputs and their derivative of this order; of order zero, the outputs twice."""
        if level == 0:
            outs, rest = function(*x)
            return (outs, outs), rest

        def before(*y: Array) -> tuple[tuple[list[Array], list[Array]], list[Any]]:
            return pushed(level - 1, *y)

        (outs, _), (_, last), rest = jax.jvp(before, x, (*directions,), has_aux=True)
        return (outs, last), rest

    (outs, last), rest = pushed(order, *primals)
    return outs, rest, last
