"""Compact blocks: shared axes once and first, and everything that can be done with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from functions import array
from places import place
from reference import assert_close

F32 = "float32"
X, W, V = array(6, 3)(F32), array(3, 5)(F32), array(5, 2)(F32)
B = array(5)(F32)


def network(X, W=W, b=B):
    """A batch of examples through two layers."""
    return jnp.tanh(jnp.tanh(X @ W + b[None]) @ V)


def one(x):
    """One example."""
    return jnp.tanh(jnp.tanh(x @ W + B) @ V)


def same(found, expected):
    """All blocks are those of a dense result, and so are products."""
    np.testing.assert_allclose(found.as_matrix(), expected.as_matrix(), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(
        jax.tree.leaves(found.to_jax()), jax.tree.leaves(expected.to_jax()), strict=True
    ):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# Blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
@pytest.mark.parametrize("jit", [False, True])
def test_a_batch_is_that_of_vmap(mode, jit):
    J = adk.jacobian(network, wrt="X", layout="compact", mode=mode)
    found = (jax.jit(J) if jit else J)(X)
    assert found.X.shape == (6, 2, 3)
    assert_close(found.X, jax.vmap(jax.jacrev(one))(X))
    assert found.shared_axes == {"X": ((0, 0),)}
    assert "float32[6, 2, 3] (shares axis 0 with 0)" in repr(found)
    same(found, adk.jacobian(network, wrt="X")(X))


def test_a_batch_takes_the_directions_of_one_example():
    structs = [jax.ShapeDtypeStruct(shape, F32) for shape in ((256, 32), (32, 16))]

    def f(X, W):
        return jnp.tanh(X @ W)

    plan = adk.jacobian(f, wrt="X").plan(*structs)
    assert 1 <= plan.forward_sweeps + plan.reverse_sweeps <= 32
    plan = adk.jacobian(f, wrt="X", layout="compact").plan(*structs)
    assert 1 <= plan.forward_sweeps + plan.reverse_sweeps <= 32


def test_weights_share_what_comes_out():
    def f(X, W, b):
        return jnp.tanh(X @ W + b[None])

    J = adk.jacobian(f, layout="compact")(X, W, B)
    assert J.shared_axes == {"X": ((0, 0),), "W": ((1, 1),), "b": ((1, 0),)}
    assert (J.X.shape, J.W.shape, J.b.shape) == ((6, 5, 3), (5, 6, 3), (5, 6))
    same(J, adk.jacobian(f)(X, W, B))


def test_an_elementwise_map_is_its_diagonal():
    J = adk.jacobian(jnp.sin, layout="compact")(X)
    assert J.shared_axes == {"x": ((0, 0), (1, 1))}
    np.testing.assert_allclose(J.x, jnp.cos(X), rtol=1e-6)
    J = adk.jacobian(lambda x: jnp.sin(x).T, layout="compact")(X)
    assert J.shared_axes == {"x": ((0, 1), (1, 0))}
    np.testing.assert_allclose(J.x, jnp.cos(X).T, rtol=1e-6)


def test_each_of_several_outputs_shares_its_own():
    def f(X, s):
        return {
            "rows": jnp.sum(jnp.sin(X), 1),
            "columns": s * (X.T @ jnp.ones(6)),
            "all": jnp.sum(X),
            "scale": {"up": 2 * s},
        }

    args = X, jnp.float32(0.4)
    J = adk.jacobian(f, layout="compact")(*args)
    assert J.shared_axes["rows", "X"] == ((0, 0),)
    assert J.shared_axes["columns", "X"] == ((0, 1),)
    assert J.shared_axes["all", "X"] == ()
    assert J.X["rows"].shape == (6, 3)
    assert J.X["columns"].shape == (3, 6)
    assert J.of("columns").shared_axes == {"X": ((0, 1),), "s": ()}
    same(J, adk.jacobian(f)(*args))
    same(J.of("columns"), adk.jacobian(f)(*args).of("columns"))


def test_a_block_of_zeros_is_as_small_as_the_others():
    J = adk.jacobian(lambda X, Y: {"a": X @ W, "b": Y @ W}, layout="compact")(X, 2 * X)
    assert J.of("a").Y.shape == (6, 5, 3)
    assert not J.of("a").Y.any()


def test_a_batch_of_one_example_is_a_batch():
    J = adk.jacobian(network, wrt="X", layout="compact")(X[:1])
    assert J.X.shape == (1, 2, 3)
    assert J.shared_axes == {"X": ((0, 0),)}
    assert_close(J.X, jax.vmap(jax.jacrev(one))(X[:1]))


def test_parts_of_an_axis_are_not_shared_alone():
    def f(x):  # two of three factors of its only axis
        return jnp.cumsum(jnp.sin(x).reshape(2, 3, 2), axis=1).reshape(12)

    with pytest.raises(adk.SelectionError, match="cumsum"):
        adk.jacobian(f, layout="compact")(jnp.ones(12))
    J = adk.jacobian(lambda x: f(x.reshape(12)), layout="compact")
    x = array(2, 6)(F32)
    with pytest.raises(adk.SelectionError):
        J(x)
    dense = adk.jacobian(f)(x.reshape(12)).x
    np.testing.assert_allclose(dense, jax.jacrev(f)(x.reshape(12)), rtol=1e-6)


@pytest.mark.parametrize("holomorphic", [False, True])
def test_complex_batches(holomorphic):
    matrix = lax.complex(W, W[::-1])

    def f(z):
        out = jnp.sin(z @ matrix)
        return out if holomorphic else jnp.abs(out) ** 2

    z = lax.complex(X, 0.3 * X[::-1])
    options = {"holomorphic": holomorphic}
    found = adk.jacobian(f, layout="compact", **options)(z)
    assert found.z.shape == (6, 5, 3)
    same(found, adk.jacobian(f, **options)(z))
    real = adk.jacobian(lambda x: lax.complex(jnp.sin(x), x) @ matrix, layout="compact")(X)
    same(real, adk.jacobian(lambda x: lax.complex(jnp.sin(x), x) @ matrix)(X))


def test_in_double_precision_and_bfloat16():
    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        wide = jnp.asarray(W, jnp.float64)

        def f(x):
            return jnp.tanh(x @ wide)

        found = adk.jacobian(f, layout="compact")(x).x
        np.testing.assert_allclose(found, jax.vmap(jax.jacfwd(f))(x), rtol=1e-13)
    half = adk.jacobian(lambda x: x @ W.astype(jnp.bfloat16), layout="compact")
    assert half(X.astype(jnp.bfloat16)).x.dtype == jnp.bfloat16


# What can be done with them ---------------------------------------------------------------


def test_products_are_those_of_the_dense_matrix():
    D = adk.jacobian(network, wrt="X")(X)
    J = adk.jacobian(network, layout="compact", wrt="X")(X)
    np.testing.assert_allclose(J.mv(X=X), D.mv(X=X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(J @ X, D @ X, rtol=1e-5, atol=1e-6)
    y = network(X)
    np.testing.assert_allclose(J.rmv(y).X, D.rmv(y).X, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(J.T.mv(y).X, D.rmv(y).X, rtol=1e-5, atol=1e-6)
    operator = J.as_lineax()
    np.testing.assert_allclose(operator.as_matrix(), D.as_matrix(), rtol=1e-5, atol=1e-6)


def test_two_calls_have_one_structure():
    J = adk.jacobian(network, layout="compact", wrt="X")
    first, second = J(X), J(2 * X)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    carried = lax.scan(lambda c, x: (J(x), c.X.sum()), first, jnp.stack([X, -X]))[0]
    assert_close(carried.X, J(-X).X)


def test_under_vmap_and_differentiated_again():
    J = adk.jacobian(network, layout="compact", wrt="X")
    many = jnp.stack([X, 0.5 * X])
    found = jax.vmap(lambda x: J(x).X)(many)
    np.testing.assert_allclose(found, jax.vmap(jax.vmap(jax.jacrev(one)))(many), rtol=1e-5)
    ours = jax.jacfwd(lambda s: J(s * X).X)(1.0)
    theirs = jax.jacfwd(lambda s: jax.vmap(jax.jacrev(one))(s * X))(1.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    batched = jax.vmap(J)(many)
    assert batched.X.shape == (2, 6, 2, 3)
    with pytest.raises(adk.StructureError, match=r"jax\.vmap"):
        batched.as_matrix()


def test_hessians_share_axes_too():
    def f(x, y):
        return jnp.sum(jnp.sin(x) * y) + jnp.sum(jnp.sum(x * x, 1) ** 2)

    args = X, 2 * X
    H = adk.hessian(f, layout="compact")(*args)
    assert H.shared_axes["x", "x"] == ((0, 0),)
    assert H.shared_axes["x", "y"] == ((0, 0), (1, 1))
    assert H.x.x.shape == (6, 3, 3)
    assert H.x.y.shape == (6, 3)
    same(H, adk.hessian(f)(*args))
    np.testing.assert_allclose(H.mv(x=X).x, adk.hessian(f)(*args).mv(x=X).x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(H.grad.x, jax.grad(f)(*args), rtol=1e-5, atol=1e-6)


def test_a_hessian_of_a_batch_of_losses():
    def losses(X):
        return jnp.sum(network(X) ** 2, 1)

    H = adk.hessian(losses, layout="compact")(X)
    same(H, adk.hessian(losses)(X))


# What is refused --------------------------------------------------------------------------


def test_an_unknown_layout():
    with pytest.raises(adk.SelectionError) as info:
        adk.jacobian(network, layout="sparse")
    assert str(info.value) == (
        "jacobian(network): there is no layout 'sparse'; it is one of 'dense', 'compact'."
    )


@pytest.mark.parametrize("transform", [adk.linearize, adk.hvp])
def test_a_linear_map_has_no_layout(transform):
    with pytest.raises(adk.SelectionError, match="a linear map has no blocks to lay out"):
        transform(network, layout="compact")


@pytest.mark.parametrize(
    ("mode", "mixed"),
    [("fwd", "0 of X is mixed by reduce_sum at {}"), ("rev", "0 of output is mixed by sub at {}")],
)
def test_where_nothing_is_shared_the_lines_that_mix_are_named(mode, mixed):
    def f(X):
        hidden = X @ W
        return hidden - jnp.mean(hidden, axis=0, keepdims=True)

    with pytest.raises(adk.SelectionError) as info:
        adk.jacobian(f, layout="compact", mode=mode)(X)
    message = str(info.value)
    assert message.startswith(
        "jacobian(f): layout='compact' needs an axis along which output and input are independent "
        "element by element, and there is none. Use layout='dense'.\n"
    )
    assert f"is mixed by dot_general at {place(f, 'X @ W')}" in message
    line = "jnp.mean" if mode == "fwd" else "hidden -"
    assert f"axis {mixed.format(place(f, line))}" in message


@pytest.mark.parametrize("f", [jnp.sum, lambda x: jnp.cumsum(x.ravel()), lambda x: x @ x.T])
def test_functions_that_mix_all_axes(f):
    with pytest.raises(adk.SelectionError, match="there is none"):
        adk.jacobian(f, layout="compact")(X)
    with pytest.raises(adk.SelectionError, match="there is none"):
        adk.grad(lambda x: jnp.sum(f(x)), layout="compact")(X)
