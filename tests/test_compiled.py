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
    with pytest.raises(adk.SignatureError) as caught:
        compiled(PARAMS, x=X)
    assert "another structure" in str(caught.value)


def test_the_function_is_traced_once():
    traces = []

    def function(x):
        traces.append(1)
        return jnp.sin(x)

    compiled = adk.jacobian(function).compile(X)
    for i in range(3):
        compiled(X + i)
    assert len(traces) == 1
