"""Results as matrices: solving, factorising and estimating, against NumPy and SciPy in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import autodiffkit as adk
from functions import CASES
from reference import is_floating

REAL = [case for case in CASES.values() if case.kind == "real" and case.only is None]
FIRST = [pytest.param(case, id=case.name) for case in REAL]
SECOND = [pytest.param(case, id=case.name) for case in REAL if case.smooth]
PARAMS = {"scale": jnp.array([1.0, -0.5]), "größe": jnp.array([[0.3, 0.2]])}
X = jnp.array([0.7, -0.4, 0.2])


def loss(params, x):
    total = jnp.sum(jnp.cosh(params["scale"])) + jnp.sum(x**4)
    return total + jnp.sum(params["größe"]) * jnp.sum(x * x[::-1]) + jnp.sum(params["größe"] ** 2)


def dense(given):
    return np.asarray(given.as_matrix(), np.float64)


def close(ours, theirs, dtype, *, rtol=None):
    rtol = rtol or (1e-9 if dtype == "float64" else 2e-4)
    theirs = np.asarray(theirs, np.float64)
    atol = rtol * max(1.0, np.max(np.abs(theirs), initial=0))
    np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, rtol=rtol, atol=atol)


# The registry -----------------------------------------------------------------------


@pytest.fixture(name="wide")
def _wide():
    with jax.enable_x64(True):
        yield "float64"


@pytest.mark.parametrize("case", FIRST)
def test_jacobians_of_the_registry(case, wide):
    dynamic, static = eqx.partition(case.call(wide), eqx.is_inexact_array)

    def answers(leaves):
        args, kwargs = eqx.combine(leaves, static)
        J = adk.jacobian(case.function, **case.options)(*args, **kwargs)
        m, n = J.as_matrix().shape
        solution = J.lstsq(J.T.unravel(np.linspace(-1.0, 1.0, m)))
        assert jax.tree.structure(solution) == jax.tree.structure(J.in_structure)
        U, S, Vh = J.svd()
        if S.size:
            assert J.T.ravel(jax.tree.map(lambda x: x[..., 0], U)).shape == (m,)
            Vh = J.ravel(jax.tree.map(lambda x: x[0], Vh))
        determinant = J.slogdet() if m == n else None
        return J.as_matrix(), J.gram().as_matrix(), J.ravel(solution), S, Vh, determinant

    # XLA's FFT refuses the layout that its factorisations want (jaxlib 0.10.2, CPU).
    run = answers if case.name == "power_spectrum" else jax.jit(answers)
    matrix, gram, found, S, first, determinant = run(dynamic)
    matrix, (m, n) = np.asarray(matrix), matrix.shape
    close(gram, matrix.T @ matrix, wide)
    right = np.linspace(-1.0, 1.0, m)
    # The residual is what least squares determine; so is the length of the shortest solution.
    singular = np.linalg.svd(matrix, compute_uv=False) if m * n else np.zeros(0)
    # Between what counts as zero here and there, nothing is asked.
    least = max(m, n) * np.finfo(wide).eps * np.max(singular, initial=0)
    expected = np.zeros(n)
    if m * n:
        expected = np.linalg.lstsq(matrix, right, rcond=max(m, n) * np.finfo(wide).eps)[0]
    if not np.any((singular > least / 10) & (singular < 1e4 * least)):
        close(matrix @ found, matrix @ expected, wide, rtol=1e-7)
    if singular.size and singular[-1] > 1e-3 * singular[0]:
        close(found, expected, wide, rtol=1e-7)
    close(S, singular, wide)
    if S.size:
        close(np.linalg.norm(matrix @ np.asarray(first)), singular[0], wide)
    if determinant is not None and np.linalg.cond(matrix) < 1e3:
        expected = np.linalg.slogdet(matrix)
        close(determinant.sign, expected[0], wide)
        close(determinant.logabsdet, expected[1], wide, rtol=1e-6)


@pytest.mark.parametrize("case", SECOND)
def test_hessians_of_the_registry(case, wide):
    leaves, treedef = jax.tree.flatten(case.call(wide))
    if not all(hasattr(x, "dtype") or isinstance(x, float) for x in leaves):
        pytest.skip("an argument is no array")

    def scalar(*leaves):
        filled = jax.tree.unflatten(treedef, [*leaves])
        out = case.function(*filled[0], **filled[1])
        out = out[0] if case.has_aux else out
        kept = [x for x in jax.tree.leaves(out) if is_floating(x)]
        total = sum(jnp.sum(jnp.sin(x).astype(wide)) for x in kept)
        floating = [x for x in leaves if is_floating(x)]
        return total + 40 * sum(jnp.sum(x**2).astype(wide) for x in floating)

    dynamic, static = eqx.partition(leaves, eqx.is_inexact_array)

    @jax.jit
    def answers(leaves):
        H = adk.hessian(scalar)(*eqx.combine(leaves, static))
        right = np.linspace(-1.0, 1.0, len(H.as_matrix()))
        values, vectors = H.eigh()
        return (
            H.as_matrix(),
            H.ravel(H.solve(H.unravel(right))),
            H.inverse().as_matrix(),
            H.ravel(H.diagonal()),
            H.slogdet().logabsdet,
            values,
            [x[..., :1].ravel() for x in jax.tree.leaves(vectors)],
        )

    matrix, solution, inverse, diagonal, logabsdet, values, first = answers(dynamic)
    matrix = np.asarray(matrix)
    right = np.linspace(-1.0, 1.0, len(matrix))
    close(solution, np.linalg.solve(matrix, right), wide, rtol=1e-8)
    close(inverse, np.linalg.inv(matrix), wide, rtol=1e-8)
    close(diagonal, np.diag(matrix), wide)
    close(logabsdet, np.linalg.slogdet(matrix)[1], wide, rtol=1e-8)
    close(values, np.linalg.eigvalsh(matrix), wide, rtol=1e-8)
    if len(matrix):
        vector = np.concatenate([np.asarray(x) for x in first])
        close(matrix @ vector, values[0] * vector, wide, rtol=1e-8)


# Hessians ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["dense", "compact"])
def test_answers_have_the_names_of_the_arguments(layout, dtype):
    params, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (PARAMS, X))
    H = adk.hessian(loss, layout=layout)(params, x)
    step = H.solve(H.grad)
    assert step.params["größe"].shape == (1, 2)
    assert step.x.dtype == dtype
    close(H.ravel(H @ step), np.asarray(H.grad.as_matrix())[0], dtype, rtol=1e-3)
    close(H.ravel(H.mv(H.grad)), dense(H) @ np.asarray(H.grad.as_matrix())[0], dtype)
    inverse = H.inverse()
    assert isinstance(inverse, adk.SymmetricMatrix)
    close(inverse.x.params["scale"], np.linalg.inv(dense(H))[4:, 2:4].reshape(3, 2), dtype)
    assert H.diagonal().params["scale"].shape == (2,)
    assert H.eigh().eigenvectors.params["größe"].shape == (1, 2, 7)
    assert H.eigh().eigenvalues.dtype == dtype
    only = H.solve(x=x)
    close(only.x, H.ravel(H.solve({"x": x, "params": {}}))[4:], dtype)


def quadratic(matrix, x):
    return x @ matrix @ x / 2


@pytest.mark.parametrize("eigenvalues", [[1.0, 2.0, 5.0], [-3.0, 1.0, 2.0], [-1.0, -2.0, -4.0]])
def test_definite_and_indefinite_matrices_are_solved(eigenvalues):
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    matrix = rotation @ np.diag(eigenvalues) @ rotation.T
    H = adk.hessian(quadratic, wrt="x")(jnp.asarray(matrix, jnp.float32), X)
    close(H.solve(X).x, np.linalg.solve(matrix, X), "float32")
    close(jax.jit(lambda H: H.solve(X).x)(H), np.linalg.solve(matrix, X), "float32")
    close(H.damped(10.0).inverse().x.x, np.linalg.inv(matrix + 10 * np.eye(3)), "float32")


def test_units_do_not_make_a_matrix_singular():
    scales = jnp.array([1e-12, 1.0, 1e12])
    H = adk.hessian(lambda x: jnp.sum((x * scales) ** 2) / 2 + 0.5 * x[0] * x[1] * 1e-12)(X)
    expected = np.linalg.solve(dense(H), np.asarray(X, np.float64))
    np.testing.assert_allclose(H.solve(X).x, expected, rtol=1e-5)
    rows = jnp.array([[1.0, 1e-9], [1.0, 2e-9], [1.0, 4e-9]])
    J = adk.jacobian(lambda w: rows @ w)(jnp.ones(2))
    expected = np.linalg.lstsq(np.asarray(rows, np.float64), np.asarray(X, np.float64), rcond=0)[0]
    np.testing.assert_allclose(J.lstsq(X).w, expected, rtol=1e-4)


def test_a_hessian_that_rules_make_unsymmetric_is_solved_as_it_is():
    @jax.custom_jvp
    def odd(x, y):
        return x * y

    @odd.defjvp
    def _(primals, tangents):
        x, y = primals
        return x * y, 2 * y * tangents[0] + 3 * x * tangents[1]

    H = adk.hessian(odd)(1.0, 2.0)
    np.testing.assert_allclose(H.as_matrix(), [[0, 2], [3, 0]])
    np.testing.assert_allclose(H.inverse().as_matrix(), [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)
    np.testing.assert_allclose(H.ravel(H.solve(x=1.0, y=6.0)), [2.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(H.eigh().eigenvalues, [-2.5, 2.5], rtol=1e-6)


@pytest.mark.parametrize("narrow", [jnp.float16, jnp.bfloat16])
def test_narrow_dtypes_are_kept_and_computed_in_float32(narrow):
    x = X.astype(narrow)
    H = adk.hessian(lambda x: jnp.sum(x**4) + x[0] * x[1])(x)
    J = adk.jacobian(lambda x: jnp.sin(x) * x[0])(x)
    found = [
        H.solve(x).x,
        H.inverse().x.x,
        H.eigh().eigenvalues,
        H.eigh().eigenvectors.x,
        H.slogdet().logabsdet,
        H.diagonal().x,
        J.lstsq(x).x,
        J.svd().S,
        J.svd().U,
        J.slogdet().logabsdet,
        J.gram().x.x,
    ]
    assert {leaf.dtype for leaf in found} == {jnp.dtype(narrow)}
    np.testing.assert_allclose(
        np.asarray(found[0], np.float64),
        np.linalg.solve(dense(H), np.asarray(x, np.float64)),
        rtol=0.02,
    )


def test_mixed_dtypes_come_back_leaf_by_leaf():
    with jax.enable_x64(True):
        params = {"narrow": jnp.ones(2, jnp.float32), "wide": jnp.ones(2)}
        H = adk.hessian(
            lambda p: (
                jnp.sum(p["narrow"].astype(jnp.float64) ** 2 * p["wide"])
                + 4 * jnp.sum(p["wide"] ** 2)
            )
        )(params)
        step = H.solve(H.grad)
        assert step.p["narrow"].dtype == jnp.float32
        assert step.p["wide"].dtype == jnp.float64


def test_many_blocks_and_empty_leaves():
    params = {f"k{i}": jnp.full((1 + i % 2,), 1.0 + i) for i in range(10)} | {"none": jnp.zeros(0)}
    H = adk.hessian(lambda p: sum(jnp.sum(v**3) for v in p.values()))(params)
    step = H.solve(H.grad)
    assert step.p["none"].shape == (0,)
    np.testing.assert_allclose(step.p["k3"], params["k3"] / 2, rtol=1e-5)
    np.testing.assert_allclose(
        H.inverse().p["k3"].p["k3"], np.diag(1 / (6 * params["k3"])), rtol=1e-5
    )


# Fits -------------------------------------------------------------------------------


def test_a_covariance_is_that_of_scipy():
    time = np.linspace(0.0, 3.0, 30)
    noise = 0.05 * np.random.default_rng(1).standard_normal(30)
    data = 2.0 * np.exp(-1.3 * time) + 0.4 + noise

    def curve(t, amplitude, rate, offset):
        return amplitude * np.exp(-rate * t) + offset

    fitted, expected = scipy.optimize.curve_fit(curve, time, data, p0=[1.0, 1.0, 0.0])
    with jax.enable_x64(True):

        def residuals(params):
            decay = params["amplitude"] * jnp.exp(-params["rate"] * time)
            return {"misfit": decay + params["offset"] - data}

        params = dict(zip(["amplitude", "rate", "offset"], map(jnp.asarray, fitted), strict=True))
        J = adk.jacobian(residuals)(params)
        C = J.covariance(J.value)
        order = [0, 2, 1]  # of the keys of a dict, sorted: amplitude, offset, rate
        close(C.as_matrix(), expected[np.ix_(order, order)], "float64", rtol=1e-4)
        close(C.stderr().params["rate"], np.sqrt(expected[1, 1]), "float64", rtol=1e-4)
        roots = np.sqrt(np.diag(expected))
        correlation = (expected / roots / roots[:, None])[np.ix_(order, order)]
        close(C.correlation().as_matrix(), correlation, "float64", rtol=1e-4)
        np.testing.assert_array_equal(np.diag(C.correlation().as_matrix()), 1)
        mapped = jax.vmap(
            lambda s: jnp.sqrt(
                adk
                .jacobian(residuals)(params | {"rate": s})
                .covariance({"misfit": J.value["misfit"]})
                .diagonal()
                .params["rate"]
            )
        )(jnp.asarray([fitted[1], 1.0]))
        close(mapped[0], np.sqrt(expected[1, 1]), "float64", rtol=1e-4)


def test_what_is_not_determined_is_answered_by_the_shortest_or_refused():
    rows = jnp.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    J = adk.jacobian(lambda w: rows @ w)(jnp.ones(2))
    np.testing.assert_allclose(J.lstsq(X).w, np.linalg.lstsq(rows, X, rcond=None)[0], atol=1e-6)
    wide = adk.jacobian(lambda w: rows.T @ w)(jnp.ones(3))
    np.testing.assert_allclose(
        wide.lstsq(jnp.ones(2)).w, np.linalg.lstsq(rows.T, np.ones(2), rcond=None)[0], atol=1e-6
    )
    with pytest.raises(adk.MatrixError, match=r"do not determine all of the 2 parameters \(w\)"):
        J.covariance(X)
    with pytest.raises(adk.MatrixError, match="2 residuals leave no degree of freedom"):
        wide.covariance(jnp.ones(2))
    with pytest.raises(Exception, match="do not determine all of the 2 parameters"):
        jax.block_until_ready(jax.jit(lambda J: J.covariance(X).as_matrix())(J))


# Derivatives, jit and vmap ----------------------------------------------------------


ANSWERS = {
    "solve": lambda w: (
        adk.hessian(lambda x: jnp.sum(jnp.cosh(w * x)) + x[0] * x[1] * w[2])(w).solve(w).x
    ),
    "indefinite": lambda w: (
        adk.hessian(lambda x: jnp.sum(jnp.sin(w * x)) - x[0] * x[1])(w).solve(w).x
    ),
    "inverse": lambda w: adk.hessian(lambda x: jnp.sum(jnp.cosh(w * x)))(w).inverse().x.x,
    "lstsq": lambda w: (
        adk.jacobian(lambda x: jnp.outer(jnp.sin(x), w + x).ravel())(w).lstsq(jnp.arange(9.0)).x
    ),
    "covariance": lambda w: (
        adk
        .jacobian(lambda x: jnp.outer(jnp.sin(x), w + x).ravel())(w)
        .covariance(jnp.outer(w, w).ravel())
        .x.x
    ),
    "slogdet": lambda w: adk.hessian(lambda x: jnp.sum(jnp.cosh(w * x)))(w).slogdet().logabsdet,
    "eigh": lambda w: (
        adk.hessian(lambda x: jnp.sum(jnp.cosh(w * x)) + x[0] * x[1])(w).eigh().eigenvalues
    ),
    "svd": lambda w: adk.jacobian(lambda x: jnp.outer(x, w * x).ravel())(w).svd().S,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_have_derivatives_and_are_mapped(name):
    with jax.enable_x64(True):
        answer, w = ANSWERS[name], jnp.array([0.7, -0.4, 1.2])
        forward, reverse = jax.jit(jax.jacfwd(answer))(w), jax.jit(jax.jacrev(answer))(w)
        np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-9)
        step = 1e-5 * jnp.eye(3)
        ends = jax.jit(jax.vmap(answer))(jnp.concatenate([w[None] + step, w[None] - step]))
        slopes = np.moveaxis(np.asarray(ends[:3] - ends[3:]) / 2e-5, 0, -1)
        np.testing.assert_allclose(forward, slopes, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(answer(w), jax.jit(answer)(w), rtol=1e-9)


# What is wrong ----------------------------------------------------------------------


def singular(x):
    return jnp.sum(x) ** 2


BAD = [
    (lambda: adk.hessian(singular)(X).solve(X), "3 by 3 matrix is singular"),
    (lambda: adk.hessian(singular)(X).inverse(), "hessian(singular).inverse"),
    (lambda: adk.hessian(lambda x: jnp.sum(1 / x))(jnp.zeros(2)).solve(jnp.ones(2)), "not finite"),
    (lambda: adk.hessian(lambda x: jnp.sum(x) * 0.0)(X).solve(X), "singular"),
    (lambda: adk.hessian(lambda x: jnp.sum(jnp.sqrt(x)))(-X).eigh(), "eigh: the matrix by x"),
    (lambda: adk.jacobian(jnp.sqrt)(-X).svd(), "not finite"),
    (lambda: adk.jacobian(jnp.sqrt)(-X).lstsq(X), "not finite"),
    (lambda: adk.jacobian(lambda x: x)(X).lstsq(X * jnp.nan), "not finite"),
    (lambda: adk.hessian(singular)(X).inverse, None),
    (lambda: adk.jacobian(jnp.sum)(X).slogdet(), "1 by 3"),
    (lambda: adk.hessian(lambda x: -jnp.sum(x**2))(X).inverse().stderr(), "a variance of 'x'"),
    (lambda: adk.jacobian(lambda x: x * 0)(X).gram().correlation(), "a variance is zero"),
]


@pytest.mark.parametrize(("call", "words"), [bad for bad in BAD if bad[1]])
def test_bad_matrices_are_refused_by_name(call, words):
    with pytest.raises(adk.MatrixError) as caught:
        call()
    assert words in str(caught.value)


def test_they_are_refused_under_jit_with_the_same_words():
    H = adk.hessian(singular)(X)
    for call in (lambda H: H.solve(X).x, lambda H: H.inverse().x.x):
        with pytest.raises(
            Exception, match=r"hessian\(singular\).* is singular to working precision"
        ):
            jax.block_until_ready(jax.jit(call)(H))


def test_what_has_several_outputs_or_is_complex_says_so():
    H = adk.hessian(jnp.sin)(X)
    for call in (
        H.eigh,
        H.inverse,
        H.slogdet,
        H.diagonal,
        lambda: H.solve(X),
        lambda: H.damped(1.0),
    ):
        with pytest.raises(adk.NotDifferentiatedError, match="not one scalar"):
            call()
    z = jnp.array([0.5 + 1j, 1.0])
    K = adk.hessian(lambda z: jnp.sum(z**3), holomorphic=True)(z)
    np.testing.assert_allclose(K.solve(z).z, 1 / 6 * np.ones(2), rtol=1e-6)
    with pytest.raises(adk.NotDifferentiatedError, match="not Hermitian"):
        K.eigh()
    J = adk.jacobian(jnp.exp, holomorphic=True)(z)
    with pytest.raises(adk.NotDifferentiatedError, match="complex"):
        J.gram()
    with pytest.raises(adk.NotDifferentiatedError, match="complex"):
        J.covariance(z)
    with pytest.raises(adk.StructureError, match="one number"):
        adk.hessian(singular)(X).damped(X)
    with pytest.raises(adk.StructureError, match=r"hessian\(singular\).solve: 'y'"):
        adk.hessian(singular)(X).solve(y=X)
    with pytest.raises(adk.StructureError, match="R-linear"):
        adk.jacobian(lambda x: jax.lax.complex(x, x))(X).lstsq(X)


@pytest.mark.parametrize("n", [0, 2])
def test_a_hessian_of_several_outputs_by_an_empty_argument(n):
    H = adk.hessian(lambda x, e: jnp.stack([x @ x + jnp.sum(e), x @ x]))(jnp.ones(n), jnp.ones(0))
    matrix = H.as_matrix()
    np.testing.assert_array_equal(matrix, 2 * np.stack([np.eye(n)] * 2))
    np.testing.assert_array_equal(H.from_matrix(matrix).as_matrix(), matrix)


def test_a_second_call_outside_of_jit_compiles_nothing(compilations):
    """A branch would be compiled in each call, and what is compiled is kept."""

    def model(p, t):
        return p["a"] * jnp.exp(-p["b"] * t)

    def energy(x):
        return jnp.sum(jnp.cosh(x) + x**2)

    jacobian, hessian = adk.jacobian(model, wrt="p"), adk.hessian(energy)
    t = jnp.linspace(0.0, 1.0, 5)
    for turn in range(3):
        J = jacobian({"a": 1.0 + turn, "b": 0.5}, t)
        H = hessian(jnp.arange(3.0) + turn)
        J.lstsq(J.value)
        J.covariance(J.value)
        J.svd()
        J.gram().inverse()
        J.gram().damped(0.1).solve(J.rmv(J.value))
        H.solve(H.grad)
        H.inverse()
        H.eigh()
        H.slogdet()
        if turn == 1:
            compilations.clear()
    assert not compilations
