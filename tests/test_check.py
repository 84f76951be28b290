"""`check_derivatives`: right derivatives pass, wrong ones do not, and it says which fault it is."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from autodiffkit import _stored_products, _ways
from autodiffkit.testing import assert_derivatives
from functions import CASES, while_loop
from functions import custom_vjp as squares
from places import place

X = jnp.array([0.3, -0.5, 0.8])

# A sample of the registry; all of it with AUTODIFFKIT_TEST_ALL, as in `nox -s checks`.
SAMPLE = (
    "empty_input",
    "entire",
    "mixed_leaves",
    "squared_modulus",
    "while_loop",
)


@pytest.fixture(autouse=True)
def _compiles_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("name", CASES if os.environ.get("AUTODIFFKIT_TEST_ALL") else SAMPLE)
def test_right_derivatives_pass(name, dtype):
    case = CASES[name]
    args, kwargs = case.call(dtype)
    report = adk.check_derivatives(case.function, **case.options)(*args, **kwargs)
    assert report, str(report)
    orders = {1} if case.kind == "C to R" else {1, 2}
    assert {block.order for block in report.blocks} == orders
    assert all(block.finding == "agrees" and not block.explanation for block in report.blocks)


# Wrong rules ----------------------------------------------------------------------


@jax.custom_jvp
def _square(x):
    return x**2


@_square.defjvp
def _square_rule(primals, tangents):
    return _square(*primals), 2.02 * primals[0] * tangents[0]


@jax.custom_vjp
def _cube(x):
    return x**3


def _cube_bwd(x, cotangent):
    return (2.97 * x**2 * cotangent,)


_cube.defvjp(lambda x: (x**3, x), _cube_bwd)


@pytest.mark.parametrize("rule", [_square, _cube])
def test_a_rule_that_is_wrong_by_one_percent_is_found_and_named(rule):
    def loss(x, y):
        return jnp.sum(jnp.sin(rule(x)) * y)

    x = jax.random.normal(jax.random.key(1), (200, 50))
    report = adk.check_derivatives(loss, order=1)(x, x + 1)
    assert not report
    assert [block.wrt for block in report.failed] == [("x",)]
    assert report.worst == report.failed[0]
    assert report.worst.finding == "custom rule"
    kind, name, called = (
        ("custom_jvp", "_square_rule", "_square")
        if rule is _square
        else ("custom_vjp", "_cube_bwd", "_cube")
    )
    text = report.worst.explanation
    assert f"the {kind} rule {name} (tests/test_check.py:" in text
    assert f" of {called}, called at {place(loss, 'rule(x)')}" in text
    assert text.endswith("is not the derivative of its function.")
    assert 1 < report.worst.ratio < 1e3


def test_of_two_rules_the_wrong_one_is_named():
    @jax.custom_jvp
    def right(x):
        return jnp.exp(x)

    right.defjvp(lambda p, t: (right(*p), jnp.exp(p[0]) * t[0]))

    def f(x):
        return jnp.sum(right(x) * _square(x) * jax.nn.relu(x))

    explanation = adk.check_derivatives(f, order=1)(X).worst.explanation
    assert "_square_rule" in explanation
    assert "right" not in explanation


def test_a_wrong_rule_inside_of_a_loop_is_suspected():
    def f(x):
        return jax.lax.scan(lambda c, _: (_square(c), None), x, length=2)[0]

    worst = adk.check_derivatives(f, order=1)(X).worst
    assert worst.finding == "disagrees"
    assert "On the way there is the custom_jvp rule _square_rule" in worst.explanation


def _of_gradients(report):
    return [note for note in report.notes if note.startswith("second derivatives are compared")]


def _with_square(x):
    return jnp.sum(_square(x))


def _with_square_in_a_loop(x):
    return jax.lax.scan(lambda c, y: (c + _square(y), None), 0.0, x)[0]


@pytest.mark.parametrize("f", [_with_square, _with_square_in_a_loop])
def test_second_derivatives_alone_say_that_a_rule_of_the_gradient_is_not_checked(f):
    report = adk.check_derivatives(f, order=2)(X)
    assert report
    (note,) = _of_gradients(report)
    assert "the custom_jvp rule _square_rule (tests/test_check.py:" in note
    assert note.endswith("order=1 checks that rule")


def test_second_derivatives_that_agree_beside_a_wrong_gradient_say_so():
    report = adk.check_derivatives(_with_square)(X)
    assert [(x.order, x.finding) for x in report.blocks] == [(1, "custom rule"), (2, "agrees")]
    (note,) = _of_gradients(report)
    assert "that of the output by x fails its own check" in note


def test_second_derivatives_of_rules_that_jax_gives_need_no_word():
    def f(x):
        return jnp.sum(jnp.linalg.solve(jnp.outer(x, x) + jnp.eye(3), jax.nn.silu(x)))

    assert not _of_gradients(adk.check_derivatives(f, order=2)(X))
    assert not _of_gradients(adk.check_derivatives(f)(X))


def test_second_derivatives_of_a_linear_solve_of_the_users_say_that_it_is_not_checked():
    def f(x):
        def solve(_, b):
            return b / x

        return jnp.sum(jax.lax.custom_linear_solve(lambda v: v * x, jnp.ones(3), solve, solve))

    (note,) = _of_gradients(adk.check_derivatives(f, order=2)(X))
    assert "the rules that custom_linear_solve was given" in note


def test_second_derivatives_of_what_cannot_be_traced_say_that_rules_are_not_known():
    (note,) = _of_gradients(adk.check_derivatives(lambda t: t**3 if t > 0 else t, order=2)(2.0))
    assert note.endswith("whose own rules are not known; order=1 checks it")


def test_a_rule_that_returns_another_value_is_found():
    @jax.custom_jvp
    def f(x):
        return x**2

    f.defjvp(lambda p, t: (p[0] ** 2 + 0.1, 2 * p[0] * t[0]))
    worst = adk.check_derivatives(lambda x: jnp.sum(f(x) * x), order=1)(X).worst
    assert worst.finding == "custom rule"
    assert "returns another value than the function that it belongs to" in worst.explanation


@jax.custom_vjp
def _exponential(x):
    return jnp.exp(x)


def _held_bwd(y, cotangent):
    return (jax.lax.stop_gradient(y) * cotangent,)


_exponential.defvjp(lambda x: (jnp.exp(x), jnp.exp(x)), _held_bwd)


def test_a_rule_whose_own_derivative_is_wrong_is_found_at_the_second_order():
    def f(x):
        return jnp.sum(_exponential(x) * x)

    report = adk.check_derivatives(f)(X)
    assert [(block.order, block.finding) for block in report.blocks] == [
        (2, "custom rule"),
        (1, "agrees"),
    ]
    assert "_held_bwd" in report.worst.explanation
    assert "has the first derivative of its function but not the second" in report.worst.explanation
    assert adk.check_derivatives(f, order=1)(X)


@jax.custom_vjp
def _area(a, b):
    return a * b


_area.defvjp(lambda a, b: (a * b, (a, b)), lambda r, g: (g * r[1], g * jax.lax.stop_gradient(r[0])))


def test_halves_of_a_hessian_that_differ_are_found():
    def f(a, b):
        return _area(a, b)

    report = adk.check_derivatives(f)(2.0, 3.0)
    assert {(b.wrt, b.finding) for b in report.failed} == {
        (("a", "b"), "asymmetric"),
        (("b", "a"), "asymmetric"),
    }
    text = report.worst.explanation
    assert "the two halves of the Hessian differ. The custom_vjp rule " in text
    assert f"of _area, called at {place(f, '_area(')}" in text
    H = adk.hessian(f)(2.0, 3.0)
    assert (H.a.b, H.b.a) == (1, 0)


def test_a_transpose_that_the_user_gives_is_tried_as_well():
    A = jnp.array([[2.0, 1.0], [0.0, 3.0]])

    def f(b):
        return jax.lax.custom_linear_solve(
            lambda x: A @ x,
            b,
            lambda _, y: jnp.linalg.solve(A, y),
            transpose_solve=lambda _, y: jnp.linalg.solve(A, y),  # not transposed
        )

    worst = adk.check_derivatives(f, order=1)(jnp.array([1.0, 2.0])).worst
    assert worst.finding == "custom rule"
    assert "the rules that custom_linear_solve was given, called at" in worst.explanation


# Kinks -----------------------------------------------------------------------------


def rectified(x):
    return jnp.sum(jax.nn.relu(2 * x))


def absolute(x):
    return jnp.sum(jnp.abs(x))


def largest(x):
    return jnp.max(x)


def chosen(x):
    return jnp.sum(jnp.where(x > 0, x, 3 * x))


@pytest.mark.parametrize(
    ("f", "x", "operation", "text"),
    [
        (rectified, [0.0, 0.5], "max", "jax.nn.relu"),
        (absolute, [0.0, 0.5], "abs", "jnp.abs"),
        (largest, [2.0, 1.0, 2.0], "reduce_max", "jnp.max"),
        (chosen, [0.5, 0.0], "gt", "x > 0"),
    ],
)
def test_kinks_are_found_with_their_place(f, x, operation, text):
    report = adk.check_derivatives(f)(jnp.array(x))
    assert [(block.order, block.finding) for block in report.blocks] == [(1, "kink")]
    explanation = report.worst.explanation
    assert "the output by x has a kink here, and no derivative: along a random " in explanation
    assert f"It is at {operation} at {place(f, text)} (entry [" in explanation
    assert "note: second derivatives are compared where there are first ones" in str(report)


def test_a_kink_of_the_first_derivative_is_found():
    report = adk.check_derivatives(lambda x: jnp.sum(jax.nn.relu(x) ** 2))(jnp.array([0.0, 1.0]))
    assert [(block.order, block.finding) for block in report.blocks] == [(2, "kink"), (1, "agrees")]
    assert "the first derivative has a kink here; along" in report.worst.explanation


def test_a_jump_is_no_kink():
    def f(x):
        return jnp.where(x >= 0.5, 1.0, 0.0) + x

    worst = adk.check_derivatives(f)(0.5).worst
    assert worst.finding == "jump"
    assert worst.explanation == (
        "the output by x: the function jumps here, and has no derivative. It is at ge at "
        f"{place(f, 'x >= 0.5')}."
    )


def test_kinks_nearby_are_no_fault_and_hide_none():
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [jax.random.normal(keys[0], (20, 20)) / 4]
    x = jax.random.normal(keys[2], (100, 20))

    def network(weights, x, last):
        for w in weights:
            x = jax.nn.relu(x @ w)
        return jnp.mean(last(x))

    report = adk.check_derivatives(network, wrt="weights")(weights, x, jnp.square)
    assert report, str(report)
    assert max(block.tolerance for block in report.blocks) < 1e-3
    assert "differences keep to the side of the kinks nearby" in str(report)
    report = adk.check_derivatives(network, wrt="weights", order=1)(weights, x, _square)
    assert {block.finding for block in report.failed} == {"custom rule"}


def test_rounding_is_measured_and_no_fault():
    report = adk.check_derivatives(lambda x: jax.nn.softmax(1000 * x), order=1)(X)
    assert report, str(report)  # the terms that cancel are a thousand times the result
    report = adk.check_derivatives(lambda x: 1e6 + jnp.sum(jnp.abs(x)), order=1)(X)
    assert "the derivatives of 1 block are no larger than what rounding hides" in str(report)


def test_a_rule_that_is_not_linear_is_no_rounding():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda p, t: (f(*p), jnp.cos(p[0]) * t[0] * (1 + jnp.abs(t[0]))))
    assert not adk.check_derivatives(lambda x: jnp.sum(f(x)), order=1)(X)


# Zeros -----------------------------------------------------------------------------


def rounded(x, w):
    return jnp.sum(jnp.round(x) * w)


def counted(x, w):
    return jnp.sum(x.astype(int).astype(x.dtype) ** 2 * w)


def signed(x, w):
    return jnp.sum(jnp.sign(x) * w)


def repeated(x, w):
    return jax.lax.scan(lambda c, _: (jnp.floor(c) + 0.5, None), x, length=3)[0] @ w


@pytest.mark.parametrize(
    ("f", "operation", "text"),
    [
        (rounded, "round", "jnp.round"),
        (counted, "conversion to int32", "x.astype(int)"),
        (signed, "sign", "jnp.sign"),
        (repeated, "inside of scan", "jax.lax.scan"),
    ],
)
def test_a_derivative_that_rounding_makes_zero_is_found_with_its_place(f, operation, text):
    report = adk.check_derivatives(f, order=1)(10 * X, X)
    assert [block.wrt for block in report.failed] == [("x",)]
    assert report.worst.finding == "zero"
    assert "the derivative of the output by x is zero" in report.worst.explanation
    assert f"{operation} at {place(f, text)}" in report.worst.explanation
    if f is repeated:
        assert "there is floor at tests/test_check.py:" in report.worst.explanation
    if f is not signed:
        assert "but the output changes over larger steps" in report.worst.explanation


def test_a_threshold_has_no_derivative_where_it_matters():
    def f(x, threshold):
        return jnp.sum(jnp.where(x > threshold, x, 0.0))

    report = adk.check_derivatives(f, order=1)(X, 0.2)
    assert [(b.wrt, b.finding) for b in report.failed] == [(("threshold",), "zero")]
    assert adk.check_derivatives(f, order=1)(X + 9, 0.2)  # all are above it, far and wide
    with jax.enable_x64(True):  # in a wider dtype, too
        assert adk.check_derivatives(f, order=1)(X + 9, jnp.float32(0.2))
        report = adk.check_derivatives(f, order=1)(X, jnp.float32(0.2))
        assert [(b.wrt, b.finding) for b in report.failed] == [(("threshold",), "zero")]


def test_a_derivative_that_is_zero_is_no_fault():
    assert adk.check_derivatives(lambda x, y: jnp.sum(y**2) + 0 * x[0])(X, X)
    assert adk.check_derivatives(lambda x: {"a": jnp.ones(2), "b": x})(X)


def test_what_passes_stop_gradient_is_deliberate():
    def f(x, y):
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(y)) * x)

    report = adk.check_derivatives(f)(X, X)
    assert report
    found = {(b.order, b.wrt): b for b in report.blocks}
    assert found[1, ("y",)].finding == found[2, ("x", "y")].finding == "stop_gradient"
    assert found[1, ("x",)].finding == "agrees"
    where = f"stop_gradient at {place(f, 'jax.lax.stop_gradient')}"
    assert f"holds constant what passes {where}, as is asked for there" in str(report)


def test_a_wrong_rule_beside_stop_gradient_is_still_wrong():
    def f(x):
        return jnp.sum(jax.lax.stop_gradient(x) * _square(x))

    assert adk.check_derivatives(f, order=1)(X).worst.finding == "custom rule"


def test_a_straight_through_estimator_is_told_by_how_it_is_made():
    def stopped(x):
        return jnp.sum((x + jax.lax.stop_gradient(jnp.round(x) - x)) ** 2)

    assert adk.check_derivatives(stopped, order=1)(10 * X).worst.finding == "stop_gradient"

    @jax.custom_jvp
    def through(x):
        return jnp.round(x)

    through.defjvp(lambda p, t: (through(*p), t[0]))
    worst = adk.check_derivatives(lambda x: jnp.sum(through(x)), order=1)(10 * X).worst
    assert worst.finding == "custom rule"


# Not finite ------------------------------------------------------------------------


def test_what_is_not_finite_is_said_of_each_way():
    def f(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)

    report = adk.check_derivatives(f)(jnp.array([-1.0, 4.0]))
    assert report.worst.finding == "not finite"
    text = "the derivative of the output by x is not finite: reverse is not. "
    assert text in report.worst.explanation
    assert "adk.find_nonfinite names the operation." in report.worst.explanation
    worst = adk.check_derivatives(lambda x: jnp.log(x))(0.0).worst
    assert "the output is not finite itself" in worst.explanation
    worst = adk.check_derivatives(lambda x: jnp.sqrt(jnp.abs(x)))(0.0).worst
    assert "forward, plan and reverse are not." in worst.explanation
    assert "Differences see an infinite slope" in worst.explanation


def test_next_to_the_end_of_a_domain_smaller_steps_are_taken():
    assert adk.check_derivatives(lambda x: jnp.sum(jnp.abs(jnp.log(x - 0.99))))(1.0)


# Modes -----------------------------------------------------------------------------


def test_what_is_impossible_is_said_and_the_rest_is_compared():
    def both(x):
        return while_loop(squares(x))

    report = adk.check_derivatives(both)(X)
    assert report, str(report)
    text = str(report)
    assert "note: forward mode is impossible: can't apply forward-mode" in text
    assert "note: reverse mode is impossible: Reverse-mode differentiation does not work" in text
    assert "note: the plan of the Jacobian: mixed" in text
    assert set(report.worst.values) >= {"plan", "differences"}
    report = adk.check_derivatives(squares, order=1)(X)
    assert "forward" not in report.worst.values
    assert "compared with complex steps" in str(report)


@jax.custom_vjp
def halved(x):
    return x / 2


def pull_half(_, g):
    """JAX can neither push through this nor pull, nor both in turn: it is one equation."""
    run = jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, halved(s[1])), (0, g))
    return (run[1],)


halved.defvjp(lambda x: (halved(x), None), pull_half)


def test_where_there_are_no_second_derivatives_the_first_are_compared(monkeypatch):
    def f(x):
        return jnp.sum(halved(x) ** 2)

    x = jnp.arange(3.0)
    report = adk.check_derivatives(f)(x)
    assert report
    assert [block.order for block in report.blocks] == [1]
    assert (
        "the package gives no second derivatives: neither mode can differentiate this function, "
        "nor can both together"
    ) in report.notes
    with pytest.raises(adk.ModeError, match="neither mode can differentiate"):
        adk.check_derivatives(f, order=2)(x)
    # Where that of the package is too large to be computed, the ways of JAX are all there are.
    monkeypatch.setattr(_ways, "_STORED", 0)
    with pytest.raises(adk.ModeError) as caught:
        adk.check_derivatives(f, order=2)(x)
    first, *rest = str(caught.value).split("\n")
    assert first == (
        "check_derivatives(f): no mode gives second derivatives of this function. Pass order=1 to "
        "check the first ones."
    )
    assert len(rest) == 2


def test_infinities_inside_of_a_rule_are_no_warning():
    """As Equinox's loops have them where they keep what was not reached."""

    @jax.custom_vjp
    def padded(x):
        return jnp.stack([x, x / 0.0, -x / 0.0])

    padded.defvjp(lambda x: (padded(x), None), lambda _, g: (1.01 * g[0],))

    def f(x):
        y = padded(x)
        return jnp.sum(jnp.where(jnp.isfinite(y), y, 0.0))

    report = adk.check_derivatives(f, order=1)(1.0)
    assert report.worst.finding == "disagrees"
    assert "the custom_vjp rule" in report.worst.explanation


def test_python_control_flow_on_values_is_run_as_it_is():
    def f(x):
        return x**2 if x > 0 else -x

    report = adk.check_derivatives(f)(0.5)
    assert report
    assert "the function cannot be traced" in str(report)
    worst = adk.check_derivatives(f)(0.0).worst
    assert worst.finding == "kink"
    assert " It is at " not in worst.explanation


def test_a_half_precision_function_is_compared_in_single_precision():
    def f(x):
        return jnp.sum(jnp.maximum(jnp.tanh(x), -1) * x)

    for dtype in (jnp.float16, jnp.bfloat16):
        report = adk.check_derivatives(f, order=1)(X.astype(dtype))
        assert report, str(report)
        assert "rounding 1.2e-07" in str(report)

    def narrow(x):
        return jnp.abs(jax.lax.mul(x, jnp.ones(3, jnp.float16)))

    report = adk.check_derivatives(narrow, order=1)(X.astype(jnp.float16))
    assert report, str(report)
    assert "rounding 9.8e-04" in str(report)


def test_mixed_dtypes_have_the_tolerance_of_the_least_precise():
    with jax.enable_x64(True):

        def f(x, y):
            return jnp.sum(jnp.sin(x).astype(jnp.float64) * y)

        report = adk.check_derivatives(f, order=1)(X, jnp.array([1.0, 2.0, 3.0]))
        found = {block.wrt[0]: block for block in report.blocks}
        assert found["x"].tolerance > 1e-5
        assert report


# The whole -------------------------------------------------------------------------


def test_in_full_each_entry_is_compared():
    W = jnp.ones((2, 3)).at[1, 2].set(1.5)

    @jax.custom_jvp
    def f(x):
        return W @ x

    f.defjvp(lambda p, t: (f(*p), W.at[1, 2].mul(1.01) @ t[0]))
    report = adk.check_derivatives(lambda x: {"y": f(x)}, full=True, order=1)(X)
    assert report.worst.entry == "y[1], x[2]"
    np.testing.assert_allclose(report.worst.values["forward"], 1.515, rtol=1e-6)
    np.testing.assert_allclose(report.worst.values["complex step"], 1.5, rtol=1e-6)
    np.testing.assert_allclose(report.worst.error, 0.015, rtol=1e-3)
    case = CASES["complex_and_real_arguments"]
    assert adk.check_derivatives(case.function, full=True)(*case.call("float32")[0])


def test_second_derivatives_in_full():
    def f(a, b):
        return jnp.sum(_exponential(a) * b)

    report = adk.check_derivatives(f, full=True, order=2)(X[:2], X[:2])
    assert {block.wrt for block in report.failed} == {("a", "a")}
    assert report.worst.entry in {"a[0], a[0]", "a[1], a[1]"}
    assert adk.check_derivatives(lambda a, b: a * b**2, full=True)(X[:2], X[:2])


@pytest.mark.parametrize("size", [4, 1000])
@pytest.mark.parametrize("leaves", [1, 6])
def test_a_function_that_can_be_traced_runs_a_few_times_whatever_its_size(size, leaves):
    runs = []

    def f(p, power):
        runs.append(1)
        return sum(jnp.sum(power(x)) for x in p)

    for power, count in ((jnp.square, 7), (lambda x: jnp.abs(x) ** 3, 12)):
        runs.clear()
        report = adk.check_derivatives(f)([jnp.linspace(0.1, 1, size)] * leaves, power)
        assert report
        assert report.evaluations == len(runs) <= count


def test_a_function_that_cannot_runs_six_times_for_each_leaf_and_order():
    counts = []
    for size in (3, 300):
        runs = []

        def f(x, runs=runs):
            runs.append(1)
            if jnp.sum(x) > 9:
                raise ValueError("too much")
            return jnp.sum(x**2)

        report = adk.check_derivatives(f, wrt="x")(jnp.full(size, 0.01))
        assert report, str(report)
        assert report.evaluations == len(runs)
        counts.append(len(runs))
    assert counts == [11 + 2 * 6] * 2  # for each order six of differences


def test_large_derivatives_are_compared_as_maps(monkeypatch):
    def f(x, y):
        return {"a": jnp.sin(x) * y, "b": jnp.sum(x * y)}

    report = adk.check_derivatives(jnp.sin, order=1)(jnp.linspace(-1, 1, 3000))
    assert report
    assert "the Jacobian has 9,000,000 entries, and that of the plan is not " in str(report)
    assert "products of adk.linearize are compared instead" in str(report)
    monkeypatch.setattr("autodiffkit._ways._STORED", 30)
    report = adk.check_derivatives(f)(X, X + 1)
    assert report
    assert "products of adk.hvp are compared instead" in str(report)
    whole = adk.check_derivatives(f, full=True, order=1)(X, X)
    assert "that of the plan is not computed" not in str(whole)


@pytest.mark.parametrize("stored", ["StoredJacobian", "MappedJacobian", "StoredHessian"])
def test_a_wrong_plan_would_be_found(monkeypatch, stored):
    kind = getattr(_stored_products, stored)
    along = kind.along

    def wrong(self, *args):
        return 1.01 * along(self, *args)

    monkeypatch.setattr(kind, "along", wrong)
    if stored == "MappedJacobian":
        monkeypatch.setattr("autodiffkit._ways._STORED", 0)
    order = 2 if stored == "StoredHessian" else 1
    report = adk.check_derivatives(lambda x: jnp.sum(jnp.sin(x) * x), order=order)(X)
    assert report.worst.finding == ("asymmetric" if order == 2 else "disagrees")
    assert {"linear map", "plan"} & {*report.worst.values}


# The report and the assertion --------------------------------------------------------


def test_the_report_is_a_table():
    def model(params, x):
        return {"y": jnp.tanh(params["w"] @ x), "loss": jnp.sum(_square(x))}

    report = adk.check_derivatives(model, order=1)({"w": jnp.ones((2, 3))}, X)
    lines = str(report).splitlines()
    assert lines[0] == "Derivatives of model: 1 of 4 blocks fails"
    assert lines[1].split("  ")[1:3] == ["order", "of"]
    assert lines[2].split()[:3] == ["1", "loss", "x"]
    assert lines[2].endswith("custom rule")
    assert lines[6].startswith("  custom rule: loss by x: the custom_jvp rule _square_rule")
    assert repr(report) == str(report)
    assert report.function == "model"
    assert len(report.failed) == 1
    assert [block.ratio for block in report.blocks[1:]] == sorted(
        (block.ratio for block in report.blocks[1:]), reverse=True
    )
    assert not report.worst.passed
    many = adk.check_derivatives(lambda p: sum(p), order=1)([X] * 40)
    assert "... and 16 more blocks" in str(many)


def test_the_assertion_raises_with_the_table():
    assert assert_derivatives(jnp.sin)(X)
    with pytest.raises(AssertionError, match=r"(?s)blocks fails?\n  order .*custom rule: the out"):
        assert_derivatives(_square, order=1)(X)
    assert adk.testing.assert_derivatives is assert_derivatives


def test_the_same_seed_gives_the_same_report():
    one, two, other = (
        adk.check_derivatives(jnp.sin, order=1, seed=seed, directions=3)(X) for seed in (1, 1, 2)
    )
    assert one == two != other


def test_it_is_a_transform_like_the_others():
    @adk.check_derivatives(wrt="x", order=1)
    def f(x, y):
        """Adds."""
        return x**2 + y

    assert (f.__name__, f.__doc__) == ("f", "Adds.")
    assert [block.wrt for block in f(X, y=X).blocks] == [("x",)]

    class Model(eqx.Module):
        w: jax.Array

        @adk.check_derivatives(order=1)
        def __call__(self, x):
            return self.w * x

    assert [block.wrt for block in Model(X)(X).blocks] == [("x",)]
    assert dict(f.annotations) == {}
    of = adk.check_derivatives(lambda x: {"a": x, "b": x**2}, of="b", order=1)(X)
    assert [block.of for block in of.blocks] == ["b"]
    aux = adk.check_derivatives(lambda x: (x**2, "aux"), has_aux=True, order=1)(X)
    assert aux
    assert adk.check_derivatives(f.__wrapped__, mode="rev", order=1)(X, X)


# Bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 3}, r"order=3 is no choice .*\. Pass 1, 2 or \(1, 2\)\."),
        ({"order": ()}, r"order=\(\) is no choice"),
        ({"order": "first"}, "order='first' is no choice"),
        ({"directions": 0}, r"directions=0 is no number .*\. Pass 1 or more"),
        ({"directions": 1.5}, r"directions=1\.5 is no number"),
        ({"seed": -1}, r"seed=-1 is no seed\. Pass a whole number, 0 or more"),
        ({"rtol": -1.0}, r"rtol=-1\.0 is no tolerance\. Pass 0 or more"),
        ({"atol": float("nan")}, "atol=nan is no tolerance"),
        ({"atol": None}, "atol=None is no tolerance"),
        ({"mode": "reverse"}, "mode"),
    ],
)
def test_options_that_are_none(options, message):
    for call, name in (
        (adk.check_derivatives, "check_derivatives"),
        (assert_derivatives, "assert_derivatives"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call(absolute, **options)
        assert isinstance(caught.value, adk.AutodiffError)
        assert str(caught.value).startswith(f"{name}(absolute): ")


def test_functions_that_cannot_be_checked():
    with pytest.raises(adk.SignatureError, match="check_derivatives takes a function"):
        adk.check_derivatives(3)
    with pytest.raises(adk.NotDifferentiableError, match="nothing to differentiate"):
        adk.check_derivatives(absolute)(3)
    with pytest.raises(adk.SignatureError, match="compares numbers, and there are none under"):
        jax.jit(lambda x: bool(adk.check_derivatives(absolute)(x)))(X)
    with pytest.raises(adk.SignatureError, match="compares numbers"):
        jax.vmap(lambda x: adk.check_derivatives(absolute)(x).blocks[0].error)(X)
    with pytest.raises(adk.NotDifferentiableError, match="Differentiate by real and imaginary"):
        adk.check_derivatives(lambda z: jnp.sum(jnp.abs(z)), order=2)(jax.lax.complex(X, X))
    with pytest.raises(ZeroDivisionError):
        adk.check_derivatives(lambda x: x / (1 // 0))(X)


def test_a_random_function_is_refused():
    numbers = np.random.default_rng(0)

    def f(x):
        return {"a": x, "noisy": x * numbers.normal()}

    message = (
        r"^check_derivatives\(f\): two runs of the function with the same arguments gave different "
        r"values, .*\n  noisy  3 of 3 entries$"
    )
    with pytest.raises(adk.NotDifferentiableError, match=message):
        adk.check_derivatives(f)(X)


def test_a_function_that_raises_next_to_the_point_is_not_compared():
    def f(x):
        if x != 1:
            raise ValueError("only at 1\nand nowhere else")
        return x**2

    report = adk.check_derivatives(f, order=1)(1.0)
    assert report.worst.finding == "not compared"
    assert report.worst.explanation == (
        "the output by x: next to the point, the function raises ValueError: only at 1"
    )
