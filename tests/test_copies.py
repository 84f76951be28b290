"""Transforms, results and plans are pickled and copied, or say why not."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk

X = jnp.array([0.5, -1.0])
P = {"w": jnp.array([[1.0, 2.0], [0.0, 1.0]]), "n": 2}

AGAIN = [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


# Annotated with `jax.Array`, which cannot be pickled itself.
def vector(x: jax.Array, params: dict) -> jax.Array:
    return jnp.tanh(params["w"] @ x)


def scalar(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(x) ** 2)


def field(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


def squares(y: jax.Array) -> jax.Array:
    return jnp.sum(y**2)


class Model(eqx.Module):
    w: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.w @ x)


def directional(x):
    return adk.directional_derivative(scalar, order=2)(x, direction=X)


RESULTS = {
    "compact": lambda: adk.jacobian(jnp.sin, layout="compact")(X),
    "some blocks": lambda: adk.hessian(scalar, blocks="diagonal")(X),
    "a row": lambda: adk.hessian(scalar)(X).x,
    "symmetric": lambda: adk.jacobian(vector, wrt="x")(X, P).gram(),
    "materialised": lambda: adk.gauss_newton(vector, squares)(X, P).materialise(),
    "laplacian": lambda: adk.laplacian(scalar)(X),
    "divergence": lambda: adk.divergence(jnp.sin)(X),
    "curl": lambda: adk.curl(lambda x: jnp.flip(x) ** 2)(jnp.ones(3)),
    "diagonal": lambda: adk.hessian_diagonal(scalar)(X),
    "directional": lambda: directional(X),
    "transpose": lambda: adk.jacobian(vector)(X, P).T,
    "multiple": lambda: 2 * adk.jacobian(vector)(X, P),
    "svd": lambda: adk.jacobian(vector, wrt="x")(X, P).svd(),
    "eigh": lambda: adk.hessian(scalar)(X).eigh(),
    "method": lambda: adk.jacobian(vector)(X, P).mv,
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_of_every_kind(name):
    result = RESULTS[name]()
    structure = jax.tree.structure(result)
    for again in AGAIN:
        other = again(result)
        assert jax.tree.structure(other) == structure
        assert hash(jax.tree.structure(other)) == hash(structure)
        jax.tree.map(np.testing.assert_array_equal, other, result)


def test_a_copied_result_still_multiplies():
    J = adk.jacobian(vector)(X, P)
    for again in AGAIN:
        np.testing.assert_array_equal(again(J).mv(x=X), J.mv(x=X))
        np.testing.assert_array_equal(again(J.T).mv(X).x, J.rmv(X).x)


MAPS = [
    lambda: adk.gauss_newton(vector, squares)(X, P),
    lambda: adk.fisher(vector, "gaussian")(X, P),
    lambda: adk.linearize(vector)(X, P).T @ adk.linearize(vector)(X, P),
    lambda: adk.hessian(scalar)(X) + adk.hvp(scalar)(X),
]


@pytest.mark.parametrize("make", MAPS)
def test_maps_are_copied_and_say_that_they_are_not_pickled(make):
    L = make()
    for again in AGAIN[:2]:
        other = again(L)
        assert jax.tree.structure(other) == jax.tree.structure(L)
        np.testing.assert_array_equal(other.as_matrix(), L.as_matrix())
    with pytest.raises(TypeError, match=r"a linear map holds a program, .* pickle its \.as_matrix"):
        pickle.dumps(L)


TRANSFORMS = [
    (adk.jacobian(vector, wrt=("x", "params.w"), layout="dense"), (X, P)),
    (adk.linearize(vector), (X, P)),
    (adk.jacobian(Model(P["w"]), wrt=("self", "x")), (X,)),
    (adk.laplacian(scalar), (X,)),
    (adk.divergence(field), (X,)),
    (adk.hessian_diagonal(scalar), (X,)),
    (adk.gauss_newton(vector, squares), (X, P)),
    (adk.fisher(vector, "gaussian"), (X, P)),
    (adk.grad(adk.grad(scalar), of="value"), (X,)),
]


@pytest.mark.parametrize(("transform", "args"), TRANSFORMS)
def test_transforms_of_every_kind(transform, args):
    expected = jax.tree.leaves(transform(*args))
    for again in AGAIN:
        other = again(transform)
        for name in ("__name__", "__doc__"):
            assert getattr(other, name, None) == getattr(transform, name, None)
        if transform.__wrapped__ in (vector, scalar):  # JAX's own functions lose theirs
            assert other.__annotations__ == transform.__wrapped__.__annotations__
        found = jax.tree.leaves(other(*args))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


PLANS = [
    lambda: adk.jacobian(vector).plan(X, P),
    lambda: adk.hessian(scalar).plan(X),
    lambda: adk.hessian(lambda x, y: jnp.sum(x * y), blocks=[("x", "y")]).plan(X, X),
    lambda: adk.laplacian(scalar).plan(X),
]


@pytest.mark.parametrize("make", PLANS)
def test_plans_say_the_same(make):
    plan = make()
    for again in AGAIN:
        assert str(again(plan)) == str(plan)
    if isinstance(plan, adk.Plan):
        other = AGAIN[-1](plan)
        assert (other.mode, other.cut_size, other.zeros) == (plan.mode, plan.cut_size, plan.zeros)
        assert (other.gradient is None) == (plan.gradient is None)
        assert str(AGAIN[-1](other)) == str(plan)


def test_what_is_compiled_is_copied_and_says_that_it_is_not_pickled():
    compiled = adk.jacobian(vector).compile(X, P)
    for again in AGAIN[:2]:
        np.testing.assert_array_equal(again(compiled)(X, P).x, compiled(X, P).x)
    with pytest.raises(
        TypeError, match=r"jacobian\(vector\): .* cannot be pickled; pickle the tra"
    ):
        pickle.dumps(compiled)


def test_errors_are_pickled():
    with pytest.raises(adk.NotDifferentiatedError) as caught:
        adk.grad(scalar)(X).y  # noqa: B018
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))
