"""Operations that JAX does not differentiate: they are named, with their lines, and get rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from places import place
from reference import assert_close

X = np.array([0.3, 0.5, 0.7], "float32")


def outside(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


WHERE = place(outside, "jax.pure_callback")


def in_scan(x):
    return jax.lax.scan(lambda c, _: (outside(c), None), x, length=2)[0]


def in_cond(x):
    return jax.lax.cond(x[0] > 0, outside, jnp.cos, x)


def in_while_loop(x):
    return jax.lax.while_loop(lambda c: c[0] > 0.2, lambda c: outside(c) / 2, x)


def in_checkpoint(x):
    return jax.checkpoint(lambda x: outside(2 * x))(x)


def beside_a_constant(x):
    held = outside(jax.lax.stop_gradient(x))
    return outside(held * x)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("f", [outside, in_scan, in_cond, in_while_loop, in_checkpoint])
def test_the_innermost_operation_is_named_with_its_line(f, jit):
    transform = jax.jit(adk.jacobian(f)) if jit else adk.jacobian(f)
    for call in (transform, adk.jacobian(f).plan):
        with pytest.raises(adk.ModeError) as caught:
            call(X)
        assert str(caught.value).startswith(f"jacobian({f.__name__}): JAX evaluates this function")
        assert f"\n  cannot push through pure_callback at {WHERE}: Pure " in str(caught.value)


def test_the_gradient_names_it_too():
    with pytest.raises(adk.ModeError, match="cannot push through pure_callback at ") as caught:
        adk.hessian(lambda x: jnp.sum(outside(x)))(X)
    assert WHERE in str(caught.value)


def in_a_carry(x):
    """Moves in the second step, by what has moved in the first."""

    def step(carry, _):
        first, second, held = carry
        return (first, outside(first), outside(held)), second

    return jax.lax.scan(step, (x, np.ones(3, "float32"), np.ones(3, "float32")), length=2)[1]


def held_in_a_carry(x):
    def step(carry, _):
        first, held = carry
        return (2 * first, outside(held)), first * held

    return jax.lax.scan(step, (x, np.ones(3, "float32")), length=2)[1]


def test_what_does_not_move_is_not_blamed():
    message = refusal(in_a_carry)
    assert place(in_a_carry, "outside(first)").split(":")[0] in message
    assert WHERE in message
    assert_close(adk.jacobian(held_in_a_carry)(X).x, jax.jacfwd(held_in_a_carry)(X))
    one, two = place(beside_a_constant, "held = "), place(beside_a_constant, "return ")
    assert one != two
    assert WHERE in refusal(beside_a_constant)


def refusal(f):
    with pytest.raises(adk.ModeError) as caught:
        adk.jacobian(f)(X)
    return str(caught.value)


def test_where_python_looks_at_values_the_traceback_has_the_line():
    def decided(x):
        return outside(x) if x[0] > 0 else x

    with pytest.raises(adk.ModeError) as caught:
        adk.jacobian(decided)(X)
    line = WHERE.rpartition(":")[0]
    assert f"\n  cannot push through what {line} (outside) calls: Pure " in str(caught.value)


@jax.custom_jvp
def forward_rule(x):
    return outside(x)


@forward_rule.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    slope = jax.pure_callback(np.cos, x, x)
    return forward_rule(x), slope * t


@jax.custom_vjp
def reverse_rule(x):
    return outside(x)


reverse_rule.defvjp(
    lambda x: (outside(x), jax.pure_callback(np.cos, x, x)), lambda slope, g: (slope * g,)
)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("rule", "mode"),
    [(forward_rule, mode) for mode in ("auto", "fwd", "rev")]
    + [(reverse_rule, mode) for mode in ("auto", "rev")],
)
def test_with_a_rule_it_is_differentiated(rule, mode, jit):
    def f(x):
        return jax.lax.cond(x[0] > 0, lambda x: rule(x) * x, jnp.cos, x)

    transform = adk.jacobian(f, mode=mode)
    found = (jax.jit(transform) if jit else transform)(X).x
    assert_close(found, np.diag(np.cos(X) * X + np.sin(X)))


def test_a_rule_that_calls_outside_has_no_second_derivative():
    with pytest.raises(adk.ModeError, match=r"pure_callback at tests/test_refusals.py:\d+:\d+ "):
        jax.jit(adk.hessian(lambda x: jnp.sum(forward_rule(x))))(X)


@jax.custom_vjp
def of_one_entry(x):
    return jnp.sin(x)


of_one_entry.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.cos(x) * g,))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("index", [0, 1])
def test_a_rule_for_reverse_mode_of_a_single_entry_is_not_pushed(index, compiled):
    def f(x, i):  # the entry is lost, or an index out of bounds leaves it
        return of_one_entry(x.at[jnp.stack([i, i])].set(0.25, mode="drop"))

    def run(x, i):
        return adk.jacobian(f)(x, i).x

    x, i = jnp.asarray([0.5], "float32"), jnp.asarray(index)
    found = (jax.jit(run) if compiled else run)(x, i)
    np.testing.assert_allclose(found, [[index * np.cos(0.5)]], rtol=1e-6)
    with pytest.raises(adk.ModeError, match="cannot push through custom_vjp"):
        adk.jacobian(f, mode="fwd")(x, i)
