"""Transforms that are compiled ahead of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk

X = jnp.array([0.5, -1.0, 2.0])
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}


def model(params, x, rate=1.0, power=2, name="dense"):
    assert name == "dense"
    return jnp.tanh(params["w"] @ x + params["b"]) ** power * rate


def loss(params, x):
    return jnp.sum(model(params, x))


@pytest.mark.parametrize(
    ("transform", "function"),
    [
        (adk.jacobian, model),
        (adk.grad, loss),
        (adk.hessian, loss),
        (adk.linearize, model),
        (adk.hvp, loss),
    ],
)
def test_it_gives_what_the_transform_gives(transform, function):
    compiled = transform(function).compile(PARAMS, X)
    ours, theirs = compiled(PARAMS, X + 1), transform(function)(PARAMS, X + 1)
    assert type(ours) is type(theirs)
    np.testing.assert_allclose(ours.as_matrix(), theirs.as_matrix(), rtol=1e-5, atol=1e-6)


def test_structures_stand_for_arrays():
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (PARAMS, X))
    compiled = adk.jacobian(model).compile(*structs)
    np.testing.assert_allclose(compiled(PARAMS, X).x, adk.jacobian(model)(PARAMS, X).x, rtol=1e-5)


def test_it_says_what_it_takes():
    compiled = adk.jacobian(model).compile(PARAMS, X)
    assert compiled.memory_analysis().output_size_in_bytes > 0
    assert compiled.cost_analysis()["flops"] > 0
    assert "HloModule" in compiled.as_text()
    assert repr(compiled) == (
        "jacobian(model), compiled for\n"
        "  params.b  float32[2]\n"
        "  params.w  float32[2, 3]\n"
        "  x         float32[3]"
    )


def test_numbers_are_arguments_and_the_rest_is_compiled_in():
    compiled = adk.jacobian(model, wrt="x").compile(PARAMS, X, rate=0.5, power=3, name="dense")
    J = compiled(PARAMS, X, rate=2.0, power=3, name="dense")
    want = adk.jacobian(model, wrt="x")(PARAMS, X, rate=2.0, power=3)
    np.testing.assert_allclose(J.x, want.x, rtol=1e-5)
    with pytest.raises(adk.SignatureError) as caught:
        compiled(PARAMS, X, rate=2.0, power=4, name="dense")
    assert str(caught.value) == (
        "jacobian(model): it was compiled for other arguments. Pass what fits, or compile again.\n"
        "  power  an int, another value than was compiled in"
    )


def test_other_shapes_and_structures_are_refused():
    compiled = adk.jacobian(model).compile(PARAMS, X)
    with pytest.raises(adk.SignatureError) as caught:
        compiled(PARAMS, X.astype(jnp.float16))
    assert str(caught.value) == (
        "jacobian(model): it was compiled for other arguments. Pass what fits, or compile again.\n"
        "  x  float16[3] instead of float32[3]"
    )


def test_arguments_are_passed_by_position_or_by_keyword():
    want = adk.jacobian(model)(PARAMS, X, 2.0).as_matrix()
    compiled = adk.jacobian(model).compile(PARAMS, X, 2.0)
    by_keyword = adk.jacobian(model).compile(rate=2.0, x=X, params=PARAMS)
    for call in (compiled, by_keyword):
        for J in (
            call(PARAMS, X, 2.0),
            call(PARAMS, X, rate=2.0),
            call(PARAMS, rate=2.0, x=X),
            call(x=X, rate=2.0, params=PARAMS),
        ):
            np.testing.assert_allclose(J.as_matrix(), want, rtol=1e-5)

    def several(first, *others, scale, **more):
        return first * sum(others) * scale * more["power"] ** more["base"]

    compiled = adk.jacobian(several).compile(X, X, X, scale=2.0, power=2.0, base=3.0)
    J = compiled(X, X, 2 * X, base=3.0, power=2.0, scale=1.0)
    want = adk.jacobian(several)(X, X, 2 * X, scale=1.0, power=2.0, base=3.0)
    np.testing.assert_allclose(J.as_matrix(), want.as_matrix(), rtol=1e-5)


START = "jacobian(model): it was compiled for other arguments. Pass what fits, or compile again."


@pytest.mark.parametrize(
    ("args", "kwargs", "lines"),
    [
        ((PARAMS, X), {}, ["power  missing; it was an int"]),
        ((PARAMS, X, 1.0, 2), {}, ["rate  a float, where nothing was passed"]),
        ((PARAMS, X), {"power": 3}, ["power  an int, another value than was compiled in"]),
        ((PARAMS, X), {"power": 2.0}, ["power  a float instead of an int"]),
        ((PARAMS, 1.0), {"power": 2}, ["x  a float instead of float32[3]"]),
        (
            ({"w": 1, "b": jnp.zeros(2)}, X),
            {"power": 2},
            ["params.w  an int instead of float32[2, 3]"],
        ),
        (
            ({"w": PARAMS["w"], "bias": PARAMS["b"]}, X),
            {"power": 2},
            [
                "params.b     missing; it was float32[2]",
                "params.bias  float32[2], where nothing was passed",
            ],
        ),
        (([PARAMS], X), {"power": 2}, None),
    ],
)
def test_what_does_not_fit_is_named(args, kwargs, lines):
    compiled = adk.jacobian(model).compile(PARAMS, X, power=2)
    with pytest.raises(adk.SignatureError) as caught:
        compiled(*args, **kwargs)
    first, *rest = str(caught.value).split("\n")
    assert first == START
    assert lines is None or rest == [f"  {line}" for line in lines]


def test_structures_that_differ_in_what_is_no_leaf_are_told_apart():
    compiled = adk.jacobian(lambda p: p["x"]).compile({"x": X, "none": None})
    with pytest.raises(adk.SignatureError, match="the arguments  another structure"):
        compiled({"x": X, "none": ()})


def test_what_the_function_does_not_take_is_refused_as_by_the_transform():
    compiled = adk.jacobian(model).compile(PARAMS, X)
    messages = []
    for call in (compiled, adk.jacobian(model)):
        with pytest.raises(adk.SignatureError) as caught:
            call(PARAMS, X, speed=1.0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "unexpected keyword argument 'speed'" in messages[0]


def test_the_function_is_traced_once():
    traces = []

    def function(x):
        traces.append(1)
        return jnp.sin(x)

    compiled = adk.jacobian(function).compile(X)
    for i in range(3):
        compiled(X + i)
    assert len(traces) == 1


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_what_is_compiled_is_not_traced(transform):
    compiled = adk.grad(lambda x: jnp.sum(x**2)).compile(jnp.float32(1))
    x = jnp.ones(2) if transform is jax.vmap else jnp.float32(1)
    with pytest.raises(adk.SignatureError, match="Call the transform itself there"):
        transform(lambda x: compiled(x).x)(x)
