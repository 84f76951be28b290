"""Derivatives of many leaves by many leaves: packed, in the program and in the result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from functions import array


def equations(function, *args):
    """The equations of a program at its outermost level."""
    return len(jax.make_jaxpr(function)(*args).jaxpr.eqns)


def coupled(tree):
    total = sum(jnp.sum(v) for v in tree.values())
    return {name: jnp.sin(v) * total for name, v in tree.items()}


def leaves(count):
    return {f"p{i}": array(2 + i % 3)("float32") * (i + 1) / count for i in range(count)}


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
def test_the_program_does_not_grow_with_the_number_of_blocks(mode):
    sizes = [equations(adk.jacobian(coupled, mode=mode), leaves(n)) for n in (10, 20, 40)]
    assert sizes[2] - sizes[1] <= 2.2 * (sizes[1] - sizes[0])
    J = jax.eval_shape(adk.jacobian(coupled, mode=mode), leaves(40))
    assert len(jax.tree.leaves(J)) <= 40 + 40


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
@pytest.mark.parametrize("jit", [False, True])
def test_many_blocks_have_the_values_of_jax(mode, jit):
    tree = leaves(9)
    expected = jax.jacrev(coupled)(tree)
    J = adk.jacobian(coupled, mode=mode)
    found = (jax.jit(J) if jit else J)(tree)
    for a, row in expected.items():
        for b, block in row.items():
            np.testing.assert_allclose(found.of(a).wrt(f"tree.{b}"), block, rtol=1e-5, atol=1e-6)
    matrix = np.block([[np.asarray(x) for x in row.values()] for row in expected.values()])
    np.testing.assert_allclose(found.as_matrix(), matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [4, 10])
def test_leaves_of_one_waist_are_pulled_and_pushed_together(count):
    """Few blocks are products of their own, more are parts of a single one."""
    tree = {name: array(300)("float32") / i for i, name in enumerate("abcdefghij"[:count], 1)}
    matrices = {name: (array(300, 2)("float32") - 0.8) * i for i, name in enumerate(tree, 1)}

    def f(tree):
        code = jnp.tanh(sum(v @ matrices[name] for name, v in tree.items()))
        return {name: matrix @ code for name, matrix in matrices.items()}

    J = adk.jacobian(f)
    plan = J.plan(tree)
    assert plan.mode == "mixed"
    assert plan.forward_sweeps == plan.reverse_sweeps == plan.cut_size == 2
    expected = jax.jacrev(f)(tree)
    for call in (J, jax.jit(J)):
        found = call(tree)
        for (a, row), b in zip(expected.items(), reversed(tree), strict=True):
            np.testing.assert_allclose(found.of(a).wrt(f"tree.{b}"), row[b], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_a_packed_result_is_used_like_any_other(mode):
    tree = leaves(9)
    vector = jax.tree.map(jnp.cos, tree)
    flat = jnp.concatenate(jax.tree.leaves(vector))
    transform = adk.jacobian(coupled, mode=mode)
    J = transform(tree)
    assert jax.tree.structure(J) == jax.tree.structure(jax.jit(transform)(tree))
    matrix = J.as_matrix()
    for product, expected in [
        (J.mv(vector), matrix @ flat),
        (J.rmv(vector).tree, matrix.T @ flat),
        (J.T.mv(vector).tree, matrix.T @ flat),
    ]:
        found = jnp.concatenate(jax.tree.leaves(product))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    rows = dict(J.row_labels)["p3"], dict(J.column_labels)["tree.p2"]
    np.testing.assert_array_equal(J.of("p3").wrt("tree.p2"), matrix[rows])
    np.testing.assert_array_equal(J.tree["p3"].tree["p2"], matrix[rows])
    twice = lax.scan(lambda c, _: (jax.tree.map(jnp.add, c, J), None), J, length=1)[0]
    np.testing.assert_allclose(twice.as_matrix(), 2 * matrix, rtol=1e-6)
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), tree)
    batched = jax.vmap(transform)(batch)
    np.testing.assert_allclose(batched.of("p3").wrt("tree.p2")[0], matrix[rows], rtol=1e-5)
    with pytest.raises(adk.StructureError, match=r"vmap"):
        batched.as_matrix()


def test_a_packed_hessian_has_the_values_of_jax():
    def energy(tree):
        return jnp.sum(jnp.stack([jnp.sum(jnp.sin(v)) for v in tree.values()])[::2] ** 2)

    tree = leaves(9)
    expected = jax.hessian(energy)(tree)
    for H in (adk.hessian(energy)(tree), jax.jit(adk.hessian(energy))(tree)):
        for a, row in expected.items():
            for b, block in row.items():
                found = H.wrt(f"tree.{a}", f"tree.{b}")
                np.testing.assert_allclose(found, block, rtol=1e-5, atol=1e-6)


def test_blocks_of_several_dtypes_are_kept_apart():
    with jax.enable_x64(True):
        tree = {
            name: leaf.astype("float64" if i % 2 else "float32")
            for i, (name, leaf) in enumerate(leaves(9).items())
        }

        def f(tree):
            total = sum(jnp.sum(v).astype("float32") for v in tree.values())
            return {name: jnp.sin(v) * total.astype(v.dtype) for name, v in tree.items()}

        J = jax.jit(adk.jacobian(f))(tree)
        for a in ("p0", "p1"):
            for b in ("p2", "p3"):
                found = J.of(a).wrt(f"tree.{b}")
                assert found.dtype == np.promote_types(tree[a].dtype, tree[b].dtype)
                expected = jax.jacfwd(lambda v, a=a, b=b: f({**tree, b: v})[a])(tree[b])
                np.testing.assert_allclose(found, expected, rtol=1e-5)
