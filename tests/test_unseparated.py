"""Operations that JAX pushes a direction through, but can neither linearise nor batch with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas

import autodiffkit as adk
from functions import own_batches
from places import place
from reference import assert_close

X = np.array([0.3, 0.5, 0.7], "float32")


def body(x, out):
    out[...] = jnp.sin(x[...])


def kernel(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pallas.pallas_call(body, out_shape=shape, interpret=True)(x)


def products(x):
    return lax.reduce_window(x, np.ones((), x.dtype), lambda a, b: a * b, (2,), (1,), "VALID")


def among_others(x):
    return jnp.cumsum(kernel(2 * x) * x)


def in_scan(x):
    return lax.scan(lambda c, _: (kernel(c), 2 * c), x, length=2)


def in_cond(x):
    return lax.cond(x[0] > 0, kernel, jnp.cos, x)


def in_checkpoint(x):
    return jax.checkpoint(lambda x: kernel(kernel(x)))(x)


def with_integers(x):
    return kernel(x), jnp.argmax(kernel(x)), x.sum()


FUNCTIONS = [
    kernel, own_batches, products, among_others, in_scan, in_cond, in_checkpoint, with_integers,
]  # fmt: skip


def pushed(f, x):
    """A column for each entry, from the only transform of JAX that takes such functions."""

    def push(t):
        tangents = jax.jvp(f, (x,), (t,))[1]
        return jnp.concatenate([t.ravel() for t in jax.tree.leaves(tangents) if t.dtype == x.dtype])

    return np.stack([push(t) for t in np.eye(x.size, dtype=x.dtype)], 1)


CALLS = [(f, True) for f in FUNCTIONS] + [(kernel, False), (with_integers, False)]


@pytest.mark.parametrize(("f", "jit"), CALLS)
def test_jacobians_are_those_of_single_directions(f, jit):
    transform = adk.jacobian(f)
    J = (jax.jit(transform) if jit else transform)(X)
    assert_close(J.as_matrix(), pushed(f, X))
    for ours, theirs in zip(jax.tree.leaves(J.value), jax.tree.leaves(f(X)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_jax_itself_has_no_jacobian_of_them():
    for f in (kernel, own_batches, products):
        with pytest.raises(ValueError, match="out_axes"):
            jax.eval_shape(jax.jacfwd(f), X)
        with pytest.raises(ValueError, match="Linearization failed"):
            jax.eval_shape(jax.jacrev(f), X)


def test_reverse_mode_is_refused_with_the_line():
    with pytest.raises(adk.ModeError, match="Use mode='auto' or mode='fwd'") as caught:
        adk.jacobian(among_others, mode="rev")(X)
    assert f"cannot pull through pallas_call at {place(kernel, 'pallas.')[:-9]}" in str(
        caught.value
    )


def test_a_cut_before_it_is_found():
    wide = np.linspace(-1, 1, 40, dtype="float32")
    narrow, back = wide.reshape(1, 40) / 6, np.outer(wide, X)

    def f(x):
        return back @ kernel(jnp.stack([jnp.tanh(narrow @ x)[0]] * 3))

    plan = adk.jacobian(f).plan(wide)
    assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("mixed", 1, 1), str(plan)
    assert_close(
        jax.jit(adk.jacobian(f))(wide).x,
        jax.jit(jax.vmap(lambda t: jax.jvp(f, (wide,), (t,))[1], out_axes=1))(
            np.eye(40, dtype="float32")
        ),
    )


@pytest.mark.parametrize("f", [kernel, own_batches])
def test_second_derivatives(f):
    H = jax.jit(adk.hessian(lambda x: jnp.sum(f(x) ** 2)))(X)
    assert_close(H.x.x, np.diag(2 * np.cos(2 * X)))


def test_maps_have_them_as_well():
    linear = adk.linearize(among_others)(X)
    assert_close(linear.mv(X), pushed(among_others, X) @ X)
    assert_close(adk.grad(lambda x: jnp.sum(kernel(x)))(X).x, np.cos(X))


def test_a_function_that_looks_at_values_is_linearised_as_it_runs():
    def decided(x):
        return kernel(x) if x[0] > 0 else x

    assert_close(adk.jacobian(decided)(X).x, np.diag(np.cos(X)))
    assert_close(adk.jacobian(decided)(-X).x, np.eye(3))
