"""Gauss-Newton and Fisher matrices against the dense products that define them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import autodiffkit as adk

KEYS = jax.random.split(jax.random.key(0), 4)


def network(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None, :]) @ params["v"]


def inputs(dtype=jnp.float32):
    shapes = {"w": (3, 4), "b": (4,), "v": (4, 2)}
    params = {
        name: jax.random.normal(key, shape).astype(dtype)
        for (name, shape), key in zip(shapes.items(), KEYS, strict=False)
    }
    return params, jax.random.normal(KEYS[3], (5, 3)).astype(dtype)


def dense_product(model, loss, params, x):
    """The transposed Jacobian, the Hessian of the loss and the Jacobian, multiplied in NumPy."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    out, unravel_out = jax.flatten_util.ravel_pytree(model(params, x))
    J = jax.jacobian(lambda p: jax.flatten_util.ravel_pytree(model(unravel(p), x))[0])(flat)
    H = jax.hessian(lambda o: loss(unravel_out(o)))(out)
    return np.asarray(J, np.float64).T @ np.asarray(H, np.float64) @ np.asarray(J, np.float64)


def squares(out):
    return jnp.mean((out - 1.0) ** 2)


def cross_entropy(out):
    return -jnp.sum(jax.nn.log_softmax(out)[:, 0])


def huber(out):
    return jnp.sum(jnp.sqrt(1 + out**2) - 1)


LOSSES = [squares, cross_entropy, huber]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_matrix_is_the_dense_product(loss, dtype):
    params, x = inputs(dtype)
    G = adk.gauss_newton(network, loss, wrt="params")(params, x)
    expected = dense_product(network, loss, params, x)
    rtol = 1e-10 if dtype == "float64" else 1e-4
    tolerance = {"rtol": rtol, "atol": rtol * np.abs(expected).max()}
    stored = G.materialise()
    assert isinstance(stored, adk.SymmetricMatrix)
    for matrix in (G.as_matrix(), stored.as_matrix(), G.T.as_matrix()):
        assert matrix.dtype == dtype
        np.testing.assert_allclose(matrix, expected, **tolerance)
    product = G.ravel(G.mv(params=params))
    np.testing.assert_allclose(product, expected @ np.asarray(G.ravel(params=params)), **tolerance)
    np.testing.assert_allclose(G.rmv({"params": params}).params["b"], product[:4], **tolerance)
    np.testing.assert_allclose(stored.params["b"].params["b"], expected[:4, :4], **tolerance)


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient_are_those_of_the_loss(loss):
    params, x = inputs()
    G = adk.gauss_newton(network, loss, wrt="params")(params, x)
    value, gradient = jax.value_and_grad(lambda p: loss(network(p, x)))(params)
    np.testing.assert_allclose(G.value, value, rtol=1e-6)
    for name, leaf in gradient.items():
        np.testing.assert_allclose(G.grad.params[name], leaf, rtol=1e-5, atol=1e-6)
    step = G.materialise().damped(0.1).solve(G.grad)
    matrix = np.asarray(G.as_matrix(), np.float64) + 0.1 * np.eye(24)
    expected = np.linalg.solve(matrix, np.asarray(G.ravel(params=gradient)))
    np.testing.assert_allclose(G.ravel(step), expected, rtol=1e-3, atol=1e-5)


def outer_information(likelihood, out):
    """The Fisher information of the natural parameters, written by hand, for all rows."""
    blocks = []
    for row in np.asarray(out, np.float64):
        if likelihood == "gaussian":
            blocks.append(np.eye(row.size))
        elif likelihood == "bernoulli":
            p = 1 / (1 + np.exp(-row))
            blocks.append(np.diag(p * (1 - p)))
        elif likelihood == "categorical":
            p = np.exp(row) / np.exp(row).sum()
            blocks.append(np.diag(p) - np.outer(p, p))
        else:
            blocks.append(np.diag(np.exp(row)))
    rows, width = np.shape(out)
    return np.einsum("ij,iab->iajb", np.eye(rows), blocks).reshape(rows * width, -1)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "categorical", "poisson"])
def test_fisher_matrices_are_those_of_the_textbooks(likelihood):
    params, x = inputs()
    F = adk.fisher(network, likelihood, wrt="params")(params, x)
    J = adk.jacobian(network, wrt="params")(params, x)
    matrix = np.asarray(J.as_matrix(), np.float64)
    expected = matrix.T @ outer_information(likelihood, J.value) @ matrix
    np.testing.assert_allclose(F.as_matrix(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(F.value, J.value, rtol=1e-6)
    assert lx.is_positive_semidefinite(F.as_lineax())
    assert lx.is_positive_semidefinite(F.materialise().as_lineax())
    assert F.materialise().eigh().eigenvalues[0] > -1e-4


def test_a_likelihood_may_be_a_log_partition_function():
    params, x = inputs()
    exponential = adk.fisher(network, lambda out: -jnp.sum(jnp.log(2 + out**2)), wrt="params")
    F = exponential(params, x)
    expected = dense_product(network, lambda out: -jnp.sum(jnp.log(2 + out**2)), params, x)
    np.testing.assert_allclose(F.as_matrix(), expected, rtol=1e-4, atol=1e-4)
    assert not lx.is_positive_semidefinite(F.as_lineax())


def test_outputs_may_be_trees_with_other_leaves():
    def model(x, n):
        return {"y": x**2, "z": (jnp.sum(x), 3), "n": n}

    def loss(out):
        return jnp.sum(out["y"]) * out["z"][0] / out["n"]

    x = jnp.array([1.0, 2.0])
    G = adk.gauss_newton(model, loss)(x, 2)
    # J is (2 diag(x), ones), and the Hessian of the loss couples y with z by one half.
    J = np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    H = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(G.as_matrix(), J.T @ H @ J)
    assert G.value == 5.0 * 3.0 / 2


def test_modules_methods_and_auxiliary_data():
    mlp = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(1))
    x = jnp.ones(3)
    G = adk.gauss_newton(mlp, huber, wrt="self")(x)
    dynamic, static = eqx.partition(mlp, eqx.is_inexact_array)
    expected = dense_product(lambda p, x: eqx.combine(p, static)(x), huber, dynamic, x)
    np.testing.assert_allclose(G.as_matrix(), expected, rtol=1e-4, atol=1e-5)
    assert G.materialise().self.layers[0].weight.self.layers[1].bias.shape == (4, 3, 2)

    H = adk.gauss_newton(lambda x: (x**2, "more"), huber, has_aux=True)(x)
    assert H.aux == "more"
    F = adk.fisher(lambda x: (x**2, "more"), "poisson", has_aux=True)(x)
    assert F.aux == "more"
    assert F.value.shape == (3,)


def test_a_model_of_few_outputs_is_cut_there():
    rows = jax.random.normal(KEYS[0], (5, 2000))

    def model(w):
        return jnp.tanh(rows @ w)

    transform = adk.gauss_newton(model, huber)
    plan = transform.plan(jax.ShapeDtypeStruct((2000,), jnp.float32))
    assert plan.mode == "mixed"
    assert plan.cut_size == 5
    assert str(plan).startswith("Plan of gauss_newton(model, huber): mixed mode")
    w = jnp.ones(2000) / 2000
    found = jax.jit(lambda w: transform(w).as_matrix())(w)
    J = np.asarray(adk.jacobian(model)(w).as_matrix(), np.float64)
    H = np.diag((1 + np.asarray(model(w), np.float64) ** 2) ** -1.5)
    np.testing.assert_allclose(found, J.T @ H @ J, rtol=1e-3, atol=1e-4)


def test_under_jit_vmap_and_another_derivative():
    params, x = inputs()
    transform = adk.gauss_newton(network, huber, wrt="params")
    matrix = transform(params, x).as_matrix()
    compiled = jax.jit(lambda p: transform(p, x))(params)
    np.testing.assert_allclose(compiled.as_matrix(), matrix, rtol=1e-4, atol=1e-5)
    mapped = jax.vmap(lambda row: transform(params, row[None]).as_matrix())(x)
    np.testing.assert_allclose(mapped.sum(0), matrix, rtol=1e-4, atol=1e-4)

    def trace(scale):
        scaled = jax.tree.map(lambda leaf: leaf * scale, params)
        return jnp.trace(transform(scaled, x).as_matrix())

    slope, step = jax.grad(trace)(1.0), 1e-2
    np.testing.assert_allclose(slope, (trace(1 + step) - trace(1 - step)) / (2 * step), rtol=2e-3)


def test_conjugate_gradients_take_it():
    params, x = inputs()
    F = adk.fisher(network, "categorical", wrt="params")(params, x)
    damped = F.as_lineax() + lx.IdentityLinearOperator(F.in_structure)
    damped = lx.TaggedLinearOperator(damped, lx.positive_semidefinite_tag)
    right = adk.Record(params=params)
    found = lx.linear_solve(damped, right, lx.CG(1e-6, 1e-6)).value
    expected = F.materialise().damped(1.0).solve(right)
    np.testing.assert_allclose(found.params["w"], expected.params["w"], rtol=1e-3, atol=1e-5)


def model(x):
    return x**2


X = jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: adk.gauss_newton(model, 3.0), adk.SignatureError, ["a model and a loss"]),
        (lambda: adk.gauss_newton(3.0, huber), adk.SignatureError, ["gauss_newton takes"]),
        (lambda: adk.fisher(model, "normal"), adk.SelectionError, ["'normal'", "'gaussian'"]),
        (lambda: adk.fisher(model, 3), adk.SelectionError, ["got 3"]),
        (
            lambda: adk.gauss_newton(model, lambda out: out)(X),
            adk.NotDifferentiableError,
            ["gauss_newton(<lambda>)", "the loss must return one real scalar", "float32[3]"],
        ),
        (
            lambda: adk.gauss_newton(model, lambda out, y: jnp.sum(out))(X),
            adk.SignatureError,
            ["gauss_newton(model, <lambda>)", "'y'", "close over the rest"],
        ),
        (
            lambda: adk.fisher(jnp.sum, "categorical")(X),
            adk.NotDifferentiableError,
            ["fisher", "last axis", "float32[]"],
        ),
        (lambda: adk.fisher(model)(X).grad, adk.NotDifferentiatedError, ["observed"]),
        (lambda: adk.fisher(model)(X).mv(y=X), adk.StructureError, ["fisher(model", "'y'"]),
        (lambda: adk.gauss_newton(model, huber)(3), adk.NotDifferentiableError, ["an int"]),
    ],
)
def test_what_is_wrong_is_named(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
