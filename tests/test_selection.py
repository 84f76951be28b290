"""`wrt` and `of`: what they select, from names to predicates."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from functions import Affine, Layer, Point, make_affine


def paths(result: Any) -> list[str]:
    """What was differentiated."""
    return [path for path, _ in result.column_labels]


def outputs(J: Any) -> list[str]:
    """Of what it was differentiated."""
    return [path for path, _ in J.row_labels]


X = jnp.array([0.5, -1.0])


def deep(params, x, n=2):
    first, second = params["layers"]
    hidden = jnp.tanh(first["weight"] @ x + first["bias"])
    return second["weight"] @ hidden + second["bias"] + params["bias"] * n


def deep_params():
    layer = {"weight": jnp.eye(2), "bias": jnp.ones(2), "name": "dense", "steps": 3}
    return {"layers": [layer, {**layer, "bias": jnp.zeros(2)}], "bias": 0.5}


DEEP = [
    "params.bias",
    "params.layers.0.bias",
    "params.layers.0.weight",
    "params.layers.1.bias",
    "params.layers.1.weight",
    "x",
]


@pytest.mark.parametrize(
    ("wrt", "expected"),
    [
        (None, DEEP),
        ("x", ["x"]),
        ("params", DEEP[:-1]),
        ("params.layers", DEEP[1:-1]),
        ("params.layers.1", DEEP[3:5]),
        ("params.layers.0.weight", ["params.layers.0.weight"]),
        ("params.*.bias", ["params.layers.0.bias", "params.layers.1.bias"]),
        ("*bias", [p for p in DEEP if p.endswith("bias")]),
        ("*.layers.[0]*", DEEP[1:3]),
        ("params.layers.?.weight", ["params.layers.0.weight", "params.layers.1.weight"]),
        ("*", DEEP),
        ("params.layers.*", DEEP[1:-1]),
        (("x", "params.bias"), ["params.bias", "x"]),
        (["x", "params.bias"], ["params.bias", "x"]),
        (("x", "params.*.bias"), ["params.layers.0.bias", "params.layers.1.bias", "x"]),
        (("x", "x", "*"), DEEP),
        (lambda path, leaf: path.endswith("bias"), [p for p in DEEP if p.endswith("bias")]),
        (lambda path, leaf: leaf.ndim == 2, [p for p in DEEP if p.endswith("weight")]),
        (lambda path, leaf: True, DEEP),
    ],
)
def test_wrt_selects(wrt, expected):
    transform = adk.linearize(deep, wrt=wrt)
    assert paths(transform(deep_params(), X)) == expected


@pytest.mark.parametrize("transform", [adk.jacobian, adk.hessian, adk.grad, adk.linearize, adk.hvp])
def test_every_transform_takes_wrt_and_of(transform):
    def f(x, params):
        return {"energy": jnp.sum(x * params["a"] ** 2), "other": x}

    result = transform(f, wrt=("params.a",), of="energy")(X, {"a": X, "b": X})
    assert paths(result) == ["params.a"]
    assert {"energy", "other"} == set(result.value)


def test_unselected_leaves_are_held_and_do_not_change_the_blocks():
    everything = adk.jacobian(deep)(deep_params(), X)
    some = adk.jacobian(deep, wrt=("params.layers.1.weight", "x"))(deep_params(), X)
    np.testing.assert_allclose(some.x, everything.x, rtol=1e-6)
    np.testing.assert_allclose(
        some.params["layers"][1]["weight"], everything["params.layers.1.weight"], rtol=1e-6
    )
    assert some.params["layers"][0] == {"weight": None, "bias": None, "name": None, "steps": None}
    assert some.params["bias"] is None


def test_selection_does_not_change_the_order_of_the_columns():
    def f(b, a):
        return a * b

    J = adk.jacobian(f, wrt=("a", "b"))(X, 2 * X)
    assert paths(J) == ["b", "a"]
    np.testing.assert_allclose(J.as_matrix(), np.hstack([np.diag(2 * X), np.diag(X)]))


# Predicates ---------------------------------------------------------------------------


def everything(x, scale, number, n, flag, how, nothing, function, key, steps, image):
    return function(x * scale) * number


def test_a_predicate_sees_arrays_and_only_what_can_be_differentiated():
    seen: dict[str, Any] = {}

    def wrt(path, leaf):
        seen[path] = leaf
        return path == "x"

    call = (X, np.float32(2), 3.0, 2, True, "mean", None, jnp.sin, jax.random.key(0))
    J = adk.jacobian(everything, wrt=wrt)(*call, jnp.arange(3), np.zeros((2, 2), np.uint8))
    assert paths(J) == ["x"]
    assert list(seen) == ["x", "scale", "number"]
    assert all(isinstance(leaf, jax.Array) for leaf in seen.values())
    assert {path: (leaf.shape, str(leaf.dtype)) for path, leaf in seen.items()} == {
        "x": ((2,), "float32"),
        "scale": ((), "float32"),
        "number": ((), "float32"),
    }
    assert seen["number"].weak_type


def test_a_predicate_may_decide_by_value_outside_a_trace():
    J = adk.jacobian(lambda x, y: x * y, wrt=lambda path, leaf: leaf[0] > 0)(X, -X)
    assert paths(J) == ["x"]


def test_a_predicate_sees_numpy_arrays_as_jax_arrays():
    kinds = []
    adk.jacobian(jnp.sin, wrt=lambda path, leaf: kinds.append(type(leaf)) or True)(np.ones(2))
    assert all(issubclass(kind, jax.Array) for kind in kinds)


def test_a_predicate_works_under_jit_and_in_a_plan():
    transform = adk.jacobian(deep, wrt=lambda path, leaf: leaf.shape == (2,))
    params, static = eqx.partition(deep_params(), eqx.is_array)
    J = jax.jit(lambda p, x: transform(eqx.combine(p, static), x))(params, X)
    assert paths(J) == ["params.layers.0.bias", "params.layers.1.bias", "x"]
    plan = transform.plan(deep_params(), jax.ShapeDtypeStruct((2,), "float32"))
    assert plan.reason == "5 forward against 2 reverse directions, of 6 and 2"


def test_a_predicate_may_answer_with_an_array():
    J = adk.jacobian(lambda x, y: x * y, wrt=lambda path, leaf: jnp.sum(leaf) < 0)(X, -X)
    assert paths(J) == ["x"]


# Defaults, keywords, variadic arguments -----------------------------------------------------


def with_defaults(x, y=2.0, *, scale=3.0, table=(1.0, 2)):
    return x * y * scale * table[0]


@pytest.mark.parametrize(
    ("wrt", "kwargs", "expected"),
    [
        (None, {}, ["x"]),
        (None, {"y": 2.0}, ["x", "y"]),
        (None, {"scale": 3.0}, ["x", "scale"]),
        ("scale", {}, ["scale"]),
        (("x", "y"), {}, ["x", "y"]),
        ("table", {}, ["table.0"]),
        ("table.0", {}, ["table.0"]),
        ("*", {}, ["x"]),
        ("*", {"scale": 3.0}, ["x", "scale"]),
        (lambda path, leaf: True, {}, ["x"]),
        (lambda path, leaf: path != "x", {"y": 2.0}, ["y"]),
    ],
)
def test_an_omitted_default_is_constant_unless_named(wrt, kwargs, expected):
    J = adk.jacobian(with_defaults, wrt=wrt)(X, **kwargs)
    assert paths(J) == expected
    np.testing.assert_allclose(J.value, 6 * X)


def test_an_omitted_default_that_is_named_has_the_right_derivative():
    J = adk.jacobian(with_defaults, wrt=("x", "scale"))(X)
    np.testing.assert_allclose(J.scale, 2 * X)
    np.testing.assert_allclose(J.x, 6 * np.eye(2))


def test_keyword_only_arguments_and_keywords_in_any_order():
    def f(a, *, b, c):
        return a * b + c

    J = adk.jacobian(f)(c=X, b=2.0, a=X)
    assert paths(J) == ["a", "b", "c"]
    np.testing.assert_allclose(J.b, X)


def test_positional_only_arguments():
    def f(x, y, /):
        return x * y

    J = adk.jacobian(f, wrt="y")(X, 2.0)
    assert paths(J) == ["y"]
    np.testing.assert_allclose(J.y, X)


def test_positional_only_default_before_one_that_wrt_names():
    def f(x, y=2.0, z=3.0, /):
        return x * y + z**2

    J = adk.jacobian(f, wrt=("x", "z"))(X)
    assert paths(J) == ["x", "z"]
    np.testing.assert_allclose(J.value, 2 * X + 9)
    np.testing.assert_allclose(J.z, [6, 6])


def test_a_keyword_may_be_named_like_a_positional_only_argument():
    def f(x, /, **kwargs):
        return x * kwargs["x"]

    J = adk.jacobian(f, wrt="kwargs.x")(X, x=2.0)
    np.testing.assert_allclose(J["kwargs.x"], X)


def variadic(x, *args, **kwargs):
    return x * args[0] * args[1]["w"] * kwargs["q"] + kwargs.get("r", 0.0)


@pytest.mark.parametrize(
    ("wrt", "expected"),
    [
        (None, ["x", "args.0", "args.1.w", "kwargs.q", "kwargs.r"]),
        ("args", ["args.0", "args.1.w"]),
        ("args.0", ["args.0"]),
        ("args.1", ["args.1.w"]),
        ("args.*.w", ["args.1.w"]),
        ("kwargs", ["kwargs.q", "kwargs.r"]),
        (("kwargs.q", "x"), ["x", "kwargs.q"]),
        ("kwargs.[r]", ["kwargs.r"]),
    ],
)
def test_variadic_arguments_have_paths(wrt, expected):
    J = adk.jacobian(variadic, wrt=wrt)(X, 2.0, {"w": X}, r=1.0, q=3.0)
    assert paths(J) == expected


def test_blocks_of_variadic_arguments():
    J = adk.jacobian(variadic)(X, 2.0, {"w": X}, q=3.0)
    np.testing.assert_allclose(J.args[0], 3 * X**2)
    np.testing.assert_allclose(J["args.0"], 3 * X**2)
    np.testing.assert_allclose(J.args[1]["w"], np.diag(6 * X))
    np.testing.assert_allclose(J.kwargs["q"], 2 * X**2)
    np.testing.assert_allclose(J["kwargs.q"], 2 * X**2)


def test_variadic_arguments_after_omitted_ones():
    def f(a, b=1.0, *args, c=2.0, **kwargs):
        return a * b * c * sum(args, start=1.0) * kwargs.get("d", 1.0)

    assert paths(adk.jacobian(f)(X)) == ["a"]
    assert paths(adk.jacobian(f)(X, 1.0, 2.0, d=1.0)) == ["a", "b", "args.0", "kwargs.d"]
    assert paths(adk.jacobian(f, wrt=("b", "c"))(X)) == ["b", "c"]


# Callable modules and methods ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrt", "expected"),
    [
        (None, ["x"]),
        ("*", ["x"]),
        (lambda path, leaf: True, ["x"]),
        ("self", ["self.weight", "self.bias"]),
        ("self.bias", ["self.bias"]),
        ("self.*", ["self.weight", "self.bias"]),
        (("self", "x"), ["self.weight", "self.bias", "x"]),
        (("self.weight", "gain"), ["self.weight", "gain"]),
    ],
)
def test_leaves_of_a_callable_module_are_constant_unless_wrt_names_self(wrt, expected):
    J = adk.jacobian(make_affine("float32"), wrt=wrt)(jnp.ones(3))
    assert paths(J) == expected


def test_blocks_by_self_keep_the_structure_of_the_module():
    model = make_affine("float32")
    J = adk.jacobian(model, wrt="self.weight")(jnp.ones(3))
    assert isinstance(J.self, Affine)
    assert J.self.weight.shape == (2, 2, 3)
    assert (J.self.bias, J.self.power, J.self.activation) == (None, None, None)
    assert J.self.label == "affine"


class Model(eqx.Module):
    rate: Any
    steps: int = 2

    def run(self, x):
        return x**2 * self.rate * self.steps

    @property
    def other(self):
        return self.rate


@pytest.mark.parametrize(
    ("wrt", "expected"),
    [(None, ["x"]), ("self", ["self.rate"]), (("self.rate", "x"), ["self.rate", "x"])],
)
def test_the_self_of_a_bound_method_is_constant_unless_named(wrt, expected):
    J = adk.jacobian(Model(jnp.array(3.0)).run, wrt=wrt)(X)
    assert paths(J) == expected
    np.testing.assert_allclose(J.value, 6 * X**2)


def test_the_self_of_a_bound_method_has_the_right_derivative():
    J = adk.jacobian(Model(jnp.array(3.0)).run, wrt="self")(X)
    np.testing.assert_allclose(J.self.rate, 2 * X**2)


def test_the_self_of_an_unbound_method_is_an_ordinary_argument():
    J = adk.jacobian(Model.run)(Model(jnp.array(3.0)), X)
    assert paths(J) == ["self.rate", "x"]


def test_a_bound_object_goes_by_the_name_that_the_method_gives_it():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Odd:
        a: Any

        def method(this, x):
            return this.a * x

    assert paths(adk.jacobian(Odd(2.0).method, wrt="this.a")(X)) == ["this.a"]


def test_a_bound_object_that_is_no_pytree_is_passed_as_it_is():
    class Plain:
        factor = 2.0

        def method(self, x):
            return self.factor * x

    assert paths(adk.jacobian(Plain().method)(X)) == ["x"]


def test_arguments_that_a_partial_has_bound_are_constant():
    def f(a, x, scale):
        return a * x * scale

    J = adk.jacobian(functools.partial(f, 2.0, scale=3.0))(X)
    assert paths(J) == ["x"]
    named = adk.jacobian(functools.partial(f, 2.0, scale=3.0), wrt="scale")(X)
    np.testing.assert_allclose(named.scale, 2 * X)


# Structured arguments ---------------------------------------------------------------------


class Outer(NamedTuple):
    point: Point
    layer: Layer


def test_paths_through_named_tuples_and_dataclasses():
    def f(o):
        return o.layer.w @ o.point.x + o.layer.b * o.point.y

    o = Outer(Point(X, 2.0), Layer(jnp.eye(2), X))
    assert paths(adk.jacobian(f)(o)) == ["o.point.x", "o.point.y", "o.layer.w", "o.layer.b"]
    assert paths(adk.jacobian(f, wrt="o.*.[xw]")(o)) == ["o.point.x", "o.layer.w"]


def test_dict_keys_that_are_not_strings_are_written_as_they_print():
    J = adk.jacobian(lambda t: t[3] * t[10], wrt="t.10")({3: X, 10: X})
    assert paths(J) == ["t.10"]


def test_dict_keys_with_dots_and_wildcards_can_be_named():
    tree = {"a.b": X, "c*": X, "cd": X}
    assert paths(adk.jacobian(lambda t: t["a.b"] * t["cd"], wrt="t.a.b")(tree)) == ["t.a.b"]
    assert "t.c*" in paths(adk.jacobian(lambda t: t["c*"] * t["cd"], wrt="t.c*")(tree))


def test_globs_and_whole_arguments_skip_what_cannot_be_differentiated():
    tree = {"a": X, "n": 3, "name": "x", "none": None, "flag": jnp.array(True)}
    for wrt in (None, "t", "t.*", "*"):
        assert paths(adk.jacobian(lambda t: t["a"] ** t["n"], wrt=wrt)(tree)) == ["t.a"]


def test_wildcards_respect_case():
    J = adk.jacobian(lambda a, A: a * A, wrt="[A]*")(X, X)
    assert paths(J) == ["A"]


# Outputs ----------------------------------------------------------------------------------


def several(x):
    return {"energy": jnp.sum(x**2), "forces": [2 * x, jnp.cos(x)], "count": 3, "note": "n"}


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (None, ["energy", "forces.0", "forces.1"]),
        ("energy", ["energy"]),
        ("forces", ["forces.0", "forces.1"]),
        ("forces.0", ["forces.0"]),
        ("forces.*", ["forces.0", "forces.1"]),
        ("*.1", ["forces.1"]),
        ("*", ["energy", "forces.0", "forces.1"]),
        (("forces.1", "energy"), ["energy", "forces.1"]),
        (["forces.1", "e*"], ["energy", "forces.1"]),
        (("energy", "energy"), ["energy"]),
    ],
)
def test_of_selects(of, expected):
    J = adk.jacobian(several, of=of)(X)
    assert outputs(J) == expected
    assert sorted(J.value) == ["count", "energy", "forces", "note"]
    assert J.value["note"] == "n"


def test_outputs_that_are_not_selected_are_none_in_the_blocks():
    J = adk.jacobian(several, of="forces.0")(X)
    assert J.x["energy"] is None
    assert J.x["forces"][1] is None
    np.testing.assert_allclose(J.x["forces"][0], 2 * np.eye(2))


def test_outputs_of_a_list_are_named_by_index():
    J = adk.jacobian(lambda x: (x, [x**2, {"a": x**3}]), of=("0", "1.1.a"))(X)
    assert outputs(J) == ["0", "1.1.a"]


def test_of_selects_the_scalar_of_a_gradient_and_a_hessian():
    np.testing.assert_allclose(adk.grad(several, of="energy")(X).x, 2 * X)
    H = adk.hessian(several, of="energy")(X)
    np.testing.assert_allclose(H.as_matrix(), 2 * np.eye(2))
    np.testing.assert_allclose(H.grad.x, 2 * X)


def test_of_looks_at_the_output_and_not_at_the_auxiliary_data():
    J = adk.jacobian(lambda x: ({"a": x, "b": x**2}, {"a": x}), of="b", has_aux=True)(X)
    assert outputs(J) == ["b"]
    np.testing.assert_allclose(J.aux["a"], X)


def test_of_through_named_tuples_and_modules():
    J = adk.jacobian(lambda x: Outer(Point(x, 2 * x), Layer(x, x)), of=("point.y", "layer.b"))(X)
    assert outputs(J) == ["point.y", "layer.b"]
