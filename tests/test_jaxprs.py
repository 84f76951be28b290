"""Jaxprs taken apart and put together again."""

import functools

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from autodiffkit._jaxprs import (
    descendants,
    has_body,
    inlined,
    is_complex_linear,
    jaxpr_key,
    make_jaxpr,
    piece,
    separated,
)
from autodiffkit._naming import calls_custom_rules, describe
from places import place

X = jnp.arange(1.0, 4.0)
ONE_DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def names(jaxpr):
    return [equation.primitive.name for equation in jaxpr.eqns]


def is_variable(atom):
    return not isinstance(atom, jex.Literal)


def check_inlined(function, *args):
    """The same values, and each variable is computed once and before it is read."""
    jaxpr, constants = inlined(jax.make_jaxpr(function)(*args))
    assert not jaxpr.constvars
    known = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        assert known.issuperset(filter(is_variable, equation.invars))
        assert known.isdisjoint(equation.outvars)
        known.update(equation.outvars)
    read = {x for equation in jaxpr.eqns for x in equation.invars if is_variable(x)}
    outputs = [x for x in jaxpr.outvars if is_variable(x)]
    assert read.union(jaxpr.invars).isdisjoint(outputs)
    assert known.issuperset(outputs)
    found = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, []))(*constants, *jax.tree.leaves(args))
    for ours, theirs in zip(found, jax.tree.leaves(function(*args)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    return jaxpr


# Inlining --------------------------------------------------------------------------------


def test_nested_jit_is_inlined_also_where_it_is_called_twice():
    offset = jnp.array([3.0, 2.0, 1.0])

    @jax.jit
    def inner(x):
        return jax.jit(jnp.sin)(x) + offset

    def f(x):
        return inner(inner(x)) * inner(x)

    jaxpr = check_inlined(f, X)
    assert names(jaxpr) == [*3 * ["sin", "add"], "mul"]


def test_constants_become_inputs():
    first, second = jnp.ones(3), jnp.zeros(3)

    def f(x):
        return jax.jit(lambda y: y * first)(x) + second

    closed = jax.make_jaxpr(f)(X)
    jaxpr, constants = inlined(closed)
    assert len(jaxpr.invars) == 3
    assert sorted(float(x[0]) for x in constants) == [0.0, 1.0]


@pytest.mark.parametrize("option", ["in_shardings", "out_shardings"])
def test_a_jit_that_asks_for_a_place_stays(option):
    placed = jax.jit(jnp.sin, **{option: ONE_DEVICE})
    jaxpr = check_inlined(lambda x: placed(x) * 2, X)
    assert names(jaxpr) == ["jit", "mul"]
    for mode in ("fwd", "rev"):
        J = adk.jacobian(lambda x: placed(x) * 2, mode=mode)
        for call in (J, jax.jit(J)):
            np.testing.assert_allclose(call(X).x, np.diag(2 * np.cos(X)), rtol=1e-6)


def test_outputs_are_variables_of_their_own():
    def f(x, y):
        z = jnp.sin(x)
        return x, z, z, jnp.cos(z), 1.5, y

    jaxpr = check_inlined(f, X, X)
    assert names(jaxpr).count("copy") == 3  # x, z and y


def test_outputs_of_an_inlined_jit_may_be_its_inputs():
    @jax.jit
    def swap(x, y):
        return y, x, 2.0

    check_inlined(lambda x, y: swap(*swap(x, y)[:2]), X, 2 * X)


def test_bodies_are_left_as_they_are():
    def f(x):
        return lax.scan(lambda c, _: (jax.jit(jnp.sin)(c), None), x, length=2)[0]

    assert names(check_inlined(f, X)) == ["scan"]


def test_effects_are_kept():
    def f(x):
        jax.debug.callback(lambda x: None, x)
        return x * 2

    assert check_inlined(jax.jit(f), X).effects == jax.make_jaxpr(f)(X).effects


# Pieces ----------------------------------------------------------------------------------


def linear_program(function, *args):
    jaxpr, _ = inlined(jax.make_jaxpr(function)(*args))
    return jaxpr


def evaluated(found, outputs, *values):
    residuals, seeds, absent, equations = found
    jaxpr = make_jaxpr([*residuals, *seeds, *absent], outputs, equations)
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, []))(*values)


def middle(x, y):
    a = 2.0 * x
    b = a + y
    c = jnp.sum(b) * 3.0
    return c, a


def test_a_piece_is_what_lies_between_variables():
    jaxpr = linear_program(middle, X, X)
    y = jaxpr.invars[1]
    linear = descendants(jaxpr, jaxpr.invars)
    a, b = jaxpr.eqns[0].outvars[0], jaxpr.eqns[1].outvars[0]
    every = set(range(len(jaxpr.eqns)))
    found = piece(jaxpr, linear, [a], [b], keep=every - {0})
    assert [e.primitive.name for e in found[3]] == ["add"]
    assert found[2] == [y]  # has to be given, as zero
    (out,) = evaluated(found, [b], X, 0 * X)
    np.testing.assert_array_equal(out, X)


def test_an_input_that_is_also_computed_is_the_sum_of_both():
    jaxpr = linear_program(middle, X, X)
    x, y = jaxpr.invars
    linear = descendants(jaxpr, jaxpr.invars)
    b = jaxpr.eqns[1].outvars[0]
    outputs = jaxpr.outvars[:1]
    found = piece(jaxpr, linear, [x, y, b], outputs, keep=range(len(jaxpr.eqns)))
    assert found[2] == []
    (out,) = evaluated(found, outputs, X, X, 10 * X)
    assert out == 3 * jnp.sum(2 * X + X + 10 * X)


def test_a_piece_reads_only_the_residuals_that_it_needs():
    def f(r, s, x):
        return s * (r * x)

    jaxpr = linear_program(f, X, X, X)
    r, s, x = jaxpr.invars
    linear = descendants(jaxpr, [x])
    assert piece(jaxpr, linear, [x], [jaxpr.eqns[0].outvars[0]], keep={0, 1})[0] == [r]
    assert piece(jaxpr, linear, [x], jaxpr.outvars, keep={0, 1})[0] == [r, s]


def test_what_is_apart_is_computed_but_not_read():
    jaxpr = linear_program(middle, X, X)
    x, y = jaxpr.invars
    linear = descendants(jaxpr, jaxpr.invars)
    a, b = (equation.outvars[0] for equation in jaxpr.eqns[:2])
    found = piece(jaxpr, linear, [x, y], [a, b], keep=range(len(jaxpr.eqns)), apart=[a])
    assert len(found[2]) == 1
    for absent, expected in ((0.0, X), (10.0, X + 10.0)):
        outs = evaluated(found, [a, b], X, X, jnp.full(3, absent))
        np.testing.assert_array_equal(outs, [2 * X, expected])


def test_an_output_may_be_an_input_or_out_of_reach():
    jaxpr = linear_program(middle, X, X)
    x, y = jaxpr.invars
    linear = descendants(jaxpr, jaxpr.invars)
    residuals, seeds, absent, equations = piece(jaxpr, linear, [x], [x, y], keep=())
    assert (residuals, seeds, absent, equations) == ([], [x], [y], [])


# Parts -----------------------------------------------------------------------------------


def test_parts_are_what_depends_on_the_last_inputs_and_what_does_not():
    def f(x, n, t):
        y = jnp.sin(x)
        unread = jnp.exp(y) * t  # noqa: F841
        return jnp.cos(x) * t, y, n

    jaxpr = linear_program(f, X, 7, X)
    first, second = separated(jaxpr, 1, 1)
    assert names(second) == ["mul"]
    assert "exp" not in names(first)
    *others, cosine = jex.jaxpr_as_fun(jex.ClosedJaxpr(first, []))(X, 7)
    np.testing.assert_array_equal(others[0], jnp.sin(X))
    assert others[1] == 7
    (out,) = jex.jaxpr_as_fun(jex.ClosedJaxpr(second, []))(cosine, X)
    np.testing.assert_array_equal(out, jnp.cos(X) * X)


def test_what_has_an_effect_is_part_of_the_first_program():
    def f(x, t):
        jax.debug.print("{}", x)
        return x * t

    first, second = separated(linear_program(f, X, X), 1, 1)
    assert names(first) == ["debug_print"]
    assert names(second) == ["mul"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, t: (t, t), "the second output depends on the last input"),
        (lambda x, t: lax.scan(lambda c, _: (c[::-1], None), (x, t), length=3)[0], "loop of both"),
    ],
    ids=["output", "scan"],
)
def test_what_cannot_be_separated(function, reason):
    assert separated(linear_program(function, X, X), 1, 1) is None, reason


def test_a_loop_without_the_last_inputs_is_no_obstacle():
    def f(x, t):
        return lax.fori_loop(0, 3, lambda i, x: jnp.sin(x), x) * t

    assert separated(linear_program(f, X, X), 1, 1) is not None


# Questions -------------------------------------------------------------------------------


@jax.custom_jvp
def ruled(x):
    return jnp.sin(x)


ruled.defjvp(lambda primals, tangents: (ruled(*primals), jnp.cos(primals[0]) * tangents[0]))


@jax.custom_vjp
def reversed_only(x):
    return jnp.sin(x)


reversed_only.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.cos(x) * g,))


@pytest.mark.parametrize("rule", [ruled, reversed_only], ids=["custom_jvp", "custom_vjp"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        jax.jit,
        jax.vmap,
        jax.checkpoint,
        lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, length=2)[0],
        lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.cos, x),
        lambda f: lambda x: lax.while_loop(lambda x: x[0] < 0, f, x),
        lambda f: lambda x: lax.map(lambda y: jax.jit(f)(y), x),
    ],
    ids=["bare", "jit", "vmap", "checkpoint", "scan", "cond", "while", "map"],
)
def test_a_rule_of_the_users_is_found_wherever_it_is(rule, wrap):
    assert calls_custom_rules(jax.make_jaxpr(wrap(rule))(X).jaxpr)


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.relu,
        jax.nn.silu,
        jax.nn.gelu,
        jax.nn.softplus,
        jax.nn.logsumexp,
        jax.nn.softmax,
        jax.numpy.logaddexp,
        jax.scipy.special.logsumexp,
        functools.partial(jnp.linalg.solve, jnp.eye(3)),
        jax.scipy.special.expit,
        jax.scipy.special.xlogy,
        jax.scipy.special.gammaln,
    ],
)
def test_rules_of_jax_are_not_the_users(function):
    arguments = (X, X) if function in {jnp.logaddexp, jax.scipy.special.xlogy} else (X,)
    assert not calls_custom_rules(jax.make_jaxpr(function)(*arguments).jaxpr)
    jitted = jax.make_jaxpr(jax.jit(lambda *x: function(*x)))(*arguments)
    assert not calls_custom_rules(jitted.jaxpr)


def test_a_users_rule_that_calls_one_of_jax_is_the_users():
    @jax.custom_jvp
    def mine(x):
        return jax.nn.relu(x)

    mine.defjvp(lambda p, t: (mine(*p), t[0]))
    assert calls_custom_rules(jax.make_jaxpr(mine)(X).jaxpr)


def test_a_users_rule_for_a_function_of_jax_is_the_users():
    mine = jax.custom_jvp(lax.mul)
    mine.defjvp(lambda p, t: (mine(*p), t[0] * p[1]))
    assert calls_custom_rules(jax.make_jaxpr(mine)(X, X).jaxpr)


def test_what_holds_a_program_or_a_function():
    def has(function):
        (equation,) = jax.make_jaxpr(function)(X).jaxpr.eqns
        return has_body(equation)

    assert not has(lax.sin)
    assert not has(lambda x: x + x)
    assert not has(lax.cumsum)
    assert has(jax.jit(jnp.sin))
    assert has(lambda x: lax.while_loop(lambda y: y[0] < 0, jnp.sin, x))
    assert has(lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), x.dtype), x))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda z: 1j * z, True),
        (lambda z: jnp.fft.fft(z)[:2], True),
        (lambda z: jnp.conj(z), False),
        (lambda z: lax.complex(z.real, z.imag), False),
        (lambda z: z.real, False),
        (lambda z: jax.checkpoint(jnp.conj)(z), False),
    ],
    ids=["product", "transform", "conjugate", "parts", "real part", "in a body"],
)
def test_what_is_linear_over_the_complex_numbers(function, expected):
    jaxpr = linear_program(function, X.astype("complex64"))
    assert is_complex_linear(jaxpr, descendants(jaxpr, jaxpr.invars)) == expected


# Words -----------------------------------------------------------------------------------


def looped(x):
    return lax.while_loop(lambda x: x[0] < 0, jnp.sin, x)


def outer(x):
    y = jax.jit(looped)(x)
    return reversed_only(y) * 2


def test_an_equation_is_described_by_the_users_name_and_line():
    jaxpr, _ = inlined(jax.make_jaxpr(outer)(X))
    loop, rule, product, *_ = map(describe, jaxpr.eqns)
    assert loop == f"while_loop at {place(looped, 'lax.while_loop')}"
    assert rule == f"custom_vjp_call at {place(outer, 'reversed_only')}"
    assert product == f"mul at {place(outer, 'reversed_only')}"


def test_what_jax_writes_itself_has_the_line_of_the_call():
    def f(x):
        return jnp.linalg.norm(jax.nn.softplus(x))

    jaxpr, _ = inlined(jax.make_jaxpr(f)(X))
    for equation in jaxpr.eqns:
        assert "site-packages" not in describe(equation)
        assert " at " in describe(equation)


def test_two_calls_of_the_same_function_of_jax_have_a_line_each():
    """JAX traces such a function once, for the first of them."""

    def f(x):
        first = jnp.where(x > 0, x, 1.0)
        return jnp.where(x > 1, first, 2.0)

    jaxpr, _ = inlined(jax.make_jaxpr(f)(X))
    lines = [describe(e) for e in jaxpr.eqns if e.primitive.name == "select_n"]
    assert lines == [f"select_n at {place(f, f'jnp.where(x > {i}')}" for i in (0, 1)]


def test_the_key_is_the_text():
    def keys(*functions):
        return [jaxpr_key(jax.make_jaxpr(f)(X).jaxpr) for f in functions]

    first, second, other = keys(lax.sin, lambda x: lax.sin(x), lax.cos)
    assert first == second
    assert hash(first) == hash(second)
    assert first != other
    twice, thrice, by_body = keys(lambda x: x * 2.0, lambda x: x * 3.0, jax.jit(lambda x: x * 2.0))
    assert len({twice, thrice, by_body}) == 3


def test_a_users_rule_for_a_function_of_jax_that_has_one_is_the_users():
    mine = jax.custom_jvp(jax.nn.relu)
    mine.defjvp(lambda p, t: (mine(*p), 2 * t[0]))
    assert calls_custom_rules(jax.make_jaxpr(mine)(X).jaxpr)
