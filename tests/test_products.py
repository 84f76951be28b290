"""Products: dense results and linear maps against `jax.jvp` and `jax.vjp`, and lineax."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import autodiffkit as adk
import reference
from functions import CASES, Case
from reference import assert_close

PLAIN = [
    pytest.param(case, id=case.name)
    for case in CASES.values()
    if case.only is None and case.kind != "holomorphic" and case.batch and not case.has_aux
]
MAPS = [adk.jacobian, adk.linearize]


def direction(leaf):
    values = jnp.cos(1.0 + jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
    return jax.lax.complex(values, values / 2) if jnp.iscomplexobj(leaf) else values


@pytest.mark.parametrize("case", PLAIN)
def test_products_are_those_of_jvp_and_vjp(case: Case):
    args, kwargs = case.call("float32")
    function, selected = reference.flat_function(case, args, kwargs)

    def both(selected):
        tangents = [direction(x) for x in selected]
        outs, pushed = jax.jvp(function, selected, tangents)
        cotangents = [direction(x) for x in outs]
        pulled = jax.vjp(function, *selected)[1](cotangents)
        found = []
        for transform in MAPS:
            D = transform(lambda v: function(*v))(selected)
            found.append((
                D.mv(tangents),
                D.rmv(cotangents).v,
                D.T.mv(cotangents).v,
                D.T.T.mv(tangents),
            ))
        return found, pushed, list(pulled)

    found, pushed, pulled = jax.jit(both)(selected)
    for mv, rmv, transposed, twice in found:
        for ours, theirs in ((mv, pushed), (rmv, pulled), (transposed, pulled), (twice, pushed)):
            jax.tree.map(lambda a, b: assert_close(a, b, 40), ours, theirs)


def model(params, x):
    return {"y": jnp.tanh(params["w"] @ x + params["b"]), "z": jnp.sum(x**2)}


PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) / 6, "b": jnp.array([0.1, 0.2])}
X = jnp.array([0.3, -0.4, 0.5])


@pytest.mark.parametrize("transform", MAPS)
def test_vectors_may_be_records_dicts_keywords_or_partial(transform):
    D = transform(model)(PARAMS, X)
    dx, dw = jnp.ones(3), jnp.ones((2, 3))
    whole = D.mv(adk.Record(params={"w": dw, "b": jnp.zeros(2)}, x=dx))
    for product in (
        D.mv(params={"w": dw}, x=dx),
        D.mv({"x": dx, "params": {"w": dw, "b": None}}),
        D @ {"params": {"w": dw}, "x": dx},
    ):
        jax.tree.map(assert_close, product, whole)
    jax.tree.map(assert_close, D.mv(x=dx), D.mv(adk.Record(x=dx)))
    pulled = D.rmv({"y": jnp.ones(2)})
    assert jax.tree.structure(pulled) == jax.tree.structure(adk.Record(params=PARAMS, x=X))


@pytest.mark.parametrize("transform", MAPS)
def test_the_only_argument_may_be_given_bare(transform):
    D = transform(lambda params: model(params, X)["y"])(PARAMS)
    bare = D.mv({"w": jnp.ones((2, 3)), "b": jnp.zeros(2)})
    jax.tree.map(assert_close, D.mv(params={"w": jnp.ones((2, 3))}), bare)
    jax.tree.map(assert_close, D @ {"w": jnp.ones((2, 3))}, bare)
    # An argument that is a dict with a key of the argument's own name.
    E = transform(lambda x: x["x"] * 2)({"x": X})
    assert_close(E.mv({"x": X}), 2 * X)
    assert_close(E.mv({"x": {"x": X}}), 2 * X)


def test_a_matrix_product_is_a_structured_product():
    J = adk.jacobian(model)(PARAMS, X)
    flat = jnp.arange(11.0)
    columns = dict(J.column_labels)
    vector = {
        "params": {k: flat[columns[f"params.{k}"]].reshape(v.shape) for k, v in PARAMS.items()},
        "x": flat[columns["x"]],
    }
    product = J @ vector
    expected = J.as_matrix() @ flat
    for path, rows in J.row_labels:
        assert_close(product[path].ravel(), expected[rows], 40)


@pytest.mark.parametrize("transform", MAPS)
def test_a_dense_result_and_a_linear_map_have_the_same_matrix(transform):
    D = transform(model)(PARAMS, X)
    assert_close(D.as_matrix(), adk.jacobian(model)(PARAMS, X).as_matrix())
    assert_close(D.T.as_matrix(), D.as_matrix().T)
    assert [path for path, _ in D.row_labels] == ["y", "z"]
    assert [path for path, _ in D.column_labels] == ["params.b", "params.w", "x"]


def loss(params, x):
    out = model(params, x)
    return jnp.sum(out["y"] ** 2) * out["z"]


def test_hessian_vector_products_are_records():
    H, L = adk.hessian(loss)(PARAMS, X), adk.hvp(loss)(PARAMS, X)
    vector = {"params": {"w": jnp.ones((2, 3))}, "x": X}
    for product in (
        H @ vector,
        H.T @ vector,
        H.rmv(vector),
        L @ vector,
        L.rmv(vector),
        L.T.mv(vector),
    ):
        assert isinstance(product, adk.Record)
        jax.tree.map(lambda a, b: assert_close(a, b, 40), product, H.mv(vector))
    flat = jax.flatten_util.ravel_pytree(
        adk.Record(params={"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}, x=X)
    )[0]
    assert_close(jax.flatten_util.ravel_pytree(H @ vector)[0], H.as_matrix() @ flat, 40)
    assert_close(L.as_matrix(), H.as_matrix(), 40)
    jax.tree.map(assert_close, L.grad.tree, H.grad.tree)


def test_products_of_a_hessian_of_several_outputs():
    H = adk.hessian(model)(PARAMS, X)
    product = H.mv(x=X)
    assert product["y"].params["w"].shape == (2, 2, 3)
    assert_close(product["z"].x, 2 * X)
    back = H.rmv({"z": adk.Record(x=X)})
    assert_close(back.x, 2 * X)


def test_lineax_solves_with_a_hessian_and_a_jacobian():
    def convex(params, x):
        return loss(params, x) + jnp.sum(x**2) + sum(jnp.sum(p**2) for p in params.values())

    for H in (adk.hessian(convex)(PARAMS, X), adk.hvp(convex)(PARAMS, X)):
        operator = H.as_lineax()
        assert lx.is_symmetric(operator)
        right = H.grad.tree
        for solver in (lx.AutoLinearSolver(well_posed=True), lx.GMRES(rtol=1e-5, atol=1e-5)):
            step = lx.linear_solve(operator, right, solver).value
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), H @ step, right
            )
    J = adk.jacobian(model)(PARAMS, X)
    operator = J.as_lineax()
    assert_close(operator.as_matrix(), J.as_matrix())
    jax.tree.map(
        assert_close, operator.mv(adk.Record(params=PARAMS, x=X)), J.mv(params=PARAMS, x=X)
    )
    jax.tree.map(assert_close, operator.T.mv(model(PARAMS, X)), J.rmv(model(PARAMS, X)))
    matrix_free = adk.linearize(model)(PARAMS, X).as_lineax()
    assert_close(matrix_free.as_matrix(), J.as_matrix(), 40)
    assert_close(J.T.as_lineax().as_matrix(), J.as_matrix().T)


def test_mixed_outputs_have_one_input_structure_for_lineax():
    J = adk.jacobian(lambda x: (x.astype(jnp.float16), x * 2))(X)
    assert_close(J.as_lineax().as_matrix(), jnp.concatenate([jnp.eye(3), 2 * jnp.eye(3)]))


def test_linear_maps_go_around_a_rule_that_only_reverses():
    f = CASES["custom_vjp"].function
    L = adk.linearize(f)(jnp.arange(4.0))
    assert_close(L.mv(x=jnp.ones(4)), 2 * jnp.arange(4.0))
    assert_close(L.rmv(jnp.ones(4)).x, 2 * jnp.arange(4.0))
    assert_close(L.as_matrix(), jnp.diag(2 * jnp.arange(4.0)))


def test_linear_maps_of_equal_programs_are_equal_structures():
    first, second = (adk.linearize(model)(PARAMS, X * i) for i in (1, 2))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert hash(jax.tree.structure(first)) == hash(jax.tree.structure(second))
    other = adk.linearize(lambda params, x: model(params, 2 * x))(PARAMS, X)
    assert jax.tree.structure(first) != jax.tree.structure(other)
    traces = []

    @jax.jit
    def apply(L, x):
        traces.append(1)
        return L.mv(x=x)

    for L in (first, second):
        jax.tree.map(lambda a, b: assert_close(a, b, 40), apply(L, X), L.mv(x=X))
    assert len(traces) == 1


def test_a_linear_map_of_a_custom_rule_is_a_carry():
    f = CASES["custom_vjp"].function

    def step(carry, _):
        return adk.linearize(f)(carry.value / 10), None

    first = adk.linearize(f)(jnp.arange(4.0))
    last, _ = jax.lax.scan(step, first, length=2)
    assert_close(last.rmv(jnp.ones(4)).x, 2 * (jnp.arange(4.0) ** 2 / 10) ** 2 / 10, 40)


def test_low_precision_products_accumulate_in_float32():
    x = jnp.full(4096, 0.1, jnp.bfloat16)
    G = adk.grad(lambda x: jnp.sum(x.astype(jnp.float32) ** 2).astype(jnp.bfloat16))(x)
    product = G.mv(x=jnp.full(4096, 0.1, jnp.bfloat16))
    assert product.dtype == jnp.bfloat16
    expected = float(
        jnp.sum(G.x.astype(jnp.float32) * jnp.asarray(0.1, jnp.bfloat16).astype(jnp.float32))
    )
    np.testing.assert_allclose(float(product), expected, rtol=1e-2)


def test_a_linear_map_says_that_it_stores_no_blocks():
    L = adk.linearize(model)(PARAMS, X)
    with pytest.raises(AttributeError) as caught:
        _ = L.x
    assert str(caught.value) == (
        "linearize(model) has no attribute 'x': it stores no blocks. Multiply with mv and rmv, or "
        "use .materialise(), whose result has a block for each argument."
    )
    with pytest.raises(AttributeError, match=r"linearize\(model\) keeps no gradient"):
        _ = L.grad


def test_maps_between_complex_arrays_that_conjugate_have_products_and_no_matrix():
    z, v = jnp.array([1 + 2j, 0.3j]), {"z": jnp.array([1j, 2.0 - 1j])}

    def size(z):
        return jnp.real(z) ** 2 + jnp.imag(z) ** 2

    L, J = adk.linearize(size)(z), adk.jacobian(size)(z)
    expected = jax.vjp(size, z)[1](jax.jvp(size, (z,), (v["z"],))[1])[0]
    gauss = adk.gauss_newton(lambda z: jnp.abs(z), lambda r: jnp.sum(r**2) / 2)(z)
    for product in (L.T @ L, J.T @ J, L.T @ J + J.T @ L, gauss):
        for call in (product.as_matrix, product.materialise, product.as_lineax):
            with pytest.raises(adk.StructureError, match="complex arrays is only R-linear"):
                call()
    np.testing.assert_allclose((L.T @ J).mv(v).z, expected, rtol=1e-6)

    def holomorphic(z):
        return jnp.exp(z) * z[::-1]

    L, J = (t(holomorphic, holomorphic=True)(z) for t in (adk.linearize, adk.jacobian))
    matrix = J.as_matrix()
    for product in (L.T @ L, J.T @ J, J.T @ L):
        np.testing.assert_allclose(product.as_matrix(), matrix.T @ matrix, rtol=1e-5)
