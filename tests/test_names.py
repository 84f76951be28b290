"""Names of any kind: composed letters, keys that look like paths or globs, names of methods."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk

X = jnp.array([0.5, -1.0])


# Python spells an identifier in one way (NFKC): of a micro sign it makes the Greek letter, of a
# ligature two letters. Keys of dicts, and strings, stay as they were typed.
MICRO, MU, LIGATURE = "\u00b5", "\u03bc", "\ufb01"


def attenuated(µ, ﬁ, p):
    return jnp.exp(-µ * p[MICRO]) * ﬁ


ATTENUATED = (jnp.float32(2.0), X, {MICRO: X, "θ": X})


def test_an_argument_is_found_by_any_spelling_of_its_name():
    J = adk.jacobian(attenuated)(*ATTENUATED)
    assert [path for path, _ in J.column_labels] == [MU, "fi", f"p.{MICRO}", "p.θ"]
    for spelling in (MICRO, MU):
        np.testing.assert_array_equal(J[spelling], J.µ)
        np.testing.assert_array_equal(J.tree[spelling], J.µ)
        assert spelling in J.tree
        product = J.mv({spelling: 1.0})
        np.testing.assert_array_equal(product, J.mv(µ=1.0))
        only = adk.jacobian(attenuated, wrt=spelling)(*ATTENUATED)
        assert only.column_labels == ((MU, slice(0, 1)),)
        np.testing.assert_array_equal(only.mv({spelling: 1.0}), product)
    np.testing.assert_array_equal(J.wrt(LIGATURE), J.ﬁ)


def test_keys_of_dicts_are_spelt_as_they_are():
    J = adk.jacobian(attenuated)(*ATTENUATED)
    np.testing.assert_allclose(J[f"p.{MICRO}"], np.diag(-2 * jnp.exp(-2 * X) * X), rtol=1e-6)
    both = {MICRO: X, MU: 2 * X}
    J = adk.jacobian(lambda p: p[MICRO] ** 2 * p[MU])(both)
    np.testing.assert_allclose(J[f"p.{MICRO}"], np.diag(4 * X**2))
    np.testing.assert_allclose(J[f"p.{MU}"], np.diag(X**2))


def test_second_derivatives_by_any_spelling():
    def f(µ, x):
        return jnp.sum(µ**2 * x)

    H = adk.hessian(f)(2.0, X)
    np.testing.assert_array_equal(H[MICRO, "x"], H.µ.x)
    np.testing.assert_array_equal(H.x[MICRO], H.x.µ)
    part = adk.hessian(f, blocks=[(MICRO, "x")])(2.0, X)
    np.testing.assert_array_equal(part.µ.x, H.µ.x)


KEYS = ["a.b", "a b", "", "*", "[0]", "a?", "θ", "value", "0", "__x__"]


@pytest.fixture(scope="module")
def odd():
    return {key: i * X for i, key in enumerate(KEYS, start=1)}


def weighted(p):
    return sum((i * jnp.sin(x) for i, x in enumerate(map(p.get, KEYS), start=1)), start=0 * X)


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_look_like_something_else(odd, key):
    J = adk.jacobian(weighted)(odd)
    i = KEYS.index(key) + 1
    want = np.diag(i * np.cos(i * np.asarray(X)))
    np.testing.assert_allclose(J[f"p.{key}"], want, rtol=1e-5)
    np.testing.assert_allclose(J.p[key], want, rtol=1e-5)
    np.testing.assert_allclose(J.mv(p={key: X}), want @ X, rtol=1e-5)
    H = adk.hessian(lambda p: jnp.sum(weighted(p)))(odd)
    second = np.diag(-i * np.sin(i * np.asarray(X)))
    np.testing.assert_allclose(H[f"p.{key}", f"p.{key}"], second, rtol=1e-5)
    np.testing.assert_allclose(H.p[key].wrt(f"p.{key}"), second, rtol=1e-5)
    G = adk.jacobian(lambda x: {k: j * x for j, k in enumerate(KEYS)})(X)
    np.testing.assert_allclose(G.of(key).x, (i - 1) * np.eye(2))


def test_an_empty_key_is_not_the_whole():
    J = adk.jacobian(lambda p, q: p[""]["w"] * q)({"": {"w": X}}, X)
    assert J["p"] is not None
    assert set(J["p."]) == {"w"}
    np.testing.assert_array_equal(J["p..w"], np.diag(X))
    for path in ("q.", "p...w"):
        with pytest.raises(adk.NotDifferentiatedError, match="no argument"):
            J[path]
    assert adk.jacobian(lambda x: x)(X).of("").x.shape == (2, 2)


def test_two_leaves_of_one_path_are_told_apart_by_structure():
    J = adk.jacobian(lambda p: p["a.b"] * p["a"]["b"])({"a.b": X, "a": {"b": 2 * X}})
    with pytest.raises(adk.StructureError, match=r"'p\.a\.b' is the path of 2 leaves"):
        J["p.a.b"]
    np.testing.assert_array_equal(J.tree.p["a.b"], np.diag(2 * X))
    np.testing.assert_array_equal(J.mv(p={"a": {"b": X}}), X * X)


# Products by keyword -----------------------------------------------------------------------------


class Model(eqx.Module):
    w: jax.Array

    def __call__(self, x, vector=1.0):
        return self.w * x * vector


def test_products_take_a_vector_that_is_named_self():
    model = Model(X)
    for make in (adk.jacobian, adk.linearize):
        J = make(model, wrt=("self", "x"))(X)
        want = J.mv({"self": Model(X), "x": X})
        np.testing.assert_array_equal(J.mv(self=Model(X), x=X), want)
        np.testing.assert_array_equal(J.ravel(self=Model(X), x=X), [*X, *X])
        assert J.rmv(X).self.w.shape == (2,)
    H = adk.hessian(lambda self, vector: jnp.sum(self**2) + jnp.sum(vector**2))(X, X)
    np.testing.assert_allclose(H.solve(self=X, vector=X).self, X / 2, rtol=1e-6)
    np.testing.assert_allclose(H.mv(vector=X).vector, 2 * X)


def test_methods_are_still_pytrees_and_documented():
    J = adk.jacobian(jnp.sin)(X)
    np.testing.assert_allclose(jax.jit(lambda f, v: f(v))(J.mv, X), J.mv(X))
    assert "product with a structured vector" in adk.Jacobian.mv.__doc__
    leaves = jax.tree.leaves(J.mv)
    assert len(leaves) == len(jax.tree.leaves(J))


def test_variadic_names_that_are_taken():
    def f(x, /, *args, self=1.0, vector=2.0, **kwargs):
        return x * sum(args) * self * vector * sum(kwargs.values())

    names = {"value": 5.0, "T": 6.0, "args": 7.0, "x": 8.0, "kwargs": 9.0, "mv": 1.0}
    J = adk.jacobian(f)(X, 1.0, 2.0, self=3.0, vector=4.0, **names)
    for name in names:
        np.testing.assert_array_equal(J[f"kwargs.{name}"], J.kwargs["T"])
    product = J.mv({"kwargs": {"x": 1.0}, "self": 0.0})
    np.testing.assert_allclose(product, J["kwargs.x"])
