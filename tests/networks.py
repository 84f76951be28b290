"""Functions of few variables, whose cuts and schedules can all be tried."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from autodiffkit._network import Network
from autodiffkit._program import Linear, as_linear
from functions import array
from programs import compose


def branches(x, y):
    """Several ways of several widths."""
    a = jnp.sum(x) * jnp.ones(2, x.dtype)
    return a * y[:2], y * 2, jnp.sum(a)


def hourglass(x):
    """Through two numbers."""
    waist = jnp.stack([jnp.sum(x), jnp.sum(x**2)])
    return jnp.sin(waist[0] * jnp.ones(4, x.dtype)) + waist[1]


def ties(x):
    """Sets of variables of the same size, one after the other."""
    return jnp.sin(jnp.sin(jnp.sin(x)))


def detour(x, q):
    """A variable of the last cut depends on the other one, over a detour."""
    total = jnp.sum(x)
    return jnp.sum(total * jnp.ones(3, x.dtype)) + q, total * jnp.ones(4, x.dtype)


def shortcut(x, q):
    """A variable of the last cut depends on the other one, at once."""
    total = jnp.sum(x)
    return total + q, total * jnp.ones(4, x.dtype)


def skips(x, y):
    """Around a waist, and an output before it."""
    waist = jnp.sum(x) * jnp.sum(y)
    return waist * y, waist, jnp.sin(y) * x[0]


def waves(x):
    """Through two complex numbers."""
    return jnp.fft.irfft(jnp.fft.rfft(x)[:2] * 2, n=6)


def composed(seed: int) -> tuple[Callable[..., Any], list[Any]]:
    """A program that is composed at random, with its arguments."""
    program = compose(seed, steps=4, exact=True)
    return program.flat, jax.tree.leaves(program.arguments("float32"))


X, Y, Q, WAVES = array(3)("float32"), array(3)("float32") * 2, array()("float32"), array(6)("f4")

SMALL: dict[str, Callable[[], tuple[Callable[..., Any], list[Any]]]] = {
    "branches": lambda: (branches, [X, Y]),
    "hourglass": lambda: (hourglass, [X]),
    "ties": lambda: (ties, [X]),
    "detour": lambda: (detour, [X, Q]),
    "shortcut": lambda: (shortcut, [X, Q]),
    "skips": lambda: (skips, [X, Y]),
    "waves": lambda: (waves, [WAVES]),
    **{f"composed {i}": functools.partial(composed, i) for i in (1, 2, 6, 9, 10, 13, 19, 27, 37)},
}


def linear_of(function: Callable[..., Any], arguments: list[Any]) -> Linear:
    """The tangent map of a function at some point."""
    structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments]
    return as_linear(jax.linearize(function, *arguments)[1], structs)


def network_of(function: Callable[..., Any], arguments: list[Any], **options: Any) -> Network:
    """Its network."""
    return Network(linear_of(function, arguments).program, options.pop("per_complex", 2), **options)
