"""What a call does: the function runs once, with values, and nothing is hidden from it."""

import logging
from collections import Counter

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk

TRANSFORMS = [adk.jacobian, adk.grad, adk.hessian, adk.linearize, adk.hvp]
BY_MODE = [(transform, mode) for transform in TRANSFORMS for mode in ("auto", "fwd", "rev")]


class Counted:
    """A function that counts how often Python called it and how often it ran."""

    def __init__(self, function=lambda x: jnp.sum(jnp.sin(x) * x)):
        self.function = function
        self.calls = Counter()

    def __call__(self, x):
        self.calls["python"] += 1
        jax.debug.callback(lambda: self.calls.update(["runtime"]))
        return self.function(x)

    def once(self):
        jax.effects_barrier()
        assert self.calls == {"python": 1, "runtime": 1}


@pytest.mark.parametrize(("transform", "mode"), BY_MODE)
def test_the_function_runs_once_for_value_and_derivatives(transform, mode):
    f = Counted()
    result = transform(f, mode=mode)(jnp.arange(3.0))
    assert result.value == f.function(jnp.arange(3.0))
    if transform in {adk.hessian, adk.hvp}:
        assert result.grad.x.shape == (3,)
    f.once()


@pytest.mark.parametrize(("transform", "mode"), BY_MODE)
def test_under_jit_it_is_traced_once_and_runs_once(transform, mode):
    f = Counted()
    jax.block_until_ready(jax.jit(transform(f, mode=mode))(jnp.arange(3.0)))
    f.once()


def loops(x):
    return jnp.sum(lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] ** 2), (0, x))[1])


def test_what_was_tried_and_given_up_leaves_nothing_in_the_compiled_program():
    """Reverse mode is tried first for a scalar, and refuses because of the loop."""
    f = Counted(loops)
    jax.block_until_ready(jax.jit(adk.grad(f))(jnp.arange(3.0)))
    f.once()


def test_a_plan_runs_nothing():
    f = Counted()
    adk.hessian(f).plan(jnp.arange(3.0))
    jax.effects_barrier()
    assert f.calls == {"python": 1}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_python_control_flow_on_values_works_on_an_eager_call(transform):
    def f(x):
        return jnp.sum(x**2) if x[0] > 0 else jnp.sum(-x)

    assert transform(f)(jnp.array([2.0, 1.0])).value == 5
    assert transform(f)(jnp.array([-2.0, 1.0])).value == 1
    assert transform(f).plan(jnp.array([2.0, 1.0])).mode in {"fwd", "rev"}


def test_control_flow_on_values_works_inside_other_transforms_of_values():
    def f(x):
        return x**3 if x > 0 else -x

    assert jax.grad(lambda x: adk.jacobian(f)(x).x)(2.0) == 12
    assert adk.jacobian(lambda x: adk.jacobian(f)(x).x)(2.0).x == 12


def test_a_plan_from_structures_cannot_depend_on_values():
    def f(x, n):
        return x if n > 0 else -x

    structs = (jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))
    with pytest.raises(adk.SignatureError, match="needs the value of an argument"):
        adk.jacobian(f).plan(*structs)
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(lambda n: adk.jacobian(f).plan(jnp.ones(2), n).cut_size)(1)


def test_a_plan_takes_structures_in_any_place():
    def f(x, data):
        return x @ data["X"] * data["n"].astype(x.dtype)

    x = jax.ShapeDtypeStruct((4,), jnp.float32)
    data = {"X": jax.ShapeDtypeStruct((4, 2), jnp.float32), "n": jax.ShapeDtypeStruct((), int)}
    assert adk.jacobian(f).plan(x, data).reverse_sweeps == 2
    assert adk.jacobian(f, wrt="x").plan(jnp.ones(4), data).reverse_sweeps == 2
    with pytest.raises(adk.SignatureError, match=r"'data\.X' is a jax\.ShapeDtypeStruct"):
        adk.jacobian(f)(jnp.ones(4), data)


def test_rebound_closures_and_globals_are_seen():
    scale = 2.0

    def f(x):
        return scale * x

    J = adk.jacobian(f)
    assert J(1.0).x == 2
    scale = 3.0
    assert J(1.0).x == 3


def test_jit_of_a_transform_in_every_usual_form():
    x = jnp.arange(3.0)
    expected = jnp.diag(jnp.cos(x))
    J = adk.jacobian(jnp.sin)
    name = next(iter(J(x).tree))[0]
    for call in (jax.jit(J), eqx.filter_jit(J), jax.jit(lambda x: 1 * J(x)[name])):
        found = call(x)
        np.testing.assert_allclose(found if eqx.is_array(found) else found[name], expected)


@pytest.mark.parametrize("wrapper", [jax.jit, eqx.filter_jit])
def test_a_compiled_transform_is_traced_once(wrapper):
    f = Counted()
    call = wrapper(adk.jacobian(f))
    for i in range(3):
        call(jnp.arange(3.0) + i)
    assert f.calls["python"] == 1


def test_a_transform_inside_loops_and_branches():
    def newton(x):
        def step(x, _):
            J = adk.jacobian(lambda x: x**2 - 2)(x)
            return x - J.value / J.x, J

        return lax.scan(step, x, length=6)

    root, history = newton(1.0)
    np.testing.assert_allclose(root, 2**0.5, rtol=1e-6)
    assert history.x.shape == (6,)
    branch = lax.cond(root > 1, adk.jacobian(jnp.sin), adk.jacobian(jnp.sin), root)
    np.testing.assert_allclose(jax.tree.leaves(branch)[0], jnp.cos(root), rtol=1e-6)


def test_a_result_is_a_carry():
    J = adk.jacobian(lambda x, n: x * n)

    def body(i, carry):
        return J(carry.value, i)

    last = lax.fori_loop(0, 3, body, J(jnp.ones(2), 1))
    np.testing.assert_array_equal(last.x, 2 * jnp.eye(2))


def test_closing_over_traced_values():
    def outer(w):
        return adk.jacobian(lambda x: jnp.sin(w * x))(2.0).x

    expected = jax.grad(lambda x, w: jnp.sin(w * x))
    np.testing.assert_allclose(jax.jit(outer)(3.0), expected(2.0, 3.0), rtol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(outer)(jnp.array([3.0, 4.0])), [expected(2.0, 3.0), expected(2.0, 4.0)], rtol=1e-6
    )
    np.testing.assert_allclose(
        jax.grad(outer)(3.0), jax.grad(lambda w: expected(2.0, w))(3.0), rtol=1e-6
    )


@pytest.mark.usefixtures("collected_quickly")
def test_nothing_leaks():
    # Not with a function that refuses a mode: JAX's own failed attempt keeps its tracers.
    def f(x):
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c), None), x, length=2)[0])

    with jax.checking_leaks():
        for transform in TRANSFORMS:
            jax.jit(transform(f))(jnp.ones(2))
            transform(f)(jnp.ones(2))


def test_without_jit_and_with_nan_checks_it_works_as_usual():
    for setting in (jax.disable_jit(), jax.debug_nans(True)):
        with setting:
            assert adk.hessian(lambda x: x**3)(2.0).x.x == 12


def test_the_users_own_error_comes_through_as_it_is():
    class OwnError(Exception):
        pass

    def f(x):
        raise OwnError("something of the user's")

    for transform in TRANSFORMS:
        with pytest.raises(OwnError, match="of the user's"):
            transform(f)(1.0)
        with pytest.raises(OwnError, match="of the user's"):
            jax.jit(transform(f))(1.0)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_fails_as_the_function_runs_is_not_taken_for_a_refusal_of_jax(transform):
    def checked(x):
        return jnp.sum(eqx.error_if(x, jnp.any(x > 0), "checked by the user"))

    with pytest.raises(RuntimeError, match="checked by the user"):
        transform(checked)(jnp.ones(2))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        transform(lambda x: jnp.sum(jnp.log(-x)))(jnp.ones(2))


def test_the_function_sees_its_arguments_in_the_order_of_the_call():
    """JAX sorts the keys of a dict when it rebuilds one; neither keywords nor constants are."""

    def f(x, held, **keywords):
        return jnp.stack([*keywords.values(), *held.values()]) * x

    held = {"d": 3.0, "c": 4.0}
    expected = f(1.0, held, b=1.0, a=2.0)
    J = adk.jacobian(f, wrt=("x", "keywords"))(1.0, held, b=1.0, a=2.0)
    np.testing.assert_array_equal(J.value, expected)
    np.testing.assert_array_equal(J.x, expected)
    np.testing.assert_array_equal(J.keywords["b"], [1, 0, 0, 0])
    seen = []
    adk.jacobian(lambda x, o: (seen.append(o), x)[1], wrt="x")(1.0, held)
    assert seen[0] is held


def test_a_constant_that_jax_cannot_flatten_is_passed_as_it_is():
    def f(x, table):
        return x * table["a"]

    J = adk.jacobian(f)(jnp.ones(2), {1: 2, "a": 3.0})
    np.testing.assert_array_equal(J.x, 3 * np.eye(2))
    with pytest.raises(AttributeError, match="what JAX cannot flatten as a pytree is constant"):
        _ = J.table
    with pytest.raises(adk.SignatureError, match="'table' could not be flattened"):
        adk.jacobian(f, wrt="table")(jnp.ones(2), {1: 2, "a": 3.0})


def test_what_was_chosen_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, logger="autodiffkit"):
        adk.jacobian(lambda x: x**2)(jnp.ones(3))
    assert caplog.messages == [
        "jacobian(<lambda>): forward mode, 1 forward and 0 reverse sweeps; "
        "1 forward against 1 reverse directions, of 3 and 3"
    ]


def test_of_a_hessian_both_choices_are_logged(caplog):
    with caplog.at_level(logging.DEBUG, logger="autodiffkit"):
        adk.hessian(lambda x: jnp.sum(x**2))(jnp.ones(3))
        adk.linearize(jnp.sin)(jnp.ones(2)).as_matrix()
    first, second = caplog.messages
    assert "; of the first derivative, hessian(<lambda>): reverse mode, 0 forward and 1" in first
    assert second.startswith("linearize(sin).as_matrix: forward mode")
