"""What the sources of random programs may name, beside JAX itself.

`NAMES` are functions as people write them: loops, custom rules, nested transforms. `PLAIN` has
for each of those that JAX differentiates in one direction only, or by a rule of its own, the same
function in plain operations. A source that is run with both gives a function, and a reference that
shares none of its rules.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Structures ----------------------------------------------------------------------------


class Point(eqx.Module):
    place: Any
    charge: Any


class Pair(NamedTuple):
    first: Any
    second: Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["level", "rate"], meta_fields=["kind"]
)
class State:
    """Checks what it is made of, which whoever rebuilds structures has to get around."""

    def __init__(self, level: Any, rate: Any, kind: str = "dense") -> None:
        self.level, self.rate, self.kind = level, rate, kind
        for x in (level, rate):
            if isinstance(x, tuple) and len(x) > 9:
                raise ValueError("a state has no such fields")


def array(dtype: str, shape: tuple[int, ...], seed: int, values: str = "normal") -> jax.Array:
    """Numbers of the order of one: normal, all equal, or rounded such that there are ties."""
    rng = np.random.default_rng([seed, *shape])
    numbers = rng.standard_normal(shape)
    if values == "zeros":
        numbers = np.zeros(shape)
    if values == "ties":
        numbers = np.round(numbers)
    if dtype == "bool":
        return jnp.asarray(numbers > 0)
    if dtype.startswith("int"):
        return jnp.asarray(rng.integers(0, 3, shape), dtype)
    return jnp.asarray(numbers, dtype)


def const(dtype: str, shape: tuple[int, ...], k: int) -> Any:
    """Constants of the order of one; sums over an axis stay so."""
    size = int(np.prod(shape))
    numbers = np.cos(np.arange(1, size + 1) ** 2 + 0.7 * k).reshape(shape)
    return (numbers / max(1.0, shape[-1] if shape else 1.0) ** 0.5).astype(jnp.dtype(dtype))


# Functions of one array ------------------------------------------------------------------


def bend(x):
    return jnp.sin(x) * jnp.mean(jnp.cos(x)) if x.size else x


def mix(x):
    """Mixes the entries of what is at least a vector, and keeps its shape."""
    return jnp.tanh(x + 0.5 * jnp.flip(x, 0) * jnp.roll(x, 1, 0))


@jax.custom_jvp
def soft(x):
    return jnp.tanh(x) * x


@soft.defjvp
def _soft_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return soft(x), ((1 - jnp.tanh(x) ** 2) * x + jnp.tanh(x)) * dx


def scanned(x):
    def step(carry, _):
        return jnp.tanh(carry) + 0.3 * jnp.roll(carry, 1), None

    return lax.scan(step, x, None, length=3)[0]


def accumulated(x):
    """A carry, a reversed scan over the first axis, and stacked results."""

    def step(carry, row):
        carry = jnp.sin(carry + row)
        return carry, 0.5 * carry * row

    carry, rows = lax.scan(step, jnp.zeros_like(x[0]), x, reverse=True)
    return rows + carry[None] if rows.ndim > 1 else rows + carry


def nested_scan(x):
    def outer(carry, _):
        return lax.scan(lambda c, k: (jnp.sin(c) + k * x, None), carry, x[:2])[0], jnp.sum(carry)

    if x.ndim != 1:
        return scanned(x)
    carry, sums = lax.scan(outer, x, None, length=2)
    return carry * jnp.mean(sums)


def branch(x):
    return lax.cond(jnp.sum(x) < 100, lambda x: x * jnp.cos(x), jnp.sin, x)


def switch(x):
    index = (jnp.sum(x) > 0.31).astype(jnp.int32)
    return lax.switch(index, [jnp.sin, lambda x: x * 0.5 * jnp.mean(x)], x)


def counted(x):
    return lax.fori_loop(0, 3, lambda i, x: jnp.sin(x) + 0.1 * i.astype(x.dtype) * x, x)


def grown(x):
    """A derivative within a function that is differentiated."""
    return jax.grad(lambda x: jnp.sum(jnp.sin(x) ** 2))(x)


def along(x):
    return jax.jvp(mix if x.ndim else jnp.sin, (x,), (jnp.cos(x),))[1]


def associative(x):
    return lax.associative_scan(lambda a, b: a * jnp.cos(b), x)


def mapped(x):
    return lax.map(bend, x)


def windows(x):
    return lax.reduce_window(x, np.array(0, x.dtype), lax.add, (2,) * x.ndim, (1,) * x.ndim, "SAME")


def solved(a, b):
    """A linear system that is well conditioned, whatever the matrix."""
    n = a.shape[0]
    return jnp.linalg.solve(3 * jnp.eye(n, dtype=a.dtype) + jnp.tanh(a), b)


def factor(a):
    b = jnp.tanh(a)
    return jnp.linalg.cholesky(3 * jnp.eye(a.shape[0], dtype=a.dtype) + b @ b.T)


def volume(a):
    return jnp.linalg.slogdet(3 * jnp.eye(a.shape[0], dtype=a.dtype) + jnp.tanh(a))[1]


def waves(x):
    """A product of complex and real operands."""
    kind = "complex128" if x.dtype == "float64" else "complex64"
    phases = np.exp(0.7j * np.arange(3 * x.shape[0]).reshape(3, -1)).astype(kind)
    return 0.4 * lax.dot_general(phases, x, (([1], [0]), ([], [])))


def filtered(x):
    return jnp.fft.irfft(jnp.tanh(0.3 * jnp.fft.rfft(x)), n=x.shape[-1])


# What JAX differentiates in one direction, and the same in plain operations -----------------


def loop(x):
    def body(state):
        return state[0] + 1, jnp.sin(state[1]) + 0.3 * state[1]

    return lax.while_loop(lambda state: state[0] < 3, body, (0, x))[1]


def _loop(x):
    for _ in range(3):
        x = jnp.sin(x) + 0.3 * x
    return x


def linear_loop(x):
    """Turns that depend on the values as well."""

    def body(state):
        return state[0] + 1, 0.5 * state[1] + 0.2 * jnp.mean(state[1])

    def go_on(state):
        return (state[0] < 2) & (jnp.sum(state[1]) < 1000)

    return lax.while_loop(go_on, body, (0, x))[1]


def _linear_loop(x):
    for _ in range(2):
        x = 0.5 * x + 0.2 * jnp.mean(x)
    return x


@jax.custom_vjp
def rule(x):
    return x + 0.3 * jnp.sin(x)


rule.defvjp(lambda x: (rule(x), x), lambda x, g: ((1 + 0.3 * jnp.cos(x)) * g,))


def _rule(x):
    return x + 0.3 * jnp.sin(x)


@jax.custom_vjp
def rule_of_two(x, y):
    return jnp.sin(x) * y, jnp.sum(y)


rule_of_two.defvjp(
    lambda x, y: (rule_of_two(x, y), (x, y)),
    lambda xy, g: (jnp.cos(xy[0]) * xy[1] * g[0], jnp.sin(xy[0]) * g[0] + g[1]),
)


def _rule_of_two(x, y):
    return jnp.sin(x) * y, jnp.sum(y)


def _again(function):
    """The same, within a `jit`, a `scan` and a `checkpoint`."""
    return {
        "": function,
        "_jit": jax.jit(function),
        "_scan": lambda x: lax.scan(lambda c, _: (0.9 * function(c), None), x, length=2)[0],
        "_checkpoint": jax.checkpoint(function),
        "_cond": lambda x: lax.cond(jnp.sum(x) < 1000, function, lambda x: x, x),
    }


_FUNCTIONS = [bend, mix, soft, scanned, accumulated, nested_scan, branch, switch, counted, grown]
_FUNCTIONS += [along, associative, mapped, windows, solved, factor, volume, waves, filtered]
_ONE_WAY = [(loop, _loop), (linear_loop, _linear_loop), (rule, _rule)]

NAMES: dict[str, Any] = {
    "jax": jax,
    "jnp": jnp,
    "lax": lax,
    "np": np,
    **{thing.__name__: thing for thing in (Point, Pair, State, array, const, *_FUNCTIONS)},
    "rule_of_two": rule_of_two,
}
PLAIN: dict[str, Any] = {**NAMES, "soft": lambda x: jnp.tanh(x) * x, "rule_of_two": _rule_of_two}
for _function, _twin in _ONE_WAY:
    for _suffix, _wrapped in _again(_function).items():
        NAMES[_twin.__name__[1:] + _suffix] = _wrapped
    for _suffix, _wrapped in _again(_twin).items():
        PLAIN[_twin.__name__[1:] + _suffix] = _wrapped
