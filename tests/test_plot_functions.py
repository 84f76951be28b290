"""Curves of functions with their derivatives, and charts of checks."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import autodiffkit as adk
from autodiffkit._plot_report import Bar, draw_report
from autodiffkit._plotting import FAILED

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    plt.close("all")


def new_axes():
    return Figure(layout="constrained").add_subplot()


def f(x):
    return x**2 + x + 4


def curves(ax):
    return {x.get_label(): np.asarray(x.get_xydata()).T for x in ax.lines}


# Functions ------------------------------------------------------------------------------------


def test_the_function_and_its_derivatives(dtype):
    ax = adk.plot_function(f, -1, 2, ax=new_axes())
    x = np.linspace(-1, 2, 100)
    found = curves(ax)
    assert list(found) == ["f", "f'", "f''"]
    for name, expected in (("f", f(x)), ("f'", 2 * x + 1), ("f''", 2 + 0 * x)):
        np.testing.assert_allclose(found[name][0], x, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found[name][1], expected, rtol=1e-5, atol=1e-6)
    assert all(line.get_ydata(orig=True).dtype == dtype for line in ax.lines)
    assert ax.get_xlabel() == "x"
    assert [x.get_text() for x in ax.get_legend().get_texts()] == ["f", "f'", "f''"]


@pytest.mark.parametrize("order", [0, 1, 4, 7])
def test_any_order(order):
    ax = adk.plot_function(jnp.sin, 0.0, 1.0, 5, order, new_axes())
    labels = ["sin", "sin'", "sin''", "sin'''", "sin⁽⁴⁾", "sin⁽⁵⁾", "sin⁽⁶⁾", "sin⁽⁷⁾"]
    found = curves(ax)
    assert list(found) == labels[: order + 1]
    x = np.linspace(0, 1, 5)
    for k, name in enumerate(found):
        np.testing.assert_allclose(found[name][1], np.sin(x + k * np.pi / 2), atol=1e-5)


def test_python_control_flow_on_the_argument():
    def kinked(x):
        if x > 0:
            return x**2
        return -x

    found = curves(adk.plot_function(kinked, -1, 2, n=7, order=1, ax=new_axes()))
    x = np.linspace(-1, 2, 7)
    np.testing.assert_allclose(found["kinked"][1], np.where(x > 0, x**2, -x), atol=1e-6)
    np.testing.assert_allclose(found["kinked'"][1], np.where(x > 0, 2 * x, -1), atol=1e-6)


def test_what_is_not_finite_is_a_gap():
    ax = adk.plot_function(jnp.log, -1, 1, n=9, ax=new_axes())
    found = curves(ax)
    x, y = found["log"]
    np.testing.assert_array_equal(np.isfinite(y), x > 0)
    np.testing.assert_array_equal(np.isfinite(found["log'"][1]), x > 0)
    assert np.all(np.isfinite(ax.get_ylim()))


def test_the_name_and_the_argument():
    def power(t, p):
        return t**p

    partial = adk.plot_function(functools.partial(power, p=3), 0, 1, order=1, ax=new_axes())
    assert (list(curves(partial)), partial.get_xlabel()) == (["power", "power'"], "t")
    anonymous = adk.plot_function(lambda y: y**3, 0, 1, order=1, ax=new_axes())
    assert (list(curves(anonymous)), anonymous.get_xlabel()) == (["f", "f'"], "y")

    def direction(direction):
        return 2 * direction

    assert curves(adk.plot_function(direction, 0, 1, ax=new_axes()))["direction'"][1][0] == 2


def test_only_forward_mode_and_only_reverse_mode():
    def loop(x):
        return jax.lax.while_loop(lambda c: c < 9, lambda c: 2 * c, x)

    found = curves(adk.plot_function(loop, 1.0, 2.0, n=3, order=1, ax=new_axes()))
    np.testing.assert_array_equal(found["loop'"][1], [16, 8, 8])


def test_constants_and_integers():
    found = curves(adk.plot_function(lambda x: 2.0, 0, 1, ax=new_axes()))
    assert set(found["f'"][1]) == {0}
    steps = adk.plot_function(
        lambda x: jnp.round(x).astype(jnp.int32), 0, 2, order=0, ax=new_axes()
    )
    assert set(curves(steps)["f"][1]) == {0, 1, 2}


@pytest.mark.parametrize("left", [0, 0.0, np.float64(0), np.int32(0), jnp.array(0), jnp.float32(0)])
def test_limits_are_numbers_of_any_kind(left):
    found = curves(adk.plot_function(f, left, np.int64(3), n=np.int32(4), order=0, ax=new_axes()))
    np.testing.assert_array_equal(found["f"][0], [0, 1, 2, 3])


def test_a_new_figure():
    ax = adk.plot_function(f, -1, 2)
    assert plt.gca() is ax
    figure = Figure()
    ours, other = figure.subplots(1, 2)
    assert adk.plot_function(f, -1, 2, ax=ours) is ours
    assert not other.lines
    assert len(plt.get_fignums()) == 1


def bad(*args, **kwargs):
    return lambda: adk.plot_function(*args, **kwargs)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            bad(f, 2, 1),
            adk.SelectionError,
            "plot_function(f): left=2 should be less than right=1. Exchange them, or pass an "
            "interval of some length.",
        ),
        (
            bad(f, 1, 1),
            adk.SelectionError,
            "plot_function(f): left=1 should be less than right=1. Exchange them, or pass an "
            "interval of some length.",
        ),
        (
            bad(f, 0, float("inf")),
            adk.SelectionError,
            "plot_function(f): right=inf is not finite. Pass finite limits.",
        ),
        (
            bad(f, float("nan"), 1),
            adk.SelectionError,
            "plot_function(f): left=nan is not finite. Pass finite limits.",
        ),
        (
            bad(f, 0, 10**400),
            adk.SelectionError,
            "plot_function(f): right=inf is not finite. Pass finite limits.",
        ),
        (
            bad(f, "a", 1),
            adk.SelectionError,
            "plot_function(f): left should be a real number; got a str. Pass where the curve "
            "begins and where it ends.",
        ),
        (
            bad(f, 0, 1j),
            adk.SelectionError,
            "plot_function(f): right should be a real number; got a complex. Pass where the curve "
            "begins and where it ends.",
        ),
        (
            bad(f, False, 1),
            adk.SelectionError,
            "plot_function(f): left should be a real number; got a bool. Pass where the curve "
            "begins and where it ends.",
        ),
        (
            bad(f, jnp.zeros(2), 1),
            adk.SelectionError,
            "plot_function(f): left should be a real number; got float32[2]. Pass where the curve "
            "begins and where it ends.",
        ),
        (
            bad(f, 1e8, 1e8 + 1),
            adk.SelectionError,
            "plot_function(f): in float32 the limits 100000000.0 and 100000001.0 are one number or "
            'not finite. Set jax.config.update("jax_enable_x64", True), or pass other limits.',
        ),
        (
            bad(f, 0, 1e300),
            adk.SelectionError,
            "plot_function(f): in float32 the limits 0.0 and 1e+300 are one number or not finite. "
            'Set jax.config.update("jax_enable_x64", True), or pass other limits.',
        ),
        (
            bad(f, 0, 1, n=1),
            adk.SelectionError,
            "plot_function(f): n=1 should be an integer of at least 2. Pass a number of points.",
        ),
        (
            bad(f, 0, 1, n=10.0),
            adk.SelectionError,
            "plot_function(f): n=10.0 should be an integer of at least 2. Pass a number of points.",
        ),
        (
            bad(f, 0, 1, order=-1),
            adk.SelectionError,
            "plot_function(f): order=-1 should be an integer of at least 0. Pass the highest "
            "derivative to draw.",
        ),
        (
            bad(f, 0, 1, order=True),
            adk.SelectionError,
            "plot_function(f): order=True should be an integer of at least 0. Pass the highest "
            "derivative to draw.",
        ),
        (
            bad(lambda x: jnp.stack([x, x]), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function should return one number, and returns "
            "float32[2]. Pass one that does: lambda x: f(x)[0].",
        ),
        (
            bad(lambda x: {"a": x}, 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function should return one number, and returns a dict. "
            "Pass one that does: lambda x: f(x)['a'].",
        ),
        (
            bad(lambda t: (t, t), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function should return one number, and returns a tuple. "
            "Pass one that does: lambda t: f(t)[0].",
        ),
        (
            bad(lambda x: jnp.ones((2, 2)) * x, 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function should return one number, and returns "
            "float32[2, 2]. Pass one that does: lambda x: f(x)[0, 0].",
        ),
        (
            bad(lambda x: None, 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function should return one number, and returns None. "
            "Pass one that does.",
        ),
        (
            bad(lambda x: "y", 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function should return one number, and returns a str. "
            "Pass one that does.",
        ),
        (
            bad(adk.grad(f), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(f): the function should return one number, and returns a Gradient "
            "of this package. Pass one that does: f itself with order=1, or "
            "lambda x: adk.grad(f)(x).x.",
        ),
        (
            bad(adk.hessian(f), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(f): the function should return one number, and returns a Hessian "
            "of this package. Pass one that does: f itself with order=2, or "
            "lambda x: adk.hessian(f)(x).x.x.",
        ),
        (
            bad(adk.laplacian(f), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(f): the function should return one number, and returns a Laplacian "
            "of this package. Pass one that does: lambda x: f(x).derivative.",
        ),
        (
            bad(adk.linearize(f), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(f): the function should return one number, and returns a Linearized "
            "of this package. Pass one that does: lambda x: f(x).as_matrix()[0, 0].",
        ),
        (
            bad(np.sin, 0, 1),
            adk.ModeError,
            "plot_function(sin): a value that depends on what is differentiated becomes a number "
            "of Python or an array of NumPy, and no derivative passes there. Use jax.numpy "
            "instead of math and numpy, and x.astype(...) instead of float(x), or pass order=0.",
        ),
        (
            bad(lambda x: jax.lax.complex(x, x), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function returns complex numbers. Draw their real part, "
            "their imaginary part or their modulus: lambda x: jnp.real(f(x)).",
        ),
        (
            bad(lambda x: jnp.round(x).astype(jnp.int32), 0, 1),
            adk.NotDifferentiableError,
            "plot_function(<lambda>): the function returns int32, which has no derivatives. Return "
            "a floating-point number, or pass order=0.",
        ),
        (
            bad(lambda x, y: x, 0, 1),
            adk.SignatureError,
            "plot_function(<lambda>): <lambda>(x, y) takes several arguments, and is drawn by one. "
            "Fix the others: functools.partial(f, y=...), or lambda x: f(x, y=...).",
        ),
        (
            bad(lambda x, y=1, *, z: x, 0, 1),
            adk.SignatureError,
            "plot_function(<lambda>): <lambda>(x, y=1, *, z) takes several arguments, and is drawn "
            "by one. Fix the others: functools.partial(f, z=...), or lambda x: f(x, z=...).",
        ),
        (
            bad(lambda *, x: x, 0, 1),
            adk.SignatureError,
            "plot_function(<lambda>): <lambda>(*, x) takes no positional argument, and one number "
            "is passed to it. Wrap it: lambda x: ...",
        ),
        (
            bad(3.0, 0, 1),
            adk.SignatureError,
            "plot_function: a function is drawn; got a float. Pass the function and then the "
            "limits: adk.plot_function(f, left, right).",
        ),
        (
            bad(f, 0, 1, ax="left"),
            adk.SelectionError,
            "plot_function(f): ax= takes plane axes of matplotlib; got a str. Pass one of those "
            "that plt.subplots() gives, or leave it out.",
        ),
    ],
)
def test_bad_input(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
    assert plt.get_fignums() == []


def only_pulled():
    @jax.custom_vjp
    def g(x):
        return jnp.sin(x)

    g.defvjp(lambda x: (jnp.sin(x), x), lambda x, t: (t * jnp.cos(x),))
    return g


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (math.sin, r"^plot_function\(sin\): a value .* jax\.numpy instead of math .*order=0\.$"),
        (lambda x: float(x) ** 2, r"^plot_function\(<lambda>\): a value .*x\.astype\(.*order=0\.$"),
        (only_pulled(), r"^plot_function\(g\): derivatives are pushed .*Pass order=0, or "),
    ],
)
def test_what_cannot_be_differentiated(function, text):
    with pytest.raises(adk.ModeError, match=text) as caught:
        adk.plot_function(function, 0, 1)
    assert "directional_derivative" not in str(caught.value)
    assert plt.get_fignums() == []
    found = curves(adk.plot_function(function, 0, 1, n=3, order=0, ax=new_axes()))
    assert all(len(y) == 3 for _, y in found.values())


def test_the_whole_interval_is_shown():
    for g, left, right in ((jnp.exp, 0, 200), (jnp.arcsin, -3, 3), (lambda x: x * jnp.nan, 2, 3)):
        ax = adk.plot_function(g, left, right, ax=new_axes())
        ax.figure.draw_without_rendering()
        low, high = ax.get_xlim()
        assert low <= left < right <= high
        assert high - low < 1.2 * (right - left)


def test_derivatives_have_the_gaps_of_the_function():
    ax = adk.plot_function(jnp.log, -1, 3, ax=new_axes())
    finite = [np.isfinite(y) for _, y in curves(ax).values()]
    assert len(finite) == 3
    for each in finite:
        np.testing.assert_array_equal(each, np.linspace(-1, 3, 100) > 0)
    nowhere = adk.plot_function(lambda x: jnp.log(-x - 1), 0, 3, ax=new_axes())
    assert not any(np.isfinite(y).any() for _, y in curves(nowhere).values())


@pytest.mark.parametrize("name", ["_f", "__private", "f"])
def test_names_with_underscores_are_in_the_legend(name, tmp_path):
    def g(x):
        return x**3

    g.__name__ = name
    ax = adk.plot_function(g, 0, 1)
    assert [x.get_text() for x in ax.get_legend().get_texts()] == [name, f"{name}'", f"{name}''"]
    ax.figure.savefig(tmp_path / "figure.png")
    box, width = ax.get_legend().get_window_extent(), ax.figure.bbox.width
    assert ax.bbox.x1 < box.x0 < box.x1 <= width
    assert not ax.get_legend().get_frame_on()
    assert adk.plot_function(g, 0, 1, ax=new_axes()).get_legend().get_frame_on()


def test_wide_limits_in_double_precision():
    with jax.enable_x64(True):
        found = curves(adk.plot_function(lambda x: x, 1e8, 1e8 + 1, n=3, order=0, ax=new_axes()))
        np.testing.assert_array_equal(found["f"][0], [1e8, 1e8 + 0.5, 1e8 + 1])
        top = 1.7e308
        found = curves(adk.plot_function(lambda x: 0 * x, -top, top, n=3, order=0, ax=new_axes()))
        np.testing.assert_array_equal(found["f"][0], [-top, 0, top])


def test_under_a_trace():
    with pytest.raises(adk.StructureError, match=r"while JAX traces .* Call it outside\."):
        jax.jit(lambda x: adk.plot_function(f, 0, 1))(1.0)
    with pytest.raises(adk.StructureError, match=r"right is traced .* Call it outside"):
        jax.vmap(lambda x: adk.plot_function(f, 0, x))(jnp.ones(2))


def test_errors_of_the_function_are_passed_on():
    def broken(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        adk.plot_function(broken, 0, 1)
    assert plt.get_fignums() == []


# Reports --------------------------------------------------------------------------------------


@jax.custom_jvp
def wrong(x):
    return jnp.sin(x)


@wrong.defjvp
def _(primals, tangents):
    return wrong(*primals), 1.1 * jnp.cos(*primals) * tangents[0]


def rates(x, y):
    return {"rate": wrong(x) * y, "total": jnp.sum(x**2) * y}


def report():
    return adk.check_derivatives(rates, order=1)(jnp.array([0.3, -1.2]), 2.0)


def test_errors_beside_tolerances():
    found = report()
    ax = found.plot(new_axes())
    labels = [x.get_text() for x in ax.get_yticklabels()]
    assert sorted(labels) == sorted(
        " by ".join([block.of or "output", " and ".join(block.wrt)])
        + ("" if block.passed else f": {block.finding}")
        for block in found.blocks
    )
    assert labels[0].startswith("rate by x: custom rule")
    assert ax.get_xscale() == "log"
    by_label = {x.get_label(): x.get_xydata() for x in ax.lines}
    assert len(by_label["tolerance"]) == len(found.blocks)
    np.testing.assert_array_equal(
        by_label["tolerance"][:, 0], [max(b.tolerance, ax.get_xlim()[0]) for b in found.blocks]
    )
    failed = by_label["error of a block that fails"]
    rows = [i for i, block in enumerate(found.blocks) if not block.passed]
    np.testing.assert_array_equal(failed[:, 1], rows)
    np.testing.assert_allclose(failed[:, 0], [found.blocks[i].error for i in rows])
    for i, tick in enumerate(ax.get_yticklabels()):
        assert (tick.get_color() == FAILED) == (i in rows)
    assert ax.get_title() == "Derivatives of rates: 1 of 4 blocks fails"
    bottom, top = ax.get_ylim()
    assert bottom > len(labels) - 1
    assert top < 0


def test_a_report_without_faults():
    ax = adk.check_derivatives(jnp.sin, order=1)(1.0).plot()
    assert ax.get_title() == "Derivatives of sin: the one block passes"
    assert [x.get_label() for x in ax.lines] == ["error", "tolerance"]
    assert plt.gca() is ax


def bars(*errors):
    return [
        Bar(("y", f"x{i}"), "disagrees", error, 1e-4, error < 1e-4)
        for i, error in enumerate(errors)
    ]


def test_rows_are_told_apart():
    mlp = eqx.nn.MLP(2, 3, 4, 2, key=jax.random.key(0))
    found = adk.check_derivatives(lambda model, x: model(x))(mlp, jnp.ones(2))
    labels = [x.get_text() for x in found.plot().get_yticklabels()]
    assert len(labels) == len(set(labels)) == 40
    long = [f"network.{place}_of_the_many_{i}.weights" for i in range(3) for place in "ab"]
    pairs = list(itertools.product(long, long))
    rows = [Bar(("y", *pair), "agrees", 1e-6, 1e-4, True) for pair in pairs]
    labels = [x.get_text() for x in draw_report("", "", rows, new_axes()).get_yticklabels()]
    assert len(labels) == len(set(labels)) == 36


def test_errors_of_zero_and_that_are_not_finite():
    ax = draw_report("call", "title", bars(float("nan"), float("inf"), 0.0, 1e-6), new_axes())
    left, right = ax.get_xlim()
    places = {
        y: x for line in ax.lines if "error" in line.get_label() for x, y in line.get_xydata()
    }
    assert places == {0: right, 1: right, 2: left, 3: 1e-6}
    assert [x.get_text() for x in ax.texts] == ["nan", "inf"]
    assert np.isfinite([left, right]).all()
    zero = draw_report("call", "title", [Bar(("y", "x"), "agrees", 0.0, 0.0, True)], new_axes())
    assert zero.get_xlim()[0] > 0


def test_of_many_blocks_the_worst_are_drawn():
    tall = Figure(figsize=(6, 12), layout="constrained").add_subplot()
    ax = draw_report("call", "title", bars(*np.linspace(1, 2, 50)), tall)
    assert len(ax.get_yticklabels()) == 40
    assert ax.get_xlabel() == "disagreement (10 more blocks are not drawn)"
    nothing = draw_report("call", "title", [], new_axes())
    assert [x.get_text() for x in nothing.texts] == ["nothing was compared"]


@pytest.mark.parametrize("layout", ["constrained", None])
def test_in_small_axes_as_many_rows_as_can_be_read(layout):
    figure = Figure(figsize=(11, 6), layout=layout)
    ax = figure.subplots(2, 3)[0, 1]
    draw_report("call", "The title of a report of some length", bars(*[1.0] * 41), ax)
    figure.draw_without_rendering()
    ticks = ax.get_yticklabels()
    assert 5 < len(ticks) < 25
    more = f"({41 - len(ticks)} more blocks are not drawn)"
    assert ax.get_xlabel().replace("\n", " ") == f"disagreement {more}"
    extents = [x.get_window_extent() for x in ticks]
    assert all(x.get_fontsize() >= 6 for x in ticks)
    assert all(a.y0 >= b.y1 - 1.5 for a, b in itertools.pairwise(extents))
    title = ax.title.get_window_extent()
    assert title.width < figure.bbox.width / 3


def test_only_the_axes_that_were_passed_change():
    figure = Figure()
    ours, other = figure.subplots(1, 2)
    assert report().plot(ours) is ours
    assert plt.get_fignums() == []
    assert not other.lines
    with pytest.raises(adk.SelectionError, match=r"^check_derivatives\(rates\)\.plot: ax= takes"):
        report().plot(figure)
