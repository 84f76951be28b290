"""Diagonals of Hessians: against JAX, differences and formulas, with and without structure."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
import reference
from functions import CASES, array, make_affine
from programs import compose
from reference import assert_close

SMOOTH = [case for case in CASES.values() if case.smooth and case.kind == "real"]
STEP = 1e-4


def diagonal_by_jax(f: Any, leaves: list[Any], *, forward: bool = False) -> list[Any]:
    """The diagonals of the blocks of JAX's Hessian."""
    first = jax.jacfwd if forward else jax.grad
    found = []
    for i, leaf in enumerate(leaves):

        def alone(x, i=i):
            return f(*leaves[:i], x, *leaves[i + 1 :])

        block = jax.jacfwd(first(alone))(leaf).reshape(leaf.size, leaf.size)
        found.append(jnp.diagonal(block).reshape(leaf.shape))
    return found


def diagonal_by_differences(f: Any, leaves: list[Any]) -> list[Any]:
    """Central differences, entry by entry."""
    value = f(*leaves)
    found = []
    for i, leaf in enumerate(leaves):

        def moved(step, i=i, leaf=leaf):
            return f(*leaves[:i], leaf + step, *leaves[i + 1 :])

        steps = STEP * jnp.eye(leaf.size, dtype=leaf.dtype).reshape(leaf.size, *leaf.shape)
        values = jax.vmap(moved)(jnp.concatenate([steps, -steps])).reshape(2, *leaf.shape)
        found.append((values.sum(0) - 2 * value) / STEP**2)
    return found


def assert_leaves_close(ours: Any, theirs: Any, scale: float = 20) -> None:
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, scale)


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_sums_of_squares_of_registered_functions(case):
    with jax.enable_x64(True):
        dynamic, static = eqx.partition(case.call("float64"), eqx.is_inexact_array)

        def every(leaves):
            function, selected = reference.flat_function(case, *eqx.combine(leaves, static))

            def total(*values):
                return sum(jnp.sum(x**2) for x in function(*values))

            D = adk.hessian_diagonal(total)(*selected)
            expected = diagonal_by_jax(total, selected, forward=case.only == "fwd")
            differences = diagonal_by_differences(total, selected)
            return D.diagonal, expected, differences, D.value, total(*selected)

        ours, expected, differences, *values = jax.jit(every)(dynamic)
        assert_leaves_close(ours, expected, scale=200)
        assert_close(*values)
        for a, b in zip(jax.tree.leaves(ours), differences, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_programs_composed_at_random(seed):
    program = compose(seed)

    def total(*leaves):
        outs = program.flat(*leaves)
        return sum(jnp.sum(jnp.abs(x) ** 2) + jnp.sum(jnp.sin(x.real)) for x in outs)

    with jax.enable_x64(True):
        leaves = jax.tree.leaves(program.arguments("float64"))

        def both(*leaves):
            return adk.hessian_diagonal(total)(*leaves).diagonal, diagonal_by_jax(total, leaves)

        assert_leaves_close(*jax.jit(both)(*leaves), scale=200)


# Structure -----------------------------------------------------------------------------


@jax.custom_jvp
def odd(x):
    return jnp.sin(x)


odd.defjvps(lambda t, _, x: t * 10 * x)  # deliberately not the cosine


def scanned(x):
    return lax.scan(lambda c, y: (jnp.sin(c) + y * c, c * y**2), x[0], x)[1].sum()


def looped(x):
    return jnp.sum(
        jnp.stack(
            lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1:]
        )
        ** 2
    )


def network(x):
    for _ in range(3):
        x = jnp.tanh(array(x.size, x.size)(x.dtype) @ x)
    return jnp.sum(x)


def logistic(x):
    X = array(7, x.size)(x.dtype) - 0.8
    z = X @ x
    return jnp.sum(jnp.logaddexp(z, jnp.zeros_like(z)))


def of_logistic(x):
    X = array(7, x.size)(x.dtype) - 0.8
    p = jax.nn.sigmoid(X @ x)
    return (p * (1 - p)) @ X**2


def quadratic(x):
    return x @ array(x.size, x.size)(x.dtype) @ x


# A function, the shape of its argument, and the diagonal if there is a formula.
STRUCTURED: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "separable": (lambda x: jnp.sum(jnp.sin(x)), (5,), lambda x: -jnp.sin(x)),
    "separable matrix": (lambda x: jnp.sum(jnp.exp(x) * x), (2, 3), lambda x: (x + 2) * jnp.exp(x)),
    "function of separable": (lambda x: jnp.exp(jnp.sum(jnp.sin(x))), (4,), None),
    "weighted": (
        lambda x: jnp.arange(1, 6).astype(x.dtype) @ x**3,
        (5,),
        lambda x: 6 * x * np.arange(1.0, 6),
    ),
    "logistic regression": (logistic, (4,), of_logistic),
    "quadratic form": (
        quadratic,
        (4,),
        lambda x: 2 * jnp.diagonal(array(4, 4)(x.dtype)),
    ),
    "transpose": (lambda x: jnp.sum(x * x.T), (3, 3), lambda x: 2 * np.eye(3)),
    "cube of transpose": (lambda x: jnp.sum(x**3 * x.T), (3, 3), None),
    "square of matrix": (lambda x: jnp.sum(x @ x), (3, 3), lambda x: 2 * np.eye(3)),
    "trace of cube": (lambda x: jnp.trace(x @ x @ x), (3, 3), None),
    "gram": (lambda x: jnp.sum((x.T @ x) ** 2), (2, 3), None),
    "reversal": (
        lambda x: jnp.sum(x * x[::-1]),
        (5,),
        lambda x: np.array([0, 0, 2, 0, 0]),
    ),
    "even reversal": (lambda x: jnp.sum(x * x[::-1]), (4,), jnp.zeros_like),
    "roll": (lambda x: jnp.sum(x**2 * jnp.roll(x, 1)), (4,), lambda x: 2 * jnp.roll(x, 1)),
    "permutation": (
        lambda x: jnp.sum(x**2 * x[jnp.array([0, 2, 1, 3])]),
        (4,),
        lambda x: jnp.array([6, 2, 2, 6], x.dtype) * x[jnp.array([0, 2, 1, 3])],
    ),
    "cumulative sum": (
        lambda x: jnp.sum(jnp.cumsum(x) ** 2),
        (5,),
        lambda x: 2.0 * np.arange(5, 0, -1),
    ),
    "outer product": (lambda x: jnp.sum(jnp.sin(jnp.outer(x, x))), (4,), None),
    "softmax": (
        lambda x: jax.nn.logsumexp(x),
        (4,),
        lambda x: jax.nn.softmax(x) * (1 - jax.nn.softmax(x)),
    ),
    "rows of softmax": (lambda x: jnp.sum(jax.nn.logsumexp(x, axis=1)), (3, 4), None),
    "batch of norms": (lambda x: jnp.sum(jnp.linalg.norm(x, axis=1)), (3, 2), None),
    "reshaped": (lambda x: jnp.sum(x.reshape(3, 2) @ x.reshape(2, 3)), (6,), None),
    "sliced": (lambda x: jnp.sum(x[1:] ** 2 * x[:-1]), (5,), None),
    "concatenated": (
        lambda x: jnp.sum(jnp.concatenate([x, x[::-1]]) ** 4),
        (3,),
        lambda x: 24 * x**2,
    ),
    "convolution": (lambda x: jnp.sum(jnp.convolve(x, x[:2]) ** 2), (5,), None),
    "sort": (lambda x: jnp.sum(jnp.sort(x)[::2] ** 3), (5,), None),
    "deep network": (network, (4,), None),
    "scan": (scanned, (4,), None),
    "cond": (
        lambda x: lax.cond(x[0] > 0, lambda y: jnp.sum(y**3), jnp.sum, x),
        (3,),
        lambda x: 6 * x,
    ),
    "while loop": (looped, (3,), None),
    "second derivative": (
        lambda x: jnp.sum(jax.vmap(jax.grad(jax.grad(jnp.sin)))(x)),
        (3,),
        jnp.sin,
    ),
    "nested jit and vmap": (
        lambda x: jax.jit(lambda y: jnp.sum(jax.vmap(jax.jit(lambda r: jnp.prod(r)))(y) ** 2))(x),
        (3, 2),
        None,
    ),
    "checkpoint": (
        jax.checkpoint(lambda x: jnp.sum(jnp.sin(x) ** 2)),
        (3,),
        lambda x: 2 * jnp.cos(2 * x),
    ),
    "linear": (lambda x: jnp.sum(3 * x), (4,), jnp.zeros_like),
    "independent": (lambda x: jnp.ones((), x.dtype), (4,), jnp.zeros_like),
    "scalar": (lambda x: x**3, (), lambda x: 6 * x),
    "axes of size one": (lambda x: jnp.sum(jnp.sin(x) * x.sum()), (1, 3, 1), None),
    "one entry": (lambda x: jnp.sum(x @ x), (1, 1), lambda x: 2 + 0 * x),
    "empty": (lambda x: jnp.sum(x**2), (0, 2), jnp.zeros_like),
    "custom rule": (lambda x: jnp.sum(odd(x)), (3,), lambda x: 10 + 0 * x),
    "rule for reverse mode": (
        lambda x: jnp.sum(CASES["custom_vjp"].function(x) * x),
        (3,),
        lambda x: 6 * x,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURED)
def test_structures(name):
    f, shape, closed = STRUCTURED[name]
    with jax.enable_x64(True):
        x = array(*shape)("float64")

        def both(x):
            return adk.hessian_diagonal(f)(x), diagonal_by_jax(f, [x], forward=name == "while loop")

        D, (expected,) = jax.jit(both)(x)
        assert (D.x.shape, D.x.dtype) == (x.shape, x.dtype)
        assert_close(D.x, expected, scale=20)
        if closed is not None:
            assert_close(D.x, np.broadcast_to(closed(x), shape), scale=20)
        assert_close(D.value, f(x))


@pytest.mark.parametrize("name", ["separable", "reversal", "scan", "custom rule"])
def test_a_call_that_is_not_compiled_gives_the_same(name):
    f, shape, _ = STRUCTURED[name]
    x = array(*shape)("float32")
    D = adk.hessian_diagonal(f)
    assert_leaves_close(D(x), jax.jit(D)(x), scale=10)


def test_parameters_of_a_network():
    def loss(params, X, y):
        for w, b in params[:-1]:
            X = jnp.tanh(X @ w + b[None])
        w, b = params[-1]
        return jnp.mean((X @ w + b[None] - y) ** 2)

    with jax.enable_x64(True):
        make = functools.partial(jnp.multiply, 0.5)
        params = [(make(array(3, 4)("float64")), array(4)("float64")) for _ in range(1)]
        params += [(array(4, 2)("float64") - 0.9, array(2)("float64"))]
        X, y = array(6, 3)("float64") - 0.8, array(6, 2)("float64")
        D = jax.jit(adk.hessian_diagonal(loss, wrt="params"))(params, X, y)
        leaves, treedef = jax.tree.flatten(params)
        expected = diagonal_by_jax(lambda *v: loss(treedef.unflatten(v), X, y), leaves)
        assert jax.tree.structure(D.params) == treedef
        assert_leaves_close(D.params, expected)
        assert_close(D["params.1.0"], expected[2], scale=20)
        assert_close(D.grad["params.0.1"], jax.grad(loss)(params, X, y)[0][1], scale=20)


# Arguments and results -----------------------------------------------------------------


def test_what_a_result_shows():
    def f(params, x, unused, n, how, k=2.0):
        assert how == "mean"
        return jnp.mean(params["w"] @ x) ** n * k, {"label": "aux"}

    params, x = {"w": array(2, 3)("float32"), "n": 3}, array(3)("float32")
    D = adk.hessian_diagonal(f, has_aux=True)(params, x, jnp.ones(2), 2, "mean", k=3.0)
    by_w = jnp.broadcast_to(2 * 3.0 * (x / 2) ** 2, (2, 3)).astype("float32")
    for block in (D.params["w"], D["params.w"], D["params"]["w"], D.diagonal.params["w"]):
        assert_close(block, by_w)
    assert D.params["n"] is None
    assert_close(D.x, 6 * jnp.mean(params["w"], axis=0) ** 2)
    assert_close(D.unused, jnp.zeros(2))
    assert_close(D.k, 0.0)
    assert D.aux == {"label": "aux"}
    assert_close(D.value, f(params, x, None, 2, "mean", 3.0)[0])
    assert_close(D.grad.k, D.value / 3)
    assert [line.split("]")[0] for line in repr(D).split("\n")] == [
        "HessianDiagonal of f",
        "  params.w  float32[2, 3",
        "  x         float32[3",
        "  unused    float32[2",
        "  k         float32[",
    ]
    assert repr(D).split("\n")[-2:] == [
        "  unused    float32[2]     [0, 0]",
        "  k         float32[]      0",
    ]
    assert {"params", "x", "unused", "k", "grad", "value"} <= {*dir(D)}
    for name in ("n", "how", "params.n", "y"):
        with pytest.raises(adk.NotDifferentiatedError, match=name.split(".")[-1]):
            D[name]
    with pytest.raises(adk.NotDifferentiatedError, match="'y'"):
        _ = D.y
    with pytest.raises(TypeError):
        iter(D)


def test_selections_and_dtypes():
    def f(a, b):
        return {"loss": jnp.sum(a**3).astype("float32") * jnp.sum(b**2), "n": a}

    a, b = array(3)("bfloat16"), array(2)("float32")
    D = adk.hessian_diagonal(f, of="loss", wrt="b")(a, b)
    assert repr(D).split("\n")[1].startswith("  b  float32[2]  [")
    D = adk.hessian_diagonal(lambda x: jnp.sum(jnp.sin(x)))(a)
    assert D.x.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.asarray(v, "float32") for v in (D.x, -jnp.sin(a))), rtol=0.02)
    with jax.enable_x64(True):
        D = adk.hessian_diagonal(lambda x, s: jnp.sum(x**2) * s**2)(array(2)("float32"), 3.0)
        assert (D.x.dtype, D.value.dtype) == (jnp.float32, jnp.float32)
        assert_close(D.x, jnp.full(2, 18.0, "float32"))
    D = adk.hessian_diagonal(lambda e, x: jnp.sum(e) + jnp.sum(x**2))(jnp.zeros(0), 1.5)
    assert D.e.shape == (0,)
    assert_close(D.x, 2.0)


@pytest.mark.parametrize("jit", [False, True])
def test_arguments_of_two_dtypes(jit):
    def f(a, b):
        return jnp.sum(a**3).astype("float64") * jnp.sum(b**2)

    with jax.enable_x64(True):
        a, b = array(3)("float32"), array(2)("float64")
        D = adk.hessian_diagonal(f)
        D = (jax.jit(D) if jit else D)(a, b)
        H = adk.hessian(f)(a, b)
        assert (D.a.dtype, D.b.dtype) == (H.a.a.dtype, H.b.b.dtype)
        np.testing.assert_allclose(D.a, 6 * np.asarray(a) * np.sum(np.asarray(b) ** 2), rtol=1e-6)
        np.testing.assert_allclose(D.b, jnp.full(2, 2.0) * np.sum(np.asarray(a) ** 3), rtol=1e-6)


def test_modules_and_methods():
    class Energy(eqx.Module):
        k: Any

        @adk.hessian_diagonal(wrt="x")
        def bent(self, x):
            return jnp.sum(jnp.sin(self.k * x))

    x = array(3)("float32")
    assert_close(Energy(2.0).bent(x).x, -4 * jnp.sin(2 * x), scale=4)
    model = make_affine("float32")
    D = adk.hessian_diagonal(lambda model, x: jnp.sum(model(x)))(model, x)
    assert D.model.power is None
    leaves = [model.weight, model.bias]
    expected = diagonal_by_jax(lambda w, b: jnp.sum(jnp.tanh(w @ x + b) ** 2), leaves)
    assert_leaves_close((D.model.weight, D.model.bias), tuple(expected))


def test_through_transformations_of_jax():
    def f(x, y):
        return jnp.sum(jnp.sin(x * y) @ jnp.cos(x))

    D = adk.hessian_diagonal(f, wrt="x")
    x, y = array(3, 3)("float32"), array(3, 3)("float32") - 0.4
    result = D(x, y)
    assert jax.tree.structure(result) == jax.tree.structure(jax.jit(D)(x, y))
    batched = jax.jit(jax.vmap(D, (0, None)))(jnp.stack([x, 2 * x]), y)
    assert_close(batched.diagonal.x[1], D(2 * x, y).x, scale=10)

    def step(carry, _):
        return D(x, y), carry.x

    _, rows = lax.scan(step, result, length=2)
    assert_close(rows[1], result.x, scale=10)

    def trace(transform):
        return jax.jit(jax.grad(lambda y: jnp.sum(transform(y) ** 2)))(y)

    ours = trace(lambda y: D(x, y).x)
    theirs = trace(lambda y: diagonal_by_jax(lambda x: f(x, y), [x])[0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_result_that_was_mapped_keeps_its_names():
    D = adk.hessian_diagonal(lambda x: jnp.sum(x**3))
    x = array(3)("float32")
    narrow = jax.tree.map(lambda x: x.astype("bfloat16"), D(x))
    assert narrow.x.dtype == jnp.bfloat16
    batched = jax.vmap(D)(jnp.stack([x, 2 * x]))
    assert_close(batched.grad.x[1], 12 * x**2)
    assert_close(batched.x, 6 * jnp.stack([x, 2 * x]))
    assert "float32[2, 3]" in repr(batched)


def test_the_function_runs_once():
    calls = []

    def f(x):
        calls.append(1)
        return jnp.sum(x**3) if x[0] > 0 else jnp.sum(x)

    assert_close(adk.hessian_diagonal(f)(jnp.ones(3)).x, jnp.full(3, 6.0))
    assert len(calls) == 1


# Plans and memory ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["separable", "logistic regression", "one layer"])
def test_structured_cases_cost_far_less_than_a_direction_for_each_entry(name):
    def layer(x):
        return jnp.sum(jnp.sin(array(50, x.size)("float32") @ x))

    f = layer if name == "one layer" else STRUCTURED[name][0]
    small, large = (adk.hessian_diagonal(f).plan(jnp.ones(n)) for n in (200, 800))
    assert str(small).startswith(f"Plan of hessian_diagonal({f.__name__})\n  x  float32[200]  ")
    assert "(with a direction for each entry " in str(small)
    assert "800 directions" not in str(large)
    assert large.flops < 5 * small.flops
    assert large.bytes_moved < 5 * small.bytes_moved


def test_the_plan_of_a_case_without_structure():
    plan = adk.hessian_diagonal(lambda x: jnp.sum(jnp.cumsum(x) ** 2)).plan(jnp.ones(5))
    assert "5 directions, one for each entry" in str(plan)
    struct = jax.ShapeDtypeStruct((20_000,), "float32")
    plan = adk.hessian_diagonal(mixing).plan(struct)
    assert "20000 directions, one for each entry, 209 at a time" in str(plan)
    plan = adk.hessian_diagonal(lambda x, y: jnp.sum(x**2)).plan(jnp.ones(3), 2.0)
    assert str(plan).split("\n")[-1].split() == ["y", "float32[]", "no", "path"]


def test_costs_are_never_negative():
    def f(params, x):
        return jnp.sum(jnp.tanh(params["w"] @ x + params["b"]) ** 2)

    D = adk.hessian_diagonal(f)
    plan = D.plan({"w": jnp.ones((4, 3)), "b": jnp.ones(4)}, jnp.ones(3))
    assert plan.flops > 0
    assert plan.bytes_moved > 0
    assert " -" not in str(plan)


def mixing(x):
    for _ in range(3):
        x = jnp.tanh(jnp.cumsum(x))
    return jnp.sum(x)


def deep(x, A):
    for _ in range(3):
        x = jnp.tanh(A @ x)
    return jnp.sum(x**2)


def temporary(f: Any, *shapes: tuple[int, ...]) -> int:
    """Bytes that a compiled call takes besides arguments and results."""
    structs = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    compiled = jax.jit(adk.hessian_diagonal(f, wrt="x")).lower(*structs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_no_matrix_of_all_second_derivatives_exists():
    n = 20_000
    assert temporary(mixing, (n,)) < 4 * n**2 / 3
    assert temporary(mixing, (2 * n,)) < 1.5 * temporary(mixing, (n,))
    n = 6000
    assert temporary(lambda x, A: jnp.sum(jnp.sin(A @ x)), (n,), (n, n)) < 100 * n


def test_no_such_matrix_exists_for_layers_that_are_all_as_wide():
    n = 6000
    assert temporary(deep, (n,), (n, n)) < 4 * n**2


def test_entries_that_are_swept_a_few_at_a_time(monkeypatch):
    with jax.enable_x64(True):
        x = array(7)("float64")
        expected = diagonal_by_jax(mixing, [x])[0]
        for size in (1, 100):  # one, and three at a time
            monkeypatch.setattr("autodiffkit._diagonal._CHUNK", size)
            for jit in (False, True):
                D = adk.hessian_diagonal(mixing)
                assert_close((jax.jit(D) if jit else D)(x).x, expected, scale=20)
            assert f", {max(1, size // 28)} at a time" in str(D.plan(x))


# Refusals ------------------------------------------------------------------------------

X, Z = np.ones(3, "float32"), np.ones(3, "complex64")
REFUSED: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "array": (jnp.sin, (X,), "must be one scalar"),
    "array of one": (jnp.sin, (X[:1],), "must be one scalar"),
    "several": (lambda x: (x.sum(), x.sum()), (X,), "must be one scalar.*of="),
    "integers": (lambda n: n * 1.0, (3,), "no floating-point"),
    "complex output": (lambda x: jnp.sum(lax.complex(x, x)), (X,), "real output"),
    "complex input": (lambda z: jnp.sum(jnp.abs(z)), (Z,), "(?i)real and imaginary parts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_call(name):
    f, args, message = REFUSED[name]
    with pytest.raises(adk.NotDifferentiableError, match=message) as caught:
        adk.hessian_diagonal(f)(*args)
    assert str(caught.value).startswith("hessian_diagonal(")
    assert "holomorphic=True" not in str(caught.value)  # which this does not take


@jax.custom_vjp
def nested(x):
    return x**2


# The second derivative can be pulled only.
nested.defvjp(lambda x: (x**2, x), lambda x, g: (CASES["custom_vjp"].function(x) * g,))


def test_neither_mode_can_sweep_all_of_it():
    loop = CASES["while_loop"].function

    def f(x):
        return jnp.sum(nested(loop(x)))

    def gradient(x):
        value, slope = jax.jvp(loop, (x,), (jnp.ones_like(x),))
        return value**2 * slope

    assert_close(adk.hessian_diagonal(lambda x: jnp.sum(nested(x)))(X).x, 2 * X)
    x = array(3)("float32")
    D = adk.hessian_diagonal(f)
    assert "the whole block by mixed mode" in str(D.plan(x))
    assert_close(jax.jit(D)(x).x, jax.jvp(gradient, (x,), (jnp.ones_like(x),))[1], scale=20)
    with pytest.raises(adk.ModeError, match=r"^hessian_diagonal\(f\): neither mode"):
        D(jnp.ones(3000))


def twice_in_a_network(x):
    """Every entry is read in two layers, so that no variable lies between two maps."""
    w = x.reshape(3, 4)
    hidden = jnp.tanh(array(8, 3)(x.dtype) @ w)
    return jnp.mean((jnp.tanh(hidden @ w.T) - 0.5) ** 2)


def test_a_small_block_is_swept_whole_where_that_takes_less():
    def f(x):
        return twice_in_a_network(x)

    with jax.enable_x64(True):
        x = array(12)("float64") - 0.7
        D = adk.hessian_diagonal(f)
        assert_close(jax.jit(D)(x).x, diagonal_by_jax(f, [x])[0], scale=20)
        assert_close(D(x).x, diagonal_by_jax(f, [x])[0], scale=20)
        expected = diagonal_by_differences(f, [x])[0]
        np.testing.assert_allclose(D(x).x, expected, rtol=1e-4, atol=1e-5)
        plan = D.plan(x)
        assert "the whole block by forward mode, 12 directions" in str(plan)
        assert "(with a direction for each entry " in str(plan)
        assert plan.flops == adk.hessian(f).plan(x).flops
