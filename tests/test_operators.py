"""Laplacian, divergence, curl and directional derivatives: formulas, JAX's matrices, refusals."""

import inspect
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
import reference
from functions import CASES, array
from reference import assert_close

r2 = lambda x: jnp.sum(x**2)  # noqa: E731

# Scalar fields and their Laplacians.
FIELDS: dict[str, tuple[Any, Any]] = {
    "squared distance": (r2, lambda x: 2.0 * x.size),
    "fourth power of distance": (lambda x: r2(x) ** 2, lambda x: 4 * (x.size + 2) * r2(x)),
    "Gaussian": (lambda x: jnp.exp(-r2(x) / 2), lambda x: (r2(x) - 3) * jnp.exp(-r2(x) / 2)),
    "potential of a charge": (lambda x: 1 / jnp.sqrt(r2(x)), lambda x: 0.0),
    "saddle": (lambda x: x[0] ** 2 - x[1] ** 2, lambda x: 0.0),
    "wave of a complex variable": (lambda x: jnp.exp(x[0]) * jnp.sin(x[1]), lambda x: 0.0),
    "product": (jnp.prod, lambda x: 0.0),
    "plane wave": (lambda x: jnp.sin(2 * x[0] - x[2]), lambda x: -5 * jnp.sin(2 * x[0] - x[2])),
    "sum of sines": (lambda x: jnp.sum(jnp.sin(x)), lambda x: -jnp.sum(jnp.sin(x))),
    "linear": (lambda x: 3 * x[1] + 1, lambda x: 0.0),
    "constant": (lambda x: jnp.ones((), x.dtype), lambda x: 0.0),
}


def rotation(x):
    return jnp.stack([-x[1], x[0], 0 * x[2]])


def curl_of_something(x):
    return adk.curl(lambda y: jnp.sin(y[::-1]) * jnp.prod(y))(x).curl


def turned(x, *places):
    return jnp.stack([x[i] for i in places])


gradient_of_something = jax.grad(lambda x: jnp.exp(x[0]) * jnp.sin(x[1] * x[2]))

# Vector fields, their divergences and their curls.
VECTORS: dict[str, tuple[Any, Any, Any]] = {
    "position": (lambda x: x, lambda x: 3.0, lambda x: 0 * x),
    "rotation": (rotation, lambda x: 0.0, lambda x: jnp.asarray([0, 0, 2], x.dtype)),
    "squares": (lambda x: x**2, lambda x: 2 * jnp.sum(x), lambda x: 0 * x),
    "turned": (lambda x: turned(x, 1, 2, 0) ** 2, lambda x: 0.0, lambda x: -2 * turned(x, 2, 0, 1)),
    "gradient": (gradient_of_something, None, lambda x: 0 * x),
    "curl": (curl_of_something, lambda x: 0.0, None),
    "electric field": (lambda x: x / r2(x) ** 1.5, lambda x: 0.0, lambda x: 0 * x),
    "constant": (lambda x: jnp.ones(3, x.dtype), lambda x: 0.0, lambda x: 0 * x),
}

BOTH = pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])


def called(transform: Any, jit: bool, *args: Any, **kwargs: Any) -> Any:
    return (jax.jit(transform) if jit else transform)(*args, **kwargs)


def counted(function: Any) -> tuple[Any, list[int]]:
    """The function, and a list that grows with each call."""
    calls: list[int] = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return wrapped, calls


# Formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_laplacians_of_fields(name):
    f, closed = FIELDS[name]
    x = array(3)("float32")
    L = adk.laplacian(f)(x)
    assert (L.laplacian.shape, L.laplacian.dtype) == ((), x.dtype)
    assert_close(L.laplacian, closed(x), scale=10)
    assert_close(L.value, f(x))


@pytest.mark.parametrize("name", VECTORS)
def test_divergences_and_curls_of_fields(name):
    f, divergence, curl = VECTORS[name]
    x = array(3)("float32")
    D, C = adk.divergence(f)(x), adk.curl(f)(x)
    assert (D.divergence.shape, D.divergence.dtype) == ((), x.dtype)
    assert (C.curl.shape, C.curl.dtype) == ((3,), x.dtype)
    for found, closed in ((D.divergence, divergence), (C.curl, curl)):
        if closed is not None:
            assert_close(found, closed(x), scale=5)
    assert_close(D.value, f(x))
    assert_close(C.value, f(x))


def test_the_same_in_one_compiled_program(dtype):
    x = array(3)(dtype)
    called, formulas = [], []
    for f, closed in FIELDS.values():
        called.append(lambda x, f=f: adk.laplacian(f)(x).laplacian)
        formulas.append(closed)
    for f, divergence, curl in VECTORS.values():
        called.append(lambda x, f=f: adk.divergence(f)(x).divergence)
        called.append(lambda x, f=f: adk.curl(f)(x).curl)
        formulas += [divergence, curl]
    found = jax.jit(lambda x: [transform(x) for transform in called])(x)
    for ours, closed in zip(found, formulas, strict=True):
        assert ours.dtype == x.dtype
        if closed is not None:
            assert_close(ours, closed(x), scale=10)


@pytest.mark.parametrize("order", range(1, 9))
def test_directional_derivatives_of_any_order(order):
    with jax.enable_x64(True):
        x, v = array(3)("float64"), array(3)("float64") - 0.8
        a = jnp.array([1.0, -0.5, 2.0])
        formulas = [
            (lambda x: jnp.exp(a @ x), (a @ v) ** order * jnp.exp(a @ x)),
            (jnp.sin, v**order * jnp.sin(x + order * math.pi / 2)),
            (lambda x: x**4, v**order * math.perm(4, order) * x ** max(4 - order, 0)),
            (lambda x: 1 / x, (-v) ** order * math.factorial(order) / x ** (order + 1)),
        ]

        def every(x):
            return [f(x) for f, _ in formulas]

        D = jax.jit(adk.directional_derivative(every, order=order))(x, direction=v)
        for found, (_, expected) in zip(D.derivative, formulas, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        for found, expected in zip(D.value, every(x), strict=True):
            assert_close(found, expected)


@pytest.mark.parametrize("order", [1, 3, 6])
def test_directional_derivatives_are_those_of_nested_pushes(order):
    def f(x, w):
        return {"a": jnp.tanh(w @ x), "b": lax.erf(jnp.sum(x**3)) if order < 6 else jnp.sum(x**3)}

    with jax.enable_x64(True):
        x, w = array(3)("float64"), array(2, 3)("float64") - 0.6
        v = x - 0.9
        line = lambda t: f(x + t * v, w)  # noqa: E731
        for _ in range(order):
            line = jax.jacfwd(line)
        expected = jax.jit(line)(0.0)
        transform = adk.directional_derivative(f, order=order, wrt="x")
        found = jax.jit(transform)(x, w, direction=v).derivative
        for name, leaf in expected.items():
            np.testing.assert_allclose(found[name], leaf, rtol=1e-9, atol=1e-9)


def test_the_biharmonic_operator():
    inner = adk.laplacian(lambda x: r2(x) ** 2)
    outer = adk.laplacian(lambda x: inner(x).laplacian)
    x = array(3)("float32")
    for jit in (False, True):
        found = called(outer, jit, x)
        assert_close(found.laplacian, 120.0, scale=5)
        assert_close(found.value, 20 * r2(x), scale=5)
    divergence_of_gradient = adk.divergence(jax.grad(FIELDS["Gaussian"][0]))(x).divergence
    assert_close(divergence_of_gradient, FIELDS["Gaussian"][1](x), scale=5)
    # The derivative along v of the derivative along v.
    first = adk.directional_derivative(jnp.sin)
    second = adk.directional_derivative(lambda y: first(y, direction=x).derivative)
    assert_close(second(x, direction=x).derivative, -jnp.sin(x) * x**2)


# JAX's matrices ------------------------------------------------------------------------

NAMES = ["tall_regression", "scan", "cond", "while_loop", "custom_jvp", "linear_solve", "phases"]
NAMES += ["dictionary", "module", "mixed_leaves", "keyword_arguments", "auxiliary"]
NAMES += ["several_outputs", "repeated_outputs", "empty_input", "empty_output", "filtered"]
NAMES += ["quadratic_form", "euclidean_norm", "custom_vjp_in_a_chain"]


@pytest.mark.parametrize("name", NAMES)
def test_laplacians_are_traces_of_hessians(name):
    case = CASES[name]
    with jax.enable_x64(True):
        dynamic, static = eqx.partition(case.call("float64"), eqx.is_inexact_array)

        def both(leaves):
            args, kwargs = eqx.combine(leaves, static)
            found = adk.laplacian(case.function, **case.options)(*args, **kwargs).laplacian
            return jax.tree.leaves(found), reference.second(case, args, kwargs)

        found, expected = jax.jit(both)(dynamic)
        assert len(found) == len(expected)
        for ours, rows in zip(found, expected, strict=True):
            total = np.zeros(ours.shape, ours.dtype)
            for j, row in enumerate(rows):
                block = np.asarray(row[j])
                side = math.prod(block.shape[ours.ndim :][: (block.ndim - ours.ndim) // 2])
                total += np.trace(block.reshape(*ours.shape, side, side), 0, -2, -1)
            assert_close(ours, total, scale=20)


@pytest.mark.parametrize(
    ("shape", "jit"), [((), False), ((), True), ((1,), True), ((2, 3), True), ((0,), True)]
)
def test_divergences_are_traces_of_jacobians(shape, jit):
    def f(x, y):
        z = jnp.tanh(x * jnp.sum(y) + jnp.sum(x))
        return {"x": z.reshape(-1)[::-1].reshape(x.shape), "y": jnp.sin(y) * jnp.sum(z)}

    x, y = array(*shape)("float32"), array(2)("float32")
    expected = jnp.trace(jax.jacfwd(lambda x: f(x, y)["x"].ravel())(x).reshape(x.size, x.size))
    expected += jnp.trace(jax.jacfwd(lambda y: f(x, y)["y"])(y))
    assert_close(called(adk.divergence(f), jit, x, y).divergence, expected, scale=5)


# Arguments and outputs -----------------------------------------------------------------


def test_coordinates_and_outputs_by_name():
    def u(x, t, params):
        return {"u": jnp.sin(x * t) * params["k"], "v": [jnp.sum(x**3) + t**2], "n": 3}

    x, t, params = array(3)("float32"), jnp.float32(0.7), {"k": jnp.float32(2)}
    by_x, by_t = -(t**2) * jnp.sin(x * t) * 2, -(x**2) * jnp.sin(x * t) * 2
    L = adk.laplacian(u, wrt="x")(x, t, params)
    assert_close(L.laplacian["v"][0], 6 * jnp.sum(x))
    assert L.laplacian["n"] is None
    assert L.value["n"] == 3
    L = adk.laplacian(u, wrt=("x", "t"), of="v")(x, t, params)
    assert L.laplacian["u"] is None
    assert_close(L.laplacian["v"][0], 6 * jnp.sum(x) + 2)
    # Of an array, every entry has a Laplacian by all coordinates.
    assert_close(adk.laplacian(u, wrt="x", of="u")(x, t, params).laplacian["u"], by_x)
    assert_close(adk.laplacian(u, wrt=("t", "x"), of="u")(x, t, params).laplacian["u"], by_x + by_t)


def test_vector_fields_by_name():
    fields = [
        lambda x, y, z: (-y, x, z * x),
        lambda x, y, z: {"a": -y, "b": x, "c": z * x},
        lambda x, y, z: jnp.stack([-y, x, z * x]),
    ]
    for field, names in zip(fields, ([0, 1, 2], "abc", [0, 1, 2]), strict=True):
        C = adk.curl(field)(1.0, 2.0, 3.0)
        np.testing.assert_array_equal([C.curl[i] for i in names], [0, -3, 2])
    C = adk.curl(
        lambda r, t: {"v": [-r[1], r[0] * t], "w": jnp.sin(t), "p": t}, wrt="r", of="[vw]*"
    )
    found = C(array(3)("float32"), jnp.float32(3)).curl
    assert_close(found["w"], 4.0)
    assert found["p"] is None
    D = adk.divergence(lambda x, y, t: (x**2 * t, x[0] * y), wrt=("x", "y"))
    assert_close(D(jnp.ones(2), jnp.ones(3), 2.0).divergence, 11.0)
    D = adk.divergence(lambda q: {"b": q["b"] ** 2, "a": 3 * q["a"]})
    assert_close(D({"a": 1.0, "b": jnp.ones(2)}).divergence, 7.0)
    D = adk.divergence(lambda x: {"flux": x**2, "p": jnp.sum(x)}, of="flux")
    assert_close(D(jnp.ones(3)).divergence, 6.0)


def test_directions():
    def f(x, y, n):
        return x["a"] * y**n + x["b"]

    x, y = {"a": jnp.float32(2), "b": jnp.float32(5)}, jnp.float32(3)
    D = adk.directional_derivative(f)
    one = jnp.float32(1)
    for direction, expected in [
        ({"x": {"a": one}}, 9.0),
        ({"x": {"a": one, "b": 2 * one}}, 11.0),
        ({"y": one}, 12.0),
        ({"x": {"b": one}, "y": 2 * one}, 25.0),
        ({}, 0.0),
        (adk.grad(f)(x, y, 2).tree, 81.0 + 1 + 144),
    ]:
        assert_close(D(x, y, 2, direction=direction).derivative, expected)
    only_x = adk.directional_derivative(f, wrt="x")
    assert_close(only_x(x, y, 2, direction={"a": one}).derivative, 9.0)
    assert_close(only_x(x, y, 2, direction={"x": {"a": one}}).derivative, 9.0)
    D = adk.directional_derivative(lambda x: {"s": jnp.sin(x), "e": x}, order=2, of="s")
    assert D(y, direction=one).derivative["e"] is None
    assert_close(D(y, direction=one).derivative["s"], -jnp.sin(y))


def test_complex_outputs_of_real_coordinates():
    def wave(x):
        return jnp.exp(lax.complex(jnp.zeros_like(x), 2 * x))

    x = array(3)("float32")
    for jit in (False, True):
        assert_close(called(adk.laplacian(wave), jit, x).laplacian, -4 * wave(x), scale=4)
        total = called(adk.laplacian(lambda x: jnp.sum(wave(x))), jit, x)
        assert_close(total.laplacian, -4 * jnp.sum(wave(x)), scale=4)
        found = called(adk.divergence(wave), jit, x).divergence
        assert_close(found, 2j * np.sum(wave(x)), scale=4)
        found = called(adk.curl(lambda x: wave(x[::-1])), jit, x).curl
        expected = 2j * np.asarray(wave(x))[[2, 0]]
        np.testing.assert_allclose(found, [0, expected[0] - expected[1], 0], rtol=1e-5, atol=1e-6)
        D = called(adk.directional_derivative(wave, order=3), jit, x, direction=x)
        assert_close(D.derivative, (2j * np.asarray(x)) ** 3 * wave(x), scale=10)


def _along(transform: Any) -> Any:
    return lambda *args: transform(*args, direction={})


OPERATORS: dict[str, tuple[Any, str]] = {
    "laplacian": (lambda f, **o: adk.laplacian(f, **o), "laplacian"),
    "divergence": (lambda f, **o: adk.divergence(f, **o), "divergence"),
    "curl": (lambda f, **o: adk.curl(f, **o), "curl"),
    "directional_derivative": (
        lambda f, **o: _along(adk.directional_derivative(f, **o)),
        "derivative",
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_dtype_stays(name):
    operator, field = OPERATORS[name]
    with jax.enable_x64(True):
        for dtype in ("bfloat16", "float32"):
            for f in (lambda x: x * jnp.sum(x**2), lambda x: jnp.sum(x**3)):
                if name in {"laplacian", "directional_derivative"} or f(np.ones(3)).ndim:
                    for jit in (False, True) if dtype == "float32" else (True,):
                        result = called(operator(f), jit, array(3)(dtype))
                        assert getattr(result, field).dtype == dtype


# Calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
def test_an_eager_call_runs_the_function_once_with_its_values(name):
    def field(x):
        if x[0] > 0:  # needs a value
            return x**3
        raise AssertionError

    wrapped, calls = counted(field)
    operator, attribute = OPERATORS[name]
    result = operator(wrapped)(array(3)("float32"))
    assert len(calls) == 1
    assert jnp.all(jnp.isfinite(getattr(result, attribute)))
    assert_close(result.value, array(3)("float32") ** 3)


def test_control_flow_on_values_at_any_order():
    def f(x):
        return jnp.exp(x) if x > 0 else x

    for order in (2, 5, 6):
        D = adk.directional_derivative(f, order=order)(1.0, direction=1.0)
        assert_close(D.derivative, math.e, scale=4)
    assert_close(adk.laplacian(f)(1.0).laplacian, math.e)
    with pytest.raises(jax.errors.ConcretizationTypeError):
        jax.jit(adk.laplacian(f))(1.0)


def test_over_collocation_points_and_the_loss_of_a_network():
    def u(x, params):
        for w, b in params:
            x = jnp.tanh(w @ x + b)
        return jnp.sum(x)

    points = jnp.stack([array(2)("float32") * s for s in (0.5, 1.0, 1.5)])
    params = [
        (array(4, 2)("float32"), array(4)("float32")),
        (array(3, 4)("float32"), array(3)("float32")),
    ]
    operator = adk.laplacian(u, wrt="x")

    def ours(params):
        found = jax.vmap(operator, (0, None))(points, params)
        return jnp.mean((found.laplacian + found.value) ** 2)

    def theirs(params):
        def residual(x):
            return jnp.trace(jax.hessian(u)(x, params)) + u(x, params)

        return jnp.mean(jax.vmap(residual)(points) ** 2)

    expected, gradient = jax.jit(jax.value_and_grad(theirs))(params)
    for transform in (jax.value_and_grad(ours), jax.jit(jax.value_and_grad(ours))):
        found, our_gradient = transform(params)
        assert_close(found, expected, scale=4)
        for a, b in zip(*map(jax.tree.leaves, (our_gradient, gradient)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_through_transformations_of_jax():
    x = array(3)("float32")
    for operator, field in OPERATORS.values():
        transform = operator(lambda x: x**3)
        result = transform(x)
        structure = jax.tree.structure(result)
        assert structure == jax.tree.structure(jax.jit(transform)(x))
        batched = jax.jit(jax.vmap(transform))(jnp.stack([x, 2 * x]))
        assert_close(getattr(batched, field)[1], getattr(transform(2 * x), field), scale=4)

        def step(carry, scale, transform=transform):
            return transform(scale * x), carry.value

        carried, _ = lax.scan(step, result, jnp.ones(2))
        assert_close(getattr(carried, field), getattr(result, field))
        assert f"\n  {field} " in repr(result)
        assert "\n  value " in repr(result)
        assert result.aux is None


class Model(eqx.Module):
    """A field with operators as methods."""

    k: Any

    def __call__(self, x):
        return jnp.sum(jnp.sin(self.k * x))

    @adk.laplacian
    def energy(self, x):
        """The energy."""
        return self(x)

    @adk.divergence(wrt="x")
    def flux(self, x, scale=1.0):
        return self.k * x**2 * scale

    @adk.directional_derivative(order=2, has_aux=True)
    def bent(self, x):
        return self(x), self.k


def test_methods_and_modules():
    model, x = Model(jnp.float32(2)), array(3)("float32")
    expected = -4 * jnp.sum(jnp.sin(2 * x))
    assert_close(model.energy(x).laplacian, expected, scale=2)
    assert model.energy.__name__ == "energy"
    assert model.energy.__doc__ == "The energy."
    assert_close(eqx.filter_jit(model.energy)(x).laplacian, expected, scale=2)
    assert_close(adk.laplacian(model)(x).laplacian, expected, scale=2)
    assert_close(model.flux(x, scale=3.0).divergence, 12 * jnp.sum(x), scale=2)
    bent = model.bent(x, direction=jnp.ones(3))
    assert_close(bent.derivative, expected, scale=2)
    assert_close(bent.aux, 2.0)
    by_k = jax.grad(lambda m: m.energy(x).laplacian)(model).k
    assert_close(by_k, jnp.sum(-4 * jnp.sin(2 * x) - 4 * x * jnp.cos(2 * x)), scale=4)


@BOTH
@pytest.mark.parametrize("name", OPERATORS)
def test_auxiliary_data(name, jit):
    operator, field = OPERATORS[name]
    x = array(3)("float32")
    result = called(operator(lambda x: (x**2, {"sum": jnp.sum(x)}), has_aux=True), jit, x)
    assert_close(result.aux["sum"], jnp.sum(x))
    assert_close(result.value, x**2)
    assert getattr(result, field) is not None


# Rules of one's own --------------------------------------------------------------------


@jax.custom_jvp
def odd(x):
    return jnp.sin(x)


odd.defjvps(lambda t, _, x: t * 10 * x)  # deliberately not the cosine


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=range(3))
@BOTH
def test_custom_rules_are_honoured(wrap, jit):
    x = array(3)("float32")
    f = wrap(odd)
    expected = {1: 10 * x**2, 2: 10 * x**2, 3: 0 * x, 6: 0 * x, 7: 0 * x}
    for order in (1, 2, 6) if wrap is not jax.jit else expected:
        D = called(adk.directional_derivative(f, order=order), jit, x, direction=x)
        assert_close(D.derivative, expected[order])
    assert_close(called(adk.laplacian(lambda x: jnp.sum(f(x))), jit, x).laplacian, 30.0)
    assert_close(called(adk.laplacian(f), jit, x).laplacian, jnp.full(3, 10.0))
    assert_close(called(adk.divergence(f), jit, x).divergence, 10 * jnp.sum(x))


def test_rules_for_reverse_mode():
    f = CASES["custom_vjp"].function
    x = array(3)("float32")
    assert_close(adk.divergence(f)(x).divergence, 2 * jnp.sum(x))
    assert_close(adk.curl(f)(x).curl, jnp.zeros(3))
    assert_close(jax.jit(adk.laplacian(lambda x: jnp.sum(f(x))))(x).laplacian, 6.0)


def test_a_rule_for_reverse_mode_is_not_said_to_have_no_mode():
    f = CASES["custom_vjp"].function
    with pytest.raises(adk.ModeError, match=r"^directional_derivative\(") as caught:
        adk.directional_derivative(f)(X, direction=X)
    assert "cannot differentiate it in any mode" not in str(caught.value)  # reverse mode can


# Plans and refusals --------------------------------------------------------------------


def test_plans_are_printed():
    x = jnp.ones(3)
    f = FIELDS["Gaussian"][0]
    text = str(adk.laplacian(f).plan(x))
    assert text.startswith("Plan of laplacian(<lambda>)\n  x  float32[3]  ")
    assert " flop, " in text
    assert isinstance(adk.laplacian(f).plan(x), adk.OperatorPlan)
    assert str(adk.laplacian(jnp.sin).plan(jax.ShapeDtypeStruct((3,), "float32"))).split("\n") == [
        "Plan of laplacian(sin)",
        "  x  float32[3]  pushed 2 times, one inside the other, along each entry",
    ]
    plan = adk.divergence(jnp.sin).plan(x)
    assert str(plan).split("\n")[1].strip() == "x  float32[3]  1 direction: axes are kept apart"
    assert plan.flops > 0
    text = str(adk.curl(jnp.sin).plan(x))
    assert text.startswith("Plan of curl(sin): forward mode")
    for order, way in [(1, "pushed"), (2, "pushed 2 times, one inside the other"), (6, "Taylor")]:
        plan = adk.directional_derivative(jnp.sin, order=order).plan(x)
        assert way in str(plan)
        assert str(plan).endswith(", along one line")
        assert (plan.flops, plan.bytes_moved) == (None, None)
    assert adk.laplacian.__name__ == "laplacian"
    assert adk.laplacian(jnp.sin).annotations == {}


def real(z):
    return jnp.sum(jnp.abs(z) ** 2) * jnp.ones(3)


Z = np.ones(3, "complex64")
X = np.ones(3, "float32")
D = adk.directional_derivative(jnp.sin)
LOOP = CASES["while_loop"].function
TWO = adk.directional_derivative(lambda x, y: x * y)
NOT_DIFFERENTIABLE = adk.NotDifferentiableError
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "curl in a plane": (lambda: adk.curl(jnp.sin)(X[:2]), NOT_DIFFERENTIABLE, "three outputs by"),
    "curl of one": (lambda: adk.curl(r2)(X), NOT_DIFFERENTIABLE, "three outputs by three"),
    "curl, plan": (lambda: adk.curl(r2).plan(X), NOT_DIFFERENTIABLE, "three outputs by three"),
    "divergence of one": (
        lambda: adk.divergence(r2)(X),
        NOT_DIFFERENTIABLE,
        r"coordinates +x +float32\[3\]\n +output +float32\[\]",
    ),
    "divergence, shapes": (
        lambda: adk.divergence(lambda x, y: (y, x))(X, X[:2]),
        NOT_DIFFERENTIABLE,
        "an output for each coordinate",
    ),
    "divergence, too few": (
        lambda: adk.divergence(lambda x, y: (x,)).plan(X, X),
        NOT_DIFFERENTIABLE,
        "an output for each coordinate",
    ),
    "divergence, no mode": (
        lambda: adk.divergence(lambda x: CASES["custom_vjp"].function(LOOP(x)))(jnp.ones(3000)),
        adk.ModeError,
        "neither mode",
    ),
    "directional_derivative": (lambda: D(X), adk.SignatureError, r"direction=.*x=\.\.\."),
    "directional_derivative, by position": (lambda: D(X, X), adk.SignatureError, "positional"),
    "directional_derivative, shape": (
        lambda: D(X, direction=X[:2]),
        adk.StructureError,
        r"direction: 'x' should be float32\[3\]; got float32\[2\]",
    ),
    "directional_derivative, name": (
        lambda: TWO(X, X, direction={"z": X}),
        adk.StructureError,
        "'z' has no counterpart",
    ),
    "directional_derivative, bare": (
        lambda: TWO(X, X, direction=X),
        adk.StructureError,
        "several arguments",
    ),
    "directional_derivative, complex": (
        lambda: D(X, direction=Z),
        adk.StructureError,
        r"got complex64\[3\]",
    ),
    "laplacian of integers": (
        lambda: adk.laplacian(lambda n: n * 1.0)(3),
        NOT_DIFFERENTIABLE,
        "no floating-point",
    ),
    "laplacian, wrt": (lambda: adk.laplacian(r2, wrt="y")(X), adk.SelectionError, "wrt='y'"),
    "laplacian, of": (lambda: adk.laplacian(r2, of="a")(X), adk.SelectionError, "of='a'"),
    "laplacian of no function": (lambda: adk.laplacian(3), adk.SignatureError, "a function"),
}


@pytest.mark.parametrize("order", [0, -1, 1.5, True, "2", None])
def test_an_order_is_a_positive_integer(order):
    message = rf"^directional_derivative\(sin\): order={order!r} is not a positive integer"
    with pytest.raises(adk.SelectionError, match=message):
        adk.directional_derivative(jnp.sin, order=order)


@pytest.mark.parametrize("name", ["laplacian", "divergence", "curl"])
@pytest.mark.parametrize("f", [real, jnp.sin], ids=["to real", "to complex"])
def test_coordinates_are_real(name, f):
    with pytest.raises(NOT_DIFFERENTIABLE, match=rf"(?s)^{name}\(.*complex64\[3\]") as caught:
        OPERATORS[name][0](f)(Z)
    assert "holomorphic=True" not in str(caught.value)  # which operators do not take


def test_a_divergence_that_neither_mode_can_sweep_is_cut():
    square = CASES["custom_vjp"].function  # whose rule serves reverse mode, a loop only forward
    D = adk.divergence(lambda x: square(LOOP(x)))
    value, slope = jax.jvp(LOOP, (X,), (jnp.ones_like(X),))
    assert "the whole block by mixed mode" in str(D.plan(X))
    assert_close(D(X).divergence, jnp.sum(2 * value * slope), scale=20)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_call(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert str(caught.value).startswith(name.split()[0].strip(","))


def test_errors_of_the_function_are_its_own():
    def f(x):
        raise KeyError("mine")

    for operator, _ in OPERATORS.values():
        with pytest.raises(KeyError, match="mine"):
            operator(f)(X)


def test_outputs_belong_to_the_coordinates_of_their_names():
    def swapped(y, x):
        return {"x": x**2, "y": y**3}

    found = adk.divergence(swapped)(1.0, 2.0)
    np.testing.assert_allclose(found.divergence, 3 * 1.0**2 + 2 * 2.0)
    point = {"y": jnp.array([1.0, 2.0]), "x": jnp.array([3.0, 4.0, 5.0])}
    found = adk.divergence(lambda p: {"y": p["y"] ** 2, "x": p["x"] * p["y"][0]})(point)
    np.testing.assert_allclose(found.divergence, 2 * (1.0 + 2.0) + 3 * 1.0)
    found = adk.curl(lambda z, x, y: {"x": -y * z, "y": x * z, "z": x * y * y})(3.0, 1.0, 2.0)
    # Of the coordinates (z, x, y), in this order.
    z, x, y = 3.0, 1.0, 2.0
    jacobian = np.array([[0, y * y, 2 * x * y], [-y, 0, -z], [x, z, 0]])  # rows z, x, y
    expected = [
        jacobian[2, 1] - jacobian[1, 2],
        jacobian[0, 2] - jacobian[2, 0],
        jacobian[1, 0] - jacobian[0, 1],
    ]
    np.testing.assert_allclose([found.curl[k] for k in "zxy"], expected)


@pytest.mark.parametrize(
    ("transform", "field"),
    [
        (adk.divergence, lambda x, y: {"first": x**2, "another": y**2}),
        (adk.curl, lambda x, y, z: {"fx": -y, "fy": x, "dz": z}),
    ],
)
def test_outputs_of_other_names_in_another_order_are_refused(transform, field):
    point = [1.0, 2.0, 3.0][: len(inspect.signature(field).parameters)]
    for call in (transform(field), transform(field).plan):
        with pytest.raises(adk.NotDifferentiableError, match="JAX sorts the keys of a dict"):
            call(*point)
    assert transform(lambda *args: tuple(field(*args).values()))(*point)
