"""JAX's switches for debugging do with the package's transforms what they do with JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from functions import CASES

TRANSFORMS = {
    "jacobian": adk.jacobian,
    "jacobian, forward": adk.jacobian(mode="fwd"),
    "jacobian, reverse": adk.jacobian(mode="rev"),
    "grad": adk.grad,
    "hessian": adk.hessian,
    "hvp": adk.hvp,
}


def norm(x):
    """Has a value at zero, and a derivative that is NaN."""
    return jnp.sqrt(jnp.sum(x**2))


def logarithm(x):
    """Has no value there."""
    return jnp.sum(jnp.log(x - 1.0))


def quotient(x):
    """Is infinite there, and so is its derivative."""
    return jnp.sum(1.0 / x)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("function", "switch"),
    [(norm, jax.debug_nans), (logarithm, jax.debug_nans), (quotient, jax.debug_infs)],
    ids=["derivative is nan", "value is nan", "infinite"],
)
def test_what_is_not_finite_raises(function, switch, transform, compiled):
    x = jnp.zeros(2)
    derivative = TRANSFORMS[transform](function)
    if compiled:
        derivative = jax.jit(derivative)
    found = derivative(x)  # plans and compiled sweeps that are found again are looked at, too
    assert not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    with switch(True), pytest.raises(FloatingPointError):
        derivative(x)
    jax.block_until_ready(derivative(x))


def test_a_nan_raises_where_it_is_made():
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="encountered in log"):
        adk.jacobian(logarithm)(jnp.zeros(2))


# Loops, rules, empty arrays, cuts and packed sweeps: whatever pads, divides or caches.
QUIET = [
    "empty_input",
    "empty_output",
    "fori_loop",
    "while_loop",
    "custom_vjp",
    "convolution",
    "sorting",
    "mixed_leaves",
    "power_spectrum",
    "repeated_outputs",
]


@pytest.mark.parametrize("name", QUIET)
def test_what_is_finite_raises_nothing(name):
    case = CASES[name]
    args, keywords = case.call(jnp.float32)
    kinds = [adk.jacobian, adk.hessian] if name in {"empty_input", "sorting"} else [adk.jacobian]
    for kind in kinds:
        derivative = kind(case.function, **case.options)
        with jax.debug_nans(True), jax.debug_infs(True):
            found = derivative(*args, **keywords)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(
    "options", [{"chunk_size": 2}, {"layout": "compact"}, {"mode": "rev"}], ids=str
)
def test_chunks_and_layouts_raise_nothing(options):
    def f(x, w):
        return jnp.tanh(x @ w) * jnp.exp(-x[:, :1])

    x, w = jnp.ones((3, 2)), jnp.ones((2, 2))
    with jax.debug_nans(True), jax.debug_infs(True):
        found = adk.jacobian(f, wrt="x", **options)(x, w)
    with jax.disable_jit():
        expected = jax.jacrev(f)(x, w)
    dense = found.x if "layout" not in options else adk.jacobian(f, wrt="x")(x, w).x
    np.testing.assert_allclose(dense, expected, rtol=1e-5)


def test_a_mask_that_jax_pulls_as_nan_does_not_raise_where_it_is_pushed():
    def f(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)

    x = jnp.array([0.0, 1.0])
    with jax.debug_nans(True):
        np.testing.assert_array_equal(adk.jacobian(f, mode="fwd")(x).x, np.diag([0.0, 0.5]))
        with pytest.raises(FloatingPointError):
            jax.jacrev(f)(x)


@pytest.mark.parametrize(
    "name",
    ["matrix_vector", "fori_loop", "custom_jvp", "custom_vjp", "nested_jit"],
)
def test_without_jit_results_are_the_same(name):
    case = CASES[name]
    args, keywords = case.call(jnp.float32)
    derivative = adk.jacobian(case.function, **case.options)
    expected = jax.jit(derivative)(*args, **keywords)
    with jax.disable_jit():
        for run in (derivative, jax.jit(derivative)):
            found = run(*args, **keywords)
            assert jax.tree.structure(found) == jax.tree.structure(expected)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_without_jit_gradients_hessians_and_products_are_the_same():
    def f(x):
        return jnp.sum(jnp.tanh(jax.jit(jnp.sin)(x)) ** 2)

    x = jnp.array([0.3, -0.5])
    with jax.disable_jit():
        np.testing.assert_allclose(adk.grad(f)(x).x, jax.grad(f)(x), rtol=1e-5)
        np.testing.assert_allclose(adk.hessian(f)(x).x.x, jax.hessian(f)(x), rtol=1e-5, atol=1e-6)
        H = adk.hvp(f)(x)
    np.testing.assert_allclose(H.mv(x=x).x, jax.hessian(f)(x) @ x, rtol=1e-5, atol=1e-6)


def test_without_jit_the_function_can_be_looked_into():
    seen = []

    @jax.jit
    def inner(x):
        seen.append(float(x[0] * 0 + 1) if not isinstance(x, jax.core.Tracer) else None)
        return jnp.sin(x)

    with jax.disable_jit():
        adk.jacobian(lambda x: inner(x))(jnp.ones(2))
    assert len(seen) == 1
