"""Plans as graphs: what is merged, where things lie, and what the artists say."""

import itertools
import pickle
import re

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import autodiffkit as adk
from autodiffkit._layers import layered
from autodiffkit._plan_graph import plan_graph
from autodiffkit._plot_plan import _text, leaf_names
from autodiffkit._plotting import CUT, PULLED, PUSHED

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    plt.close("all")


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def new_axes(width=8.0, height=4.0):
    return Figure(figsize=(width, height)).add_subplot()


def narrow(x, t):
    return t * jnp.tanh(jnp.ones((600, 4)) @ (jnp.ones((4, 800)) @ x))


def autoencoder(x, weights):
    for w in weights[:-1]:
        x = jnp.tanh(w @ x)
    return weights[-1] @ x


def network(params, x):
    for layer in params:
        x = jnp.tanh(layer["w"] @ x + layer["b"])
    return {"logits": x, "norm": jnp.sum(x**2)}


def simulate(theta, start):
    def step(state, _):
        state = state + 0.1 * jnp.tanh(theta["w"] @ state + theta["b"])
        return state, state[0]

    return jax.lax.scan(step, start, length=10)[1]


def scalars(x):
    n = x.shape[0]
    out = [x[i] * x[(7 * i + 3) % n] + jnp.sin(x[(i + 1) % n]) for i in range(n)]
    for k in range(n):
        out[k] = out[k] * out[(k + 1) % n] + jnp.exp(out[(3 * k) % n])
    return jnp.stack(out[: n // 2])


def long_chain(x):
    y = x[0]
    for i in range(300):
        y = jnp.sin(y) * x[i % 10] + y
    return y


def ladder(x):
    """Two ways side by side, with rungs between them."""
    a, b = x[:3], x[3:]
    for _ in range(60):
        a, b = jnp.sin(a) + b, jnp.cos(b) * a
    return {"a": a, "b": b}


@jax.custom_vjp
def only_pulled(x):
    return jnp.sin(x)


only_pulled.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


def only_pushed(x):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x))[1]


def pulled_then_pushed(x):
    return only_pushed(jnp.sum(only_pulled(x).reshape(3, 4), axis=0))


def pushed_then_pulled(x):
    return only_pulled(jnp.tile(only_pushed(x), 2))


def leaves(count):
    return {f"p{i:02d}": shape(2) for i in range(count)}


def all_by_all(p):
    total = sum(jnp.sum(v) for v in p.values())
    return {name: v * total for name, v in p.items()}


LAYERS = [
    {"w": shape(rows, columns), "b": shape(rows)}
    for columns, rows in itertools.pairwise([8, 16, 16, 12, 8, 4, 3])
]
WEIGHTS = [shape(r, c) for c, r in itertools.pairwise([1000, 500, 8, 500, 1000])]

PLANS = {
    "narrow": lambda: adk.jacobian(narrow).plan(shape(800), 0.5),
    "narrow forward": lambda: adk.jacobian(narrow, mode="fwd").plan(shape(800), 0.5),
    "narrow reverse": lambda: adk.jacobian(narrow, mode="rev").plan(shape(800), 0.5),
    "autoencoder": lambda: adk.jacobian(autoencoder, wrt="x").plan(shape(1000), WEIGHTS),
    "network": lambda: adk.jacobian(network).plan(LAYERS, shape(8)),
    "curvature": lambda: adk.hessian(lambda x: jnp.sum(jnp.sin(x) ** 2 * x[0])).plan(shape(5)),
    "scan": lambda: adk.jacobian(simulate).plan({"w": shape(4, 4), "b": shape(4)}, shape(4)),
    "scalars": lambda: adk.jacobian(scalars).plan(shape(30)),
    "long chain": lambda: adk.jacobian(long_chain).plan(shape(10)),
    "ladder": lambda: adk.jacobian(ladder).plan(shape(6)),
    "pulled, then pushed": lambda: adk.jacobian(pulled_then_pushed).plan(shape(12)),
    "pushed, then pulled": lambda: adk.jacobian(pushed_then_pulled).plan(shape(12)),
    "many leaves": lambda: adk.jacobian(all_by_all).plan(leaves(60)),
    "passed on": lambda: adk.jacobian(lambda x, y: {"a": x, "b": 2 * x}).plan(shape(3), shape(2)),
}
everyone = pytest.mark.parametrize("name", PLANS)


def graph_of(plan, most=24, levels=7):
    return plan_graph(plan._schedule, plan._choice, most=most, levels=levels)


def levels_of(graph):
    found = {}
    for _ in graph.nodes:
        for a, b in graph.edges:
            found[b] = max(found.get(b, 0), found.get(a, 0) + 1)
    return found


# The condensed graph --------------------------------------------------------------------------


@everyone
@pytest.mark.parametrize(("most", "levels"), [(10_000, 10_000), (24, 7), (8, 5)])
def test_the_graph_is_that_of_the_program(name, most, levels):
    plan = PLANS[name]()
    network = plan._schedule.network
    graph = graph_of(plan, most, levels)
    # Each variable is in one node, with others of its role.
    numbers = {v: i for i, node in enumerate(graph.nodes) for v in node.variables}
    assert sorted(numbers) == list(range(len(network.variables)))
    assert sum(len(node.variables) for node in graph.nodes) == graph.variables == len(numbers)
    # Each equation between two of them is an edge, and there are no others.
    edges = {
        (numbers[a], numbers[b])
        for step in network.steps
        for a, b in itertools.product(step.inputs, step.outputs)
    }
    assert set(graph.edges) == {(a, b) for a, b in edges if a != b}
    # There is no cycle, or levels would go on for ever.
    assert max(levels_of(graph).values(), default=0) < len(graph.nodes)
    sources, targets = map(set, network.ends)
    for node in graph.nodes:
        assert {v in sources for v in node.variables} == {node.role.is_source}
        assert {v in targets for v in node.variables} == {node.role.is_target}


@everyone
def test_directions_and_sweeps(name):
    plan = PLANS[name]()
    graph = graph_of(plan)
    directions = [node.directions for node in graph.nodes]
    assert sum(x.pushed for x in directions) == plan.forward_sweeps
    assert sum(x.pulled for x in directions) == plan.reverse_sweeps
    assert all(node.role.is_cut == (node.directions != (0, 0)) for node in graph.nodes)
    modes = {mode for found in graph.edges.values() for mode in found}
    assert modes == {"fwd", "rev", "mixed"}.intersection(
        ["fwd", "rev"] if plan.mode == "mixed" else [plan.mode]
    )
    assert all(graph.edges.values())


@everyone
def test_large_programs_are_condensed(name):
    graph = graph_of(PLANS[name]())
    assert len(graph.nodes) <= 24
    assert max(levels_of(graph).values()) <= 8


def test_what_is_merged():
    plan = PLANS["autoencoder"]()
    graph = graph_of(plan)
    assert graph.variables == len(plan._schedule.network.variables) > len(graph.nodes)
    kinds = [(node.role.is_source, node.role.is_cut, node.role.is_target) for node in graph.nodes]
    assert len(graph.nodes) == 5
    assert kinds[0] == (True, False, False)
    assert kinds.count((False, True, False)) == 1
    (cut,) = (node for node in graph.nodes if node.role.is_cut)
    assert cut.directions == (8, 8)
    before = {a for a, b in graph.edges if graph.edges[a, b] == {"rev"}}
    after = {b for a, b in graph.edges if graph.edges[a, b] == {"fwd"}}
    assert before.isdisjoint(after)


def test_layers_of_a_network_stay_apart():
    graph = graph_of(PLANS["network"]())
    inputs = [node for node in graph.nodes if node.role.is_source]
    assert len(inputs) == 13
    # Each bias is read in a layer of its own.
    readers = {b for a, b in graph.edges if graph.nodes[a] in inputs}
    assert len(readers) >= 5


def test_many_inputs_and_outputs_are_merged():
    graph = graph_of(PLANS["many leaves"]())
    assert sum(node.role.is_source for node in graph.nodes) < 20
    assert len(graph.nodes) <= 24


def test_variables_of_a_cut_before_and_after_one_another():
    """Merged, they would be on both sides of what is between them."""

    def f(x):
        outs = []
        for i in range(40):
            y = jnp.sum(x[i : i + 5] ** 2)
            x = x * jnp.sin(y)
            outs.append(y)
        return jnp.stack(outs)

    plan = adk.jacobian(f).plan(shape(60))
    graph = graph_of(plan)
    assert len(graph.nodes) <= 24
    assert max(levels_of(graph).values(), default=0) < len(graph.nodes)


# The layout -----------------------------------------------------------------------------------


def overlap(places, sizes):
    boxes = [
        (x - w / 2, x + w / 2, y - h / 2, y + h / 2)
        for (x, y), (w, h) in zip(places, sizes, strict=True)
    ]
    return [
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(boxes), 2)
        if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
    ]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_overlaps_and_edges_go_to_the_right(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 30))
    sizes = [tuple(x) for x in random.uniform(0.2, 1.5, (count, 2))]
    pairs = itertools.combinations(range(count), 2)
    edges = [pair for pair in pairs if random.random() < 3 / count]
    layout = layered(sizes, edges, [count - 1])
    assert overlap(layout.places, sizes) == []
    for (a, b), route in layout.routes.items():
        assert route[0] == (layout.places[a][0] + sizes[a][0] / 2, layout.places[a][1])
        assert route[-1] == (layout.places[b][0] - sizes[b][0] / 2, layout.places[b][1])
        assert all(p[0] < q[0] or p == q for p, q in itertools.pairwise(route))


def test_a_chain_is_a_line():
    layout = layered([(1.0, 0.5)] * 5, list(itertools.pairwise(range(5))))
    assert len({y for _, y in layout.places}) == 1
    assert [x for x, _ in layout.places] == sorted(x for x, _ in layout.places)


def test_an_edge_goes_around_what_it_passes():
    edges = [(0, 1), (1, 2), (2, 3), (0, 3)]
    sizes = [(1.0, 0.5)] * 4
    layout = layered(sizes, edges)
    middle = [y for x, y in layout.routes[0, 3][1:-1]]
    assert all(abs(y - layout.places[k][1]) > 0.25 for y in middle for k in (1, 2))


def test_crossings_are_avoided():
    edges = [(0, 5), (1, 4), (2, 3), (3, 6), (4, 7), (5, 8)]
    layout = layered([(1.0, 0.5)] * 9, edges)
    order = [sorted(row, key=lambda v: layout.places[v][1]) for row in ([0, 1, 2], [3, 4, 5])]
    assert [dict(edges)[v] for v in order[0]] == order[1]


def test_inputs_are_near_to_what_reads_them_and_outputs_at_the_end():
    edges = [(0, 1), (1, 2), (2, 3), (4, 3), (1, 5)]
    layout = layered([(1.0, 0.5)] * 6, edges, [3, 5])
    x = [place[0] for place in layout.places]
    assert x[4] == x[2]
    assert x[5] == x[3]


# What is drawn --------------------------------------------------------------------------------


def boxes(ax):
    return [x for x in ax.patches if isinstance(x, FancyBboxPatch)]


def arrows(ax):
    """Start and end of each arrow, with its colour."""
    return [
        (tuple(v[0]), tuple(v[-1]), mpl.colors.to_hex(x.get_edgecolor()))
        for x in ax.patches
        if isinstance(x, FancyArrowPatch)
        for v in [x._path_original.vertices]
    ]


def texts(ax):
    return [x.get_text() for x in ax.texts]


def test_the_cut_and_the_sweeps():
    plan = PLANS["narrow"]()
    ax = plan.plot(new_axes())
    assert ax.get_title() == "Plan of jacobian(narrow): mixed mode"
    assert {"x\n800", "t\nscalar", "output\n600", "dot_general\n4"} <= set(texts(ax))
    yellow = [x for x in boxes(ax) if mpl.colors.to_hex(x.get_facecolor()) == CUT]
    assert len(yellow) == 2
    assert {"← 4 pulled", "4 pushed →", "1 pushed →"} <= set(texts(ax))
    assert f"{len(plan._schedule.network.variables)} variables in 6 nodes" in texts(ax)
    for start, end, colour in arrows(ax):
        assert (colour == PUSHED) == (start[0] < end[0])
        assert (colour == PULLED) == (start[0] > end[0])
    assert [x.get_text() for x in ax.get_legend().get_texts()] == [
        "swept from",
        "pulled back",
        "pushed forward",
    ]


def test_what_was_merged_is_named():
    def waists(x):
        parts = [x[200 * i : 200 * (i + 1)] for i in range(4)]
        sums = [jnp.sum(jnp.tanh(part * (i + 1))) for i, part in enumerate(parts)]
        return {f"o{i}": jnp.sin(s * jnp.arange(300.0)) ** 2 for i, s in enumerate(sums)}

    plan = adk.jacobian(waists).plan(shape(800))
    graph = graph_of(plan, most=9)
    (cut,) = (node for node in graph.nodes if node.role.is_cut)
    part = plan._drawn("")
    assert _text(part, cut, leaf_names(part)) == "reduce_sum\n4 operations\n4 entries"
    (before,) = (graph.nodes[a] for a, b in graph.edges if graph.nodes[b] is cut)
    # How many steps the derivative of tanh takes depends on the version of JAX.
    text = _text(part, before, leaf_names(part))
    count = len(before.variables)
    assert count in {20, 12}
    assert re.fullmatch(rf"slice(, | … )mul\n{count} operations\n200 entries each", text), text


@pytest.mark.parametrize(
    ("name", "start", "colour"),
    [("narrow forward", "x\n800", PUSHED), ("narrow reverse", "output\n600", PULLED)],
)
def test_plain_modes_are_cut_at_their_ends(name, start, colour):
    ax = PLANS[name]().plot(new_axes())
    (text,) = (x for x in ax.texts if x.get_text() == start)
    yellow = [x for x in boxes(ax) if mpl.colors.to_hex(x.get_facecolor()) == CUT]
    assert any(x.get_path().contains_point(text.get_position()) for x in yellow)
    assert {found for _, _, found in arrows(ax)} == {colour}


def test_different_names_stay_different():
    leaves = {f"decay_constant_of_channel_{i}_in_the_upper_array": shape() for i in range(4)}

    def f(p):
        return {f"{name}_is_known": jnp.sin(v) * (i + 1) for i, (name, v) in enumerate(p.items())}

    ax = adk.jacobian(f).plan(leaves).plot(new_axes(20, 8))
    ends = [x for x in texts(ax) if x.endswith("scalar") and "array" in x]
    assert len(ends) == len(set(ends)) == 8


def test_chains_change_their_direction():
    ax = PLANS["pushed, then pulled"]().plot(new_axes())
    colours = {colour for _, _, colour in arrows(ax)}
    assert colours == {PUSHED, PULLED}
    assert {"12 pushed →", "← 24 pulled"} <= set(texts(ax))


@everyone
def test_everything_is_inside_of_its_axes_and_texts_of_their_boxes(name):
    ax = PLANS[name]().plot()
    figure = ax.figure
    figure.draw_without_rendering()
    box = ax.get_tightbbox()
    width, height = figure.get_size_inches() * figure.dpi
    assert box.x0 >= -2
    assert box.y0 >= -2
    assert box.x1 <= width + 2
    assert box.y1 <= height + 2
    assert width <= 1500
    drawn = [x.get_window_extent() for x in boxes(ax)]
    for text in ax.texts:
        if text.get_transform() == ax.transData and "pu" not in text.get_text():
            inner = text.get_window_extent()
            assert any(
                b.x0 - 1 <= inner.x0
                and inner.x1 <= b.x1 + 1
                and b.y0 - 1 <= inner.y0
                and inner.y1 <= b.y1 + 1
                for b in drawn
            ), text.get_text()
    assert len(drawn) <= 24


def test_text_is_smaller_in_small_axes():
    plan = PLANS["network"]()
    large = plan.plot(new_axes(20, 8)).texts[0].get_fontsize()
    assert 5 <= plan.plot(new_axes(5, 2)).texts[0].get_fontsize() < large


@pytest.mark.parametrize("layout", ["constrained", None])
def test_plans_in_small_axes(layout):
    figure = Figure(figsize=(11, 6), layout=layout)
    axes = figure.subplots(2, 3)
    for ax, name in zip(axes.flat, PLANS, strict=False):
        PLANS[name]().plot(ax)
    figure.draw_without_rendering()
    titles = [ax.title.get_window_extent() for ax in axes.flat]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))
    for ax in axes.flat:
        if layout is not None:
            assert min(text.get_fontsize() for text in ax.texts) >= 4.6
        assert len(boxes(ax)) >= 3


def test_parts_are_drawn_below_one_another():
    def f(a, b, c):
        return jnp.sum(a * b**2) * c**3

    plan = adk.hessian(f, blocks=[("a", "b"), ("c", "c")]).plan(shape(3), shape(3), shape())
    ax = plan.plot(new_axes())
    headings = [x for x in ax.texts if x.get_text().startswith("part ")]
    assert [x.get_text() for x in headings] == ["part 1: forward mode", "part 2: forward mode"]
    assert headings[0].get_position()[1] > headings[1].get_position()[1]
    centres = [(x.get_bbox().x0, x.get_bbox().y0) for x in boxes(ax)]
    assert len(centres) == len(set(centres)) == 6
    pairs = [(f"x.a{i}", f"x.b{i}") for i in range(5)]

    def g(x):
        return sum(x[f"a{i}"] ** 2 * x[f"b{i}"] for i in range(5))

    arguments = {name: shape() for i in range(5) for name in (f"a{i}", f"b{i}")}
    plan = adk.hessian(g, blocks=pairs).plan(arguments)
    assert len(plan.parts) == 5
    with pytest.raises(adk.StructureError, match=r"in 5 parts.*plan\.parts\[0\]\.plot\(\)"):
        plan.plot()
    assert boxes(plan.parts[0].plot(new_axes()))


def test_nothing_is_swept():
    ax = adk.jacobian(lambda x: jnp.ones(3)).plan(shape(3)).plot(new_axes())
    assert "nothing is swept: no output depends on an input" in texts(ax)


def test_a_pickled_plan_has_lost_its_program():
    plan = pickle.loads(pickle.dumps(PLANS["narrow"]()))
    with pytest.raises(adk.StructureError) as caught:
        plan.plot()
    assert str(caught.value) == (
        "jacobian(narrow).plan(...).plot: a plan that was pickled has kept its text and lost its "
        "program. Plot before it is pickled, or make it again with .plan(...)."
    )


def test_only_the_axes_that_were_passed_change():
    figure = Figure(figsize=(8, 4))
    ours, other = figure.subplots(1, 2)
    assert PLANS["narrow"]().plot(ours) is ours
    assert plt.get_fignums() == []
    assert figure.axes == [ours, other]
    assert not other.patches
    with pytest.raises(adk.SelectionError, match=r"plan\(\.\.\.\)\.plot: ax= takes plane axes"):
        PLANS["narrow"]().plot(figure)
