"""Modes and plans: what is chosen, what is impossible, and how it is explained."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import autodiffkit as adk
from functions import CASES, make_affine

LOOP = CASES["while_loop"].function
RULE = CASES["custom_vjp"].function
X = jnp.arange(1.0, 5.0)


@pytest.mark.parametrize(
    ("columns", "rows", "mode"),
    [(3, 30, "fwd"), (30, 3, "rev"), (8, 8, "fwd"), (10, 8, "fwd"), (11, 8, "rev"), (3, 2, "rev")],
)
def test_the_smaller_side_is_swept_and_forward_when_nearly_square(columns, rows, mode):
    plan = adk.jacobian(lambda x: jnp.ones((rows, columns)) @ x).plan(jnp.ones(columns))
    assert plan.mode == mode
    counts = (columns, 0) if mode == "fwd" else (0, rows)
    assert (plan.forward_sweeps, plan.reverse_sweeps) == counts
    assert plan.cut_size == max(counts)


def test_directions_are_counted_over_all_selected_leaves():
    def f(params, x):
        return {"a": params["w"] @ x, "b": jnp.sum(x), "n": 3}

    params = {"w": jnp.ones((4, 5)), "n": 2}
    assert adk.jacobian(f).plan(params, jnp.ones(5)).reverse_sweeps == 5
    assert adk.jacobian(f, of="b").plan(params, jnp.ones(5)).reverse_sweeps == 1
    assert adk.jacobian(f, wrt="x").plan(params, jnp.ones(5)).forward_sweeps == 5
    assert adk.jacobian(f, mode="fwd").plan(params, jnp.ones(5)).forward_sweeps == 25


def test_complex_entries_count_twice_unless_holomorphic():
    z = jnp.ones(3, jnp.complex64)
    assert adk.jacobian(jnp.abs, mode="fwd").plan(z).forward_sweeps == 6
    assert adk.jacobian(jnp.exp, mode="fwd", holomorphic=True).plan(z).forward_sweeps == 3


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


@pytest.mark.parametrize("transform", [adk.jacobian, adk.hessian])
def test_a_function_that_neither_mode_can_differentiate_says_why(transform):
    def f(x):
        return LOOP(RULE(x))

    for call in (transform(f), jax.jit(transform(f))):
        with pytest.raises(adk.ModeError) as caught:
            call(X)
        message = str(caught.value)
        assert message.startswith(f"{transform.__name__}(f): ")
        assert "neither mode can differentiate this function" in message
        assert "\n  forward: can't apply forward-mode" in message
        assert "\n  reverse: Reverse-mode differentiation does not work for lax.while" in message
        assert "jacfwd" not in message


@pytest.mark.parametrize("transform", [adk.jacobian, adk.linearize, adk.hessian, adk.hvp])
def test_what_jax_cannot_differentiate_at_all_is_named(transform):
    def f(x):
        return jnp.sum(jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((4,), x.dtype), x))

    for call in (transform(f), jax.jit(transform(f))):
        with pytest.raises(adk.ModeError) as caught:
            call(X)
        assert str(caught.value).startswith(f"{transform.__name__}(f): ")


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
    with pytest.raises(adk.ModeError, match=r"as_matrix: neither mode"):
        both.as_matrix()


def test_a_hessian_is_planned_on_the_program_of_the_gradient():
    plan = adk.hessian(lambda x: jnp.sum(x**3)).plan(X)
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


def test_a_plan_is_explained_to_a_person():
    plan = adk.jacobian(CASES["module"].function, wrt=("model.*", "x")).plan(
        make_affine("float32"), X[:3]
    )
    assert str(plan) == (
        "Plan of jacobian(module): reverse mode\n"
        "  why     11 forward against 3 reverse directions\n"
        "  sweeps  3 directions pulled back from\n"
        "            norm  float32[]\n"
        "            out   float32[2]\n"
        "  onto    11 input entries in 3 leaves\n"
        "  held    an int: model.power\n"
        "          a function: model.activation"
    )
    hessian = adk.hessian(lambda x: jnp.sum(x**3)).plan(jnp.float32(1.0))
    assert str(hessian) == (
        "Plan of hessian(<lambda>): forward mode\n"
        "  why     1 forward against 1 reverse directions\n"
        "  sweeps  1 direction pushed forward from\n"
        "            x  float32[]\n"
        "  to      1 output entry in 1 leaf\n"
        "  of      the first derivative, itself by reverse mode (0 forward, 1 reverse)"
    )


def test_a_long_plan_is_cut_short():
    tree = {f"p{i}": jnp.ones(()) for i in range(40)}
    text = str(adk.jacobian(lambda tree, x: x * sum(tree.values()), mode="fwd").plan(tree, X))
    assert "and 29 more leaves" in text
    assert len(text.splitlines()) < 20
    held = str(adk.jacobian(lambda tree, x: x * sum(tree.values()), wrt="x").plan(tree, X))
    assert "not in wrt: tree.p0, tree.p1, tree.p10, tree.p11, ... (40)" in held
