"""Cuts through complex numbers, low precision and several dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from functions import CASES, array
from reference import assert_close
from waists import F32, check, dense, waist


def low_waves(x):
    """Through three waves, which is not holomorphic: 6 directions."""
    waves = jnp.fft.rfft(x)[:3]
    return jnp.fft.irfft(lax.complex(jnp.tanh(waves.real), waves.real * waves.imag), n=64)


def test_a_complex_waist_counts_twice():
    plan = check(low_waves, array(64)(F32) - 0.8, sweeps=(6, 6), scale=50)
    assert plan.cut_size == 6


def complex_dense(rows, columns):
    return lax.complex(dense(rows, columns), -dense(rows, columns)[:, ::-1])


def test_a_holomorphic_waist_counts_once():
    encode, decode = complex_dense(2, 400), complex_dense(300, 2)

    def f(z):
        return decode @ jnp.sin(encode @ z)

    z = lax.complex(array(400)(F32), array(400)(F32) - 0.8)
    check(f, z, sweeps=(2, 2), scale=20, holomorphic=True)


@pytest.mark.parametrize(
    "sine",
    [
        lambda z: lax.complex(
            jnp.sin(z.real) * jnp.cosh(z.imag), jnp.cos(z.real) * jnp.sinh(z.imag)
        ),
        lambda z: jnp.conj(jnp.sin(jnp.conj(z))),
    ],
    ids=["by parts", "by conjugates"],
)
def test_a_holomorphic_function_may_be_written_in_other_ways(sine):
    encode, decode = complex_dense(2, 400), complex_dense(300, 2)

    def f(z):
        return decode @ sine(encode @ z)

    z = lax.complex(array(400)(F32), array(400)(F32) - 0.8)
    J = adk.jacobian(f, holomorphic=True)
    expected = jax.jacfwd(lambda z: decode @ jnp.sin(encode @ z), holomorphic=True)(z)
    for call in (J, jax.jit(J)):
        assert_close(call(z).z, expected, 20)
    plan = J.plan(z)
    assert plan.forward_sweeps in {0, 400}
    assert plan.reverse_sweeps in {0, 300}


def test_complex_ends_on_one_side():
    """Two sources and two targets, complex and real, through a real waist."""

    def f(z, x):
        code = jnp.stack([jnp.sum(jnp.abs(z) ** 2), jnp.sum(x)])
        return waist(code), jnp.sum(x) * code[0]

    z = lax.complex(array(200)(F32), array(200)(F32) - 0.8)
    x = array(200)(F32)
    check(f, z, x, sweeps=(2, 3), scale=20, theirs=jax.jacrev)

    def g(x):
        return jnp.exp(lax.complex(waist(x), 2 * waist(x)))

    J = adk.jacobian(g)
    assert J.plan(x).mode == "mixed"
    expected = jax.jacfwd(g)(x)
    assert_close(J(x).x, expected, 20)
    assert_close(jax.jit(J)(x).x, expected, 20)


def test_a_bfloat16_waist_is_added_up_in_float32():
    inner, outer = jnp.ones((300, 1300), jnp.bfloat16), jnp.ones((1300, 300), jnp.bfloat16)

    def f(x):
        for _ in range(4):
            x = x * jnp.ones_like(x)
        y = outer @ (inner @ x)
        for _ in range(4):
            y = y * jnp.ones_like(y)
        return y

    J = adk.jacobian(f)
    x = jnp.ones(1300, jnp.bfloat16)
    plan = J.plan(x)
    assert (plan.mode, plan.cut_size) == ("mixed", 300)
    found = jax.jit(J)(x).x
    assert found.dtype == jnp.bfloat16
    assert jnp.all(found == jnp.bfloat16(300))  # one by one they stop at 256


def test_mixed_dtypes_meet_in_a_waist():
    with jax.enable_x64(True):

        def f(x, y):
            code = jnp.stack([jnp.sum(jnp.sin(x)), jnp.sum(y).astype(F32)])
            return waist(code), waist(code).astype("float64") * jnp.sum(y)

        x, y = array(400)(F32), array(300)("float64")
        J = adk.jacobian(f)
        plan = J.plan(x, y)
        assert plan.mode == "mixed"
        for call in (J, jax.jit(J)):
            found = call(x, y)
            dtypes = [[block.dtype.name for block in row] for row in found.to_jax()]
            assert dtypes == [["float32", "float64"], ["float64", "float64"]]
            with jax.numpy_dtype_promotion("standard"):
                expected = jax.jacrev(f, (0, 1))(x, y)
            for ours, theirs in zip(*map(jax.tree.leaves, (found.to_jax(), expected)), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


LOOP, RULE = CASES["while_loop"].function, CASES["custom_vjp"].function


@pytest.mark.parametrize("parts", [[RULE, LOOP], [LOOP, RULE], [LOOP, RULE, LOOP]])
def test_a_holomorphic_function_may_alternate(parts):
    def loop(z):
        for _ in range(3):
            z = jnp.sin(z) * 2
        return z

    def f(z, parts=parts):
        for part in parts:
            z = jnp.sin(part(0.4 * z)) * (0.5 + 0.3j)
        return z

    z = jnp.array([0.3 + 0.2j, 0.1 - 0.4j])
    twins = [{LOOP: loop, RULE: jnp.square}[part] for part in parts]
    expected = jax.jacfwd(f, holomorphic=True)(z, twins)
    J = adk.jacobian(f, wrt="z", holomorphic=True)
    assert J.plan(z).mode == "mixed"
    for call in (J, jax.jit(J)):
        assert_close(call(z).z, expected, 10)


def test_real_blocks_beside_complex_ones_take_the_real_part_of_a_matrix():
    def f(x):
        return {"real": x**2, "complex": lax.complex(x, x**3)}

    x = array(3)(F32)
    J = adk.jacobian(f)(x)
    again = J.from_matrix((1 + 2j) * J.as_matrix())
    assert again.x["real"].dtype == F32
    assert_close(again.x["real"], J.x["real"])
    assert_close(again.x["complex"], (1 + 2j) * J.x["complex"])
    w = {"real": x, "complex": lax.complex(x, -x)}
    expected = 2 * x * x + x - -x * 3 * x**2
    for map_ in (J, adk.linearize(f)(x)):
        assert map_.rmv(w).x.dtype == F32
        assert_close(map_.rmv(w).x, expected, scale=10)
    assert_close(jax.vjp(f, x)[1](w)[0], expected, scale=10)


A = lax.complex(array(4, 3)(F32) - 0.5, array(3, 4)(F32).T + 0.2)
BATCH = jnp.stack([A, 1j * A])

PRODUCTS = {
    "constant, moving": (lambda w: lax.dot(A, w), (3,)),
    "moving, constant": (lambda w: lax.dot(w, A), (4,)),
    "matrices": (lambda w: lax.dot(lax.dot(A, w), A), (3, 4)),
    "batched": (lambda w: lax.dot_general(BATCH, w, (((2,), (1,)), ((0,), (0,)))), (2, 3)),
    "two axes": (lambda w: lax.dot_general(BATCH, w, (((1, 2), (0, 1)), ((), ()))), (4, 3)),
    "mapped": (lambda w: jax.vmap(lambda row: lax.dot(A, row))(w), (5, 3)),
    "both moving": (lambda w: lax.dot(A * lax.complex(jnp.cos(w), jnp.sin(w))[None], w), (3,)),
    "then imaginary": (lambda w: jnp.imag(lax.dot(A, w)), (3,)),
    "through a waist": (lambda w: lax.dot(A[:, :1], lax.dot(A[:1], w)), (3, 5)),
    "in a loop": (
        lambda w: lax.scan(lambda c, a: (jnp.real(lax.dot(a, c)), None), w, SQUARE)[0],
        (3,),
    ),
}
SQUARE = jnp.stack([A[:3], A[1:]])


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_complex_and_real_operands_has_derivatives(name):
    """JAX converts no operand of a product; the real part is that of the product."""
    f, shape = PRODUCTS[name]

    def squares(w):
        return jnp.sum(jnp.abs(f(w)) ** 2) + jnp.sum(jnp.imag(f(w)) ** 3)

    def parts(w):
        return jnp.real(f(w)), jnp.imag(f(w))

    w = array(*shape)(F32)
    n = w.size
    plain = jax.grad(squares), jax.hessian(squares), jax.jacfwd(parts)
    gradient, hessian, blocks = jax.jit(lambda w: [transform(w) for transform in plain])(w)
    hessian = hessian.reshape(n, n)
    rows = jnp.concatenate([x.reshape(-1, n) for x in blocks])
    for mode in ("fwd", "rev", "auto"):

        def derivatives(w, mode=mode):
            J, H = (t(f, mode=mode)(w) for t, f in ((adk.jacobian, parts), (adk.hessian, squares)))
            return adk.grad(squares, mode=mode)(w).w, J.as_matrix(), H.as_matrix()

        for call in (derivatives, jax.jit(derivatives)):
            found = call(w)
            assert_close(found[0], gradient, 20)
            assert_close(found[1], rows, 20)
            assert_close(found[2], hessian, 50)
    assert_close(adk.hvp(squares)(w).as_matrix(), hessian, 50)
    assert_close(adk.laplacian(squares)(w).laplacian, jnp.trace(hessian), 50)
    assert adk.check_derivatives(squares, mode="rev")(w)


def test_the_gradient_of_a_complex_residual_is_its_formula():
    with jax.enable_x64(True):
        wide = A.astype(jnp.complex128)
        w = jnp.array([0.3, -1.0, 2.0])
        g = adk.grad(lambda w: jnp.sum(jnp.abs(lax.dot(wide, w)) ** 2))(w)
        expected = 2 * np.real(np.conj(wide).T @ np.asarray(wide) @ np.asarray(w))
        np.testing.assert_allclose(g.w, expected, rtol=1e-13)
