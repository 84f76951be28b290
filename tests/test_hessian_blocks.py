"""Some blocks of a Hessian: those that were asked for are right, and no others are computed."""

import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from autodiffkit._selection import rectangles
from functions import CASES, Case, array
from reference import assert_close


class Selected(NamedTuple):
    """Blocks of the Hessian of a registered function, and the pairs of leaves that they are."""

    name: str
    blocks: Any
    pairs: list[tuple[str, str]]


def network(layers, x):
    for layer in layers:
        x = jnp.tanh(layer["w"] @ x + layer["b"])
    return jnp.sum(x**2)


def bilinear(a, b, c, d):
    """Second derivatives by every pair of arguments, none by one of them twice."""
    return jnp.sum((a * c) @ jnp.outer(jnp.cos(a) * c, b) @ jnp.sin(d) * jnp.sum(b))


CASE: dict[str, Case] = {
    **CASES,
    "network": Case(
        "network",
        network,
        lambda d: (
            [
                {"w": array(3, 2)(d), "b": array(3)(d)},
                {"w": array(2, 3)(d) - 0.7, "b": array(2)(d)},
            ],
            array(2)(d),
        ),
    ),
    "bilinear": Case(
        "bilinear",
        bilinear,
        lambda d: (array(4)(d), array(2)(d), array(4)(d) * 1.1, array(2)(d) - 1),
    ),
}

# A function, the blocks that are asked for, and the pairs of leaves that these are, if others.
SELECTED = """
quadratic_form        x A
quadratic_form        A x, x A
quadratic_form        diagonal                        x x, A A
sine_of_product       x y, x y                        x y
sum_of_squares        x x
elementwise           diagonal                        x x
cumulative_sum        * *                             x x
constant              x x
matrix_product        A B
cross_product         b *                             b a, b b
scan                  A x, x x
linear_solve          A b
custom_vjp_in_a_chain x y
dictionary            params.w x
dictionary            params x                        params.w x, params.b x
dictionary            *.w params.*                    params.w params.w, params.w params.b
nested_lists          tree.0 tree.1                   tree.0 tree.1.0, tree.0 tree.1.2
named_tuple           p.y p.x
dataclass             layer.w x, x x
module                model.* x                       model.weight x, model.bias x
keyword_arguments     scale other
variadic              args.1 x, kwargs.p kwargs.q
auxiliary             x x
several_outputs       diagonal                        x x
repeated_outputs      x y
empty_input           e x, x x
unicode_names         *größe *λ                       parameter.größe parameter.λ
entire                z z
network               layers.0 layers.1.w             layers.0.w layers.1.w, layers.0.b layers.1.w
network               layers.*.w x                    layers.0.w x, layers.1.w x
network               layers.0.w layers.0.w, layers.0.w layers.1.b, layers.1.b layers.0.w, x x
bilinear              * a, * b                        a a, b a, c a, d a, a b, b b, c b, d b
bilinear              a *, b *                        a a, a b, a c, a d, b a, b b, b c, b d
bilinear              a b, b a, c d
"""


def parsed(line: str) -> Selected:
    name, blocks, *pairs = re.split("  +", re.sub("^([^ ]+) ", r"\1  ", line))
    found = [[tuple(pair.split()) for pair in x.split(", ")] for x in (blocks, *pairs)]
    return Selected(name, blocks if blocks == "diagonal" else found[0], found[-1])


ROWS = SELECTED.strip().split("\n")


def blocks_of(H: Any) -> dict[tuple[str, str], Any]:
    """The blocks that there are, by the paths of both leaves."""
    found = {}
    names = [path for path, _ in H.column_labels]
    for pair in ((a, b) for a in names for b in names):
        try:
            found[pair] = H.wrt(*pair)
        except adk.NotDifferentiatedError:
            continue
    return found


def assert_same(ours: Any, theirs: Any) -> None:
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert [(x.shape, x.dtype) for x in ours] == [(x.shape, x.dtype) for x in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, scale=20)


def compiled(case: Case, function: Callable[..., Any]) -> Any:
    """What `function(args, kwargs)` gives in float64, in one compilation."""
    dynamic, static = eqx.partition(case.call("float64"), eqx.is_inexact_array)
    return jax.jit(lambda leaves: function(*eqx.combine(leaves, static)))(dynamic)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.split()))
def test_the_blocks_are_those_of_the_whole(row):
    given = parsed(row)
    case = CASE[given.name]

    def both(args, kwargs):
        transform = adk.hessian(case.function, blocks=given.blocks, **case.options)
        whole = adk.hessian(case.function, **case.options)(*args, **kwargs)
        blocks = blocks_of(transform(*args, **kwargs))
        assert {*blocks} == {*given.pairs}
        return [*blocks.values()], [whole.wrt(*pair) for pair in blocks]

    with jax.enable_x64(True):
        assert_same(*compiled(case, both))


COMPACT = ["quadratic_form", "dictionary", "elementwise"]


def shortened(dense: Any, shared: Any, rank: int) -> Any:
    """A dense block with shared axes once and first, and nothing else in it."""
    names = [*"abcdefgh"[: dense.ndim]]
    for i, j in shared:
        names[dense.ndim - rank + j] = names[i]
    lead = [names[i] for i, _ in shared]
    rest = [x for x in dict.fromkeys(names) if x not in lead]
    return jnp.einsum(f"{''.join(names)}->{''.join(lead + rest)}", dense)


@pytest.mark.parametrize(
    "row", [x for x in ROWS if x.split()[0] in COMPACT], ids=lambda row: " ".join(row.split())
)
def test_compact_blocks_are_those_of_the_whole(row):
    given = parsed(row)
    case = CASE[given.name]

    def both(args, kwargs):
        options = {"blocks": given.blocks, "layout": "compact", **case.options}
        found = adk.hessian(case.function, **options)(*args, **kwargs)
        whole = adk.hessian(case.function, **case.options)(*args, **kwargs)
        blocks = blocks_of(found)
        assert {*blocks} == {*given.pairs}
        leaves = dict(
            zip(*[dict(whole.column_labels), jax.tree.leaves((args, kwargs))], strict=True)
        )
        expected = [
            shortened(whole.wrt(a, b), found.shared_axes[a, b], leaves[b].ndim) for a, b in blocks
        ]
        return [*blocks.values()], expected

    with jax.enable_x64(True):
        assert_same(*compiled(case, both))


def test_a_compact_block_has_a_shared_axis_once():
    def f(x, s):
        return jnp.sum(jnp.sin(x) * s**2)

    x, s = array(5)("float32"), array()("float32")
    H = adk.hessian(f, blocks=[("x", "x")], layout="compact")(x, s)
    assert H.x.x.shape == (5,)
    assert H.shared_axes == {("x", "x"): ((0, 0),)}
    assert_close(H.x.x, -jnp.sin(x) * s**2)
    assert "float32[5] (shares axis 0 with 0)" in repr(H)


def test_some_compact_blocks_in_the_structure_of_jax():
    x = array(5)("float32")
    f = lambda x, s: jnp.sum(jnp.sin(x)) * s  # noqa: E731
    H = adk.hessian(f, blocks=[("x", "x")], layout="compact")(x, jnp.float32(2))
    found = H.to_jax()
    assert_close(found[0][0], jnp.diag(-2 * jnp.sin(x)))
    assert found[0][1] is None
    assert found[1] == (None, None)


@pytest.mark.parametrize("jit", [False, True])
def test_a_call_that_is_not_compiled_gives_the_same(jit, dtype):
    args, _ = CASE["bilinear"].call(dtype)
    blocks = [("*", "a"), ("*", "b")]
    H = adk.hessian(bilinear, blocks=blocks)
    found, whole = (jax.jit(H) if jit else H)(*args), adk.hessian(bilinear)(*args)
    assert_same(blocks_of(found), {(x, y): whole.wrt(x, y) for x in "abcd" for y in "ab"})


@pytest.mark.parametrize("blocks", [[("*", "a"), ("*", "b")], [("a", "*"), ("b", "*")]])
def test_symmetry_is_used_among_the_same_arguments_only(blocks):
    """The rows by c and d have the shapes of those by a and b, and other blocks."""
    first, second, third = array(40, 2)("float32"), array(40, 2)("float32") - 1, array(2, 40)

    def f(a, b, c, d):
        return a @ first @ b + c @ second @ b + d @ third("float32") @ a

    args = tuple(array(n)("float32") for n in (40, 2, 40, 2))
    whole = adk.hessian(f)(*args)
    found = blocks_of(jax.jit(adk.hessian(f, blocks=blocks))(*args))
    assert_same(found, {pair: whole.wrt(*pair) for pair in found})


# Only these are computed ---------------------------------------------------------------


def tall(w, b):
    """Second derivatives by every pair of entries."""
    return jnp.sum(jnp.sin(w) * b[0]) * jnp.sum(w**2) * b[1]


TALL = (jnp.linspace(0.1, 1, 3000), jnp.array([1.0, 2.0]))


def sizes(jaxpr: Any) -> Iterator[int]:
    """The sizes of all arrays of a program."""
    for equation in jaxpr.eqns:
        yield from (x.aval.size for x in equation.outvars if hasattr(x.aval, "size"))
        for value in jax.tree.leaves([*equation.params.values()], is_leaf=is_program):
            if is_program(value):
                yield from sizes(getattr(value, "jaxpr", value))


def is_program(value: Any) -> bool:
    return isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr))


@pytest.mark.parametrize("pair", [("w", "b"), ("b", "w"), ("b", "b")])
def test_no_array_of_the_size_of_another_block_exists(pair):
    H = adk.hessian(tall, blocks=[pair])
    plan = H.plan(*TALL)
    assert plan.parts == ()
    assert plan.forward_sweeps + plan.reverse_sweeps == 2
    assert plan.flops < adk.hessian(tall).plan(*TALL).flops / 100
    assert max(sizes(jax.make_jaxpr(H)(*TALL).jaxpr)) <= 6000
    memory = jax.jit(H).lower(*TALL).compile().memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 300_000
    expected = jax.jacfwd(jax.grad(tall, 1 if pair == ("b", "b") else 0), 1)(*TALL)
    expected = expected.T if pair == ("b", "w") else expected
    np.testing.assert_allclose(H(*TALL).wrt(*pair), expected, rtol=1e-4)


def test_the_parts_of_a_plan_add_up():
    args = jnp.ones(6), jnp.ones(2)
    plan = adk.hessian(tall, blocks="diagonal").plan(*args)
    assert len(plan.parts) == 2
    assert [(p.forward_sweeps, p.reverse_sweeps) for p in plan.parts] == [(6, 0), (2, 0)]
    assert (plan.forward_sweeps, plan.reverse_sweeps, plan.mode) == (8, 0, "fwd")
    for name in ("flops", "bytes_moved", "cut_size"):
        assert getattr(plan, name) == sum(getattr(part, name) for part in plan.parts)
    text = str(plan)
    assert text.startswith("Plan of hessian(tall): 2 parts\n  part 1: forward mode\n")
    assert "6 directions pushed forward from\n              w  float32[6]" in text
    assert "2 directions pushed forward from\n              b  float32[2]" in text
    assert plan.summary.startswith("hessian(tall): forward mode, 8 forward and 0 reverse sweeps")


@pytest.mark.parametrize(("mode", "counts"), [("fwd", (2, 0)), ("rev", (0, 6))])
def test_the_mode_is_that_of_the_option(mode, counts):
    args = jnp.linspace(0.1, 1, 6), jnp.ones(2)
    H = adk.hessian(tall, blocks=[("w", "b")], mode=mode)
    plan = H.plan(*args)
    assert (plan.mode, (plan.forward_sweeps, plan.reverse_sweeps)) == (mode, counts)
    assert_close(H(*args).w.b, adk.hessian(tall)(*args).w.b, scale=5)


def test_blocks_of_an_equal_row_are_swept_together():
    def f(a, b, c):
        return jnp.sum(a) * jnp.sum(b) * jnp.sum(jnp.sin(c))

    args = tuple(jnp.ones(n) for n in (3, 4, 5))
    plan = adk.hessian(f, blocks=[("a", "b"), ("b", "a"), ("c", "a"), ("c", "b")]).plan(*args)
    assert len(plan.parts) == 2
    assert adk.hessian(f, blocks=[("c", "a"), ("c", "b")]).plan(*args).parts == ()


def test_blocks_without_a_path_are_zero_and_not_swept():
    H = adk.hessian(lambda x, y: jnp.sum(x**2) + jnp.sum(y**3), blocks=[("x", "y")])
    args = jnp.ones(3), jnp.ones(2)
    plan = H.plan(*args)
    assert (plan.forward_sweeps, plan.reverse_sweeps, plan.zeros) == (0, 0, (("x", "y"),))
    np.testing.assert_array_equal(H(*args).x.y, np.zeros((3, 2)))


# Many leaves ---------------------------------------------------------------------------


def coupled(tree):
    return jnp.sum(jnp.stack([jnp.sum(jnp.sin(v)) for v in tree.values()]) ** 2)


def test_few_blocks_of_very_many():
    count = 70
    tree = {f"p{i}": array(1 + i % 2)("float32") * (i + 1) / count for i in range(count)}
    pairs = [("tree.p3", "tree.p8"), ("tree.p8", "tree.p3"), ("tree.p0", "tree.p0")]
    H = jax.jit(adk.hessian(coupled, blocks=pairs))(tree)
    blocks = {pair: H.wrt(*pair) for pair in pairs}

    def block(p, q):
        inner = jax.grad(lambda a, b: coupled({**tree, p: a, **({q: b} if p != q else {})}))
        return jax.jacfwd(inner, 0 if p == q else 1)(tree[p], tree[q])

    for p, q in pairs:
        expected = block(p.split(".")[1], q.split(".")[1])
        np.testing.assert_allclose(blocks[p, q], expected, rtol=1e-5, atol=1e-6)
    assert repr(H).count("\n") == 4


def test_all_blocks_of_one_argument_of_many_leaves():
    tree = {f"p{i}": array(1 + i % 2)("float32") * (i + 1) / 9 for i in range(9)}

    def f(tree, x):
        return coupled(tree) * jnp.sum(x**2)

    x = array(2)("float32")
    found = jax.jit(adk.hessian(f, blocks="diagonal"))(tree, x)
    whole = jax.jit(adk.hessian(f))(tree, x)
    assert_same(found["tree", "tree"], whole["tree", "tree"])
    assert_same(found.x.x, whole.x.x)
    assert_same(found.diagonal(), whole.diagonal())


# Results -------------------------------------------------------------------------------

ARGS = (jnp.array([0.5, 1.0, 2.0]), jnp.array([1.0, 2.0]))
SOME = [("w", "b"), ("b", "b")]


def test_what_a_result_shows():
    H = adk.hessian(tall, blocks=SOME)(*ARGS)
    whole = adk.hessian(tall)(*ARGS)
    for block in (H.w.b, H["w", "b"], H["w"]["b"], H.wrt("w", "b"), H.wrt("w").b, H.tree.w.b):
        assert_same(block, whole.w.b)
    for nothing in (H.tree.w.w, H.tree.b.w, H.to_jax()[0][0], H.to_jax(0), H.to_jax((1,))[0][0]):
        assert nothing is None or nothing[0] is not None
    assert H.to_jax(0) is None
    assert_same(H.to_jax((0, 1))[0][1], whole.w.b)
    assert repr(H).split("\n") == [
        "Hessian of tall, 5 by 5",
        "  of      by  then by  block",
        "  output  w   b        float32[3, 2]",
        "  output  b   b        float32[2, 2]",
    ]
    assert repr(H.w).split("\n")[1:] == [
        "  of      by  then by  block",
        "  output  w   b        float32[3, 2]",
    ]
    assert_same((H.value, H.grad.tree), (whole.value, whole.grad.tree))
    assert_same(H.grad.w, jax.grad(tall)(*ARGS))
    assert {*H.shared_axes} == {*SOME}
    assert H.column_labels == whole.column_labels


def test_the_diagonal_of_diagonal_blocks():
    H = adk.hessian(tall, blocks="diagonal")(*ARGS)
    assert_same(H.diagonal(), adk.hessian(tall)(*ARGS).diagonal())
    with pytest.raises(adk.NotDifferentiatedError, match="only some of the blocks"):
        adk.hessian(tall, blocks=SOME)(*ARGS).diagonal()


def test_a_part_of_the_output():
    case = CASES["several_outputs"]
    (x,), _ = case.call("float32")
    H = adk.hessian(case.function, blocks=[("x", "x")])(x).of("forces.1")
    assert_same(H.x.x, adk.hessian(case.function)(x).of("forces.1").x.x)

    def two(x, y):
        return {"a": jnp.sum(x) * y, "b": x**2 * jnp.sum(y)}

    H = adk.hessian(two, blocks=[("x", "y")])(x, x[:2])
    whole = adk.hessian(two)(x, x[:2])
    assert_same(H.x.y, whole.x.y)
    assert_same(H.of("b").x.y, whole.of("b").x.y)
    assert H.of("b").tree.x.x is None


def test_through_transformations_of_jax():
    transform = adk.hessian(tall, blocks=SOME)
    H = transform(*ARGS)
    structure = jax.tree.structure(H)
    assert structure == jax.tree.structure(jax.jit(transform)(*ARGS))
    assert structure == jax.tree.structure(jax.tree.map(lambda x: 2 * x, H))
    assert_same(jax.tree.map(lambda x: 2 * x, H).w.b, 2 * H.w.b)
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), ARGS)
    batched = jax.vmap(transform)(*batch)
    assert_same(batched.w.b[1], transform(*(2 * x for x in ARGS)).w.b)

    def step(carry, scale):
        new = transform(*(x * scale for x in ARGS))
        return jax.tree.map(jnp.add, carry, new), new.b.b

    total, rows = lax.scan(step, H, jnp.array([1.0, 2.0]))
    assert_same(total.w.b, H.w.b * 2 + batched.w.b[1])
    assert_same(rows, batched.b.b)
    copy = pickle.loads(pickle.dumps(H))
    assert repr(copy) == repr(H)
    assert_same(copy.w.b, H.w.b)


def test_a_decorator_and_other_options():
    @adk.hessian(wrt=("w", "b"), of="loss", blocks=[("w", "b")], has_aux=True)
    def f(w, b, x):
        return {"loss": tall(w, b) * x, "other": w}, "aux"

    H = f(*ARGS, 3.0)
    assert H.aux == "aux"
    assert_same(H.of("loss").w.b, 3 * adk.hessian(tall)(*ARGS).w.b)
    with pytest.raises(adk.SelectionError, match=r"blocks=\('w', 'x'\): 'x' is not among"):
        adk.hessian(tall, wrt="w", blocks=[("w", "x")])(*ARGS)


# Refusals ------------------------------------------------------------------------------

VECTOR = {"w": ARGS[0], "b": ARGS[1]}
NEEDS_ALL: dict[str, Callable[[Any], Any]] = {
    "mv": lambda H: H.mv(VECTOR),
    "rmv": lambda H: H.rmv(VECTOR),
    "matmul": lambda H: H @ VECTOR,
    "as_matrix": lambda H: H.as_matrix(),
    "solve": lambda H: H.solve(VECTOR),
    "eigh": lambda H: H.eigh(),
    "inverse": lambda H: H.inverse(),
    "damped": lambda H: H.damped(1.0),
    "slogdet": lambda H: H.slogdet(),
    "as_lineax": lambda H: H.as_lineax(),
    "transpose": lambda H: H.T.mv(VECTOR),
    "transposed matrix": lambda H: H.T.as_matrix(),
    "sum": lambda H: (H + H).mv(VECTOR),
    "multiple": lambda H: (2 * H).mv(VECTOR),
    "product": lambda H: (H @ H).mv(VECTOR),
    "from_matrix": lambda H: H.from_matrix(jnp.eye(5)),
}


@pytest.mark.parametrize("blocks", [SOME, "diagonal"])
@pytest.mark.parametrize("name", NEEDS_ALL)
def test_what_needs_all_blocks_is_refused(name, blocks):
    H = adk.hessian(tall, blocks=blocks)(*ARGS)
    with pytest.raises(adk.NotDifferentiatedError, match="only some of the blocks") as caught:
        NEEDS_ALL[name](H)
    assert "hessian(tall)" in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda H: H.w.w, r"hessian\(tall\).w: no block by 'w': blocks= leaves it out"),
        (lambda H: H["b", "w"], r"hessian\(tall\).b: no block by 'w'"),
        (lambda H: H.x, r"'x'"),
    ],
)
def test_a_block_that_was_left_out_is_named(ask, message):
    with pytest.raises(adk.NotDifferentiatedError, match=message):
        ask(adk.hessian(tall, blocks=SOME)(*ARGS))
    with pytest.raises(adk.NotDifferentiatedError, match=r"no block by 'b' first: blocks="):
        adk.hessian(tall, blocks=[("w", "b")])(*ARGS)["b"]


BAD = [(), [], "w", "diag", ("w", "b"), [("w",)], [("w", "b", "w")], [("w", 1)], 5, True]
BAD += [{"w": "b"}, {("w", "b")}, [None], ["wb"], [("w", None)]]


@pytest.mark.parametrize("blocks", BAD, ids=str)
def test_what_is_no_selection_of_blocks(blocks):
    with pytest.raises(adk.SelectionError, match=r"hessian\(tall\): blocks=.*pairs of paths"):
        adk.hessian(tall, blocks=blocks)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([("w", "c")], r"blocks=\('w', 'c'\): 'c' is not among what is differentiated"),
        ([("w", "b"), ("params", "b")], r"'params' is not among"),
        ([("*.w", "b")], r"'\*.w' is not among"),
    ],
)
def test_a_path_that_is_not_differentiated_is_named(blocks, message):
    for ask in (adk.hessian(tall, blocks=blocks), adk.hessian(tall, blocks=blocks).plan):
        with pytest.raises(adk.SelectionError, match=message):
            ask(*ARGS)


# Rectangles ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_rectangles_cover_each_pair_once(seed):
    numbers = np.random.default_rng(seed)
    height, width = numbers.integers(1, 9, 2)
    wanted = numbers.random((height, width)) < numbers.random()
    pairs = frozenset((int(i), int(j)) for i, j in np.argwhere(wanted))
    found = rectangles(pairs)
    covered = [(i, j) for rows, columns in found for i in rows for j in columns]
    assert len(covered) == len(pairs)
    assert frozenset(covered) == pairs
    assert len(found) <= min(height, width)
    for rows, columns in found:
        assert [*rows] == sorted(rows)
        assert [*columns] == sorted(columns)


def test_a_whole_grid_is_one_rectangle():
    assert rectangles(frozenset((i, j) for i in (0, 2) for j in (1, 3))) == [((0, 2), (1, 3))]
    assert rectangles(frozenset({(i, i) for i in range(3)})) == [((i,), (i,)) for i in range(3)]
    assert rectangles(frozenset()) == []
