"""Annotated code as it is written in practice: what has to pass, and what must not."""

import functools
from collections.abc import Sequence
from typing import Annotated, NewType, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping as jt
import numpy as np
import pytest
from jaxtyping import Array, Float, PyTree

import autodiffkit as adk

X, W = jnp.arange(1.0, 4.0), jnp.ones((2, 3))
Vector = Float[Array, "n"]
Size = NewType("Size", float)


def passes(function, *args):
    """It runs, is traced, and is planned, with the same result as without the check."""
    checked, plain = (adk.jacobian(function, typecheck=typecheck) for typecheck in (True, False))
    for run in (lambda t: t(*args), lambda t: jax.jit(t)(*args)):
        ours, theirs = (jax.tree.leaves(run(t).tree) for t in (checked, plain))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    checked.plan(*args)


def refuses(function, *args):
    with pytest.raises(adk.AnnotationError) as caught:
        adk.jacobian(function)(*args)
    return str(caught.value)


# Several objects --------------------------------------------------------------------------


class Encoder(eqx.Module):
    weight: Float[Array, "out in"]


class Decoder(eqx.Module):
    weight: Float[Array, "out in"]


def test_two_objects_have_sizes_of_their_own():
    def f(encoder: Encoder, decoder: Decoder, x: Vector) -> Float[Array, "m"]:
        return decoder.weight @ (encoder.weight @ x)

    passes(f, Encoder(W), Decoder(W.T), X)


def test_layers_of_a_library_have_sizes_of_their_own():
    def f(norm: eqx.nn.LayerNorm, x: Float[Array, "*shape d"]) -> Float[Array, "*shape d"]:
        return jax.vmap(norm)(x)

    passes(f, eqx.nn.LayerNorm(3), W)


def test_one_object_beside_others_in_a_list_has_sizes_of_its_own():
    def f(first: Encoder, *rest: Encoder) -> Float[Array, "m"]:
        return functools.reduce(lambda x, layer: layer.weight @ x, rest, first.weight @ X)

    passes(f, Encoder(W), Encoder(W.T), Encoder(W))


# Alternatives to arrays --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Sequence[float] | Vector, [1.0, 2.0]),
        (tuple[float, float] | Vector, (1.0, 2.0)),
        (dict[str, float] | Vector, {"a": 1.0}),
        (Size | Vector, 1.0),
        (Annotated[float, "seconds"] | Vector, 1.0),
        (np.float64 | Vector, np.float64(1.0)),
        (float | Float[Array, ""], 2),
        (float | Float[Array, ""], np.int64(2)),
        (Float[Array, ""] | int, 3),
    ],
    ids=str,
)
def test_a_number_is_what_it_was_before_it_was_traced(hint, value):
    def f(x: Vector, y: hint) -> Vector:
        return x * sum(jax.tree.leaves(y)).astype(x.dtype) if hasattr(y, "astype") else 2 * x

    with jax.numpy_dtype_promotion("standard"):
        passes(f, X, value)


def test_a_complex_number_is_no_float():
    def f(x: float | Float[Array, ""]):
        return x

    assert "received   complex64[]" in refuses(f, 1j)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(jt.Int64[np.ndarray, "k"], np.arange(2)), (jt.Float64[np.ndarray, "k"], np.ones(2))],
    ids=["integers", "floats"],
)
def test_an_array_of_numpy_that_is_held_keeps_its_dtype(hint, value):
    def f(x: Vector, data: hint) -> Vector:
        return x * float(data.sum())

    assert adk.jacobian(f, wrt="x")(X, value).x.shape == (3, 3)


# Names ------------------------------------------------------------------------------------


def test_expressions_wait_for_each_other():
    def f(b: Float[Array, "m+1"], a: Float[Array, "n+1 m"], x: Vector) -> Vector:
        return x

    passes(f, jnp.ones(6), jnp.ones((4, 5)), X)
    assert "m = 5 is fixed by argument 'a'" in refuses(f, X, jnp.ones((4, 5)), X)


def test_what_a_partial_hides_fixes_no_name():
    def f(knots: Vector, values: Float[Array, "n-1"]) -> Float[Array, ""]:
        return jnp.sum(values) * knots[0]

    passes(functools.partial(f, X), X[1:])
    refuses(f, X, X)


def test_an_annotation_that_reads_what_a_partial_hides_is_left_alone():
    def f(knots: Float[Array, "n"], values: Float[Array, "n-1 m"]) -> Float[Array, "m"]:
        return values[0] * knots[0]

    passes(functools.partial(f, X), jnp.ones((2, 3)))


def test_arguments_that_are_annotated_together():
    def f(*args: *tuple[Vector, Float[Array, "n m"]]) -> Float[Array, "m"]:
        return args[0] @ args[1]

    passes(f, X, W.T)
    assert "argument 'args.1'" in refuses(f, X, W)


def test_alternatives_read_arguments_and_structures():
    def f(k: int, y: list[Float[Array, "{k}"]] | list[Float[Array, "{k} m"]]) -> Float[Array, ""]:
        return jnp.sum(y[0])

    def g(t: PyTree[Vector, "T"], u: PyTree[Vector, "T"] | list[Vector]) -> Float[Array, ""]:
        return jnp.sum(t["a"]) + jnp.sum(jax.tree.leaves(u)[0])

    adk.jacobian(f)(3, [W.T])  # a traced number could not be read
    refuses(f, 3, [W])
    passes(g, {"a": X}, {"a": X})
    passes(g, {"a": X}, [X])
    refuses(g, {"a": X}, {"b": X})


# What raises by itself ---------------------------------------------------------------------


class Scaled(Protocol):
    scale: Float[Array, "n"]


def test_a_protocol_is_left_alone():
    def f(p: Scaled, x: Vector) -> Vector:
        return p.scale * x

    class Anything(eqx.Module):
        scale: Array

    passes(f, Anything(X), X)


def test_a_pytree_that_cannot_be_flattened_does_not_fit():
    def f(x: Vector, p: PyTree[Float[Array, "?n"], "T"]) -> Vector:
        return x

    assert "argument 'p' does not fit" in refuses(f, X, {1: X, "a": X})
