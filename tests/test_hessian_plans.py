"""Hessians: cuts, symmetry, and what of it cannot be relied on."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from functions import array

F32 = jnp.float32
A = array(300, 3)(F32) - 0.8
ROWS = (array(20, 600)(F32) - 0.8) / 10


def bilinear(x, y):
    return x @ A @ y


def partly_linear(x, y):
    return jnp.sum(jnp.sin(A @ x) ** 3) + jnp.cos(jnp.arange(300.0)) @ y


def interacting(x, y):
    return jnp.sum(jnp.sin(x @ A) * y**2)


def logistic(w):
    return jnp.sum(jax.nn.softplus(ROWS @ w))


def assert_hessian(found, f, *args, tolerance=2e-4):
    """The blocks that JAX has."""
    expected = jax.jit(jax.hessian(f, range(len(args))))(*args)
    for ours, theirs in zip(*map(jax.tree.leaves, (found.to_jax(), expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def sweeps_of(transform, caplog, *args):
    """The result of a compiled call, and the sweeps that it took."""
    with caplog.at_level(logging.DEBUG, logger="autodiffkit"):
        found = jax.jit(transform)(*args)
    forward, reverse = (
        caplog.messages[-1].split(" mode, ")[1].split(" reverse sweeps")[0].split(" forward and ")
    )
    return found, int(forward) + int(reverse)


# Symmetry --------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [bilinear, partly_linear])
@pytest.mark.parametrize("flip", [False, True])
def test_what_enters_linearly_costs_no_sweeps(f, flip, caplog):
    large, small = array(300)(F32), array(3)(F32)
    if (f is bilinear) == flip:
        args, big = (small, large), "y"
    else:
        args, big = (large, small), "x"

    def flipped(x, y):
        return f(y, x)

    function = flipped if flip else f
    plan = adk.hessian(function).plan(*args)
    assert plan.forward_sweeps + plan.reverse_sweeps == 3
    assert (big, big) in plan.zeros
    found, count = sweeps_of(adk.hessian(function), caplog, *args)
    assert count == 3
    assert_hessian(found, function, *args)
    assert_hessian(adk.hessian(function)(*args), function, *args)


def test_of_several_outputs_each_is_symmetric(caplog):
    def f(x, y):
        return {"a": bilinear(x, y), "b": jnp.sum(y**3), "c": jnp.stack([1.0, 2.0]) * x[0] * y[1]}

    args = array(300)(F32), array(3)(F32)
    plan = adk.hessian(f).plan(*args)
    assert plan.forward_sweeps + plan.reverse_sweeps < 300
    found, count = sweeps_of(adk.hessian(f), caplog, *args)
    assert count < 300
    assert_hessian(found, f, *args)
    assert found.as_matrix().shape == (4, 303, 303)


def test_symmetry_between_arguments_of_several_axes():
    def f(x, p):
        return jnp.einsum("ijk,jl,lk->", x, p["w"], p["v"]) + jnp.sum(jnp.sin(p["v"]))

    args = array(7, 6, 8)(F32), {"w": array(6, 2)(F32), "v": array(2, 8)(F32)}
    plan = adk.hessian(f).plan(*args)
    # w is pushed to all but itself, x to v alone, each with 6 directions; v to v is elementwise.
    assert plan.forward_sweeps + plan.reverse_sweeps == 6 + 6 + 1
    assert "x by p.v, p.w by x, p.w by p.v: by symmetry, not swept" in str(plan)
    for call in (adk.hessian(f), jax.jit(adk.hessian(f))):
        assert_hessian(call(*args), f, *args)


def test_a_dense_hessian_is_swept_in_full():
    args = array(300)(F32), array(3)(F32)
    plan = adk.hessian(interacting).plan(*args)
    assert "by symmetry" not in str(plan)
    assert_hessian(jax.jit(adk.hessian(interacting))(*args), interacting, *args)


@jax.custom_jvp
def lopsided(x, y):
    """A product whose rule forgets that it depends on y: its derivatives do not commute."""
    return jnp.sum(x @ A * y)


lopsided.defjvp(
    lambda primals, tangents: (lopsided(*primals), jnp.sum(tangents[0] @ A * primals[1]))
)


half_a_product = jax.custom_jvp(lax.mul)
half_a_product.defjvp(
    lambda primals, tangents: (half_a_product(*primals), tangents[0] * primals[1])
)


def lopsided_by_jax(x, y):
    return jnp.sum(half_a_product(x @ A, y)) + bilinear(x, y)


def lopsided_in_jit(x, y):
    return jax.jit(lopsided)(x, y) + bilinear(x, y)


def lopsided_in_scan(x, y):
    return lax.scan(lambda c, _: (c + lopsided(x, y), None), 0.0, length=2)[0]


@pytest.mark.parametrize("f", [lopsided, lopsided_by_jax, lopsided_in_jit, lopsided_in_scan])
@pytest.mark.parametrize("jit", [False, True])
def test_a_rule_that_breaks_the_symmetry_is_followed_as_jax_does(f, jit):
    def wrapped(x, y):
        return f(x, y)

    args = array(300)(F32), array(3)(F32)
    transform = adk.hessian(wrapped)
    found = (jax.jit(transform) if jit else transform)(*args)
    assert_hessian(found, wrapped, *args)
    assert not np.allclose(found.x.y, found.y.x.T)
    assert "by symmetry" not in str(transform.plan(*args))


def test_rules_of_jax_keep_the_symmetry():
    def f(x, y):
        return x @ A @ jax.nn.relu(y) + jnp.sum(jax.nn.softplus(y))

    args = array(300)(F32), array(3)(F32)
    plan = adk.hessian(f).plan(*args)
    assert plan.forward_sweeps + plan.reverse_sweeps == 3
    assert_hessian(jax.jit(adk.hessian(f))(*args), f, *args)


# Cuts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True])
def test_a_hessian_of_few_rows_is_cut_at_them(jit):
    w = array(600)(F32)
    transform = adk.hessian(logistic)
    plan = transform.plan(w)
    assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("mixed", 20, 20)
    assert plan.cut_size == 20
    found = (jax.jit(transform) if jit else transform)(w)
    assert_hessian(found, logistic, w)
    np.testing.assert_allclose(found.grad.w, jax.grad(logistic)(w), rtol=1e-5)
    np.testing.assert_allclose(found.value, logistic(w), rtol=1e-6)


def test_the_matrix_of_a_hessian_vector_product_is_cut_too():
    w = array(600)(F32)
    expected = jax.hessian(logistic)(w)
    for f in (
        lambda w: adk.hvp(logistic)(w).as_matrix(),
        jax.jit(lambda w: adk.hvp(logistic)(w).as_matrix()),
    ):
        np.testing.assert_allclose(f(w), expected, rtol=2e-4, atol=2e-5)


def test_nested_in_what_else_there_is():
    w = array(600)(F32)

    def ours(s):
        return adk.hessian(logistic)(s * w).w.w

    def theirs(s):
        return jax.hessian(logistic)(s * w)

    one, two = jnp.float32(0.8), jnp.array([0.3, -0.8])
    for found, expected, point in [
        (jax.vmap(ours), jax.vmap(theirs), two),
        (jax.jacfwd(ours), jax.jacfwd(theirs), one),
        (jax.jacrev(lambda s: ours(s)[:1, :3]), jax.jacfwd(lambda s: theirs(s)[:1, :3]), one),
        (lambda two: lax.map(ours, two), jax.vmap(theirs), two),
    ]:
        np.testing.assert_allclose(
            jax.jit(found)(point), jax.jit(expected)(point), rtol=1e-3, atol=1e-4
        )


# What cannot be swept in one direction -------------------------------------------------------


def looped(x):
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1]) * 2), (0, x))[1]


def unrolled(x):
    for _ in range(3):
        x = jnp.sin(x) * 2
    return x


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("f", "twin", "modes"),
    [
        (looped, unrolled, ("fwd", "fwd")),
        (lambda x: looped(x**3), lambda x: unrolled(x**3), ("fwd", "fwd")),
        (cube, lambda x: x**3, ("fwd", "rev")),
        (lambda x: looped(cube(x)), lambda x: unrolled(x**3), ("fwd", "mixed")),
        (lambda x: cube(looped(x)), lambda x: unrolled(x) ** 3, ("fwd", "mixed")),
    ],
    ids=["loop", "loop of a cube", "rule", "loop of a rule", "rule of a loop"],
)
def test_what_is_impossible_is_gone_around_twice(f, twin, modes, jit):
    matrix = array(4, 4)(F32) - 0.6

    def energy(x):
        return jnp.sum(matrix @ f(matrix @ x))

    def expected(x):
        return jnp.sum(matrix @ twin(matrix @ x))

    x = array(4)(F32)
    transform = adk.hessian(energy)
    plan = transform.plan(x)
    assert (plan.mode, plan.gradient.mode) == modes
    assert_hessian((jax.jit(transform) if jit else transform)(x), expected, x, tolerance=1e-3)
