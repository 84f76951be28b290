"""What results look like: in terminals of any width, in notebooks, in treescope, under tracing."""

import functools
import html
import html.parser
import os
import pickle
import re
import subprocess
import sys
import time
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import treescope
from jax import lax
from jaxtyping import Array, Float

import autodiffkit as adk
from autodiffkit._display_text import Column, Table, table_lines
from autodiffkit._fitting import shortened, terminal_width, width_of, wrapped

# Functions and results -----------------------------------------------------------------------


def network(x, parameters, temperature):
    for layer in parameters["layers"]:
        x = jnp.tanh(x @ layer["attention"]["weight"] + layer["attention"]["bias"][None])
    return {"logits": x * temperature, "size": jnp.sum(parameters["scale"] ** 2)}


def parameters(count=3):
    layer = {"attention": {"weight": jnp.eye(4) / 2, "bias": jnp.ones(4)}}
    return {"layers": [layer] * count, "scale": jnp.ones(3)}


NETWORK = jnp.ones((5, 4)), parameters(), jnp.array(2.0)
LEAVES = [
    "x",
    *(f"parameters.layers.{i}.attention.{name}" for i in range(3) for name in ("bias", "weight")),
    "parameters.scale",
    "temperature",
]


def dense(
    x: Float[Array, "batch n"], w: Float[Array, "n hidden"], b: Float[Array, "hidden"]
) -> Float[Array, "batch hidden"]:
    return jnp.tanh(x @ w + b[None])


DENSE = jnp.ones((5, 4)), jnp.ones((4, 2)), jnp.ones(2)


def apart(x, y):
    """Two blocks of its Jacobian are zero whatever the arguments are, one is at zero."""
    return {"a": x**2, "b": jnp.sum(y)}


def every_kind():
    """One of each kind that shows itself."""
    J = adk.jacobian(network)(*NETWORK)
    H = adk.hessian(lambda x, y: x @ x * y)(jnp.ones(2), 3.0)
    L = adk.linearize(network)(*NETWORK)
    return {
        "jacobian": J,
        "annotated": adk.jacobian(dense)(*DENSE),
        "part": J.of("logits"),
        "gradient": adk.grad(lambda a, b: a * b)(1.5, 2.0),
        "hessian": H,
        "row": H.x,
        "symmetric": J.of("size").gram(),
        "compact": adk.jacobian(dense, layout="compact", wrt="x")(*DENSE),
        "blocks": adk.hessian(lambda x, y: x @ x * y, blocks="diagonal")(jnp.ones(2), 3.0),
        "map": L,
        "composed": 2 * (L.T @ L) + L.T @ L,
        "hvp": adk.hvp(lambda x: jnp.sum(x**3))(jnp.ones(3)),
        "laplacian": adk.laplacian(lambda x: jnp.sum(x**3))(jnp.ones(3)),
        "divergence": adk.divergence(jnp.sin)(jnp.ones(3)),
        "curl": adk.curl(jnp.sin)(jnp.ones(3)),
        "line": adk.directional_derivative(jnp.sin)(jnp.ones(3), direction=jnp.ones(3)),
        "diagonal": adk.hessian_diagonal(lambda x, y: x @ x * y)(jnp.ones(2), 3.0),
        "plan": adk.jacobian(network).plan(*NETWORK),
        "parts": adk.hessian(lambda x, y: x @ x * y, blocks="diagonal").plan(jnp.ones(2), 3.0),
        "operator_plan": adk.laplacian(lambda x: jnp.sum(x**3)).plan(jnp.ones(3)),
        "check": adk.check_derivatives(dense)(*DENSE),
        "nonfinite": adk.find_nonfinite(lambda x: jnp.sqrt(jnp.sum(x**2)))(jnp.zeros(3)),
        "finding": adk.find_nonfinite(lambda x: jnp.sqrt(jnp.sum(x**2)))(jnp.zeros(3)).first,
        "annotations": adk.jacobian(dense).annotations,
        "compiled": adk.jacobian(network).compile(*NETWORK),
    }


@pytest.fixture(scope="module")
def kinds():
    return every_kind()


KINDS = [
    *("jacobian", "annotated", "part", "gradient", "hessian", "row", "symmetric", "compact"),
    *("blocks", "map", "composed", "hvp", "laplacian", "divergence", "curl", "line", "diagonal"),
    *("plan", "parts", "operator_plan", "check", "nonfinite", "finding", "annotations", "compiled"),
]


def test_every_kind_is_here(kinds):
    assert [*kinds] == KINDS


def at(width, result, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    return str(result)


# Widths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("kind", KINDS)
def test_no_line_is_longer_than_the_terminal(kinds, kind, width, monkeypatch):
    lines = at(width, kinds[kind], monkeypatch).split("\n")
    assert max(map(width_of, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [24, 30, 40, 50, 60, 70, 80, 100, 120])
def test_two_paths_never_look_the_same(kinds, width, monkeypatch):
    text = at(width, kinds["jacobian"], monkeypatch)
    if "…" not in text:  # names are whole, perhaps on several lines
        joined = re.sub(r"\n *", "", text)
        assert all(path in joined for path in LEAVES)
        return
    rows = [line.split("  ")[1:3] for line in re.sub(r"  +", "  ", text).split("\n")[2:]]
    assert len({tuple(row) for row in rows}) == len(rows) == 2 * len(LEAVES)


def test_a_table_in_terminals_of_several_widths(kinds, monkeypatch):
    J = kinds["annotated"]
    assert at(100, J, monkeypatch) == (
        "Jacobian of dense, 10 by 30\n"
        "  of      with respect to  block                annotation\n"
        '  output  x                float32[5, 2, 5, 4]  Float[Array, "batch hidden batch n"]\n'
        '  output  w                float32[5, 2, 4, 2]  Float[Array, "batch hidden n hidden"]\n'
        '  output  b                float32[5, 2, 2]     Float[Array, "batch hidden hidden"]'
    )
    assert at(80, J, monkeypatch).split("\n")[1] == "  of      wrt  block                annotation"
    assert at(60, J, monkeypatch).split("\n")[1:4] == [
        "  of      wrt  block",
        "  output  x    float32[5, 2, 5, 4]",
        '      Float[Array, "batch hidden batch n"]',
    ]
    assert at(26, J, monkeypatch).split("\n")[:6] == [
        "Jacobian of dense, 10 by",
        "    30",
        "  of output  wrt x",
        "      block float32[5, 2,",
        "        5, 4]",
        '      Float[Array, "batch',
    ]


def test_long_paths_are_cut_in_the_middle(kinds, monkeypatch):
    rows = at(60, kinds["jacobian"], monkeypatch).split("\n")[2:]
    assert [row.split()[1] for row in rows[:3]] == [
        "x",
        "paramete…0.attention.bias",
        "parame…0.attention.weight",
    ]
    whole = at(120, kinds["jacobian"], monkeypatch)
    assert all(path in whole for path in LEAVES)
    assert "…" not in whole


def test_without_a_terminal_there_are_80_columns(kinds, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(sys, "__stdout__", None)  # whose terminal it would be
    assert terminal_width() == 80
    text = repr(kinds["jacobian"])
    assert text == at(80, kinds["jacobian"], monkeypatch)


@pytest.mark.parametrize("nonsense", ["0", "-3", "wide", "1"])
def test_nonsense_for_a_width_does_no_harm(kinds, nonsense, monkeypatch):
    assert at(nonsense, kinds["jacobian"], monkeypatch).startswith("Jacobian of")


def test_shortened_names_stay_apart():
    names = [f"layers.{i}.weight" for i in range(12)]
    assert shortened(names, 17) == names
    assert shortened(names, 10) == [f"…{i}.weight" for i in range(12)]
    assert shortened(names, 5) == [f"…{i}.…" for i in range(12)]
    assert shortened(names, 4) is None
    heads = [f"{i}{'a' * 30}" for i in range(5)]
    assert len({*shortened(heads, 8)}) == 5
    assert all(width_of(x) == 8 for x in shortened(heads, 8))
    same = ["a" * 30, "a" * 30, "b"]
    assert shortened(same, 9)[0] == shortened(same, 9)[1]


WEIGHTS = [f"weight_matrix_of_the_{x}_hidden_layer" for x in ("first", "third", "other")]


@pytest.mark.parametrize(
    ("width", "first"),
    [
        (39, "weight_matrix_of_the_first_hidden_layer"),
        (30, "weight_…first_hidden_layer"),
        (20, "…first_hidden_layer"),
        (18, "…of_the_first_…"),
        (14, "…the_first_…"),
        (8, "…first_…"),
    ],
)
def test_names_are_cut_between_words(width, first):
    expected = [first, first.replace("first", "third"), first.replace("first", "other"), "x"]
    assert shortened([*WEIGHTS, "x"], width) == expected


def test_names_are_cut_inside_of_words_only_where_it_tells_them_apart():
    names = ["a" * 30 + "_one", "b" * 30 + "_one"]
    assert shortened(names, 10) == ["aaaaaa…one", "bbbbbb…one"]


def test_names_of_several_columns_are_told_apart(monkeypatch):
    def f(first_weight_matrix_of_the_layer, other_weight_matrix_of_the_layer):
        return first_weight_matrix_of_the_layer * other_weight_matrix_of_the_layer

    H = adk.hessian(f)(1.0, 2.0)
    row = H.first_weight_matrix_of_the_layer
    text = at(76, row, monkeypatch).split("\n")[2:]
    names = [line.split()[1:3] for line in text]
    assert names[0][0].startswith("first_…")
    assert names[0][0] == names[1][0] != names[1][1]


def test_long_words_are_wrapped_after_a_separator():
    assert wrapped("wrt " + WEIGHTS[0], 30, 2) == [
        "wrt",
        "  weight_matrix_of_the_first_",
        "  hidden_layer",
    ]
    place = "dot_general at equinox/nn/_linear.py:97:12"
    assert wrapped(place, 24, 2) == ["dot_general at", "  equinox/nn/", "  _linear.py:97:12"]


def test_what_is_wrapped_is_whole():
    text = "several words of which one isverymuchlongerthanthelinesare and more"
    for width in range(4, 70):
        lines = wrapped(text, width, 2)
        assert max(map(len, lines)) <= width
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_names_take_what_room_there_is():
    columns = Column("of", "name"), Column("by", "name"), Column("block")
    rows = (("short", "first" + "a" * 40, "float"), ("short", "second" + "a" * 40, "float"))
    (_, first, second) = table_lines(Table(columns, rows), 40)
    assert len(first) == len(second) == 40
    assert first.startswith("short  firstaaa")
    assert first.endswith("aaa  float")


# Zeros ---------------------------------------------------------------------------------------


def zeros(result):
    """The rows that say so, by their names."""
    rows = [row.split("  ") for row in repr(result).split("\n")[2:] if "(zero)" in row]
    return [tuple(filter(None, (cell.strip() for cell in row)))[:-1] for row in rows]


BOTH = [("a", "y"), ("b", "x")]


def test_blocks_that_are_zero_in_any_case_are_said_to_be():
    x, y = jnp.zeros(3), jnp.ones(2)
    J = adk.jacobian(apart)(x, y)
    np.testing.assert_array_equal(J.x["a"], 0.0)  # here, and not everywhere
    assert zeros(J) == BOTH
    for mode in ("fwd", "rev"):
        assert zeros(adk.jacobian(apart, mode=mode)(x, y)) == BOTH
    assert zeros(adk.jacobian(apart, layout="compact")(x, y)) == BOTH
    assert zeros(adk.linearize(apart)(x, y).materialise()) == BOTH
    assert zeros(J.of("b")) == [("output", "x")]
    assert zeros(adk.jacobian(apart, of="a")(x, y)) == [("a", "y")]
    assert zeros(adk.jacobian(apart, wrt="x")(x, y)) == [("b", "x")]
    plan = adk.jacobian(apart).plan(x, y)
    assert [*plan.zeros] == BOTH


def test_zeros_of_second_derivatives():
    def f(x, y, z):
        return {"a": x**2 * y, "b": z**2}

    H = adk.hessian(f)(1.0, 2.0, 3.0)
    by_a = [("x", "z"), ("y", "y"), ("y", "z"), ("z", "x"), ("z", "y"), ("z", "z")]
    by_b = [(p, q) for p in "xyz" for q in "xyz" if (p, q) != ("z", "z")]
    assert zeros(H) == [*(("a", *pair) for pair in by_a), *(("b", *pair) for pair in by_b)]
    assert zeros(H.y) == [("a", "y", "y"), ("a", "y", "z"), *(("b", "y", q) for q in "xyz")]
    assert zeros(H.of("a")) == [("output", *pair) for pair in by_a]
    assert zeros(H.of("a").grad) == [("output", "z")]
    some = adk.hessian(f, blocks=[("x", "y"), ("z", "z"), ("x", "z")])(1.0, 2.0, 3.0)
    assert zeros(some) == [("a", "x", "z"), ("a", "z", "z"), ("b", "x", "y"), ("b", "x", "z")]
    L = adk.hvp(f, of="a")(1.0, 2.0, 3.0)
    assert zeros(L.materialise()) == [("output", *pair) for pair in by_a]


def test_zeros_inside_of_a_container():
    H = adk.hessian(lambda p, x: p["u"] * x + p["v"] ** 2)({"u": 1.0, "v": 2.0}, 3.0)
    assert zeros(H.p) == [
        ("output", "p.u", "p.u"),
        ("output", "p.u", "p.v"),
        ("output", "p.v", "p.u"),
        ("output", "p.v", "x"),
    ]
    assert zeros(H.p["v"]) == [("output", "p.v", "p.u"), ("output", "p.v", "x")]


def test_zeros_of_many_blocks():
    state = {f"k{i}": jnp.float32(i) for i in range(12)}

    def f(state):
        return {name: value**2 for name, value in state.items()}

    J = adk.jacobian(f)(state)
    assert len(J._blocks._arrays) == 1  # of 144
    assert zeros(J) == [
        (f"k{i}", f"state.k{j}") for i in [0, 1] for j in [0, 1, 10, 11, *range(2, 10)] if i != j
    ]
    expected = [("output", f"state.{name}") for name in sorted(state) if name != "k3"]
    assert zeros(J.of("k3")) == expected


def test_zeros_through_transformations():
    x, y = jnp.ones(3), jnp.ones(2)
    J = adk.jacobian(apart)(x, y)
    again = pickle.loads(pickle.dumps(J))
    jitted = jax.jit(adk.jacobian(apart))(x, y)
    traced = jax.eval_shape(adk.jacobian(apart), x, y)
    batched = jax.vmap(adk.jacobian(apart))(jnp.stack([x, x]), jnp.stack([y, y]))
    scanned, _ = lax.scan(lambda J, _: (adk.jacobian(apart)(2 * x, y), None), J, length=2)
    doubled = jax.tree.map(lambda block: 2 * block, J)
    for result in (again, jitted, traced, batched, scanned, doubled):
        assert zeros(result) == BOTH
    assert jax.tree.structure(J) == jax.tree.structure(jitted) == jax.tree.structure(again)
    assert hash(jax.tree.structure(J)) == hash(jax.tree.structure(jitted))


def test_a_block_that_was_zero_is_not_said_to_be():
    J = adk.jacobian(apart)(jnp.ones(3), jnp.ones(2))
    for change in (lambda block: block + 1, lambda block: np.asarray(block) + 1, jnp.isnan):
        changed = jax.tree.map(change, J)
        assert zeros(changed) == []
        assert "(zero)" not in changed._repr_html_()
    assert zeros(jax.device_get(J)) == BOTH
    assert zeros(J.from_matrix(J.as_matrix())) == []


def test_the_structure_does_not_depend_on_what_is_zero():
    def f(x, y):
        return x * y if x > 0 else x  # which is another program

    first, second = adk.jacobian(f)(1.0, 2.0), adk.jacobian(f)(-1.0, 2.0)
    assert (zeros(first), zeros(second)) == ([], [("output", "y")])
    assert jax.tree.structure(first) == jax.tree.structure(second)
    stacked = jax.tree.map(lambda *blocks: jnp.stack(blocks), first, second)
    assert zeros(stacked) == []
    same = jax.jit(lambda J: J)
    same(second)
    assert zeros(same(first)) == []  # compiled for the one with zeros


# Numbers -------------------------------------------------------------------------------------


def test_the_numbers_of_small_derivatives_are_shown():
    assert repr(adk.grad(lambda a, b: a**2 * b)(1.5, 2.0)) == (
        "Gradient of <lambda>, 1 by 2\n"
        "  of      with respect to  block      values\n"
        "  output  a                float32[]  6\n"
        "  output  b                float32[]  2.25"
    )
    J = adk.jacobian(lambda x: x**3)(jnp.array([1.0, 123456.0]))
    assert "  [[3, 0], [0, 4.572e+10]]" in repr(J)
    z = adk.jacobian(lambda z: z * (1 + 2j), holomorphic=True)(1j)
    assert repr(z).endswith("complex64[]  1+2j")


def test_they_are_left_out_where_some_are_many_or_there_is_no_room(monkeypatch):
    assert "values" not in repr(adk.grad(lambda x, y: x @ x * y)(jnp.ones(9), 1.0))
    many = {f"k{i}": 1.0 for i in range(30)}
    assert "values" not in repr(adk.grad(lambda t: sum(t.values()))(many))
    J = adk.jacobian(lambda x: x**3)(jnp.ones(2))
    assert "values" in at(60, J, monkeypatch)
    assert "values" not in at(45, J, monkeypatch)


# Batches -------------------------------------------------------------------------------------


def test_a_batch_says_how_many_times_there_is_a_matrix():
    x, y = jnp.ones((4, 3)), jnp.ones((4, 2))
    assert repr(jax.vmap(adk.grad(lambda x: x**3))(jnp.arange(4.0))) == (
        "Gradient of <lambda>, 4 times 1 by 1\n"
        "  of      with respect to  block       values\n"
        "  output  x                float32[4]  [0, 3, 12, 27]"
    )
    J = jax.vmap(adk.jacobian(apart))(x, y)
    twice = jax.vmap(jax.vmap(adk.jacobian(apart)))(x[None], y[None])
    packed = jax.vmap(adk.jacobian(lambda t: jax.tree.map(jnp.sin, t)))([x[:, 0]] * 9)
    compact = jax.vmap(adk.jacobian(dense, layout="compact", wrt="x"), in_axes=(0, None, None))(
        jnp.ones((6, 5, 4)), *DENSE[1:]
    )
    assert len(packed._blocks._arrays) == 1
    assert titles(J, twice, packed, compact) == [
        "Jacobian of apart, 4 times 4 by 5",
        "Jacobian of apart, 1 times 4 times 4 by 5",
        "Jacobian of <lambda>, 4 times 9 by 9",
        "Jacobian of dense, 6 times 10 by 20",
    ]
    H = jax.vmap(adk.hessian(lambda x, y: x * y))(x, y[:, 0])
    some = jax.vmap(adk.hessian(lambda x, y: x @ x * y, blocks="diagonal"))(x, y[:, 0])
    assert titles(H, H.of(""), some) == [
        *["Hessian of <lambda>, 4 times 3 times 4 by 4"] * 2,
        "Hessian of <lambda>, 4 times 4 by 4",
    ]


def titles(*results):
    """The first lines, which pages say, too."""
    found = [repr(result).split("\n")[0] for result in results]
    assert all(f">{title}<" in page_of(r) for title, r in zip(found, results, strict=True))
    return found


def page_of(result):
    return html.unescape(result._repr_html_())


def test_without_the_same_axes_before_all_blocks_there_is_no_size():
    x, y = jnp.ones((4, 3)), jnp.ones((4, 2))
    J = jax.vmap(adk.jacobian(apart))(x, y)
    leaves, structure = jax.tree.flatten(J)
    for changed in (
        jax.tree.unflatten(structure, [leaves[0][0], *leaves[1:]]),
        jax.tree.unflatten(structure, [leaves[0][:, :2], *leaves[1:]]),
        jax.tree.map(lambda _: None, J),
        jax.tree.map(lambda _: "text", J),
    ):
        assert titles(changed) == ["Jacobian of apart"]


def test_a_picture_says_of_how_many_matrices_it_is():
    def note(result):
        page = page_of(result)
        (after,) = re.findall("</svg>(.*)", page)
        return re.sub("<[^>]*>", "", after)

    x, y = jnp.ones(3), jnp.ones(2)
    each = "A stack of 3 matrices, one for each entry of the output"
    assert note(adk.jacobian(apart)(x, y)) == ""
    assert note(adk.hessian(lambda x, y: x @ x * y)(x, 2.0)) == ""
    assert note(adk.hessian(lambda x, y: x * y)(x, 2.0)) == each
    several = "One output below the other"
    assert note(adk.hessian(lambda x, y: (x * y, y))(x, 2.0)) == (
        f"{several}; of each a stack of matrices, one for each entry"
    )
    assert note(adk.hessian(lambda x, y: (x * y, y))(1.0, 2.0)) == several
    J = jax.vmap(adk.jacobian(apart))(jnp.stack([x] * 4), jnp.stack([y] * 4))
    assert note(J) == "A stack: 4 of these along the first axis"
    twice = jax.vmap(jax.vmap(adk.jacobian(apart)))(jnp.ones((2, 4, 3)), jnp.ones((2, 4, 2)))
    assert note(twice) == "A stack: 2 times 4 of these along the first 2 axes"
    assert "<title>a by x: [4, 3, 3]</title>" in page_of(J)
    H = jax.vmap(adk.hessian(lambda x, y: x * y))(jnp.ones((4, 3)), jnp.ones(4))
    assert note(H) == f"{each}; 4 of these along the first axis"


# Tracing -------------------------------------------------------------------------------------

TRACED = {
    "jacobian": adk.jacobian(apart),
    "grad": adk.grad(lambda x, y: x @ x * jnp.sum(y)),
    "hessian": adk.hessian(lambda x, y: x @ x * jnp.sum(y)),
    "linearize": adk.linearize(apart),
    "scaled": lambda x, y: x[0] * adk.linearize(apart)(x, y),
    "row": lambda x, y: adk.hessian(lambda x, y: x @ x * jnp.sum(y))(x, y).x,
    "laplacian": adk.laplacian(lambda x, y: x @ x * jnp.sum(y)),
    "divergence": adk.divergence(lambda x: x**2),
    "diagonal": adk.hessian_diagonal(lambda x, y: x @ x * jnp.sum(y)),
    "packed": lambda x, y: adk.jacobian(lambda t: jax.tree.map(jnp.sin, t))([x[0]] * 9),
    "gram": lambda x, y: adk.jacobian(apart)(x, y).gram(),
}


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("trace", [jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_under_a_trace_there_are_shapes(name, trace):
    transform = TRACED[name]
    shown = []

    def f(x, y):
        result = transform(x, y) if name != "divergence" else transform(x)
        shown.append((repr(result), result._repr_html_(), treescope.render_to_text(result)))
        return x

    x, y = jnp.full(3, 0.123), jnp.full(2, 0.123)
    trace(f)(*((x, y) if trace is jax.jit else (jnp.stack([x, x]), jnp.stack([y, y]))))
    for text in shown[0]:
        assert "float32[" in text or "ShapeDtypeStruct" in text
        assert "Trace" not in text  # as tracers print themselves
        assert "cannot be shown" not in text
        assert "0.123" not in text


def test_looking_at_a_result_adds_nothing_to_a_program():
    def f(x, y, *, look):
        J = adk.jacobian(apart)(x, y)
        if look:
            repr(J), J._repr_html_(), treescope.render_to_text(J)
        return J.x

    args = jnp.ones(3), jnp.ones(2)
    seen, unseen = (
        jax.make_jaxpr(functools.partial(f, look=look))(*args) for look in (True, False)
    )
    assert str(seen) == str(unseen)


# Names ---------------------------------------------------------------------------------------


def test_wide_and_combining_characters_are_counted():
    assert [width_of(text) for text in ("abc", "温度", "e\u0301", "ｆ", "")] == [3, 4, 1, 2, 0]
    keys = ["值", "été", "e\u0301t", "plain", "ｗｉｄｅ"]
    G = adk.grad(lambda 温度: sum(温度.values()))(dict.fromkeys(keys, 1.0))
    rows = repr(G).split("\n")[2:]
    assert len({width_of(row[: row.index("float32")]) for row in rows}) == 1


def test_cutting_keeps_marks_with_their_letters():
    names = [f"{mark}e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301温度温度{mark}" for mark in "ab"]
    for width in range(3, 17):
        for text in shortened(names, width):
            assert width_of(text) <= width
            _, cut, end = text.partition("…")
            assert not cut or not end or unicodedata.category(end[0]) != "Mn"


def test_what_cannot_be_printed_is_written_as_in_python():
    keys = ["a\nb", "a\\nb", "\u202egnp.exe", "tab\t"]
    J = adk.jacobian(lambda p: sum(p.values()))(dict.fromkeys(keys, 1.0))
    assert len(repr(J).split("\n")) == 6
    for written in (r"p.a\nb", r"p.a\\nb", r"p['\u202egnp.exe']", r"p.tab\t"):
        assert f"  {written} " in repr(J)
        assert f">{written}<" in page_of(J)


def test_keys_with_dots_and_empty_keys_are_quoted():
    def f(p):
        return {"a.b": p["a.b"] * p["a"]["b"] + p[""], "a": {"b": p["n"] * p[""]}, "": p["['"]}

    p = {"a.b": 2.0, "a": {"b": 3.0}, "": 2.0, "['": 1.0, "it's 1.5": 1.0, "n": 3}
    names = ["p['']", "p['a.b']", "p.a.b", 'p["[\'"]', 'p["it\'s 1.5"]']
    outs = ["['']", "['a.b']", "a.b"]
    J, plan = adk.jacobian(f)(p), adk.jacobian(f).plan(p)
    rows = [re.split(r"  +", line.strip()) for line in repr(J).split("\n")[2:]]
    assert {(row[0], row[1]) for row in rows} == {(out, name) for out in outs for name in names}
    page = page_of(J)
    assert all(f">{name}<" in page for name in (*names, *outs))
    assert "<title>['a.b'] by p.a.b: []</title>" in page
    assert "['a.b']  float32[]" in repr(plan)
    same = adk.jacobian(lambda p: p).plan({"a.b": 2.0, "a": {"b": 3.0}})
    assert "zeros   a.b by p['a.b'], ['a.b'] by p.a.b: no path" in repr(same)
    assert same.zeros == (("a.b", "p.a.b"), ("a.b", "p.a.b"))
    assert set(plan.zeros) >= {("a.b", "p.a.b"), ("", "p.a.b")}  # as paths are passed
    H = adk.hessian(lambda p: p["a.b"] * p["a"]["b"] * p[""])({k: p[k] for k in ("a.b", "a", "")})
    assert {*zeros(H)} == {("output", name, name) for name in names[:3]}
    assert ("output", "p['']", "p['']") in zeros(H.p)
    for result in (
        adk.linearize(f)(p),
        adk.jacobian(f).compile(p),
        adk.hessian_diagonal(lambda p: p["a.b"] ** 2 * p["a"]["b"] + p[""])(p),
        adk.hessian_diagonal(lambda p: p["a.b"] ** 2 * p["a"]["b"] + p[""]).plan(p),
    ):
        words = repr(result).split()
        assert {"p['']", "p['a.b']", "p.a.b"} <= {*words}
    report = adk.check_derivatives(lambda p: {"": p["a.b"] * p["a"]["b"]}, order=1)(p)
    rows = [re.split(r"  +", line.strip())[1:3] for line in repr(report).split("\n")[2:]]
    assert ["['']", "p.a.b"] in rows
    assert ["['']", "p['a.b']"] in rows
    assert {(block.of, block.wrt) for block in report.blocks} >= {("", ("p.a.b",))}
    assert J["p.it's 1.5"] == {"": 0.0, "a": {"b": 0.0}, "a.b": 0.0}  # without quotes


def test_letters_composed_in_two_ways_are_told_apart():
    J = adk.jacobian(lambda p: sum(p.values()))({"\u00e9": 1.0, "e\u0301": 1.0, "è": 1.0})
    for text in (repr(J), J._repr_html_()):
        assert r"p.\xe9" in text
        assert r"p.e\u0301" in text
        assert "p.è" in text


# Many leaves ---------------------------------------------------------------------------------


def test_a_thousand_leaves_are_cut_with_a_count_and_fast():
    tree = {f"k{i:04}": jnp.float32(i) for i in range(1000)}
    G = adk.grad(lambda tree: sum(tree.values()))(tree)
    pushed = adk.linearize(lambda tree: tree)(tree)
    for result, more in ((G, "... and 976 more blocks"), (pushed, "... and 976 more leaves")):
        start = time.perf_counter()
        text, page = repr(result), result._repr_html_()
        assert time.perf_counter() - start < 2
        assert more in text
        assert more in page
        assert len(text.split("\n")) < 60
        assert len(page) < 50_000
    few = {name: tree[name] for name in [*tree][:100]}
    J = adk.jacobian(lambda t: jax.tree.map(lambda x: 2 * x, t))(few)
    start = time.perf_counter()
    assert repr(J).endswith("... and 9976 more blocks")
    assert J._repr_html_()
    assert time.perf_counter() - start < 2


def test_no_table_is_cut_by_one_row():
    def result(count):
        tree = {f"k{i:02}": jnp.float32(i) for i in range(count)}
        G = adk.grad(lambda tree: sum(x**2 for x in tree.values()))(tree)
        L = adk.linearize(lambda tree: tree)(tree)
        report = adk.check_derivatives(lambda tree: sum(tree.values()), order=1)(tree)
        D = adk.hessian_diagonal(lambda tree: sum(x**2 for x in tree.values()))(tree)
        return [repr(x) for x in (G, L, report, D)]

    for text in result(25):
        assert "k24" in text
        assert " more" not in text
    for text, kind in zip(result(26), ("blocks", "leaves", "blocks", "leaves"), strict=True):
        assert "k23" in text
        assert "k24" not in text
        assert f"... and 2 more {kind}" in text


def test_treescope_shows_a_table_where_a_tree_would_have_too_many_branches():
    few = {f"k{i}": jnp.float32(i) for i in range(40)}
    J = adk.jacobian(lambda t: jax.tree.map(lambda x: 2 * x, t))(few)
    assert "... and 1576 more blocks" in treescope.render_to_text(J)


# Notebooks -----------------------------------------------------------------------------------


class Checked(html.parser.HTMLParser):
    """Elements that are opened and closed in turn, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found, self.text = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.found.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_well_formed_and_take_the_colours_of_the_notebook(kinds, kind):
    page = kinds[kind]._repr_html_()
    ET.fromstring(page)  # our own
    checked = Checked(page)
    assert {tag for tag, _ in checked.found} <= {
        *("div", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "title"),
    }
    for _, attributes in checked.found:
        style = attributes.get("style", "")
        assert not re.search(r"#[0-9a-f]{3}|white[^-]|black|url\(", style)
        for name in ("fill", "stroke"):
            assert attributes.get(name, "none") in {"none", "currentColor"}
    assert not re.search('<script|<style|<link|class="(?!autodiffkit)', page)


@pytest.mark.parametrize("kind", KINDS)
def test_pages_say_what_the_text_says(kinds, kind, monkeypatch):
    if kind == "finding":
        return  # which is a line in a terminal
    words = at(200, kinds[kind], monkeypatch).split()
    found = " ".join(" ".join(Checked(kinds[kind]._repr_html_()).text).split())
    assert [word for word in words if word not in found] == []


def test_long_cells_of_pages_are_wrapped_and_short_ones_are_not(kinds):
    long = "weight_matrix_of_the_first_hidden_layer"
    page = adk.jacobian(lambda p: p)({long: jnp.ones(2), "b": 1.0})._repr_html_()
    for cell, kept in ((long, False), (f"p.{long}", False), ("p.b", True), ("float32[2, 2]", True)):
        styles = {a["style"] for a, text in cells_of(page) if text == cell}
        assert len(styles) == 1
        assert ("nowrap" in styles.pop()) == kept
    wide = jnp.ones((300, 3))
    plan = adk.jacobian(lambda x: wide @ jnp.sin(wide.T @ x)).plan(jnp.ones(300))
    ((style, _),) = [
        (a["style"], text) for a, text in cells_of(plan._repr_html_()) if text.startswith("dot_gen")
    ][:1]
    assert "overflow-wrap:anywhere" in style


def cells_of(page):
    """The attributes and the text of each cell of a page that holds no table."""
    cells = ET.fromstring(page).iter("td")  # our own
    return [(cell.attrib, cell.text or "") for cell in cells]


def test_names_are_escaped():
    key = "<script>alert('x')</script>&\"<b>"

    def f(p):
        return {key: p[key] * 2, "o": p["o"]}

    f.__name__ = "<img src=x>"
    arguments = {key: 2.0, "o": 1.0}
    for result in (
        adk.jacobian(f)(arguments),
        adk.linearize(f)(arguments),
        adk.jacobian(f).plan(arguments),
        adk.check_derivatives(f)(arguments),
        adk.laplacian(lambda p: {key: p[key] ** 2})(arguments),
    ):
        page = result._repr_html_()
        ET.fromstring(page)  # our own
        assert key in " ".join(Checked(page).text)
        assert not re.search("<(script|img|b)", page)


def test_a_picture_leaves_zeros_blank():
    J = adk.jacobian(apart)(jnp.ones(3), jnp.ones(2))
    shapes = [a for tag, a in Checked(J._repr_html_()).found if tag == "rect"][1:]
    assert [shape["fill"] for shape in shapes] == ["currentColor", "none", "none", "currentColor"]
    assert int(shapes[0]["height"]) > int(shapes[2]["height"])
    assert "<svg" not in adk.grad(lambda x, y: x * y)(1.0, 2.0)._repr_html_()


class Odd:
    """A leaf that cannot be looked at."""

    def __repr__(self):
        raise RuntimeError("do <not> look")


def test_a_page_is_shown_whatever_is_in_a_result():
    J = adk.jacobian(apart)(jnp.ones(3), jnp.ones(2))
    for change in (lambda _: None, lambda _: "<text>", lambda x: x[None], jnp.isnan, np.asarray):
        changed = jax.tree.map(change, J)
        page = changed._repr_html_()
        ET.fromstring(page)  # our own
        assert "cannot be shown" not in page
        assert repr(changed).startswith("Jacobian of apart")
    page = jax.tree.map(lambda _: Odd(), J)._repr_html_()
    assert "it cannot be shown: RuntimeError: do &lt;not&gt; look" in page
    J.x["a"].delete()
    assert "float32[3, 3]" in J._repr_html_()


# Treescope -----------------------------------------------------------------------------------


def rendered(value):
    return treescope.render_to_text(value).split("\n  #╭")[0]


def test_treescope_shows_names_and_arrays():
    J = adk.jacobian(lambda x, p: {"a": x * p["s"], "b": p["s"]})(jnp.ones(2), {"s": 2.0, "n": 1})
    text = rendered(J)
    assert text.startswith("Jacobian(  # Jacobian of <lambda>, 3 by 3\n  x={\n    'a':")
    assert "\n  p={\n    'a': {'n': None, 's': <jax.Array([1., 1.], dtype=float32)>}," in text
    assert "Array([[2., 0.],\n             [0., 2.]], dtype=float32)" in text
    assert "_static" not in text
    page = treescope.render_to_html(J)
    assert "_static" not in page
    assert rendered(J.tree).startswith("{\n  'a': Record(\n    x=")


def test_treescope_shows_the_code_that_reaches_a_block():
    H = adk.hessian(lambda x, value: x @ x * value)(jnp.ones(2), 2.0)
    text = rendered(H)
    assert text.startswith("Hessian(  # Hessian of <lambda>, 3 by 3\n  x=PairedRow(")
    assert "\n  ['value']=PairedRow(" in text
    assert "\n    value=<jax.Array([2., 2.], dtype=float32)>," in text
    paths = re.findall(r"\.x\.value|\['value'\]\.x", treescope.render_to_html(H))
    for path in {*paths}:
        np.testing.assert_array_equal(eval(f"H{path}"), [2.0, 2.0])


def test_treescope_shows_maps_and_operators(kinds):
    text = rendered(kinds["map"])
    assert text.startswith("LinearMap(  # Jacobian of network as a linear map, 21 by 84\n")
    assert "\n  in_structure=Record(" in text
    assert rendered(kinds["composed"]).startswith("LinearMap(")
    assert "laplacian=<jax.Array(18., dtype=float32)>" in rendered(kinds["laplacian"])
    assert "Plan of jacobian(network)" in rendered(kinds["plan"])


def test_the_package_does_not_import_treescope():
    code = "import sys, autodiffkit as a; repr(a.grad(abs)(1.0)); print('treescope' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "False"
    sources = Path(adk.__file__).parent.glob("*.py")
    assert [s.name for s in sources if "\nfrom treescope" in s.read_text("utf-8")] == [
        "_treescope.py"
    ]


# Transforms ----------------------------------------------------------------------------------


def energy(x, y=1.0):
    return jnp.sum(x**2) * y


def likes(path, leaf):
    return path == "x"


def squares(output):
    return jnp.sum(output**2)


CALLS = {
    "adk.grad(energy)": adk.grad(energy, wrt=None, progress=False),
    "adk.grad(energy, wrt='x')": adk.grad(energy, wrt="x"),
    "adk.jacobian(energy, wrt=('x', 'y'), of='0')": adk.jacobian(energy, wrt=["x", "y"], of="0"),
    "adk.jacobian(energy, wrt=likes)": adk.jacobian(energy, wrt=likes),
    "adk.jacobian(energy, mode='rev', has_aux=True, chunk_size=3, memory_limit=1024)": (
        adk.jacobian(energy, mode="rev", has_aux=True, chunk_size=3, memory_limit="1KiB")
    ),
    "adk.linearize(energy, holomorphic=True)": adk.linearize(energy, holomorphic=True),
    "adk.jacobian(energy, typecheck=False, layout='compact')": (
        adk.jacobian(energy, layout="compact", typecheck=False)
    ),
    "adk.hessian(energy, blocks='diagonal', progress=True)": (
        adk.hessian(energy, blocks="diagonal", progress=True)
    ),
    "adk.hessian(energy, blocks=(('x', 'y'),))": adk.hessian(energy, blocks=[("x", "y")]),
    "adk.jacobian(adk.grad(energy, wrt='x'))": adk.jacobian(adk.grad(energy, wrt="x")),
    "adk.jacobian(energy)": adk.jacobian(jax.jit(energy)),
    "adk.hvp(<lambda>)": adk.hvp(lambda x: x),
    "adk.laplacian(energy, of='0')": adk.laplacian(energy, of="0"),
    "adk.directional_derivative(energy)": adk.directional_derivative(energy),
    "adk.directional_derivative(energy, order=3)": adk.directional_derivative(energy, order=3),
    "adk.check_derivatives(energy)": adk.check_derivatives(energy),
    "adk.check_derivatives(energy, wrt='x', full=True, directions=2, order=1)": (
        adk.check_derivatives(energy, order=1, full=True, directions=2, wrt="x")
    ),
    "adk.find_nonfinite(energy)": adk.find_nonfinite(energy),
    "adk.gauss_newton(energy, squares)": adk.gauss_newton(energy, squares),
    "adk.fisher(energy, 'gaussian', wrt='x')": adk.fisher(energy, "gaussian", wrt="x"),
    "adk.fisher(energy, squares)": adk.fisher(energy, squares),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_transform_shows_the_call_that_makes_it(call):
    transform = CALLS[call]
    assert repr(transform) == str(transform) == call
    assert eqx.tree_pformat([transform], width=200) == f"[{call}]"
    assert "_options" not in repr(Holder(transform))


class Holder(eqx.Module):
    transform: object

    def energy(self, x):
        return x


def test_a_transform_of_a_method_or_a_module():
    holder = Holder(None)
    assert repr(adk.jacobian(holder.energy)) == "adk.jacobian(energy)"
    linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    assert repr(adk.jacobian(linear)) == "adk.jacobian(Linear)"
    assert (
        repr(pickle.loads(pickle.dumps(adk.grad(energy, wrt="x")))) == "adk.grad(energy, wrt='x')"
    )


def test_what_wraps_a_module_is_named_by_its_class():
    linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    for f in (
        jax.vmap(linear),
        jax.vmap(eqx.filter_jit(linear)),
        jax.vmap(functools.partial(linear)),
        eqx.filter_jit(eqx.filter_vmap(linear)),
        functools.partial(jax.vmap(linear)),
    ):
        assert repr(adk.jacobian(f)(jnp.ones((4, 2)))).startswith("Jacobian of Linear, 12 by 8\n")
    partial = functools.partial(energy, y=2.0)
    assert repr(adk.grad(jax.jit(partial))(jnp.ones(2))).startswith("Gradient of energy, 1 by 2\n")


# Plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plan", "parts", "operator_plan"])
def test_a_plan_is_shown_as_it_prints(kinds, kind):
    assert repr(kinds[kind]) == str(kinds[kind])
    assert "_schedule" not in repr(kinds[kind])


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("kind", ["plan", "parts", "operator_plan"])
def test_a_pickled_plan_fits_any_terminal(kinds, kind, width, monkeypatch):
    again = pickle.loads(pickle.dumps(kinds[kind]))
    assert at(width, again, monkeypatch) == at(width, kinds[kind], monkeypatch)
    assert again._repr_html_() == kinds[kind]._repr_html_()


def test_a_module_is_named_by_its_fields():
    linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    J = adk.jacobian(lambda linear, x: linear(x))(linear, jnp.ones(2))
    assert "linear=Linear(" in rendered(J)
    assert "  output  linear.weight" in repr(J)
