"""Arguments and outputs with `None`, empty containers and arrays, shared leaves, any object."""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk

X = jnp.array([0.5, -1.0])

TREES = {
    "none": {"a": X, "b": None},
    "empty containers": {"a": X, "b": [], "c": (), "d": {}},
    "shared leaves": [X, X, {"x": X}],
    "empty array": {"a": X, "e": jnp.zeros((0, 3))},
    "scalar": {"a": X, "s": jnp.float32(2.0)},
    "sizes of one": {"a": X, "m": jnp.ones((1, 1, 1))},
    "two axes": {"a": X, "m": jnp.ones((2, 3))},
    "ordered": collections.OrderedDict(b=X, a=2 * X),
    "default": collections.defaultdict(list, {"a": X}),
    "numpy": {"a": np.array([0.5, 1.0], np.float32), "s": np.float32(2.0)},
    "anything": {
        "a": X,
        "f": 2.0,
        "i": 3,
        "b": True,
        "s": "text",
        "o": object,
        "k": jax.random.key(0),
    },
    "partial": jax.tree_util.Partial(jnp.add, X),
}


def is_differentiable(leaf):
    is_array = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
    return isinstance(leaf, float) or (is_array and jnp.issubdtype(leaf.dtype, jnp.floating))


def total(tree):
    leaves = filter(is_differentiable, jax.tree.leaves(tree))
    return sum((jnp.sum(jnp.sin(leaf) ** 2) for leaf in leaves), start=jnp.float32(0))


@pytest.mark.parametrize("name", TREES)
def test_gradients_and_hessians_of_odd_trees(name):
    tree = TREES[name]
    moving, rest = eqx.partition(tree, is_differentiable)
    want = jax.grad(lambda moving: total(eqx.combine(moving, rest)))(moving)
    want = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(want)])
    for call in (adk.grad(total), eqx.filter_jit(adk.grad(total))):
        G = call(tree)
        np.testing.assert_allclose(G.as_matrix()[0], want, rtol=1e-5)
        assert jax.tree.structure(G.tree.tree) == jax.tree.structure(moving)
        assert "Gradient of total" in repr(G)
    H = adk.hessian(total)(tree)
    angles = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moving)])
    np.testing.assert_allclose(H.as_matrix(), np.diag(2 * np.cos(2 * angles)), atol=1e-5)
    vector = jax.tree.map(jnp.ones_like, H.in_structure)
    np.testing.assert_allclose(H.ravel(H.mv(vector)), np.sum(H.as_matrix(), 1), atol=1e-5)
    np.testing.assert_array_equal(H.ravel(H.unravel(H.ravel(vector))), H.ravel(vector))


OUTPUTS = {
    "none": (lambda x: {"y": x**2, "n": None}, 2),
    "empty": (lambda x: {"e": x[:0], "y": x**2}, 2),
    "only empty": (lambda x: x[:0] ** 2, 0),
    "shared": (lambda x: [y := x**2, y, (y,)], 6),
    "scalar": (lambda x: x[0] ** 2, 1),
    "containers": (lambda x: {"y": x**2, "l": [], "t": ()}, 2),
    "numbers": (lambda x: (x**2, np.ones(2, np.float32), 1.0, 3, "s"), 5),
    "record": (lambda x: adk.Record(b=x**2, a=2 * x), 4),
    "matrix": (lambda x: jnp.outer(x, x), 4),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_first_and_second_derivatives_of_odd_outputs(name):
    f, rows = OUTPUTS[name]
    for wrap in (lambda f: f, eqx.filter_jit):
        J, H = wrap(adk.jacobian(f))(X), wrap(adk.hessian(f))(X)
        assert J.as_matrix().shape == (rows, 2)
        shape = (2, 2) if name == "scalar" else (rows, 2, 2)
        assert H.as_matrix().shape == shape
        np.testing.assert_array_equal(H.from_matrix(H.as_matrix()).as_matrix(), H.as_matrix())
        assert J.rmv(J.mv(X)).x.shape == (2,)
        assert "by 2" in repr(J)
        L = adk.linearize(f)(X)
        np.testing.assert_allclose(L.as_matrix(), J.as_matrix(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_arguments_without_entries(shape):
    x = jnp.zeros(shape)

    def f(x):
        return jnp.sum(x**2)

    assert adk.grad(f)(x).x.shape == shape
    for call in (adk.hessian(f), jax.jit(adk.hessian(f))):
        assert call(x).x.x.shape == shape + shape
    assert adk.hessian(f)(x).eigh().eigenvalues.shape == (0,)
    assert adk.laplacian(f)(x).laplacian == 0
    assert adk.hessian_diagonal(f)(x).x.shape == shape
    for options in ({"chunk_size": 2}, {"layout": "compact"}, {"mode": "rev"}):
        assert adk.jacobian(lambda x: 2 * x, **options)(x).as_matrix().shape == (0, 0)
