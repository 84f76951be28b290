"""Cuts in the middle of a function: what is swept, and that the derivative is JAX's."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import autodiffkit as adk
from functions import array
from reference import assert_close
from waists import F32, check, dense, layers, network, struct, waist

# What is cut ----------------------------------------------------------------------


def test_an_autoencoder_is_cut_at_its_code():
    weights = [struct(m, n) for n, m in ((1000, 500), (500, 8), (8, 500), (500, 1000))]

    def f(x, weights):
        return network(x, *weights)

    plan = adk.jacobian(f, wrt="x").plan(struct(1000), weights)
    assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("mixed", 8, 8)
    assert plan.cut_size == 8
    small = layers(60, 40, 3, 40, 60)
    check(lambda x: network(x, *small), array(60)(F32), sweeps=(3, 3), scale=10)


def test_a_small_input_and_a_small_output_of_one_function():
    matrix = dense(60, 60)

    def f(x, t):
        return jnp.cos(t * jnp.arange(60.0)), jnp.sum(jnp.sin(matrix @ x)) * t

    plan = check(f, array(60)(F32), jnp.float32(0.7), sweeps=(1, 1), scale=10)
    assert plan.cut_size == 2
    assert plan.zeros == (("0", "x"),)


def test_two_waists_of_two_inputs_and_two_outputs():
    def f(x, y):
        return {"a": waist(x) * jnp.sum(y), "b": waist(y)}

    plan = check(f, array(400)(F32), array(200)(F32), sweeps=(5, 5), scale=10)
    assert plan.cut_size == 5
    assert plan.zeros == (("b", "x"),)


@pytest.mark.parametrize("detour", [False, True])
def test_a_variable_of_the_cut_may_lie_behind_another_one(detour):
    """The path from x to the sum crosses two of them, and counts once."""

    def f(x, q):
        total = jnp.sum(jnp.sin(x))
        wave = total * jnp.linspace(0.5, 1.5, 300)
        for _ in range(3):
            wave = dense(300, 300) @ jnp.sin(wave)
        if detour:
            total = jnp.sum(total * jnp.arange(5.0))
        return total + q, wave

    check(f, array(200)(F32), jnp.float32(0.7), sweeps=(2, 1), scale=50)


def test_a_variable_of_the_cut_may_be_an_output():
    def f(x):
        code = jnp.tanh(dense(2, 400) @ x)
        return code, waist(code), code[0]

    check(f, array(400)(F32), sweeps=(2, 2), scale=10)


def test_what_is_repeated_or_passed_through():
    def f(x, s):
        y = waist(x)
        return y, s, y, 2.0, jnp.sin(s)

    plan = check(f, array(400)(F32), jnp.float32(0.3), sweeps=(3, 2), scale=10)
    assert plan.cut_size == 3


def test_through_a_scan_a_cond_and_a_checkpoint():
    def rollout(x):
        return lax.scan(lambda c, _: (jnp.tanh(dense(40, 40) @ c), jnp.sum(c)), x, length=3)

    def f(x):
        code = jnp.stack([jnp.sum(jnp.sin(x)), x[0] * x[1]])
        code = lax.cond(code[0] > 0, jnp.tanh, jnp.cos, code)
        last, sums = rollout(dense(40, 2) @ code)
        return last, sums, jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(last)

    check(f, array(60)(F32), sweeps=(2, 2), scale=20)


# What is swept for nothing, or is zero -----------------------------------------------


def test_inputs_without_a_path_take_no_sweeps():
    def f(x, unused, whole):
        return waist(x) + lax.stop_gradient(jnp.sum(unused)), jnp.floor(whole).astype(jnp.int32)

    args = array(400)(F32), array(70)(F32), array(30)(F32)
    plan = adk.jacobian(f).plan(*args)
    assert (plan.forward_sweeps, plan.reverse_sweeps, plan.cut_size) == (2, 2, 2)
    assert plan.zeros == (("0", "unused"), ("0", "whole"))
    assert not adk.jacobian(f)(*args).of("0").wrt("unused").any()
    nothing = adk.jacobian(f, wrt=("unused", "whole"))
    plan = nothing.plan(*args)
    assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("fwd", 0, 0)
    assert nothing(*args).as_matrix().shape == (300, 100)


def test_blocks_without_a_path_are_zero_where_a_product_is_nan():
    def f(x, y):
        return {"a": dense(300, 1) @ jnp.sqrt(jnp.sum(x, keepdims=True)), "b": waist(y)}

    args = jnp.zeros(400), array(400)(F32)
    J = adk.jacobian(f)
    plan = J.plan(*args)
    assert (plan.mode, plan.zeros) == ("mixed", (("a", "y"), ("b", "x")))
    for call in (J, jax.jit(J)):
        found = call(*args)
        assert not jnp.any(jnp.isfinite(found.of("a").x))
        assert not jnp.any(found.of("a").y)
        assert not jnp.any(found.of("b").x)
        assert_close(found.of("b").y, jax.jacrev(waist)(args[1]), 10)


@pytest.mark.parametrize("jit", [False, True])
def test_a_cut_that_saves_nothing_spreads_no_infinity(jit):
    """Between the two scales a unit direction overflows, which in either mode it does not."""
    first, second = dense(4, 4), dense(4, 4)
    huge, tiny = jnp.full(4, 1e30), jnp.full(4, 1e-30)

    def f(x, huge, tiny):
        return tiny * (huge * (huge * (second @ (tiny * (first @ x)))))

    J = adk.jacobian(f, wrt="x")
    x = array(4)(F32)
    plan = J.plan(x, huge, tiny)
    assert (plan.mode, plan.cut_size) == ("fwd", 4)
    found = (jax.jit(J) if jit else J)(x, huge, tiny).x
    assert_close(found, jax.jacrev(f)(x, huge, tiny), 10)


@jax.custom_vjp
def clipped(x):
    """The identity, whose cotangents are clipped."""
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.01, 0.01),))


@pytest.mark.parametrize("jit", [False, True])
def test_a_rule_that_is_not_linear_pulls_what_it_pulls_in_jax(jit):
    def f(x):
        return dense(300, 2) @ clipped(jnp.tanh(dense(2, 400) @ x))

    x = array(400)(F32)
    J = adk.jacobian(f)
    assert (J.plan(x).mode, J.plan(x).cut_size) == ("rev", 2)
    assert_close((jax.jit(J) if jit else J)(x).x, jax.jacrev(f)(x))


# Where it is called ---------------------------------------------------------------------


def test_nested_in_what_else_there_is():
    x = array(400)(F32)
    assert adk.jacobian(waist).plan(x).mode == "mixed"

    def ours(s):
        return adk.jacobian(waist)(jnp.sin(s * x)).x

    def theirs(s):
        return jax.jacrev(waist)(jnp.sin(s * x))

    one, three = jnp.float32(0.8), jnp.array([0.3, 0.8, -1.0])
    for found, expected, point in [
        (jax.vmap(ours), jax.vmap(theirs), three),
        (jax.vmap(jax.jit(ours)), jax.vmap(theirs), three),
        (jax.jacfwd(ours), jax.jacfwd(theirs), one),
        (jax.jacrev(lambda s: ours(s)[:2, :5]), jax.jacfwd(lambda s: theirs(s)[:2, :5]), one),
        (jax.checkpoint(ours), theirs, one),
        (lambda three: lax.map(ours, three), jax.vmap(theirs), three),
        (lambda s: lax.cond(s > 0, ours, theirs, s), theirs, one),
    ]:
        assert_close(jax.jit(found)(point), jax.jit(expected)(point), 10)


def test_the_matrix_of_a_linear_map_is_cut_too():
    def f(x, s):
        return {"a": waist(x) * s, "b": jnp.sum(x)}

    args = array(400)(F32), jnp.float32(0.4)
    assert adk.jacobian(f).plan(*args).mode == "mixed"
    matrix = adk.jacobian(f)(*args).as_matrix()
    assert_close(adk.linearize(f)(*args).as_matrix(), matrix, 10)
    assert_close(jax.jit(lambda *a: adk.linearize(f)(*a).as_matrix())(*args), matrix, 10)


def test_a_plan_on_structures_evaluates_nothing():
    def refuse(x):
        raise AssertionError

    def f(x):
        offset = jax.pure_callback(refuse, struct(), lax.stop_gradient(jnp.sum(x)))
        jax.debug.callback(refuse, offset)
        return waist(x) + offset

    plan = adk.jacobian(f).plan(struct(400))
    assert (plan.forward_sweeps, plan.reverse_sweeps) == (2, 2)
