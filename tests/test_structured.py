"""Whole programs of structured and dense equations: the derivative is JAX's in every mode."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from functions import array
from reference import assert_close

X, W, B = (
    np.asarray(array(*shape)("float32"), np.float64) - 0.6 for shape in ((4, 3), (3, 5), (5,))
)
A = np.eye(3) * 3 + W[:, :3]
K = np.asarray(array(3, 3, 4)("float32"), np.float64)
SIGNAL = np.asarray(array(2, 8, 3)("float32"), np.float64)

FUNCTIONS = {
    "a layer": (lambda x, W, b: jnp.tanh(x @ W + b[None]), X, W, B),
    "two layers": (lambda x, W: jnp.tanh(jnp.tanh(x @ W) @ W.T), X, W),
    "an attention": (lambda x: jax.nn.softmax(x @ x.T / 2, axis=1) @ jnp.sin(x), X),
    "softmax": (lambda x: jax.nn.softmax(x, axis=1), X),
    "layer norm": (lambda x: (x - x.mean(1, keepdims=True)) / (1 + x.var(1, keepdims=True)), X),
    "batch norm": (lambda x: (x - x.mean(0)[None]) / (1 + x.var(0))[None], X),
    "elementwise": (lambda x: jnp.sin(x) * x / (1 + x**2), X),
    "maxima": (lambda x: jax.nn.relu(x).max(1), X),
    "differences": (lambda x: jnp.sin(x)[1:] - x[:-1], X),
    "scalars": (lambda x: jnp.stack([x[0, 0] * x[1, 1], jnp.sin(x[2, 0])]), X),
    "reshaped": (lambda x: jnp.sin(x).reshape(2, 6).T.reshape(3, 4) * x.T, X),
    "torn apart": (lambda x: jnp.sin(x.reshape(6, 2)) * jnp.arange(6.0)[:, None], X),
    "concatenated": (lambda x: jnp.concatenate([x, jnp.sin(x), jnp.ones((4, 2))], 1), X),
    "padded": (lambda x: jnp.pad(jnp.sin(x), ((0, 0), (1, 2)))[:, ::-1], X),
    "cumulated": (lambda x: jnp.cumsum(x**2, 1), X),
    "sorted": (lambda x: jnp.sort(x, 1), X),
    "indexed": (lambda x: jnp.sin(x)[:, jnp.array([2, 0, 0])] + x[jnp.array([1, 1, 0, 3])], X),
    "taken": (lambda x: jnp.take_along_axis(jnp.sin(x), jnp.array([[2], [0], [0], [1]]), 1), X),
    "scattered": (lambda x: jnp.zeros((4, 5)).at[:, jnp.array([0, 2, 2])].add(x**2), X),
    "an outer product": (lambda x, b: jnp.sin(x)[:, :, None] * b[None, None] * x.sum(), X, B),
    "a diagonal": (lambda x: jnp.diag(jnp.sin(x[:, 0])) @ x, X),
    "a rollout": (
        lambda x, W: lax.scan(lambda c, _: (jnp.tanh(c @ W @ W.T), c * 2), x, length=3)[1],
        X,
        W,
    ),
    "a recurrence": (lambda x: lax.scan(lambda c, y: (jnp.tanh(c * y), c + y), x[0], x)[1], X),
    "mapped": (lambda x: lax.map(lambda row: jnp.tanh(row @ W), x), X),
    "a branch": (lambda x: lax.cond(x.sum() > 0, jnp.sin, lambda z: jnp.cos(z) * 2, x), X),
    "recomputed": (lambda x: jax.checkpoint(lambda z: jnp.tanh(z @ W))(x) * x[:, :1], X),
    "solved": (lambda x: jnp.linalg.solve(A, x.T**2), X),
    "a matrix solved": (lambda x: jnp.linalg.solve(x[:3] + 3 * jnp.eye(3), x[0]), X),
    "factorised": (lambda x: jnp.linalg.cholesky(x.T @ x + jnp.eye(3)), X),
    "convolved": (
        lambda x, k: lax.conv_general_dilated(
            jnp.sin(x), k, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        ),
        SIGNAL,
        K,
    ),
    "pooled": (
        lambda x: lax.reduce_window(x**2, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID"),
        SIGNAL,
    ),
    "largest in windows": (
        lambda x: lax.reduce_window(x**2, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID"),
        SIGNAL,
    ),
    "filtered": (lambda x: jnp.fft.irfft(jnp.tanh(jnp.fft.rfft(x, axis=1)), 8, axis=1), SIGNAL),
    "of a scalar, too": (lambda x, t: jnp.sin(x * t) + t, X, np.float64(0.3)),
    "vmapped": (lambda x: jax.vmap(lambda r: jnp.tanh(W.T @ jnp.tanh(r))[1:])(x), X),
    "two outputs": (lambda x: {"a": x @ W, "b": jnp.sum(jnp.sin(x)), "c": x.T * 2}, X),
}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def leaves_agree(found, expected, scale=1.0):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(ours, theirs, scale)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_jacobian_is_that_of_jax(name):
    f, *args = FUNCTIONS[name]
    args = [jnp.asarray(x) for x in args]
    argnums = tuple(range(len(args)))

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def everything(*args):
        ours = [adk.jacobian(f, mode=mode)(*args).to_jax() for mode in ("auto", "fwd", "rev")]
        with contextlib.suppress(adk.SelectionError):  # nothing is shared
            ours.append(adk.jacobian(f, layout="compact")(*args).to_jax())
        return ours, jax.jacrev(f, argnums)(*args)

    ours, expected = everything(*args)
    for found in ours:
        leaves_agree(found, expected, 10)


@pytest.mark.parametrize("name", ["a layer", "an attention", "batch norm", "a rollout", "filtered"])
def test_a_jacobian_in_everything_else(name):
    f, *args = FUNCTIONS[name]
    args = [jnp.asarray(x) for x in args]

    def ours(s):
        return adk.jacobian(f)(s * args[0], *args[1:]).to_jax(0)

    def theirs(s):
        return jax.jacrev(f)(s * args[0], *args[1:])

    one, two = jnp.float64(0.8), jnp.array([0.3, -0.8])
    leaves_agree(ours(one), theirs(one), 10)  # eagerly
    for found, expected, point in [
        (jax.vmap(ours), jax.vmap(theirs), two),
        (jax.jacfwd(ours), jax.jacfwd(theirs), one),
        (
            jax.grad(lambda s: jnp.sum(ours(s) ** 2)),
            jax.grad(lambda s: jnp.sum(theirs(s) ** 2)),
            one,
        ),
    ]:
        leaves_agree(jax.jit(found)(point), jax.jit(expected)(point), 100)


@pytest.mark.parametrize("name", ["a layer", "two layers", "layer norm", "an outer product"])
@pytest.mark.parametrize("jit", [False, True])
def test_a_hessian_is_that_of_jax(name, jit):
    f, *args = FUNCTIONS[name]
    args = [jnp.asarray(x) for x in args]

    def loss(*args):
        return jnp.sum(f(*args) ** 2)

    H = adk.hessian(loss)
    found = (jax.jit(H) if jit else H)(*args).to_jax()
    leaves_agree(found, jax.jit(jax.hessian(loss, tuple(range(len(args)))))(*args), 100)


def test_of_each_pair_of_blocks_one_is_swept():
    def loss(W, b, v):
        return jnp.sum((jnp.tanh(jnp.asarray(X) @ W + b[None]) @ v) ** 2)

    args = jnp.asarray(W), jnp.asarray(B), jnp.asarray(B)
    H = adk.hessian(loss)
    plan = str(H.plan(*args))
    assert plan.count(" by symmetry, not swept") == 1
    swept = jax.make_jaxpr(lambda *a: H(*a).to_jax())(*args)
    dense = jax.make_jaxpr(lambda *a: jax.hessian(loss, (0, 1, 2))(*a))(*args)
    leaves_agree(H(*args).to_jax(), jax.hessian(loss, (0, 1, 2))(*args), 100)

    def products(jaxpr):
        return sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)

    assert products(swept.jaxpr) <= products(dense.jaxpr) + 4


def test_the_layer_is_never_multiplied_by_an_identity():
    def layer(x, W):
        return jnp.tanh(W @ x)

    x, W = jnp.ones(7), jnp.ones((5, 7))
    for mode in ("fwd", "rev"):
        jaxpr = jax.make_jaxpr(lambda x, m=mode: adk.jacobian(layer, wrt="x", mode=m)(x, W).x)(x)
        products = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
        assert len(products) == 1  # that of the value


def test_what_is_selected_away_is_finite_where_both_modes_of_jax_are():
    def f(x):
        safe = jnp.where(x > 0, x, 1.0)
        return jnp.where(x > 0, jnp.log(safe), 0.0)[:, None] @ jnp.ones((1, 2))

    x = jnp.array([0.0, 1.0, -2.0])
    for mode in ("auto", "fwd", "rev"):
        found = jax.jit(adk.jacobian(f, mode=mode))(x).x
        leaves_agree(found, jax.jacfwd(f)(x))


def test_infinite_values_stay_where_they_are():
    x = jnp.array([0.0, 1.0])
    found = adk.jacobian(jnp.sqrt)(x).x
    np.testing.assert_array_equal(np.isfinite(found), [[False, True], [True, True]])


def test_blocks_that_are_constants_are_arrays_of_jax():
    """Of JAX, and not of NumPy, as everything else is that a program holds."""
    for transform in (adk.jacobian, adk.hessian):
        found = transform(lambda x, y: x * y + y)(2.0, 3.0)
        assert {isinstance(block, jax.Array) for block in jax.tree.leaves(found.tree)} == {True}
    for layout in ("dense", "compact"):
        assert isinstance(adk.jacobian(lambda x: 2 * x, layout=layout)(X).x, jax.Array)
