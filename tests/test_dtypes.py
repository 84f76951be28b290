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


NARROW = ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"]


@pytest.mark.parametrize("narrow", NARROW)
def test_narrow_dtypes_in_every_place(narrow):
    x = jnp.asarray([1.0, 2.0], narrow)

    def widened(x):
        return x.astype(jnp.float32) ** 2

    want = np.diag([2.0, 4.0])
    for transform in (adk.jacobian, adk.linearize):
        for call in (transform(widened), jax.jit(transform(widened))):
            J = call(x)
            assert J.as_matrix().dtype == J.mv(x=x).dtype == jnp.float32
            assert J.rmv(widened(x)).x.dtype == narrow
            np.testing.assert_array_equal(J.as_matrix(), want)
    for mode in ("fwd", "rev"):
        out = adk.jacobian(lambda y: (y**2).astype(narrow), mode=mode)(jnp.array([1.0, 2.0]))
        assert (out.y.dtype, out.value.dtype) == (jnp.float32, narrow)
        both = adk.jacobian(lambda x: x * x, mode=mode)(x)
        assert both.x.dtype == narrow
        np.testing.assert_array_equal(np.asarray(both.x, np.float32), want)
    pair = adk.jacobian(lambda a, b: a.astype(jnp.float32) * b)(x, jnp.ones(2))
    assert pair.a.dtype == pair.b.dtype == pair.as_matrix().dtype == jnp.float32
    loss = adk.hessian(lambda x: jnp.sum(widened(x)))(x)
    np.testing.assert_array_equal(loss.x.x, 2 * np.eye(2))
    assert adk.laplacian(lambda x: jnp.sum(widened(x)))(x).laplacian == 4


def test_widths_may_change_between_calls_of_one_transform():
    def f(x, r):
        return jnp.tanh(x * r) * 2.0

    x = np.array([0.3, 0.7])
    want = np.diag(1 / np.cosh(x / 2) ** 2)
    J, L = adk.jacobian(f, wrt="x"), adk.linearize(f, wrt="x")
    H = adk.hessian(lambda x, r: jnp.sum(f(x, r)), wrt="x")
    for wide in (False, True, False, True):
        dtype = "float64" if wide else "float32"
        with jax.enable_x64(wide):
            for transform in (J, jax.jit(J), L):
                for given in (x, jnp.asarray(x)):
                    found = transform(given, 0.5)
                    assert found.as_matrix().dtype == found.value.dtype == dtype
                    tolerance = 1e-14 if wide else 1e-5
                    np.testing.assert_allclose(found.as_matrix(), want, rtol=tolerance)
            assert H(x, 0.5).x.x.dtype == dtype


def test_what_was_computed_in_float64_is_still_there_outside():
    with jax.enable_x64(True):
        J = adk.jacobian(lambda x, y: {"a": x * y, "b": x})(jnp.arange(2.0), jnp.ones(2))
    assert J.x["a"].dtype == J.as_matrix().dtype == "float64"
    assert "float64[2, 2]" in repr(J)


def test_a_compiled_transform_keeps_its_width():
    def f(x, rate):
        return jnp.sin(x * rate)

    x = np.array([0.1, 0.2], np.float32)
    compiled = adk.jacobian(f).compile(x, 0.5)
    with jax.enable_x64(True):
        J = compiled(x, 0.5)
        assert J.x.dtype == J.rate.dtype == "float32"
        wide = adk.jacobian(f).compile(x.astype(np.float64), 0.5)
        with pytest.raises(adk.SignatureError, match=r"float64\[2\] instead of float32\[2\]"):
            compiled(x.astype(np.float64), 0.5)
        given = jnp.asarray(x.astype(np.float64))
    np.testing.assert_allclose(J.x, np.diag(0.5 * np.cos(x / 2)), rtol=1e-6)
    assert wide(given, 0.5).rate.dtype == "float64"


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize, adk.hvp])
def test_weak_types_are_no_difference(transform):
    """A residual that is weakly typed is the same program, eagerly and traced."""
    weak = jnp.full((2, 2), 0.5)
    assert weak.weak_type

    def f(x, w):
        return jnp.sum(jnp.tanh(w @ x))

    eager = transform(f)(jnp.ones(2), weak)
    structures = {jax.tree.structure(eager)}
    for x, w in (
        (jnp.ones(2), weak),
        (jnp.full(2, 1.0), weak),
        (jnp.ones(2), weak * jnp.ones((2, 2))),
    ):
        structures.add(jax.tree.structure(transform(f)(x, w)))
        structures.add(jax.tree.structure(jax.jit(transform(f))(x, w)))
    assert len(structures) == 1


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int32(2), np.float64(2), True])
def test_numbers_of_every_kind(number):
    with jax.numpy_dtype_promotion("standard"):
        J = adk.jacobian(lambda x, n: x * n)(jnp.ones(2), number)
        np.testing.assert_array_equal(J.x, np.eye(2) * number)
        assert J.x.dtype == jnp.float32
        if isinstance(number, (float, np.floating)):
            assert (J.n.shape, J.n.dtype) == ((2,), jnp.float32)
        else:
            with pytest.raises(adk.NotDifferentiatedError, match="held constant"):
                J.n  # noqa: B018
