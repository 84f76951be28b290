"""Modes and plans: what is chosen, what is impossible, and how it is explained."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import autodiffkit as adk
from functions import CASES
from places import place

LOOP = CASES["while_loop"].function
RULE = CASES["custom_vjp"].function
RULE_ALONE = jax.custom_vjp(jnp.square)
RULE_ALONE.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
X = jnp.arange(1.0, 5.0)
MIXING = jnp.linspace(-0.5, 0.5, 16).reshape(4, 4)  # its axes are mixed: no sweep is saved


@pytest.mark.parametrize(
    ("columns", "rows", "mode"),
    [(3, 300, "fwd"), (300, 3, "rev"), (8, 8, "fwd"), (310, 300, "fwd"), (450, 300, "rev")],
)
def test_the_smaller_side_is_swept_and_forward_when_nearly_square(columns, rows, mode):
    matrix = jnp.ones((rows, columns))
    plan = adk.jacobian(lambda x: matrix @ x).plan(jnp.ones(columns))
    assert plan.mode == mode
    counts = (columns, 0) if mode == "fwd" else (0, rows)
    assert (plan.forward_sweeps, plan.reverse_sweeps) == counts
    assert plan.cut_size == min(columns, rows)


def test_a_mode_that_is_asked_for_is_never_mixed():
    inner, outer = jnp.ones((2, 30)), jnp.ones((40, 2))

    def f(x):
        return outer @ jnp.sin(inner @ x)

    for mode, counts in (("fwd", (30, 0)), ("rev", (0, 40))):
        plan = adk.jacobian(f, mode=mode).plan(jnp.ones(30))
        assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == (mode, *counts)
        assert plan.cut_size == max(counts)
    assert adk.jacobian(f).plan(jnp.ones(30)).cut_size == 2


def test_directions_are_counted_over_all_selected_leaves():
    def f(params, x):
        return {"a": MIXING @ (params["w"] @ x), "b": jnp.sum(jnp.sin(x)), "n": 3}

    params = {"w": jnp.ones((4, 5)), "n": 2}
    assert adk.jacobian(f).plan(params, jnp.ones(5)).reverse_sweeps == 5
    assert adk.jacobian(f, of="b").plan(params, jnp.ones(5)).reverse_sweeps == 1
    assert adk.jacobian(f, wrt="x").plan(params, jnp.ones(5)).forward_sweeps == 5
    assert adk.jacobian(f, mode="fwd").plan(params, jnp.ones(5)).forward_sweeps == 25


def test_complex_entries_count_twice_unless_holomorphic():
    z = jnp.ones(3, jnp.complex64)
    mixing = MIXING[:3, :3].astype(z.dtype)
    for f, holomorphic, each in ((jnp.abs, False, 2), (jnp.exp, True, 1)):
        options = {"mode": "fwd", "holomorphic": holomorphic}
        assert adk.jacobian(f, **options).plan(z).forward_sweeps == each
        whole = adk.jacobian(lambda z, f=f: f(mixing @ z), **options).plan(z)
        assert (whole.forward_sweeps, whole.cut_size) == (3 * each, 3 * each)


@pytest.mark.parametrize("eager", [True, False])
def test_auto_goes_around_what_is_impossible(eager):
    def wide_loop(x):
        return jnp.sum(LOOP(x))

    def tall_rule(x):
        return jnp.concatenate([RULE(x), RULE(x)])

    for f, mode in ((wide_loop, "fwd"), (tall_rule, "rev")):
        J = adk.jacobian(f)
        plan = J.plan(X)
        assert plan.mode == mode
        assert "is impossible: " in plan.reason
        assert jnp.all(jnp.isfinite((J if eager else jax.jit(J))(X).as_matrix()))


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("f", "mode", "other"), [(LOOP, "rev", "fwd"), (RULE, "fwd", "rev")], ids=["loop", "rule"]
)
def test_an_impossible_mode_that_was_asked_for_is_refused(f, mode, other, eager):
    J = adk.jacobian(f, mode=mode)
    with pytest.raises(adk.ModeError) as caught:
        (J if eager else jax.jit(J))(X)
    message = str(caught.value)
    assert message.startswith(
        f"jacobian({f.__name__}): mode={mode!r} is impossible for this function. "
        f"Use mode='auto' or mode={other!r}."
    )
    assert caught.value.__cause__ is not None


def loop(x):
    """What LOOP computes, written out."""
    for _ in range(3):
        x = jnp.sin(x) * 2
    return x


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("parts", "sweeps"),
    [
        ([RULE, LOOP], (4, 4)),
        ([LOOP, RULE], (4, 4)),
        ([LOOP, RULE, LOOP], (8, 4)),
        ([RULE, LOOP, RULE], (4, 8)),
        ([LOOP, RULE, LOOP, RULE], (8, 8)),
    ],
)
def test_what_blocks_one_mode_each_is_differentiated_in_parts(parts, sweeps, eager):
    def f(x, parts=parts):
        for part in parts:
            x = jnp.sin(MIXING @ part(x))
        return x

    J = adk.jacobian(f, wrt="x")
    plan = J.plan(X)
    assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == ("mixed", *sweeps)
    assert plan.cut_size == 4 * (len(parts) - 1)
    assert "forward mode is impossible: it stops at custom_vjp at" in plan.reason
    assert "reverse mode is impossible: it stops at while_loop at" in plan.reason
    expected = jax.jacfwd(f)(X, [{LOOP: loop, RULE: jnp.square}[part] for part in parts])
    found = (J if eager else jax.jit(J))(X).as_matrix()
    assert jnp.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("place", ["unused", "auxiliary", "not selected"])
def test_a_rule_beside_the_path_does_not_stop_forward_mode(place, eager):
    recursive = jax.custom_vjp(jnp.square)
    recursive.defvjp(lambda x: (recursive(x), x), lambda x, g: (2 * x * g,))

    def f(x):
        out = MIXING @ lax.cond(jnp.sum(x) < 100, LOOP, lambda x: x, MIXING @ x)
        beside = jnp.sum(recursive(x))
        outs = {"unused": out, "auxiliary": (out, beside), "not selected": {"a": out, "b": beside}}
        return outs[place]

    options = {"auxiliary": {"has_aux": True}, "not selected": {"of": "a"}}.get(place, {})
    J = adk.jacobian(f, **options)
    found = (J if eager else jax.jit(J))(X).as_matrix()
    expected = jax.jacfwd(lambda x: MIXING @ loop(MIXING @ x))(X)
    assert jnp.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transform", [adk.jacobian, adk.hessian])
def test_what_is_neither_pushed_nor_pulled_through_says_why(transform):
    def f(x):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, RULE(s[1])), (0, x))[1]

    where = f"through while_loop at {place(f, 'lax.while_loop')}: "
    for call in (transform(f), jax.jit(transform(f)), transform(f).plan):
        with pytest.raises(adk.ModeError) as caught:
            call(X)
        message = str(caught.value)
        assert message.startswith(
            f"{transform.__name__}(f): neither mode can differentiate this function, nor can both"
        )
        assert f"\n  cannot push {where}can't apply forward-mode" in message
        assert f"\n  cannot pull {where}Reverse-mode differentiation does not work" in message
        assert "jacfwd" not in message


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize, adk.hessian, adk.hvp])
def test_what_jax_cannot_differentiate_at_all_is_named(transform):
    def f(x):
        return jnp.sum(jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((4,), x.dtype), x))

    for call in (transform(f), jax.jit(transform(f))):
        with pytest.raises(adk.ModeError) as caught:
            call(X)
        assert str(caught.value).startswith(f"{transform.__name__}(f): ")


def test_no_line_of_the_package_is_named():
    """The function is the rule itself: no line of the user's calls it inside of the trace."""
    for call in (adk.jacobian(RULE_ALONE), jax.jit(adk.jacobian(RULE_ALONE))):
        assert call(X).x.shape == (4, 4)
    text = str(adk.jacobian(RULE_ALONE).plan(X))
    assert "cannot  push through custom_vjp" in text
    assert "_signature" not in text


def test_a_broken_rule_of_the_users_is_the_cause_of_the_error():
    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, g: 1 / 0)
    with pytest.raises(adk.ModeError, match="division by zero") as caught:
        adk.jacobian(f, mode="rev")(X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_products_that_are_impossible_are_refused():
    L = adk.linearize(LOOP)(X)
    with pytest.raises(adk.ModeError, match=r"linearize\(while_loop\)\.rmv is impossible"):
        L.rmv(X)
    both = adk.linearize(lambda x: LOOP(RULE(x)))(X)
    with pytest.raises(adk.ModeError, match=r"\.mv is impossible"):
        both.mv(X)
    with pytest.raises(adk.ModeError, match=r"\.rmv is impossible"):
        both.rmv(X)
    expected = jax.jacfwd(lambda x: loop(x**2))(X)
    assert jnp.allclose(both.as_matrix(), expected, rtol=1e-5, atol=1e-5)


def test_a_hessian_is_planned_on_the_program_of_the_gradient():
    plan = adk.hessian(lambda x: jnp.sum((MIXING @ x) ** 3)).plan(X)
    assert (plan.mode, plan.forward_sweeps) == ("fwd", 4)
    assert plan.gradient is not None
    assert (plan.gradient.mode, plan.gradient.reverse_sweeps) == ("rev", 1)
    looped = adk.hessian(lambda x: jnp.sum(LOOP(x))).plan(X)
    assert looped.gradient is not None
    assert (looped.mode, looped.gradient.mode) == ("fwd", "fwd")


def test_forward_mode_under_jit_stores_nothing_of_a_long_scan():
    """A tall function of a scan: the compiled sweep needs bytes in the size of its directions."""

    def rollout(t):
        return lax.scan(lambda c, _: (jnp.sin(c), None), t * jnp.ones(3), length=5000)[0]

    temporaries = {
        mode: jax.jit(adk.jacobian(rollout, mode=mode)).lower(1.0).compile().memory_analysis()
        for mode in ("fwd", "rev")
    }
    assert temporaries["fwd"].temp_size_in_bytes < 5000
    assert temporaries["rev"].temp_size_in_bytes > 5000 * 3 * 4


def test_empty_arrays_take_no_sweeps():
    plan = adk.jacobian(lambda e: e * 2).plan(jnp.zeros((0, 3)))
    assert (plan.forward_sweeps, plan.reverse_sweeps, plan.cut_size) == (0, 0, 0)
    J = adk.jacobian(lambda e: e * 2)(jnp.zeros((0, 3)))
    assert J.e.shape == (0, 3, 0, 3)
    assert J.as_matrix().shape == (0, 0)


def test_a_mode_that_was_asked_for_is_that_of_a_plan_without_sweeps():
    def constant(x):
        return jnp.zeros_like(x) + 0.5

    for mode in ("fwd", "rev"):
        plan = adk.jacobian(constant, mode=mode).plan(jnp.ones(3))
        assert (plan.mode, plan.forward_sweeps, plan.reverse_sweeps) == (mode, 0, 0)
