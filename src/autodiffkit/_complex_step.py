"""Derivatives by complex steps: `f(x + i h v)`, whose imaginary part is `h` times that along `v`.

Nothing is subtracted, so the step can be as small as one likes and the derivative is exact to
rounding (Squire and Trapp, "Using complex variables to estimate derivatives of real functions",
SIAM Review 40, 1998; the idea is in Lyness and Moler, 1967). It takes a program that is analytic
in what moves: no `abs`, no `max`, no comparison, no conjugate. Whether it is can be told from its
primitives. The program is evaluated by them, so that code which insists on real numbers is not
asked, and custom rules play no part in it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._interpret import bind, interpret
from autodiffkit._leaves import is_complex, is_inexact

# Its square is far below the rounding of any dtype, and it underflows in none.
_STEP = 2.0**-40

_UNARY = frozenset({
    "cos",
    "cosh",
    "exp",
    "exp2",
    "expm1",
    "integer_pow",
    "log",
    "log1p",
    "logistic",
    "neg",
    "rsqrt",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
})
_SHAPED = frozenset({
    "broadcast_in_dim",
    "copy",
    "cumsum",
    "reduce_prod",
    "reduce_sum",
    "reshape",
    "rev",
    "slice",
    "squeeze",
    "transpose",
})
# All operands become complex.
_SEVERAL = frozenset({"add", "add_any", "concatenate", "div", "mul", "pad", "stack", "sub"})

# Which operands become complex if one of them is; the others are indices or predicates.
_SOME: dict[str, Callable[[int], range]] = {
    "dynamic_slice": lambda _: range(1),
    "dynamic_update_slice": lambda _: range(2),
    "gather": lambda _: range(1),
    "select_n": lambda count: range(1, count),
    **{name: lambda _: range(1) for name in _UNARY | _SHAPED},
    **dict.fromkeys(_SEVERAL, range),
}


class NotAnalyticError(Exception):
    """What moves enters an operation that is not analytic, or not known to be."""


def complex_step(
    jaxpr: Any, constants: Sequence[Any], values: Sequence[Any], direction: Sequence[Any]
) -> list[Array]:
    """The derivatives of the outputs along a direction.

    Args:
        jaxpr: A program without constants.
        constants: The values of its first inputs.
        values: Those of the others.
        direction: An array for each of these, of the same shape.

    Returns:
        An array for each output.

    Raises:
        NotAnalyticError: If the program does not allow it.
    """
    moved = [
        jax.lax.complex(_widest(x), _widest(_STEP * jnp.asarray(v)))
        for x, v in zip(values, direction, strict=True)
    ]
    results = interpret(jaxpr, [*constants, *moved], _apply)
    return [x.imag / _STEP if is_complex(x.dtype) else jnp.zeros(x.shape, x.dtype) for x in results]


def allows_complex_step(jaxpr: Any, constants: Sequence[Any], values: Sequence[Any]) -> bool:
    """Whether a program is analytic in its last inputs; nothing is evaluated."""
    if any(is_complex(x.dtype) for x in values):
        return False
    zeros = [np.zeros(x.shape, np.float32) for x in values]
    try:
        jax.eval_shape(functools.partial(complex_step, jaxpr), list(constants), list(values), zeros)
    except NotAnalyticError:
        return False
    return True


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    if not any(is_complex(x.dtype) for x in operands):
        return bind(equation, operands)
    name = equation.primitive.name
    if any(is_complex(getattr(x.aval, "dtype", bool)) for x in equation.outvars):
        raise NotAnalyticError(name)
    if name == "convert_element_type":
        if not is_inexact(equation.params["new_dtype"]):
            raise NotAnalyticError(name)
        return operands
    if name not in _SOME:
        raise NotAnalyticError(name)
    chosen = _SOME[name](len(operands)) if name != "dot_general" else range(2)
    if any(is_complex(x.dtype) for i, x in enumerate(operands) if i not in chosen):
        raise NotAnalyticError(name)
    dtype = jnp.result_type(*(x.dtype for x in operands if is_complex(x.dtype)))
    operands = [x.astype(dtype) if i in chosen else x for i, x in enumerate(operands)]
    if name == "dot_general":
        highest = (jax.lax.Precision.HIGHEST,) * 2
        return bind(equation, operands, preferred_element_type=dtype, precision=highest)
    return bind(equation, operands)


_SOME["dot_general"] = lambda _: range(2)


def _widest(x: Any) -> Array:
    """The array in the widest real dtype that is enabled."""
    return jnp.asarray(x).astype(jax.dtypes.canonicalize_dtype(np.float64))
