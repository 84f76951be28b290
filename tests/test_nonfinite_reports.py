"""What reports of `find_nonfinite` say: modes, blocks, paths, loops, and what they leave alone."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from functions import CASES

FINITE = [
    "empty_input",
    "empty_output",
    "scan",
    "while_loop",
    "custom_vjp",
    "mixed_leaves",
    "entire",
]


@pytest.mark.parametrize("name", FINITE)
def test_nothing_is_found_where_all_is_finite(name):
    case = CASES[name]
    args, keywords = case.call(jnp.float32)
    report = adk.find_nonfinite(case.function, **case.options)(*args, **keywords)
    assert report
    assert report.findings == ()
    assert report.first is None
    assert report.jacobian == ()
    assert "all finite" in str(report)
    missing = {"fwd": "reverse", "rev": "forward"}.get(case.only)
    assert set(report.obstacles) == ({missing} if missing else set())


# Masks ---------------------------------------------------------------------------------------


def attention(q, k, v):
    scores = q @ k.T
    scores = jnp.where(jnp.tril(jnp.ones(scores.shape, bool)), scores, -jnp.inf)
    return jax.nn.softmax(scores) @ v


def test_an_infinity_that_is_masked_away_is_not_found():
    q, k, v = (jnp.asarray(np.linspace(-1, 1, 6).reshape(3, 2) + i, "float32") for i in range(3))
    assert adk.find_nonfinite(attention)(q, k, v)


def test_a_row_of_the_mask_without_an_entry_is():
    def f(scores):
        return jax.nn.softmax(
            jnp.where(jnp.array([[True, False], [False, False]]), scores, -jnp.inf)
        )

    report = adk.find_nonfinite(f)(jnp.ones((2, 2)))
    assert report.first.cause == "infinity minus infinity"
    assert report.first.index == (1, 0)
    assert report.first.operands == (-np.inf, -np.inf)


# Modes and blocks -----------------------------------------------------------------------------


def masked(x, y):
    return {"root": jnp.where(x > 0, jnp.sqrt(x), 0.0) * y, "y": y**2, "sum": jnp.sqrt(y).sum()}


def twice(x, y):
    return {"both": jnp.sqrt(x) + y, "other": x * y}


@pytest.mark.parametrize("function", [masked, twice])
def test_modes_are_those_of_jax(function):
    args = (jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]))
    report = adk.find_nonfinite(function)(*args)
    for pairs, mode in ((report.forward, jax.jacfwd), (report.reverse, jax.jacrev)):
        # One input and one output at a time: no zero direction of another leaf meets an infinity.
        expected = {
            (key, name)
            for i, name in enumerate(("x", "y"))
            for key in function(*args)
            if not np.all(np.isfinite(mode(lambda *a, k=key: function(*a)[k], argnums=i)(*args)))
        }
        assert set(pairs) == expected
    blocks = adk.jacobian(function)(*args)
    assert set(report.jacobian) == {
        (key, name)
        for name in ("x", "y")
        for key in function(*args)
        if not np.all(np.isfinite(blocks[name][key]))
    }


def test_findings_name_the_outputs_and_inputs_that_they_affect():
    report = adk.find_nonfinite(masked)(jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]))
    found = {(x.kind, x.outputs, x.inputs) for x in report.findings}
    assert found == {
        ("forward", ("sum",), ("y",)),
        ("reverse", ("sum",), ("y",)),
        ("reverse", ("root",), ("x",)),
    }
    assert adk.find_nonfinite(masked, of="y")(jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0]))
    assert adk.find_nonfinite(masked, of="root", wrt="y")(jnp.zeros(2), jnp.zeros(2))


def test_what_only_follows_from_a_value_is_not_told_again():
    report = adk.find_nonfinite(lambda x: jnp.log(x) * 2.0 / (1.0 + x))(jnp.zeros(1))
    assert [(x.kind, x.primitive) for x in report.findings] == [("value", "log")]
    assert report.forward == report.reverse == (("output", "x"),)


def test_an_infinity_that_an_exponential_takes_away_is_not_blamed_for_what_follows():
    report = adk.find_nonfinite(lambda x: jnp.exp(2.0 * jnp.log(x)) / x)(jnp.zeros(1))
    assert (report.first.kind, report.first.primitive) == ("value", "div")
    assert report.first.operands == (0.0, 0.0)


def test_many_inputs_are_pushed_as_one_mean():
    report = adk.find_nonfinite(lambda x: jnp.linalg.norm(x - 1.0))(jnp.ones(1000))
    assert [x.primitive for x in report.findings] == ["sqrt", "sqrt"]
    assert "mean of all directions" in report.notes[0]
    assert adk.find_nonfinite(lambda x: jnp.mean(x))(jnp.ones(70_000, jnp.float16))


def test_a_gradient_is_looked_into_like_any_function():
    report = adk.find_nonfinite(lambda x: adk.grad(lambda y: jnp.sum(y**1.5))(x).y)(jnp.zeros(2))
    assert report.value == ()
    assert report.first.primitive == "pow"


# Inputs ---------------------------------------------------------------------------------------


def test_inputs_that_are_not_finite_are_said_to_be():
    data = {"y": np.array([[1.0, 2.0], [np.nan, np.inf]], np.float32), "n": np.ones(2, "float32")}

    def loss(w, data, scale):
        return jnp.sum((data["y"] @ w - data["n"]) ** 2) * scale

    report = adk.find_nonfinite(loss, wrt="w")(jnp.ones(2), data, 1.0)
    assert [x.kind for x in report.findings] == ["input"]
    assert report.first.primitive == "data.y"
    assert report.first.index == (1, 0)
    assert "2 of 4 entries" in report.first.what
    assert report.first.inputs == ("data.y",)
    report = adk.find_nonfinite(loss)(
        jnp.ones(2), {**data, "y": np.eye(2, dtype="float32")}, float("inf")
    )
    assert report.first.primitive == "scale"


def test_an_input_that_is_infinite_and_harmless_is_not_found():
    assert adk.find_nonfinite(lambda x: jnp.exp(-x))(jnp.array([jnp.inf, 1.0]))


# Loops and rules -------------------------------------------------------------------------------


def test_iterations_are_numbered():
    def inner(carry, x):
        return carry, jnp.sqrt(x)

    def outer(carry, row):
        return carry, lax.scan(inner, 0.0, row)[1].sum()

    rows = np.ones((40, 3), np.float32)
    rows[33, 2] = -1.0
    report = adk.find_nonfinite(lambda x: lax.scan(outer, 0.0, x)[1].sum())(jnp.asarray(rows))
    assert [loop.split(" of scan at ")[0] for loop in report.first.loops] == [
        "iteration 33 of 40 (from 0)",
        "iteration 2 of 3 (from 0)",
    ]
    assert report.first.loops[0] in " ".join(str(report).split())


def test_a_loop_that_runs_backwards_counts_its_iterations_as_its_items():
    def step(carry, x):
        return carry + jnp.log(x), None

    items = jnp.array([1.0, 1.0, 0.0, 1.0])
    report = adk.find_nonfinite(lambda x: lax.scan(step, 0.0, x, reverse=True)[0])(items)
    assert report.first.loops[0].startswith("iteration 2 of 4")


def test_a_batch_of_loops_runs_until_the_last_is_done():
    def halve(x):
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sqrt(s[1])), (x, x))[1]

    report = adk.find_nonfinite(jax.vmap(halve))(jnp.array([-1.0, 1.0]))
    assert report.first.primitive == "sqrt"
    assert report.first.index == (0,)
    assert report.first.loops[0].startswith("iteration 0 of 4 (from 0) of while_loop")
    # Of one that is done, nothing is made any more.
    assert adk.find_nonfinite(jax.vmap(halve))(jnp.array([3.0, 1.0]))


def test_what_has_no_derivative_passes_nothing_on():
    def f(x):
        return jnp.sum(jnp.sign(jnp.sqrt(x)) + lax.stop_gradient(jnp.sqrt(x)) + jnp.arccos(x))

    report = adk.find_nonfinite(f)(jnp.array([1.0, 0.0]))
    assert {x.primitive for x in report.findings} == {"acos"}


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


def test_where_jax_has_neither_mode_loops_are_pulled_as_often_as_they_ran():
    def f(x):
        return lax.while_loop(
            lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sqrt(s[1])), (0, cube(x))
        )[1]

    report = adk.find_nonfinite(f)(jnp.array([0.0, 1.0]))
    assert report.forward is None
    assert report.reverse == report.jacobian == (("output", "x"),)
    assert report.first.primitive == "sqrt"
    assert report.first.loops[0].startswith("iteration 2 of 3 (from 0) of while_loop")
    assert adk.find_nonfinite(f)(jnp.array([2.0, 1.0]))


@jax.custom_jvp
def steep(x):
    return jnp.sin(x)


@steep.defjvp
def steep_rule(primals, tangents):
    (x,), (t,) = primals, tangents
    slope = 1.0 / x
    return steep(x), slope * t


def test_a_rule_is_named_with_the_line_that_does_it():
    report = adk.find_nonfinite(lambda x: 2.0 * steep(x))(jnp.zeros(2))
    assert "the custom rule steep_rule at tests/test_nonfinite_reports.py:" in report.first.problem
    line = steep_rule.__code__.co_firstlineno + 3
    assert f"by div at tests/test_nonfinite_reports.py:{line}:" in report.first.problem
    assert report.first.what.startswith("steep(0.0): ")


def test_a_rule_of_jax_is_not_the_users():
    report = adk.find_nonfinite(lambda x: jax.scipy.special.xlogy(x, x))(jnp.zeros(1))
    assert report.first.cause == "infinite slope"
    assert "xlogy" in report.first.problem


# Functions that cannot be traced -----------------------------------------------------------------


def test_python_control_flow_is_followed_by_the_linear_program():
    def f(x):
        if x[0] >= 0:
            return jnp.sqrt(x)
        return x

    report = adk.find_nonfinite(f)(jnp.array([0.0, 1.0]))
    assert report.value == ()
    assert report.forward == report.reverse == (("output", "x"),)
    line = f.__code__.co_firstlineno + 2
    assert {x.line for x in report.findings} == {line}
    assert {x.kind for x in report.findings} == {"forward", "reverse"}
    assert "decides by values in Python" in str(report)
    assert adk.find_nonfinite(f)(jnp.array([-1.0, 1.0]))


def test_a_value_of_such_a_function_is_found_as_it_runs(capsys):
    def f(x):
        if x.sum() > 0:
            return x * jnp.log(x)
        return x

    report = adk.find_nonfinite(f)(jnp.array([0.0, 1.0]))
    assert report.value == ("output",)
    assert report.first.kind == "value"
    assert report.first.line == f.__code__.co_firstlineno + 2
    assert capsys.readouterr().out == ""


# Calls --------------------------------------------------------------------------------------


class Model(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return jnp.sqrt(self.weight @ x)

    @adk.find_nonfinite(wrt="x")
    def looked_into(self, x):
        """Docstring."""
        return self(x)


def test_it_is_a_decorator_and_takes_modules_and_methods():
    model = Model(jnp.eye(2))
    for report in (
        model.looked_into(jnp.zeros(2)),
        adk.find_nonfinite(model)(jnp.zeros(2)),
        adk.find_nonfinite(model.__call__)(jnp.zeros(2)),
    ):
        assert {x.primitive for x in report.findings} == {"sqrt"}
        assert report.first.inputs == ("x",)
    assert Model.looked_into.__doc__ == "Docstring."
    found = adk.find_nonfinite(model, wrt="self")(jnp.zeros(2))
    assert found.first.inputs == ("self.weight",)


def test_a_weight_that_is_nan_is_a_constant():
    report = adk.find_nonfinite(Model(jnp.full((2, 2), jnp.nan)))(jnp.ones(2))
    assert report.first.cause == "constant"
    assert report.first.primitive == "dot_general"


def test_complex_and_integer_arguments():
    def f(z, n):
        return jnp.sum(jnp.log(jnp.abs(z)) * n)

    report = adk.find_nonfinite(f)(jnp.array([1 + 1j, 0j]), jnp.arange(2, dtype=jnp.float32))
    assert report.first.primitive == "log"
    assert report.first.index == (1,)
    assert adk.find_nonfinite(lambda x, n: x * n.astype(x.dtype))(jnp.ones(2), jnp.arange(2))
    report = adk.find_nonfinite(lambda z: 1.0 / z, holomorphic=True)(jnp.array([0j, 1j]))
    assert report.first.primitive == "div"


@pytest.mark.parametrize("name", ["debug_nans", "debug_infs", "disable_jit"])
def test_settings_that_raise_or_disable_make_no_difference(name):
    with getattr(jax, name)(True):
        report = adk.find_nonfinite(jnp.linalg.norm)(jnp.zeros(3))
    assert {x.primitive for x in report.findings} == {"sqrt"}


def test_the_function_is_told_to_be_finite_by_plan_and_typechecked():
    def f(x: "eqx.internal.Any") -> None:
        return jnp.sqrt(x)

    assert adk.find_nonfinite(f).plan(jnp.ones(2)).mode == "fwd"
    assert dict(adk.find_nonfinite(f).annotations) == {}


# Bad calls ----------------------------------------------------------------------------------


def test_a_report_needs_values():
    def f(x, y):
        return jnp.sqrt(x) * y

    message = r"^find_nonfinite\(f\): a report is about values.* Call it outside"
    with pytest.raises(adk.SignatureError, match=message):
        jax.jit(adk.find_nonfinite(f))(1.0, 2.0)
    with pytest.raises(adk.SignatureError, match=message):
        jax.vmap(lambda x: bool(adk.find_nonfinite(f)(x, 1.0)))(jnp.ones(2))
    with pytest.raises(adk.SignatureError, match=message):
        jax.vmap(lambda y: bool(adk.find_nonfinite(f, wrt="x")(1.0, y)))(jnp.ones(2))
    with pytest.raises(adk.SignatureError, match=r"jax\.ShapeDtypeStruct, which has no values"):
        adk.find_nonfinite(f)(jax.ShapeDtypeStruct((), jnp.float32), 1.0)
    with pytest.raises(adk.SignatureError, match=r"it cannot be compiled"):
        _ = adk.find_nonfinite(f).compile


def test_what_cannot_be_differentiated_is_refused():
    with pytest.raises(adk.SignatureError, match=r"^find_nonfinite takes a function"):
        adk.find_nonfinite(3.0)
    with pytest.raises(
        adk.NotDifferentiableError, match=r"^find_nonfinite\(sum\): nothing to diff"
    ):
        adk.find_nonfinite(jnp.sum)(jnp.arange(3))
    with pytest.raises(adk.SelectionError, match=r"wrt='z'"):
        adk.find_nonfinite(lambda x: x, wrt="z")(1.0)


def test_errors_of_the_function_are_the_users():
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        adk.find_nonfinite(f)(1.0)
    with contextlib.suppress(KeyError):
        adk.find_nonfinite(f)(1.0)
