"""Arguments that are donated, and results of which parts are gone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk

X = np.array([0.5, -1.0, 2.0], np.float32)


def f(x):
    return jnp.sin(x) * x


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize])
def test_a_compiled_transform_may_take_its_arguments_over(transform):
    x = jnp.asarray(X)
    result = jax.jit(lambda x: (transform(f)(x), x + 1), donate_argnums=0)(x)[0]
    assert x.is_deleted()
    np.testing.assert_allclose(result.as_matrix(), np.diag(np.cos(X) * X + np.sin(X)), rtol=1e-5)
    np.testing.assert_allclose(result.mv(X), result.as_matrix() @ X, rtol=1e-5)


def test_results_are_donated():
    J = adk.jacobian(f)(X)
    doubled = jax.jit(lambda J: jax.tree.map(lambda x: 2 * x, J), donate_argnums=0)(J)
    np.testing.assert_allclose(doubled.x, 2 * adk.jacobian(f)(X).x, rtol=1e-6)
    for method in (J.as_matrix, lambda: J.mv(X), J.as_lineax):
        with pytest.raises(adk.StructureError, match=r"jacobian\(f\): an array of this result has"):
            method()
    assert "float32[3, 3]" in repr(J)


def test_a_linear_map_says_that_its_arguments_are_gone():
    x = jnp.asarray(X)
    L = adk.linearize(f)(x)
    L.mv(X)
    x.delete()
    for method in (lambda: L.mv(X), lambda: L.rmv(X), L.as_matrix, lambda: L.T.as_matrix()):
        with pytest.raises(adk.StructureError, match="Do not donate them"):
            method()


def test_a_value_is_no_view_of_the_arguments():
    x = jnp.asarray(X)
    J = adk.jacobian(lambda x: x)(x)
    x.delete()
    np.testing.assert_array_equal(J.value, X)
    np.testing.assert_array_equal(J.x, np.eye(3))
