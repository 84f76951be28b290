"""Sums, multiples, products and transposes of maps, and their matrices by the plan."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import autodiffkit as adk
from functions import CASES

REAL = [
    pytest.param(case, id=case.name)
    for case in CASES.values()
    if case.kind == "real" and case.only is None
]


def model(x, params):
    return {"a": jnp.tanh(params["w"] @ x + params["b"]), "b": jnp.sum(x**2)}


X = jnp.array([0.3, -0.5])
PARAMS = {"w": jnp.array([[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]]), "b": jnp.array([0.1, 0.2, -0.3])}


def dense(given):
    return np.asarray(given.as_matrix(), np.float64)


def close(ours, theirs, rtol=2e-5):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(
        np.asarray(ours, np.float64), theirs, rtol=rtol, atol=rtol * (1 + np.abs(theirs).max())
    )


@pytest.mark.parametrize("case", REAL)
def test_products_and_sums_are_those_of_the_matrices(case):
    args, kwargs = case.call("float32")
    dynamic, static = eqx.partition((args, kwargs), eqx.is_inexact_array)

    @jax.jit
    def matrices(leaves):
        args, kwargs = eqx.combine(leaves, static)
        L = adk.linearize(case.function, **case.options)(*args, **kwargs)
        gram = L.T @ L
        return (
            L.as_matrix(),
            gram.as_matrix(),
            gram.materialise().as_matrix(),
            (2 * L - L / 4).as_matrix(),
            (L @ (gram + gram)).T.as_matrix(),
        )

    whole, *found = (np.asarray(x, np.float64) for x in matrices(dynamic))
    gram = whole.T @ whole
    for ours, theirs in zip(found, (gram, gram, 1.75 * whole, (whole @ gram * 2).T), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("make", [adk.linearize, adk.jacobian])
def test_a_product_with_a_vector_is_that_of_the_parts(make):
    L = make(model)(X, PARAMS)
    v = {"x": jnp.array([1.0, 2.0]), "params": {"b": jnp.ones(3)}}
    pulled = (L.T @ L).mv(v)
    np.testing.assert_allclose(pulled.x, L.rmv(L.mv(v)).x, rtol=1e-6)
    np.testing.assert_allclose((L.T @ L @ v).params["w"], pulled.params["w"], rtol=1e-6)
    cotangent = {"a": jnp.ones(3)}
    np.testing.assert_allclose((3.0 * L).rmv(cotangent).x, 3 * L.rmv(cotangent).x, rtol=1e-6)
    np.testing.assert_allclose((L - 2 * L).T.mv(cotangent).x, -L.rmv(cotangent).x, rtol=1e-6)


@pytest.mark.parametrize(
    "scaled",
    [
        lambda L: L * 2,
        lambda L: 2 * L,
        lambda L: np.float32(2) * L,
        lambda L: L * jnp.float32(2),
        lambda L: jnp.float32(2) * L,
        lambda L: L / 0.5,
        lambda L: -(-2.0 * L),
        lambda L: L + L,
        lambda L: sum([L, L]),
        lambda L: 3 * L - L,
    ],
)
def test_these_are_twice_the_map(scaled):
    L = adk.linearize(model, wrt="x")(X, PARAMS)
    np.testing.assert_allclose(dense(scaled(L)), 2 * dense(L), rtol=1e-6)
    assert scaled(L).as_matrix().dtype == jnp.float32


def test_maps_of_different_functions_compose_like_the_functions():
    def encode(x):
        return jnp.tanh(PARAMS["w"] @ x)

    def decode(code):
        return {"y": jnp.sin(code), "norm": jnp.sum(code**2)}

    first = adk.linearize(encode)(X)
    second = adk.linearize(decode)(first.value)
    whole = adk.jacobian(lambda x: decode(encode(x)))(X)
    np.testing.assert_allclose(dense(second @ first), dense(whole), rtol=1e-5, atol=1e-6)
    stored = (adk.jacobian(decode)(first.value) @ first).materialise()
    np.testing.assert_allclose(stored.x["y"], whole.x["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stored.of("norm").x, whole.of("norm").x, rtol=1e-5)
    pulled = (second @ first).rmv({"norm": 1.0}).x
    np.testing.assert_allclose(pulled, whole.of("norm").x, rtol=1e-5)


def test_a_product_is_swept_through_its_waist():
    wide = jnp.linspace(-1.0, 1.0, 3 * 400).reshape(3, 400)
    L = adk.linearize(lambda x: jnp.tanh(wide @ x))(jnp.ones(400))
    product = L.T @ L
    plan = product._plan("product")
    assert plan.mode == "mixed"
    assert plan.cut_size == 3
    np.testing.assert_allclose(dense(product), dense(L).T @ dense(L), rtol=1e-4, atol=1e-5)


def test_materialised_maps_have_names():
    L = adk.linearize(model)(X, PARAMS)
    J, stored = adk.jacobian(model)(X, PARAMS), L.materialise()
    assert isinstance(stored, adk.Jacobian)
    np.testing.assert_allclose(stored.x["a"], J.x["a"], rtol=1e-6)
    np.testing.assert_allclose(stored.value["b"], J.value["b"])
    back = L.T.materialise()
    assert isinstance(back, adk.Jacobian)
    np.testing.assert_allclose(back.of("x")["output.b"], J.of("b").x, rtol=1e-6)
    np.testing.assert_allclose(dense(back), dense(J).T, rtol=1e-6)
    assert (2 * L).materialise().value is None

    H = adk.hvp(lambda x: jnp.sum(jnp.cos(x) * x[0]))(X)
    stored = H.materialise()
    assert isinstance(stored, adk.Hessian)
    np.testing.assert_allclose(stored.grad.x, H.grad.x)
    np.testing.assert_allclose(stored.solve(stored.grad).x, stored.solve(H.grad).x)
    np.testing.assert_allclose(stored.value, H.value)


def test_vectors_go_to_flat_arrays_and_back(dtype):
    args = jax.tree.map(lambda x: jnp.asarray(x, dtype), (X, PARAMS))
    L = adk.linearize(model)(*args)
    v = {"x": args[0], "params": args[1]}
    flat = L.ravel(v)
    assert flat.shape == (11,)
    assert flat.dtype == dtype
    np.testing.assert_array_equal(L.unravel(flat).params["w"], args[1]["w"])
    out = L.mv(v)
    np.testing.assert_allclose(L.as_matrix() @ flat, L.T.ravel(out), rtol=1e-5)
    np.testing.assert_array_equal(L.T.unravel(L.T.ravel(out))["a"], out["a"])
    columns = L.unravel(np.eye(11, 4))
    assert columns.params["w"].shape == (3, 2, 4)
    assert columns.x.dtype == dtype
    assert jnp.iscomplexobj(L.unravel(np.full(11, 1j)).x)
    np.testing.assert_array_equal(L.ravel(x=args[0])[2:], 0)


@pytest.mark.parametrize(
    "result",
    [
        lambda: adk.jacobian(model)(X, PARAMS),
        lambda: adk.jacobian(model, layout="compact", of="a", wrt="params.b")(X, PARAMS),
        lambda: adk.grad(model, of="b")(X, PARAMS),
        lambda: adk.hessian(model, of="b")(X, PARAMS),
        lambda: adk.hessian(model, wrt="x")(X, PARAMS),
        lambda: adk.jacobian(model)(X, PARAMS).gram(),
        lambda: adk.jacobian(lambda t: {k: v**2 for k, v in t.items()})({
            f"k{i}": jnp.float32(i) for i in range(12)
        }),
    ],
)
def test_every_result_takes_another_matrix(result):
    given = result()
    matrix = np.asarray(given.as_matrix()) * 2 + 1
    new = given.from_matrix(matrix)
    assert type(new) is type(given)
    np.testing.assert_allclose(new.as_matrix(), matrix)
    assert new.as_matrix().dtype == given.as_matrix().dtype
    with pytest.raises(adk.StructureError, match="matrix should have the shape"):
        given.from_matrix(matrix[..., :-1])
    with pytest.raises(adk.StructureError, match="is complex"):
        given.from_matrix(matrix * 1j)


def test_spaces_and_labels():
    L = adk.linearize(model)(X, PARAMS)
    assert L.in_structure.params["w"].shape == (3, 2)
    assert L.out_structure["a"].dtype == jnp.float32
    assert (L.T @ L).out_structure == L.in_structure
    assert [path for path, _ in L.column_labels] == ["x", "params.b", "params.w"]
    assert [path for path, _ in L.T.column_labels] == ["a", "b"]
    assert [path for path, _ in (L.T @ L).row_labels] == ["x", "params.b", "params.w"]


def test_maps_go_through_jit_vmap_and_scan():
    L = adk.linearize(model, wrt="x")(X, PARAMS)
    other = adk.linearize(model, wrt="x")(2 * X, PARAMS)
    assert jax.tree.structure(L.T @ L) == jax.tree.structure(other.T @ other)
    gram = dense(L.T @ L)
    product = jax.jit(lambda L, c: (c * (L.T @ L)).mv(x=X).x)(L, 2.0)
    np.testing.assert_allclose(product, 2 * gram @ X, rtol=1e-5)

    def mapped(x):
        M = adk.linearize(model, wrt="x")(x, PARAMS)
        return (M.T @ M + M.T @ M).as_matrix()

    found = jax.vmap(mapped)(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(found[0], 2 * gram, rtol=1e-5)
    start = (L.T @ L).materialise()
    last, _ = jax.lax.scan(lambda M, _: (M.damped(1.0), None), start, None, 2)
    np.testing.assert_allclose(last.as_matrix(), gram + 2 * np.eye(2), rtol=1e-5)
    slope = jax.jacfwd(lambda x: mapped(x))(X)
    eps = 1e-3
    ahead, behind = mapped(X.at[0].add(eps)), mapped(X.at[0].add(-eps))
    np.testing.assert_allclose(slope[..., 0], (ahead - behind) / (2 * eps), atol=2e-3)


def test_lineax_takes_every_map():
    L = adk.linearize(model, wrt="x")(X, PARAMS)
    H = adk.hvp(lambda x: jnp.sum(x**4) + x[0] * x[1])(X)
    gram = L.T @ L
    for given in (L, L.T, gram, 2 * L, L + L, H, H + H, gram.materialise(), H.materialise()):
        matrix = lx.materialise(given.as_lineax()).as_matrix()
        np.testing.assert_allclose(matrix, given.as_matrix(), rtol=1e-5, atol=1e-6)
    assert lx.is_symmetric(H.as_lineax())
    assert lx.is_symmetric((H + H).as_lineax())
    assert lx.is_symmetric((-2 * H).as_lineax())
    assert lx.is_positive_semidefinite(gram.as_lineax())
    assert not lx.is_symmetric((L.T @ (2 * L)).as_lineax())
    assert isinstance((H - H).materialise(), adk.SymmetricMatrix)
    J = adk.jacobian(model, wrt="x")(X, PARAMS)
    assert lx.is_positive_semidefinite(J.gram().as_lineax())
    assert isinstance(gram.materialise(), adk.SymmetricMatrix)
    damped = gram.as_lineax() + lx.IdentityLinearOperator(gram.in_structure)
    damped = lx.TaggedLinearOperator(damped, lx.positive_semidefinite_tag)
    right = L.unravel(jnp.ones(2))
    found = lx.linear_solve(damped, right, lx.CG(1e-7, 1e-7)).value
    expected = np.linalg.solve(dense(gram) + np.eye(2), np.ones(2))
    np.testing.assert_allclose(found.x, expected, rtol=1e-4)


def test_what_only_pushes_is_pushed_and_what_only_pulls_is_pulled():
    loop = CASES["while_loop"].function
    L = adk.linearize(loop)(jnp.ones(3))
    np.testing.assert_allclose(dense(L + L), 2 * dense(adk.jacobian(loop)(jnp.ones(3))))
    with pytest.raises(adk.ModeError, match=r"linearize\(while_loop\).rmv is impossible"):
        (L.T @ L).as_matrix()
    rule = CASES["custom_vjp"].function
    R = adk.linearize(rule)(jnp.ones(4))
    np.testing.assert_allclose(dense(2 * R), 4 * np.eye(4))
    np.testing.assert_allclose(dense(R.T @ R), 4 * np.eye(4))


def test_maps_of_complex_arrays():
    f = CASES["holomorphic_product"].function if "holomorphic_product" in CASES else jnp.exp
    z = jnp.array([0.3 + 0.1j, -0.2 + 0.5j])
    L = adk.linearize(jnp.exp if f is jnp.exp else lambda z: f(z, z), holomorphic=True)(z)
    whole = np.asarray(L.as_matrix())
    np.testing.assert_allclose((1j * L).as_matrix(), 1j * whole, rtol=1e-6)
    np.testing.assert_allclose((L.T @ L).as_matrix(), whole.T @ whole, rtol=1e-5)
    real = adk.linearize(lambda x: jnp.exp(jax.lax.complex(x, x)))(jnp.ones(2))
    np.testing.assert_allclose((2 * real).mv(jnp.ones(2)), 2 * real.mv(jnp.ones(2)))
    with pytest.raises(adk.StructureError, match="complex number"):
        _ = 1j * real


def test_copies_are_maps():
    L = adk.linearize(model)(X, PARAMS)
    again = copy.deepcopy(L.T @ L)
    np.testing.assert_allclose(dense(again), dense(L.T @ L))


L = adk.linearize(model)(X, PARAMS)
OTHER = adk.linearize(lambda x: x[:1])(X)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (
            lambda: L + OTHER,
            adk.StructureError,
            ["linearize(model) + linearize(<lambda>)", "params.w"],
        ),
        (
            lambda: OTHER @ L,
            adk.StructureError,
            ["linearize(<lambda>) @ linearize(model)", "given"],
        ),
        (lambda: L * jnp.ones(2), adk.StructureError, ["one number", "float32[2]"]),
        (lambda: L * "x", adk.StructureError, ["one number", "a str"]),
        (lambda: jnp.ones(2) * L, adk.StructureError, ["one number", "float32[2]"]),
        (lambda: jnp.ones(2) @ L, adk.StructureError, [".rmv(vector)"]),
        (lambda: jnp.asarray(L), adk.StructureError, ["no single array"]),
        (lambda: np.asarray(2 * L), adk.StructureError, ["no single array"]),
        (lambda: L.mv(L), adk.StructureError, ["linearize(model).mv", "no vector"]),
        (lambda: L.mv({"x": X}, x=X), adk.StructureError, ["by position or by keyword"]),
        (lambda: L.unravel(jnp.ones(3)), adk.StructureError, ["11 entries", "float32[3]"]),
        (lambda: L.unravel(1.0), adk.StructureError, ["11 entries"]),
        (lambda: (2 * L).value, adk.NotDifferentiatedError, ["no value", "made of other maps"]),
        (lambda: (L + L).grad, adk.NotDifferentiatedError, ["no gradient"]),
        (lambda: (L.T @ L).x, adk.NotDifferentiatedError, ["'x'", "materialise()"]),
        (lambda: L + 1, adk.OperandError, ["linearize(model) + 1", ".materialise().", ".mv"]),
        (lambda: L @ {"y": X}, adk.StructureError, ["'y'", "no counterpart"]),
        (
            lambda: jax.vmap(lambda x: adk.linearize(model)(x, PARAMS))(X[None]).T.mv({"b": 1.0}),
            adk.StructureError,
            ["jax.vmap"],
        ),
        (
            lambda: jax.vmap(lambda x: 2 * adk.linearize(model)(x, PARAMS))(X[None]).as_matrix(),
            adk.StructureError,
            ["jax.vmap"],
        ),
    ],
)
def test_what_does_not_fit_is_named(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_products_with_a_large_hessian_hold_a_few_vectors():
    size = 100_000

    @jax.jit
    def iterate(x, v):
        H = adk.hvp(lambda x: jnp.sum(jnp.cosh(x)) + jnp.sum(jnp.sin(x[1:] * x[:-1])))(x)
        return jax.lax.fori_loop(0, 5, lambda _, v: H.mv(v / jnp.linalg.norm(v)).x, v)

    struct = jax.ShapeDtypeStruct((size,), jnp.float32)
    analysis = iterate.lower(struct, struct).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 12 * 4 * size


def test_records_compare_as_tuples_do():
    record = adk.Record(x=1, y={"a": 2})
    assert record == adk.Record(x=1, y={"a": 2})
    assert record != adk.Record(y={"a": 2}, x=1)
    assert record != (1, {"a": 2})
    assert len({adk.Record(x=1), adk.Record(x=1)}) == 1
