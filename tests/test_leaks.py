"""No traced value outlives its trace: `jax.checking_leaks` in every mode of every transform."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import autodiffkit as adk


def scan(x):
    return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c), None), x, length=2)[0])


def loop(x):
    step = lambda s: (s[0] + 1, jnp.sin(s[1]))  # noqa: E731
    return jnp.sum(lax.while_loop(lambda s: s[0] < 2, step, (0, x))[1])


def cond(x):
    return jnp.sum(lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))


@jax.checkpoint
def checkpoint(x):
    return jnp.sum(jnp.sin(x))


@jax.custom_vjp
def square(x):
    return jnp.sum(x**2)


square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * x * g,))


def both(x):
    """Neither mode alone can differentiate this."""
    return loop(square(x) * x)


TRANSFORMS = [adk.jacobian, adk.grad, adk.hessian, adk.hvp, adk.laplacian]


@pytest.mark.usefixtures("collected_quickly")
def test_what_is_tried_and_refused_leaks_nothing():
    """A loop is refused backward, and a rule forward: they are tried in a trace of their own."""
    with jax.checking_leaks():
        jax.jit(adk.grad(loop))(jnp.ones(2))
        jax.jit(adk.jacobian(both))(jnp.ones(2))


@pytest.mark.extensive
@pytest.mark.parametrize("function", [scan, loop, cond, checkpoint, square, both])
def test_nothing_leaks(function):
    x = jnp.ones(2)
    transforms = TRANSFORMS[:2] if function in (square, both) else TRANSFORMS
    with jax.checking_leaks():
        for transform in transforms:
            transform(function)(x)
            jax.jit(transform(function))(x)
        adk.jacobian(function).plan(x)
        jax.vmap(lambda x: adk.jacobian(function)(x).value)(jnp.ones((2, 2)))


@pytest.mark.extensive
def test_nothing_leaks_from_what_is_done_with_results():
    x = jnp.ones(2)
    with jax.checking_leaks():
        jax.jit(lambda x: adk.linearize(scan)(x).rmv(1.0))(x)
        jax.jit(lambda x: adk.hvp(loop)(x).as_matrix())(x)
        jax.jit(lambda x: adk.hessian(scan)(x).damped(1.0).as_matrix())(x)
        jax.jacfwd(lambda x: adk.jacobian(scan, chunk_size=1)(x).x)(x)
        adk.jacobian(loop).compile(x)(x)
        lax.scan(lambda x, _: (adk.grad(loop)(x).x, None), x, length=2)
