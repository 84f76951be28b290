"""The eleven examples that the project started from, as the tutorial shows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk


def f(x):
    return x**2 + x + 4


def g(x, y):
    return x**2 + y**2


def h(x):
    return jnp.stack([x**2, 4 * x])


def k(x, y):
    return jnp.stack([x**3 + 2 * x**2 + 2 * y**3 + y**2, 4 * x + 3 * y**2])


def test_1_first_second_and_third_derivative():
    def slope(x):
        return adk.grad(f)(x).x

    def curvature(x):
        return adk.grad(slope)(x).x

    assert slope(1.0) == 3
    assert curvature(1.0) == 2
    assert adk.grad(curvature)(1.0).x == 0
    assert adk.jacobian(adk.jacobian(adk.jacobian(f)))(1.0).x.x.x == 0
    assert adk.hessian(f)(1.0).x.x == 2


def test_2_a_function_with_its_derivatives_on_a_grid():
    grid = jnp.linspace(-1, 2, 100)
    H = jax.vmap(adk.hessian(f))(grid)
    np.testing.assert_allclose(H.value, grid**2 + grid + 4, rtol=1e-6)
    np.testing.assert_allclose(H.grad.x, 2 * grid + 1, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(H.x.x, np.full(100, 2.0))


def test_3_jacobian_by_both_arguments():
    J = adk.jacobian(g)(1.0, 1.0)
    assert (J.x, J.y) == (2, 2)
    assert J.value == 2


def test_4_full_hessian():
    H = adk.hessian(g)(1.0, 1.0)
    assert (H.x.x, H.x.y, H.y.x, H.y.y) == (2, 0, 0, 2)


def test_5_gradient_by_both_arguments():
    G = adk.grad(g)(1.0, 1.0)
    assert (G.x, G.y) == (2, 2)


def test_6_vector_valued_function_of_one_variable():
    np.testing.assert_array_equal(adk.jacobian(h)(1.0).x, [2, 4])


def test_7_the_gradient_of_a_vector_valued_function_is_refused():
    with pytest.raises(adk.NotDifferentiableError) as caught:
        adk.grad(h)(1.0)
    message = str(caught.value)
    assert message.startswith("grad(h): ")
    assert "adk.jacobian" in message
    assert "float32[2]" in message


def test_8_jacobian_of_a_vector_valued_function_of_two():
    J = adk.jacobian(k)(1.0, 1.0)
    np.testing.assert_array_equal(J.x, [7, 4])
    np.testing.assert_array_equal(J.y, [8, 6])


def test_9_its_hessian():
    H = adk.hessian(k)(1.0, 1.0)
    np.testing.assert_array_equal(H.x.x, [10, 0])
    np.testing.assert_array_equal(H.x.y, [0, 0])
    np.testing.assert_array_equal(H.y.x, [0, 0])
    np.testing.assert_array_equal(H.y.y, [14, 6])


@pytest.mark.parametrize(
    ("rows", "columns", "mode"), [(50, 2, "fwd"), (2, 50, "rev"), (10, 10, "fwd"), (10, 11, "fwd")]
)
def test_10_the_mode_is_chosen_by_the_shape(rows, columns, mode):
    A = jnp.ones((rows, columns))
    assert adk.jacobian(lambda x: jnp.tanh(A @ x)).plan(jnp.ones(columns)).mode == mode


def test_11_under_jit_the_values_are_the_same():
    assert jax.jit(adk.hessian(g))(1.0, 1.0).x.x == 2
    np.testing.assert_array_equal(jax.jit(adk.jacobian(k))(1.0, 1.0).y, [8, 6])
    np.testing.assert_array_equal(jax.jit(adk.hessian(k))(1.0, 1.0).y.y, [14, 6])
