"""Taylor mode against pushes inside one another, for each primitive that it is trusted with."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from autodiffkit._jaxprs import inlined
from autodiffkit._staging import Staged
from autodiffkit._taylor import TAYLOR, _by_jet, _by_pushes, by_taylor

ORDER = 6

# In float32 and in float64 these and their squares are the same numbers.
X, V = np.array([0.5, 0.75, 1.25]), np.array([1.0, -0.5, 0.25])

MATRIX = np.cos(np.arange(9.0)).reshape(3, 3)


def rows(x):
    return x[:, None] * MATRIX


# The curve x has a first derivative alone, and the others are wanted, too.
FUNCTIONS: dict[str, list[Callable[[Any], Any]]] = {
    "add": [lambda x: jnp.exp(x) + jnp.sin(x), lambda x: 2.0 + jnp.exp(x), lambda x: x + x],
    "broadcast_in_dim": [lambda x: jnp.broadcast_to(jnp.exp(x), (2, 3)) * jnp.sin(x)[None]],
    "concatenate": [lambda x: jnp.concatenate([jnp.exp(x), X, x, jnp.sin(x)])],
    "convert_element_type": [
        lambda x: jnp.sin((x**2).astype(jnp.float32).astype(jnp.float64)) * jnp.exp(x),
    ],
    "copy": [lambda x: jnp.sin(jnp.copy(jnp.exp(x)))],
    "cos": [jnp.cos, lambda x: jnp.cos(jnp.exp(x))],
    "cosh": [jnp.cosh, lambda x: jnp.cosh(jnp.sin(x))],
    "div": [lambda x: jnp.sin(x) / jnp.exp(x), lambda x: 1.0 / x, lambda x: jnp.exp(x) / 3.0],
    "dot_general": [
        lambda x: jnp.exp(x) @ jnp.sin(x),
        lambda x: MATRIX @ jnp.exp(x),
        lambda x: jnp.einsum("ij,ik->ijk", rows(jnp.exp(x)), rows(jnp.sin(x))),
    ],
    "exp": [jnp.exp, lambda x: jnp.exp(jnp.sin(x))],
    "integer_pow": [
        *(lambda x, n=n: (x - 0.5) ** n for n in (2, 3, 9)),
        *(lambda x, n=n: jnp.exp(x) ** n for n in (3, -2)),
        lambda x: jnp.sin(x) ** 3,
    ],
    "log": [jnp.log, lambda x: jnp.log(jnp.exp(x) + x)],
    "log1p": [jnp.log1p, lambda x: jnp.log1p(jnp.exp(x))],
    "logistic": [jax.nn.sigmoid, lambda x: jax.nn.sigmoid(jnp.exp(x))],
    "mul": [lambda x: jnp.exp(x) * jnp.sin(x), lambda x: X * jnp.exp(x), lambda x: x * x],
    "neg": [lambda x: -jnp.exp(x)],
    "reduce_sum": [
        lambda x: jnp.sum(jnp.exp(x)),
        lambda x: jnp.sum(rows(jnp.exp(x)), axis=1),
        lambda x: jnp.sum(rows(jnp.sin(x)), axis=(0, 1)) * x,
    ],
    "reshape": [lambda x: jnp.reshape(rows(jnp.exp(x)), (1, 9))],
    "rev": [lambda x: jnp.exp(x)[::-1] * x],
    "sin": [jnp.sin, lambda x: jnp.sin(jnp.exp(x))],
    "sinh": [jnp.sinh, lambda x: jnp.sinh(jnp.sin(x))],
    "slice": [
        lambda x: lax.slice(jnp.exp(x), (1,), (3,)) * lax.slice(jnp.sin(x), (0,), (2,)),
        lambda x: lax.slice(rows(jnp.sin(x)), (1, 0), (3, 3), (1, 2)),
    ],
    "sqrt": [jnp.sqrt, lambda x: jnp.sqrt(jnp.exp(x) + 1)],
    "square": [jnp.square, lambda x: jnp.square(jnp.exp(x)), lambda x: jnp.square(x - 0.5)],
    "squeeze": [lambda x: jnp.squeeze(rows(jnp.exp(x))[1:2], 0)],
    "sub": [lambda x: jnp.exp(x) - jnp.sin(x), lambda x: 1.0 - jnp.exp(x), lambda x: x - x],
    "tanh": [jnp.tanh, lambda x: jnp.tanh(jnp.exp(x)), lambda x: jnp.tanh(MATRIX @ x)],
    "transpose": [lambda x: rows(jnp.exp(x)).T @ jnp.sin(x)],
}  # fmt: skip


def flat(function: Callable[..., Any]) -> Callable[..., tuple[list[Any], list[Any]]]:
    return lambda *x: (jax.tree.leaves(function(*x)), [])


def primitives(staged: Staged) -> set[str]:
    return {equation.primitive.name for equation in inlined(staged.closed)[0].eqns}


def both(function: Any, x: Sequence[Any], v: Sequence[Any], order: int) -> tuple[Any, Any]:
    """The value and the derivative of the outputs, in both ways."""
    staged = Staged(flat(function), x)
    assert by_taylor(staged, max(order, ORDER)), primitives(staged) - TAYLOR

    def run(x, v):
        found = _by_jet(staged, x, v, order), _by_pushes(staged, x, v, order)
        return [(outs, last) for outs, _, last in found]

    return tuple(jax.jit(run)(x, v))


def assert_equal(ours: Any, theirs: Any, tolerance: float = 1e-10) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(TAYLOR))
def test_each_primitive_has_the_derivatives_of_pushes(name):
    assert name in FUNCTIONS, f"in TAYLOR, and no function here has it: {name}"
    functions = FUNCTIONS[name]
    with jax.enable_x64(True):
        x, v = jnp.asarray(X), jnp.asarray(V)
        for function in functions:
            assert name in primitives(Staged(flat(function), [x]))

        def every(x):
            return [function(x) for function in functions]

        # A direction that leaves some entries where they are has zeros in its series.
        for direction in (v, v.at[1].set(0)):
            assert_equal(*both(every, [x], [direction], ORDER))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_other_orders_are_the_same(order):
    def f(x, y):
        z = jnp.tanh(MATRIX @ x) * jnp.exp(-(y**2)) / (1 + jnp.square(x))
        return {"a": jnp.sum(jax.nn.sigmoid(z)) * y, "b": jnp.log1p(z**2)[::-1]}

    with jax.enable_x64(True):
        x, y = jnp.asarray(X), jnp.asarray(0.3)
        assert_equal(*both(f, [x, y], [jnp.asarray(V), jnp.asarray(-0.7)], order), 1e-8)
        assert_equal(*both(f, [x, y], [jnp.asarray(V), jnp.asarray(0.0)], order), 1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_compositions_are_the_same(seed):
    numbers = np.random.default_rng(seed)
    unary = [jnp.sin, jnp.cos, jnp.tanh, jax.nn.sigmoid, jnp.sinh, jnp.square]
    unary += [lambda x: jnp.exp(-(x**2)), lambda x: jnp.log1p(x**2), lambda x: 1 / (2 + x**2)]
    unary += [lambda x: jnp.sqrt(1 + x**2), lambda x: x[::-1], lambda x: 0.5 * MATRIX @ x]
    steps = [(numbers.integers(len(unary)), *numbers.integers(0, 2 + k, 2)) for k in range(4)]

    def f(x, y):
        values = [x, y]
        for number, i, j in steps:
            values.append(unary[number](values[i]) * 0.7 - values[j] * values[i] * 0.2)
        return values[2:]

    with jax.enable_x64(True):
        x, v, y, w = (jnp.asarray(numbers.normal(size=3) * 0.5) for _ in range(4))
        assert_equal(*both(f, [x, y], [v, w], ORDER), 1e-7)


def test_what_does_not_vary_has_no_derivative():
    def f(x, y):
        return jnp.exp(y), jnp.ones(2), x * 0 + 1

    with jax.enable_x64(True):
        x = jnp.asarray(X)
        zero = jnp.zeros_like(x)
        (_, last), expected = both(f, [x, x], [jnp.asarray(V), zero], ORDER)
        assert_equal(last, expected[1])
        for derivative in last:
            np.testing.assert_array_equal(derivative, np.zeros(derivative.shape))


def test_the_dtype_is_that_of_the_output():
    x = jnp.asarray(X, "float32")
    assert_equal(*both(lambda x: jnp.exp(x) * jnp.sin(x), [x], [x], ORDER), 1e-4)


# What is served ------------------------------------------------------------------------


@jax.custom_jvp
def odd(x):
    return jnp.sin(x)


odd.defjvps(lambda t, _, x: t * 10 * x)  # deliberately not the cosine


@jax.custom_vjp
def clipped(x):
    return jnp.sin(x)


clipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g,))

REFUSED: dict[str, Callable[[Any], Any]] = {
    "a custom rule": odd,
    "a rule inside a jit": jax.jit(lambda x: odd(x) * x),
    "a rule for reverse mode": clipped,
    "a scan": lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, length=2)[0],
    "a cond": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    "a primitive that is not listed": jax.lax.erf,
    "a power": lambda x: x**2.5,
    "a maximum": lambda x: jnp.maximum(x, 1),
    "a gather": lambda x: x[jnp.array([0, 2])],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served(name):
    x = jnp.asarray(X, "float32")
    assert not by_taylor(Staged(flat(REFUSED[name]), [x]), ORDER)


def test_what_is_served():
    x = jnp.asarray(X, "float32")
    staged = Staged(flat(jax.jit(lambda x: jnp.sin(jax.jit(jnp.exp)(x)))), [x])
    assert by_taylor(staged, ORDER)
    assert not by_taylor(staged, ORDER - 1)
    assert not by_taylor(flat(jnp.sin), ORDER)


@pytest.mark.parametrize("jit", [False, True])
def test_the_operator_takes_the_way_that_its_plan_names(jit):
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        for function, way in [(jnp.exp, "Taylor mode"), (lax.erf, "pushed 6 times"), (odd, "push")]:
            d = adk.directional_derivative(function, order=ORDER)
            assert way in str(d.plan(x))
            found = (jax.jit(d) if jit else d)(x, direction=jnp.asarray(V)).derivative
            _, _, expected = _by_pushes(flat(function), [x], [jnp.asarray(V)], ORDER)
            assert_equal(found, expected[0])


def test_series_go_through_vmap_and_differentiation():
    def sixth(x, v):
        return adk.directional_derivative(jnp.sin, order=ORDER)(x, direction=v).derivative

    with jax.enable_x64(True):
        x, v = jnp.asarray(X), jnp.asarray(V)
        batch = jnp.stack([x, 2 * x])
        found = jax.jit(jax.vmap(sixth, (0, None)))(batch, v)
        assert_equal(found, -jnp.sin(batch) * v[None] ** 6)
        by_x, by_v = jax.jit(jax.jacrev(sixth, (0, 1)))(x, v)
        assert_equal(by_x, jnp.diag(-jnp.cos(x) * v**6))
        assert_equal(by_v, jnp.diag(-6 * jnp.sin(x) * v**5))
