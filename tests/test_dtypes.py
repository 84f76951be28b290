"""Block dtypes, weak types, complex conventions, and numbers that are not finite."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from reference import assert_close

FLOATS = ["float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize(("source", "target"), list(itertools.product(FLOATS, FLOATS)))
def test_a_block_has_the_promotion_of_output_and_input(source, target):
    with jax.enable_x64(True):
        with jax.numpy_dtype_promotion("standard"):
            expected = jnp.promote_types(source, target)
        x = jnp.asarray([1.0, 2.0], source)

        def f(x):
            return (2 * x).astype(target)

        for mode in ("auto", "fwd", "rev"):
            assert adk.jacobian(f, mode=mode)(x).x.dtype == expected
            J = adk.jacobian(f, mode=mode)(x)
            np.testing.assert_array_equal(np.asarray(J.x, np.float64), 2 * np.eye(2))
            assert J.mv(x=x).dtype == target
            assert J.rmv(f(x)).x.dtype == source
        H = adk.hessian(lambda x: jnp.sum(f(x) ** 2))(x)
        assert H.x.x.dtype == H.grad.x.dtype == expected


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_python_floats_do_not_widen(promotion):
    with jax.numpy_dtype_promotion(promotion):
        x = jnp.ones(2, jnp.float16)
        for mode in ("fwd", "rev"):
            J = adk.jacobian(lambda t, x: t * x, mode=mode)(2.0, x)
            assert J.t.dtype == J.x.dtype == J.value.dtype == jnp.float16
        assert adk.jacobian(lambda t: t**2)(3.0).t.dtype == jnp.float32


def test_numpy_arrays_are_arrays_of_jax_dtypes():
    J = adk.jacobian(lambda a: (a * 2, np.ones(2)))(np.ones(2))
    assert J.a[0].dtype == jnp.float32
    assert_close(J.a[1], jnp.zeros((2, 2)))
    assert adk.jacobian(jnp.sin).plan(jax.ShapeDtypeStruct((2,), np.float64)).mode == "fwd"


def test_eight_bit_floats_take_the_other_dtype():
    x = jnp.asarray([1.0, 2.0], jnp.float8_e4m3fn)
    J = adk.jacobian(lambda x: x.astype(jnp.float32) * 2)(x)
    assert J.x.dtype == jnp.float32
    assert_close(J.x, 2 * jnp.eye(2))


def test_mixed_dtypes_make_one_matrix():
    J = adk.jacobian(lambda x, y: (x * 2, y.astype(jnp.float32)))(
        jnp.ones(2), jnp.ones(2, jnp.bfloat16)
    )
    assert J.x[1].dtype == jnp.float32
    assert J.y[0].dtype == jnp.float32
    assert J.as_matrix().dtype == jnp.float32


def test_complex_to_real_is_as_in_jax_in_both_modes():
    def f(z, x):
        return jnp.abs(z) ** 2 * x + jnp.real(z * z)

    z, x = jnp.array([1 + 2j, 0.5 - 1j]), jnp.array([1.0, 3.0])
    for mode in ("fwd", "rev"):
        J = adk.jacobian(f, mode=mode)(z, x)
        expected = jax.jacrev(f, (0, 1))(z, x)
        jax.tree.map(assert_close, J.to_jax(), expected)
        dz = jnp.array([1j, 2 + 1j])
        pushed = jax.jvp(f, (z, x), (dz, jnp.zeros(2)))[1]
        assert_close(J.mv(z=dz), pushed)
        assert_close(J.rmv(jnp.ones(2)).z, jax.vjp(f, z, x)[1](jnp.ones(2))[0])
    assert_close(adk.grad(lambda z: jnp.sum(jnp.abs(z) ** 2))(z).z, 2 * jnp.conj(z))
    assert adk.jacobian(f).plan(z, x).cut_size == 2


def test_real_to_complex_is_possible_in_both_modes():
    def f(x):
        return jnp.fft.rfft(x) ** 2

    x = jnp.array([1.0, 2.0, -1.0, 0.5])
    forward, reverse = (adk.jacobian(f, mode=mode)(x) for mode in ("fwd", "rev"))
    assert_close(forward.x, jax.jacfwd(f)(x), 4)
    assert_close(reverse.x, jax.jacfwd(f)(x), 4)
    assert adk.jacobian(f, mode="rev").plan(x).reverse_sweeps == 6
    assert_close(forward.rmv(f(x)).x, jax.vjp(f, x)[1](f(x))[0], 4)


def test_complex_intermediates_of_a_real_function():
    def f(x):
        return jnp.fft.irfft(jnp.tanh(jnp.fft.rfft(x)), n=4)

    x = jnp.array([1.0, 2.0, -1.0, 0.5]) / 4
    for mode in ("fwd", "rev"):
        assert_close(adk.jacobian(f, mode=mode)(x).x, jax.jacfwd(f)(x), 4)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sqrt(x),
        lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0),
        lambda x: jnp.linalg.norm(x) * x,
        lambda x: x**0.5 + x**2,
        lambda x: jnp.log(x) * x,
    ],
)
def test_entries_are_finite_wherever_both_plain_modes_are(f):
    x = jnp.array([0.0, 1.0])
    plain = [jax.jacfwd(f)(x), jax.jacrev(f)(x)]
    finite = np.isfinite(plain[0]) & np.isfinite(plain[1])
    for call in (adk.jacobian(f), jax.jit(adk.jacobian(f))):
        found = np.asarray(call(x).as_matrix())
        np.testing.assert_allclose(found[finite], np.asarray(plain[0])[finite], rtol=1e-6)
    twice = [jax.hessian(f)(x), jax.jacrev(jax.jacrev(f))(x)]
    finite = np.isfinite(twice[0]) & np.isfinite(twice[1])
    found = np.asarray(adk.hessian(f)(x).as_matrix())
    np.testing.assert_allclose(found[finite], np.asarray(twice[0])[finite], rtol=1e-6)
