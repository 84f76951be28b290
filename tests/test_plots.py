"""Plots of matrices: what is drawn, by the artists, and what cannot be."""

import copy
import itertools
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

import autodiffkit as adk
from autodiffkit._matrix_labels import Label, _thinned
from autodiffkit._matrix_words import _percent
from autodiffkit._plotting import NOT_FINITE, short_names

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _nothing_is_left():
    before = copy.deepcopy(dict(mpl.rcParams))
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


def model(x, params, t):
    y = jnp.tanh(params["w"] @ x)
    return {"mean": y * t, "scale": jnp.sum(params["b"] ** 2)}


X = jnp.array([0.3, -1.2, 2.0])
PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) / 5, "b": jnp.array([1.0, -2.0])}


def jacobian():
    return adk.jacobian(model)(X, PARAMS, 2.0)


def new_axes(width=6.0, height=4.0):
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def names(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def lines(ax):
    """Where rows and columns are divided."""
    rows = [x.get_ydata()[0] for x in ax.lines if x.get_xdata() == [0, 1]]
    columns = [x.get_xdata()[0] for x in ax.lines if x.get_ydata() == [0, 1]]
    return rows, columns


def written(ax):
    return {
        (round(x.get_position()[1]), round(x.get_position()[0])): x.get_text() for x in ax.texts
    }


def hatched(ax):
    """The rectangles of each mark, as rows and columns."""
    return {
        x.get_label(): [
            (box.y0 + 0.5, box.y1 + 0.5, box.x0 + 0.5, box.x1 + 0.5)
            for box in (path.get_extents() for path in x.get_paths())
        ]
        for x in ax.collections
        if isinstance(x, PatchCollection)
    }


def legend(ax):
    found = ax.get_legend()
    return [] if found is None else [x.get_text() for x in found.get_texts()]


# The heat map ---------------------------------------------------------------------------------


def test_entries_names_and_lines():
    J = jacobian()
    ax = J.plot(new_axes())
    matrix = np.asarray(J.as_matrix())
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(shown[~shown.mask], matrix[~shown.mask])
    assert np.all(matrix[shown.mask] == 0)
    assert ax.images[0].get_extent() == [-0.5, 11.5, 2.5, -0.5]
    assert ax.get_xlim() == (-0.5, 11.5)
    assert ax.get_ylim() == (2.5, -0.5)
    assert (names(ax.xaxis), names(ax.yaxis)) == (
        ["x", "params.b", "params.w", "t"],
        ["mean", "scale"],
    )
    np.testing.assert_array_equal(ax.get_xticks(), [1, 3.5, 7.5, 11])
    np.testing.assert_array_equal(ax.get_yticks(), [0.5, 2])
    rows, columns = lines(ax)
    assert rows == [1.5]
    assert sorted(columns) == [2.5, 4.5, 10.5]
    assert ax.get_title() == "Jacobian of model"
    assert ax.get_xlabel() == "3 × 12"


def test_lines_between_arguments_are_stronger():
    ax = jacobian().plot(new_axes())
    width = {x.get_xdata()[0]: x.get_linewidth() for x in ax.lines if x.get_ydata() == [0, 1]}
    assert width[2.5] == width[10.5] > width[4.5]


def test_the_scale_is_symmetric_and_diverging():
    J = jacobian()
    ax = J.plot(new_axes())
    image = ax.images[0]
    limit = np.abs(J.as_matrix()).max()
    assert image.norm.vmin == -image.norm.vmax
    assert image.norm.vmax == pytest.approx(limit)
    assert image.get_cmap().name == "RdBu_r"
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "derivative"


@pytest.mark.parametrize(
    ("result", "label", "title"),
    [
        (lambda: adk.hessian(lambda x: jnp.sum(x**3))(X), "second derivative", "Hessian of"),
        (lambda: jacobian().gram(), "entry", "SymmetricMatrix jacobian(model).gram()"),
        (lambda: adk.grad(lambda x: jnp.sum(x**3))(X), "derivative", "Gradient of"),
        (
            lambda: adk.jacobian(jnp.sin, holomorphic=True)(jax.lax.complex(X, X)),
            "modulus of the derivative",
            "Jacobian of sin",
        ),
    ],
)
def test_what_an_entry_is(result, label, title):
    ax = result().plot(new_axes())
    assert ax.child_axes[0].get_ylabel() == label
    assert ax.get_title().startswith(title)


@pytest.mark.parametrize("size", [(4, 1.5), (9, 6)])
def test_the_colour_bar_is_as_wide_in_axes_of_any_size(size):
    ax = adk.grad(lambda x: jnp.sum(x**3))(jnp.ones(9)).plot(new_axes(*size))
    ax.figure.draw_without_rendering()
    bar, box = ax.child_axes[0].get_window_extent(), ax.get_window_extent()
    assert bar.width == pytest.approx(0.13 * ax.figure.dpi)
    assert bar.height == pytest.approx(max(1.2 * ax.figure.dpi, box.height))
    assert bar.x0 > box.x1
    assert (bar.y0 + bar.y1) / 2 == pytest.approx((box.y0 + box.y1) / 2)


def test_moduli_begin_at_zero():
    image = (
        adk.jacobian(jnp.sin, holomorphic=True)(jax.lax.complex(X, X)).plot(new_axes()).images[0]
    )
    assert image.norm.vmin == 0
    assert image.get_cmap().name == "Purples"


def test_a_gradient_is_one_row():
    ax = adk.grad(lambda x, y: jnp.sum(x**2) * y)(X, 2.0).plot(new_axes())
    assert ax.images[0].get_array().shape == (1, 4)
    assert (names(ax.xaxis), names(ax.yaxis)) == (["x", "y"], ["output"])


def test_values_are_written_where_they_can_be_read():
    J = adk.jacobian(lambda x: jnp.stack([x[0] * x[1], 1e-4 * x[0], 12345.0 * x[1]]))(X)
    assert written(J.plot(new_axes())) == {
        (0, 0): "-1.2",
        (0, 1): "0.3",
        (0, 2): "0",
        (1, 0): "1e-4",
        (1, 1): "0",
        (1, 2): "0",
        (2, 0): "0",
        (2, 1): "1.23e4",
        (2, 2): "0",
    }
    assert not J.plot(new_axes(), values=False).texts
    assert not J.plot(new_axes(1.0, 1.0)).texts
    assert len(J.plot(new_axes(1.0, 1.0), values=True).texts) == 9
    large = adk.jacobian(lambda x: jnp.cumsum(x))(jnp.ones(25))
    assert not large.plot(new_axes(20, 20)).texts
    assert len(large.plot(new_axes(20, 20), values=True).texts) == 625


def test_values_are_read_on_their_colour():
    ax = adk.jacobian(lambda x: x * jnp.array([5.0, 0.1, -5.0]))(X).plot(new_axes())
    colour = {x.get_position(): x.get_color() for x in ax.texts}
    assert colour[0, 0] == colour[2, 2] != colour[1, 1]


def luminance(colour):
    parts = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        for x in mpl.colors.to_rgb(colour)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_values_contrast_with_every_colour_of_the_scale():
    """At least by the 4.5 that WCAG asks of small text."""
    slopes = np.linspace(-1, 1, 41)
    ax = adk.jacobian(lambda x: x * slopes)(jnp.float32(2.0)).plot(new_axes(3.0, 30.0), values=True)
    (image,) = ax.images
    shown = {text.get_position()[1]: luminance(text.get_color()) for text in ax.texts}
    assert len(shown) == 41
    for row, slope in enumerate(slopes):
        low, high = sorted([shown[row], luminance(image.to_rgba(slope)[:3])])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_logarithmic_colours():
    J = adk.jacobian(lambda x: x * jnp.array([1e-6, -1e-3, 10.0]))(X)
    ax = J.plot(new_axes(), log=True)
    norm = ax.images[0].norm
    assert norm(0.0) == pytest.approx(0.5)
    assert norm(10.0) == 1
    assert norm(1e-6) > 0.52
    assert norm(-1e-3) < norm(1e-6)
    ticks = [x.get_text() for x in ax.child_axes[0].get_yticklabels()]
    assert "0" in ticks
    assert "$10^{1}$" in ticks
    assert "$-10^{1}$" in ticks
    assert len(ticks) <= 9
    zero = adk.jacobian(lambda x: 0 * x)(X).plot(new_axes(), log=True)
    assert zero.images[0].norm.vmax == 1


# Marks ----------------------------------------------------------------------------------------


def test_blocks_of_zeros_are_hatched():
    ax = jacobian().plot(new_axes())
    assert hatched(ax) == {"zero by structure": [(0, 2, 3, 5), (2, 3, 0, 3), (2, 3, 5, 12)]}
    assert legend(ax) == ["zero by structure"]
    assert not hatched(adk.jacobian(jnp.sin)(X).plot(new_axes()))
    # What is zero for now has a mark of its own, and its values.
    ax = adk.jacobian(lambda x, y: jax.nn.relu(x) + y)(-1.0, 2.0).plot(new_axes())
    assert hatched(ax) == {"zero at this point": [(0, 1, 0, 1)]}
    assert written(ax) == {(0, 0): "0", (0, 1): "1"}


def test_zeros_by_structure_are_hatched():
    ax = adk.jacobian(jnp.sin, layout="compact")(X).plot(new_axes())
    assert hatched(ax) == {"zero by structure": [(0, 3, 0, 3)]}
    np.testing.assert_array_equal(ax.images[0].get_array().mask, ~np.eye(3, dtype=bool))
    assert set(written(ax)) == {(0, 0), (1, 1), (2, 2)}


def test_what_was_not_computed_is_hatched():
    H = adk.hessian(lambda a, b: jnp.sum(a * b**2), blocks=[("a", "b")])(X, X)
    ax = H.plot(new_axes())
    assert hatched(ax) == {"not computed": [(0, 3, 0, 3), (3, 6, 0, 6)]}
    assert legend(ax) == ["not computed"]


def test_what_is_not_finite_is_marked():
    J = adk.jacobian(lambda x: {"a": jnp.sqrt(x), "b": x * jnp.nan})(jnp.array([0.0, 4.0]))
    ax = J.plot(new_axes())
    values, marks = (image.get_array() for image in ax.images)
    bad = ~np.isfinite(np.asarray(J.as_matrix()))
    np.testing.assert_array_equal(marks.mask, ~bad)
    assert values.mask[bad].all()
    assert ax.images[1].get_cmap()(0) == mpl.colors.to_rgba(NOT_FINITE)
    assert legend(ax) == [f"not finite ({bad.sum()})"]
    assert written(ax)[0, 0] == "inf"
    assert written(ax)[2, 0] == "nan"
    assert ax.images[0].norm.vmax == 0.25


def test_one_entry_of_many_that_is_not_finite_is_seen():
    J = adk.jacobian(jnp.sqrt)(jnp.abs(jnp.arange(900.0) - 450))
    ax = J.plot(new_axes(), kind="heatmap")
    (mark,) = (x for x in ax.lines if x.get_marker() == "s")
    assert abs(mark.get_xdata()[0] - 450) <= 3
    assert abs(mark.get_ydata()[0] - 450) <= 3
    assert mark.get_markersize() >= 5
    assert legend(ax) == ["not finite (1)"]


# Large matrices -------------------------------------------------------------------------------


def test_pixels_show_the_largest_entries():
    J = adk.jacobian(lambda x: jnp.cumsum(x) * 0.01 + 5 * jnp.where(jnp.arange(700) == 77, x, 0))(
        jnp.ones(700)
    )
    ax = J.plot(new_axes())
    shown = ax.images[0].get_array()
    (step,) = {-(-700 // n) for n in shown.shape}
    assert step > 1
    assert shown.max() == pytest.approx(5.01)
    assert shown[77 // step, 77 // step] == pytest.approx(5.01)
    assert f"the largest of {step} × {step} entries" in ax.get_xlabel()
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left, bottom - top) == (shown.shape[1] * step, shown.shape[0] * step)
    assert ax.get_xlim() == (-0.5, 699.5)


@pytest.mark.parametrize("width", [None, 4.5, 6.0, 12.0])
@pytest.mark.parametrize("name", ["x", "a_name_that_takes_much_room"])
def test_no_pixel_is_smaller_than_that_of_the_figure(width, name):
    J = adk.jacobian(lambda p: {name: jnp.cumsum(p[name])})({name: jnp.ones(1500)})
    axes = J.plot(width and new_axes(width, width))
    axes.figure.draw_without_rendering()
    box = axes.get_window_extent()
    across, down = axes.images[0].get_array().shape
    assert across <= box.width
    assert down <= box.height


def loss_and_field(n):
    def f(x, y):
        return {"loss": jnp.sum(x) * y, "field": x * y}

    return adk.jacobian(f)(jnp.ones(n), 2.0)


@pytest.mark.parametrize("n", [400, 3000])
@pytest.mark.parametrize("kind", ["heatmap", "spy"])
def test_thin_blocks_are_seen_beside_lines(n, kind):
    ax = loss_and_field(n).plot(new_axes(6, 6), kind=kind)
    ax.figure.draw_without_rendering()
    rows, columns = lines(ax)
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    box = ax.get_window_extent()
    (row,), (column,) = rows, columns
    points = 72 / ax.figure.dpi
    assert points * box.height * (bottom - row) / (bottom - top) > 3
    assert points * box.width * (right - column) / (right - left) > 3
    assert ax.get_yticks()[1] == pytest.approx((row + bottom) / 2)
    assert ax.get_xticks()[1] == pytest.approx((column + right) / 2)
    # What is drawn there is the thin block alone.
    image = ax.images[0]
    shown = image.get_array()
    extent = image.get_extent()
    unit = (extent[2] - extent[3]) / len(shown)
    inside = shown[int((row - extent[3]) / unit + 0.5) :, : int(column / unit)]
    expected = {1.0} if kind == "spy" else {2.0}
    assert set(inside.compressed()) == expected
    assert not inside.mask.any()


def test_what_the_largest_entry_hides_is_said():
    ax = loss_and_field(400).plot(new_axes(), kind="heatmap")
    assert "log=True" in ax.get_xlabel()
    assert (
        "log=True"
        not in loss_and_field(400).plot(new_axes(), kind="heatmap", log=True).get_xlabel()
    )
    assert "log=True" not in jacobian().plot(new_axes()).get_xlabel()
    assert "log=True" not in loss_and_field(3000).plot(new_axes(), kind="spy").get_xlabel()


def test_spots_are_above_the_frame():
    J = adk.jacobian(lambda x: jnp.sum(x) * jnp.zeros(900).at[0].set(1) + x)(jnp.ones(900))
    ax = J.plot(new_axes(), kind="spy")
    assert all(x.get_zorder() < ax.images[0].get_zorder() for x in ax.spines.values())


def test_shares_are_percentages():
    ax = adk.jacobian(lambda x: jnp.cumsum(x[::-1]) + jnp.sum(x))(jnp.ones(1000)).plot(
        new_axes(), kind="spy"
    )
    assert "1000000 not zero (100%)" in ax.get_xlabel()
    assert [_percent(*x) for x in ((999_999, 10**6), (995, 1000), (994, 1000), (0, 9), (1, 3))] == [
        *("99.99%", "99.5%", "99%", "0%", "33%")
    ]


def test_large_and_nearly_empty_matrices_are_spy_plots():
    J = adk.jacobian(jnp.tanh)(jnp.linspace(-1, 1, 1200))
    ax = J.plot(new_axes())
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(~shown.mask, np.eye(len(shown), dtype=bool))
    assert not ax.child_axes
    assert "1200 × 1200, 1200 not zero (0.083%)" in ax.get_xlabel()
    assert J.plot(new_axes(), kind="heatmap").child_axes
    small = adk.jacobian(jnp.tanh)(jnp.linspace(-1, 1, 30))
    assert small.plot(new_axes()).child_axes
    assert not small.plot(new_axes(), kind="spy").child_axes


def test_compact_results_of_any_size():
    J = adk.jacobian(jnp.tanh, layout="compact")(jnp.linspace(-1, 1, 50_000))
    ax = J.plot(new_axes())
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(~shown.mask, np.eye(len(shown), dtype=bool))
    assert hatched(ax) == {"zero by structure": [(0, 50_000, 0, 50_000)]}


# Names ----------------------------------------------------------------------------------------


def many(count, size=1):
    leaves = {f"parameter_{i:03d}": jnp.ones(size) for i in range(count)}
    return adk.jacobian(lambda p: sum(jnp.sum(v**2) for v in p.values()))(leaves)


@pytest.mark.parametrize("count", [2, 8, 20, 60, 300])
def test_names_do_not_overlap(count):
    ax = many(count).plot(new_axes(9, 6))
    ax.figure.draw_without_rendering()
    boxes = [x.get_window_extent() for x in ax.get_xticklabels()]
    angle = ax.get_xticklabels()[0].get_rotation()
    assert 0 < len(boxes) <= count
    if angle in {0, 90}:
        assert all(a.x1 <= b.x0 + 0.5 for a, b in itertools.pairwise(boxes))
    else:
        gap = min(b.x0 - a.x0 for a, b in itertools.pairwise(boxes))
        assert gap * np.sin(np.radians(angle)) >= 0.9 * ax.get_xticklabels()[0].get_fontsize()
    assert angle == {2: 0, 300: 90}.get(count, angle)


def test_names_of_the_largest_blocks_are_kept():
    labels = [Label("a", 0, 1), Label("b", 1, 100), Label("c", 100, 101), Label("d", 101, 150)]
    assert [x.name for x in _thinned(labels, [1.0] * 4, 0.01)] == ["b"]
    assert [x.name for x in _thinned(labels, [0.5] * 4, 0.01)] == ["a", "b", "d"]


def test_lines_that_would_cover_everything_are_left_out():
    ax = many(300).plot(new_axes(5, 3))
    assert lines(ax) == ([], [])


def test_names_are_no_mathematics():
    ax = adk.jacobian(lambda p: p["$x_1$"] ** 2)({"$x_1$": X}).plot(new_axes())
    ax.figure.draw_without_rendering()
    assert names(ax.xaxis) == [r"p.\$x_1\$"]


def test_long_names_are_shortened():
    long = "encoder.layers.11.attention.query.weight"
    (short,) = short_names([long])
    assert len(short) <= 26
    assert short.startswith("encoder.")
    assert short.endswith("query.weight")
    assert short_names(["x"]) == ["x"]


def channels(count=4):
    """Arguments whose names differ in the middle alone."""
    leaves = {
        f"decay_constant_of_channel_{i}_in_the_upper_detector_array": jnp.float32(i)
        for i in range(count)
    }

    def f(p):
        return sum(jnp.sin(v) * (i + 1) for i, v in enumerate(p.values()))

    return f, leaves


@pytest.mark.parametrize("transform", [adk.grad, adk.hessian])
def test_different_names_stay_different(transform):
    f, leaves = channels()
    ax = transform(f)(leaves).plot(new_axes(12, 8))
    assert len(set(names(ax.xaxis))) == 4
    assert len(names(ax.yaxis)) == len(set(names(ax.yaxis)))
    panels = adk.hessian(lambda x: dict.fromkeys(leaves, x**2))(2.0).plot(new_axes(30, 5))
    below = [x.get_text() for x in panels.texts if "channel" in x.get_text()]
    assert len(set(below)) == 4


def test_names_of_several_lines_are_escaped():
    ax = adk.jacobian(lambda p: p["x\ny"] ** 2)({"x\ny": X}).plot(new_axes())
    assert names(ax.xaxis) == [r"p.x\ny"]


def drawn_texts(ax):
    """All texts as they are drawn, and whether as mathematics."""
    ax.figure.draw_without_rendering()
    return [x._preprocess_math(x.get_text()) for x in ax.findobj(mpl.text.Text)]


def test_names_of_functions_are_no_mathematics():
    def f(p):
        return jnp.sum(p["$\\frac{$"] ** 2)

    f.__name__ = "$a$"
    p = {"$\\frac{$": X}
    for draw in (
        adk.grad(f)(p).plot,
        adk.hessian(lambda p: {"$e$": p, "$f$": f(p)})({"$\\frac{$": 1.0}).plot,
        adk.grad(f).plan(p).plot,
        adk.check_derivatives(f)(p).plot,
        lambda ax: adk.plot_function(lambda x: x, 0, 1, ax=ax),
    ):
        shown = [text for text in drawn_texts(draw(new_axes())) if "$" in text[0]]
        assert not any(is_math for text, is_math in shown if "mathdefault" not in text)
        assert all("\\$" not in text for text, _ in shown if "mathdefault" not in text)
    ax = adk.grad(f).plan(p).plot(new_axes())
    assert ("Plan of grad($a$): reverse mode", False) in drawn_texts(ax)
    assert ("p.$\\\\frac{$\n3", False) in drawn_texts(ax)
    with mpl.rc_context({"text.parse_math": False}):
        ax = adk.grad(f)(p).plot(new_axes())
        assert ("p.$\\\\frac{$", False) in drawn_texts(ax)


# Second derivatives of several outputs --------------------------------------------------------


def outputs(x, y):
    return {"e": jnp.sum(x**2) * y, "f": jnp.stack([x[0] * x[1], y**3])}


def test_a_panel_for_each_output():
    H = adk.hessian(outputs)(jnp.array([1.0, 2.0]), 3.0)
    ax = H.plot(new_axes(9, 4))
    shown = ax.images[0].get_array()
    matrix = np.concatenate([*np.asarray(H.as_matrix())], axis=1)
    np.testing.assert_array_equal(shown.filled(0), matrix)
    assert names(ax.yaxis) == ["x", "y"]
    assert names(ax.xaxis) == ["x", "y"] * 3
    rows, columns = lines(ax)
    assert rows == [1.5]
    assert sorted(columns) == [1.5, 2.5, 4.5, 5.5, 7.5]
    styles = {x.get_xdata()[0]: (x.get_linewidth(), x.get_color()) for x in ax.lines}
    assert styles[2.5] == styles[5.5]
    assert styles[2.5][0] > 2 * styles[1.5][0]
    assert styles[2.5][1] != styles[1.5][1]
    below = [x.get_text() for x in ax.texts if x.get_text()[0] in "ef"]
    assert below == ["e", "f[0]", "f[1]"]
    assert ax.get_xlabel() == "3 panels of 3 × 3"


def test_one_of_several_outputs():
    H = adk.hessian(outputs)(jnp.array([1.0, 2.0]), 3.0).of("e")
    ax = H.plot(new_axes())
    np.testing.assert_array_equal(ax.images[0].get_array().filled(0), H.as_matrix())
    assert ax.get_xlabel() == "3 × 3"


def test_too_many_outputs():
    H = adk.hessian(lambda x: jnp.outer(x, x))(X)
    with pytest.raises(adk.StructureError, match=r"9 entries.*Select at most 6 .* \.of\(path\)"):
        H.plot()


# Axes -----------------------------------------------------------------------------------------


def test_only_the_axes_that_were_passed_change():
    figure = Figure(figsize=(8, 4))
    ours, other = figure.subplots(1, 2)
    position = ours.get_position().bounds
    children = len(other.get_children())
    assert jacobian().plot(ours) is ours
    assert plt.get_fignums() == []
    assert figure.axes == [ours, other]
    assert len(other.get_children()) == children
    assert ours.get_position(original=True).bounds == position
    assert figure.legends == []
    assert figure._suptitle is None


def test_a_new_figure_without_axes():
    ax = jacobian().plot()
    assert plt.get_fignums() == [ax.figure.number]
    assert plt.gca() is ax
    ax.figure.draw_without_rendering()
    box = ax.get_tightbbox()
    width, height = ax.figure.get_size_inches() * ax.figure.dpi
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize(
    "result",
    [
        lambda: adk.jacobian(lambda x, y: x * y)(1.0, 2.0),
        lambda: adk.hessian(lambda x, y: jnp.stack([x * y, x]))(1.0, 2.0),
        lambda: adk.grad(lambda x: jnp.sum(x**2))(jnp.ones(40)),
        lambda: adk.jacobian(lambda x: jnp.outer(x, x).reshape(-1))(jnp.ones(9)),
        lambda: adk.hessian(lambda a, b: jnp.sum(a * b), blocks=[("a", "b")])(X, X),
        lambda: many(30),
        lambda: roots(),
    ],
)
def test_nothing_is_cut_off(result):
    ax = result().plot()
    ax.figure.draw_without_rendering()
    box = ax.get_tightbbox()
    width, height = ax.figure.get_size_inches() * ax.figure.dpi
    slack = 2
    assert box.x0 >= -slack
    assert box.y0 >= -slack
    assert box.x1 <= width + slack
    assert box.y1 <= height + slack


def roots():
    """A Jacobian with a mark of each kind."""

    def f(x, y):
        return {"a": jnp.sqrt(x), "b": jax.nn.relu(y)}

    return adk.jacobian(f)(jnp.zeros(2), -1.0)


@pytest.mark.parametrize(("size", "rows"), [(12, 1), (3, 3)])
def test_marks_are_named_below_one_another_where_there_is_little_room(size, rows):
    ax = roots().plot(new_axes(size, size))
    assert legend(ax) == ["zero by structure", "zero at this point", "not finite (2)"]
    ax.figure.draw_without_rendering()
    texts = ax.get_legend().get_texts()
    assert len({round(x.get_window_extent().y0 / 5) for x in texts}) == rows


def test_in_part_of_a_figure_and_with_another_style():
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, _ = figure.subfigures(1, 2)
    with mpl.rc_context({"text.color": "white", "axes.labelcolor": "white", "axes.grid": True}):
        ax = jacobian().plot(left.subplots())
    figure.draw_without_rendering()
    assert ax.title.get_color() == "white"
    assert not any(x.get_visible() for x in ax.get_xgridlines())


@pytest.mark.parametrize("name", ["f", "a_function_with_a_name_that_is_quite_long"])
def test_titles_are_inside_of_their_figure(name):
    def f(x):
        return jnp.stack([x[0] * 2, x[1] * 3])

    f.__name__ = name
    J = adk.jacobian(f)(jnp.ones(2))
    for result in (J, J.gram(), J.gram().inverse()):
        ax = result.plot()
        ax.figure.draw_without_rendering()
        box, width = ax.title.get_window_extent(), ax.figure.bbox.width
        assert -1 <= box.x0 < box.x1 <= width + 1
        assert " ".join(ax.get_title().split()) == " ".join(result._title.split())


def test_titles_stay_beside_one_another():
    def a_function_with_a_name(x):
        return x**2

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 3)
    J = adk.jacobian(a_function_with_a_name)(X)
    for ax in axes.flat:
        J.gram().plot(ax)
    figure.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in axes.flat]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_colour_bar_of_large_numbers_has_no_factor_above_it():
    ax = adk.jacobian(lambda x: 1e30 * x**2)(X).plot(new_axes())
    ax.figure.draw_without_rendering()
    bar = ax.child_axes[0]
    assert bar.yaxis.get_offset_text().get_text() == ""
    texts = [x.get_text() for x in bar.get_yticklabels()]
    assert any("e30" in text for text in texts)
    assert "0" in texts
    assert pickle.loads(pickle.dumps(ax.figure))


@pytest.mark.skipif(
    mpl.__version_info__ < (3, 11), reason="matplotlib has a font of last resort since 3.11"
)
def test_names_in_rare_scripts():
    """Without a font that has them, warnings of missing letters would be errors here."""

    def f(p):
        return p["\u8cea\u91cf"] ** 2 * p["\u901f\u5ea6"]

    p = {"\u8cea\u91cf": 2.0, "\u901f\u5ea6": 3.0}
    for draw in (
        adk.hessian(f)(p).plot,
        adk.grad(f).plan(p).plot,
        adk.check_derivatives(f)(p).plot,
    ):
        ax = draw(new_axes())
        ax.figure.draw_without_rendering()
        rare = {x for x in ax.findobj(mpl.text.Text) if "\u8cea" in x.get_text()}
        assert rare
        for text in rare:
            assert (
                text.get_fontfamily()[: len(mpl.rcParams["font.family"])]
                == (mpl.rcParams["font.family"])
            )
            assert len(text.get_fontfamily()) > len(mpl.rcParams["font.family"])
        assert ax.title.get_fontfamily() == mpl.rcParams["font.family"]


def test_figures_are_pickled_and_saved(tmp_path):
    figure = roots().plot(new_axes()).figure
    again = pickle.loads(pickle.dumps(figure))
    assert again.axes[0].get_title() == figure.axes[0].get_title()
    for suffix in ("png", "svg", "pdf"):
        again.savefig(tmp_path / f"figure.{suffix}", bbox_inches="tight", dpi=300)
        assert (tmp_path / f"figure.{suffix}").stat().st_size > 1000


def test_axes_that_were_drawn_into_before():
    ax = new_axes()
    ax.plot([0, 1000], [0, 1000])
    jacobian().plot(ax)
    assert ax.get_xlim() == (-0.5, 11.5)
    assert isinstance(ax.images[0], AxesImage)


def test_matrices_without_entries():
    J = adk.jacobian(lambda x: x[:0])(X)
    ax = J.plot(new_axes())
    assert [x.get_text() for x in ax.texts] == ["0 by 3: no entries"]


# What cannot be drawn -------------------------------------------------------------------------


def refused(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
    assert plt.get_fignums() == []


def test_options():
    J = adk.jacobian(jnp.sin)(X)
    refused(
        lambda: J.plot(kind="contour"),
        adk.SelectionError,
        "jacobian(sin).plot: there is no kind 'contour' of plot; it is one of 'auto', 'heatmap', "
        "'spy'.",
    )
    refused(
        lambda: J.plot(kind=X),
        adk.SelectionError,
        f"jacobian(sin).plot: there is no kind {X!r} of plot; it is one of 'auto', 'heatmap', "
        "'spy'.",
    )
    refused(
        lambda: adk.jacobian(jnp.sin)(jnp.ones(51)).plot(values=True),
        adk.SelectionError,
        "jacobian(sin).plot: 2601 values would not be read. Leave out values=True, or select a "
        "part with wrt= and of=.",
    )


@pytest.mark.parametrize(
    ("ax", "got"),
    [
        (3, "an int"),
        (Figure(), "a Figure"),
        (Figure().subplots(2, 2), "an array of shape [2, 2]"),
        (Figure().add_subplot(projection="polar"), "axes with the projection 'polar'"),
        (Figure().add_subplot(projection="3d"), "axes with the projection '3d'"),
    ],
)
def test_what_is_no_axes(ax, got):
    refused(
        lambda: adk.jacobian(jnp.sin)(X).plot(ax),
        adk.SelectionError,
        f"jacobian(sin).plot: ax= takes plane axes of matplotlib; got {got}. Pass one of those "
        "that plt.subplots() gives, or leave it out.",
    )


@pytest.mark.parametrize("around", [jax.jit, jax.vmap, jax.jacfwd, jax.grad])
def test_under_a_trace(around):
    def f(x):
        adk.jacobian(jnp.sin)(x).plot()
        return x

    value = 1.0 if around is jax.grad else X
    with pytest.raises(adk.StructureError, match=r"^jacobian\(sin\).plot: while JAX traces .*out"):
        around(f)(value)


def test_a_stored_result_may_be_drawn_while_another_function_is_traced():
    leaves = {f"p{i:02d}": jnp.float32(i) for i in range(20)}
    J = adk.jacobian(lambda p: {k: v**2 for k, v in p.items()})(leaves)
    assert J._blocks.is_packed

    @jax.jit
    def f(x):
        assert J.plot(new_axes()).images
        return x

    f(1.0)


def test_batched_and_mapped_results():
    batched = jax.vmap(adk.jacobian(jnp.sin))(jnp.ones((4, 3)))
    refused(
        batched.plot,
        adk.StructureError,
        "jacobian(sin).plot: a block has the shape [4, 3, 3] where the structure of the result "
        "says [3, 3]. Take one out of what jax.vmap has batched: "
        "jax.tree.map(lambda a: a[0], result).plot().",
    )
    assert jax.tree.map(lambda a: a[0], batched).plot(new_axes()).images
    mapped = jax.tree.map(str, adk.jacobian(jnp.sin)(X))
    refused(
        mapped.plot,
        adk.StructureError,
        "jacobian(sin).plot: values are drawn, and there is a str in the place of a block. Plot a "
        "result with arrays.",
    )
    shapes = jax.eval_shape(adk.jacobian(jnp.sin), X)
    with pytest.raises(adk.StructureError, match=r"float32\[3, 3\] in the place of a block"):
        shapes.plot()


def test_deleted_results():
    J = adk.jacobian(jnp.sin)(X)
    J.x.delete()
    refused(
        J.plot,
        adk.StructureError,
        "jacobian(sin).plot: a block has been donated or deleted. Plot before the result is "
        "donated (donate_argnums).",
    )


def test_a_linear_map_says_how():
    L = adk.linearize(jnp.sin)(X)
    with pytest.raises(adk.NotDifferentiatedError, match=r"'plot': it stores no .*materialise\(\)"):
        _ = L.plot
    assert L.materialise().plot(new_axes()).images
    assert L.T.materialise().plot(new_axes()).images
    assert adk.hvp(lambda x: jnp.sum(x**3))(X).materialise().plot(new_axes()).images


def test_an_argument_called_plot():
    J = adk.jacobian(lambda plot: plot**2)(X)
    np.testing.assert_array_equal(J["plot"], jnp.diag(2 * X))
    assert names(J.plot(new_axes()).xaxis) == ["plot"]


@pytest.mark.parametrize(
    ("call", "draw"),
    [
        ("jacobian(sin).plot", lambda: adk.jacobian(jnp.sin)(X).plot()),
        ("jacobian(sin).plan(...).plot", lambda: adk.jacobian(jnp.sin).plan(X).plot()),
        ("plot_function(sin)", lambda: adk.plot_function(jnp.sin, 0, 1)),
        ("check_derivatives(sin).plot", lambda: adk.check_derivatives(jnp.sin)(X).plot()),
    ],
)
def test_without_matplotlib(call, draw, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] in {"matplotlib", "mpl_toolkits"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(adk.MissingPackageError) as caught:
        draw()
    assert str(caught.value) == (
        f"{call}: plots are drawn by matplotlib, which is not installed. Run "
        "pip install autodiffkit[plot]."
    )
    assert isinstance(caught.value, ImportError)


def test_matplotlib_is_imported_when_something_is_drawn():

    code = "import sys, autodiffkit; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
