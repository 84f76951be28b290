"""Sweeps within limits: directions at a time, bytes of temporaries, and a bar that shows them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import autodiffkit as adk
from autodiffkit._chunking import temporaries
from autodiffkit._derivative import _planned, _prepared
from autodiffkit._liveness import live_bytes
from autodiffkit._network import Network
from autodiffkit._program import linearize
from autodiffkit._sweeps import prepare

RNG = np.random.default_rng(7)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape) / shape[-1] ** 0.5, jnp.float32)


W, V, NARROW, WIDE = normal(14, 12), normal(9, 14), normal(3, 12), normal(10, 3)
KERNEL = normal(4, 1, 3, 3)
ROWS = normal(11, 5)
PARAMS = {"w": normal(8, 5), "b": normal(8), "c": normal(3, 8), "empty": jnp.zeros((0, 2))}


def layers(x):
    return jnp.tanh(V @ jnp.tanh(W @ x))


def network(params):
    hidden = jnp.tanh(ROWS @ params["w"].T + params["b"][None])
    return {"out": hidden @ params["c"].T, "mean": jnp.mean(hidden)}


def loss(params):
    return jnp.sum(network(params)["out"] ** 2)


def waist(x):
    return jnp.sin(WIDE @ (NARROW @ jnp.tanh(x)))


def loop(x):
    def step(state, _):
        state = state + 0.1 * jnp.sin(W[:12] @ state)
        return state, state

    return jax.lax.scan(step, x, None, length=4)[1]


def stopped(x):
    """Forward only: its trip count depends on the values."""
    square = jnp.eye(12, dtype=x.dtype) + 0.1 * W[:12].astype(x.dtype)
    body = lambda c: (c[0] + 1, square @ jnp.sin(c[1]))  # noqa: E731
    return jax.lax.while_loop(lambda c: c[0] < 3, body, (0, x))[1]


def spectrum(x):
    return jnp.abs(jnp.fft.rfft(jnp.tanh(x))) ** 2


def image(x):
    return jax.lax.conv_general_dilated(jnp.tanh(x)[None, None], KERNEL, (1, 1), "SAME")[0]


X = normal(12)
FIRST = {
    "layers": (layers, X),
    "network": (network, PARAMS),
    "waist": (waist, X),
    "loop": (loop, X),
    "spectrum": (spectrum, X),
    "image": (image, normal(4, 3)),
    "complex": (lambda x: jnp.fft.fft(x) ** 2, X),
}
LIMITS = [{"chunk_size": 1}, {"chunk_size": 5}, {"chunk_size": 10**6}, {"memory_limit": "8KiB"}]


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-4, atol=3e-5), ours, theirs)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
@pytest.mark.parametrize("name", FIRST)
def test_jacobians_are_those_without_limits(name, mode, limits):
    function, argument = FIRST[name]
    J = adk.jacobian(function, mode=mode, **limits)(argument)
    # What is complex has no derivative by jax.jacrev.
    theirs = (lambda x: jax.jacfwd(function)(x)) if name == "complex" else jax.jacrev(function)
    close(J.to_jax(0), theirs(argument))


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
def test_hessians_are_those_without_limits(mode, limits):
    if "memory_limit" in limits:
        limits = {"memory_limit": 40_000}
    H = adk.hessian(loss, mode=mode, **limits)(PARAMS)
    close(H.to_jax(0), jax.hessian(loss)(PARAMS))
    compiled = jax.jit(adk.hessian(loss, mode=mode, **limits))(PARAMS)
    close(compiled.to_jax(0), jax.hessian(loss)(PARAMS))


def test_a_loop_that_cannot_be_pulled_is_pushed_in_chunks():
    J = adk.jacobian(stopped, chunk_size=5)(X)
    close(J.x, jax.jacfwd(stopped)(X))


def test_a_matrix_of_many_blocks_is_swept_in_chunks():
    def many(state):
        mean = sum(jnp.sum(jnp.sin(x)) for x in state.values()) / len(state)
        return {name: x * mean for name, x in state.items()}

    state = {f"s{i}": normal(3) for i in range(12)}
    for mode in ("fwd", "rev"):
        J = adk.jacobian(many, mode=mode, chunk_size=7)(state)
        close(J.to_jax(0), jax.jacrev(many)(state))


def test_a_linear_map_is_swept_in_chunks():
    L = adk.linearize(layers, chunk_size=5)(X)
    close(L.as_matrix(), jax.jacrev(layers)(X))
    close(adk.hvp(loss, chunk_size=9)(PARAMS).materialise().to_jax(0), jax.hessian(loss)(PARAMS))


def test_in_everything_else():
    J = adk.jacobian(layers, chunk_size=5)
    batch = normal(3, 12)
    close(jax.vmap(lambda x: J(x).x)(batch), jax.vmap(jax.jacrev(layers))(batch))
    twice = jax.jacfwd(lambda x: J(x).x)(X)
    close(twice, jax.jacfwd(jax.jacrev(layers))(X))
    pulled = jax.jit(jax.grad(lambda x: jnp.sum(J(x).x ** 2)))(X)
    close(pulled, jax.grad(lambda x: jnp.sum(jax.jacrev(layers)(x) ** 2))(X))


def test_against_differences_in_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(np.asarray(X), jnp.float64)

        def function(x):
            return jnp.tanh(V.astype(x.dtype) @ jnp.sin(W.astype(x.dtype) @ x))

        J = adk.jacobian(function, chunk_size=4)(x)
        step = 1e-6
        columns = [
            (function(x + step * e) - function(x - step * e)) / (2 * step)
            for e in jnp.eye(12, dtype=x.dtype)
        ]
        np.testing.assert_allclose(J.x, jnp.stack(columns, axis=1), atol=1e-8)


# What runs ------------------------------------------------------------------------


def test_no_batch_is_larger_than_the_chunk():
    text = str(jax.make_jaxpr(adk.jacobian(layers, mode="rev", chunk_size=4))(X))
    assert re.search(r"f32\[4,14\]", text)
    assert not re.search(r"f32\[9,14\] = dot", text)
    plan = adk.jacobian(layers, mode="rev", chunk_size=4).plan(X)
    assert (plan.chunk_size, plan.reverse_sweeps) == (4, 9)


def test_a_chunk_larger_than_the_work_changes_nothing():
    with_limit = adk.jacobian(layers, chunk_size=1000)
    plan, free = with_limit.plan(X), adk.jacobian(layers).plan(X)
    assert str(plan) == str(free)
    assert plan.chunk_size <= 12
    assert "while" not in str(jax.make_jaxpr(with_limit)(X))
    assert "scan" not in str(jax.make_jaxpr(with_limit)(X))


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_the_function_and_its_residuals_are_computed_once(mode):
    counts = []

    def function(x):
        hidden = jnp.tanh(W @ x)
        jax.debug.callback(lambda _: counts.append(1), hidden)
        return V @ jnp.sin(hidden)

    J = jax.jit(adk.jacobian(function, mode=mode, chunk_size=2))(X)
    jax.block_until_ready(J)
    jax.effects_barrier()
    assert len(counts) == 1


# Bytes ----------------------------------------------------------------------------


def expected_and_held(function, argument, mode, size):
    """What a plan expects sweeps to hold, and what the compiled ones do."""
    transform = adk.jacobian(function, mode=mode, chunk_size=size)
    flat = transform._flat((argument,), {})
    sweeps = _prepared(flat, flat, flat.selected, prepare)
    sweeps.name(flat.ends)
    plan, schedule = _planned(flat, sweeps, mode)
    return plan.temporaries, sweeps.sweeps.temporaries(schedule)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
@pytest.mark.parametrize("name", ["layers", "network", "loop", "spectrum", "image"])
def test_the_estimate_is_that_of_the_compiler(name, mode):
    function, argument = FIRST[name]
    larger = jax.tree.map(lambda x: jnp.tile(x, (1,) * x.ndim), argument)
    expected, held = expected_and_held(function, larger, mode, 6)
    # Below a kilobyte, it is the compiler's own bookkeeping.
    assert expected / 3 - 1024 <= held <= 3 * expected + 1024


def test_lives_end_where_a_variable_is_read_last():
    def chain(x):
        for _ in range(6):
            x = jnp.tanh(W[:12] @ x)
        return x

    _, _, linear = linearize(lambda x: ([chain(x)], []), [X])
    program = Network(linear.program, 2)
    steps = range(len(program.steps))
    # Of a chain of products, one is read while the next is written.
    assert live_bytes(program, steps, "fwd") == 2 * 12 * 4
    assert live_bytes(program, steps, "rev") == 2 * 12 * 4


@pytest.mark.parametrize("leaves", [1, 3])
def test_a_hessian_is_computed_in_memory_close_to_its_own_size(leaves):
    size = 480 // leaves
    matrix = normal(60, 480)

    def energy(state):
        return jnp.sum(jnp.tanh(matrix @ jnp.concatenate(list(state.values()))) ** 2)

    state = {f"s{i}": normal(size) for i in range(leaves)}
    for mode in ("fwd", "rev"):
        memory = adk.hessian(energy, mode=mode, chunk_size=8).compile(state).memory_analysis()
        assert memory.output_size_in_bytes >= 480 * 480 * 4
        assert memory.temp_size_in_bytes < 0.2 * 480 * 480 * 4


@pytest.mark.parametrize("limit", [3000, 6000, 20_000, "100kB"])
@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_eager_sweeps_hold_no_more_than_the_limit(mode, limit):
    matrix = normal(64, 64)

    def function(x):
        return jnp.tanh(matrix @ jnp.tanh(matrix @ x))

    transform = adk.jacobian(function, mode=mode, memory_limit=limit)
    flat = transform._flat((normal(64),), {})
    sweeps = _prepared(flat, flat, flat.selected, prepare)
    sweeps.name(flat.ends)
    plan, schedule = _planned(flat, sweeps, mode)
    held = sweeps.sweeps.temporaries(schedule)
    assert held <= (100_000 if limit == "100kB" else limit)
    assert plan.temporaries == held


def test_more_memory_means_larger_chunks():
    sizes = [
        adk.jacobian(layers, mode="rev", memory_limit=limit).plan(X).chunk_size
        for limit in (200, 400, 800, 10**6)
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 3
    assert sizes[-1] == 9


def test_the_plan_says_what_it_expects():
    text = str(adk.jacobian(layers, mode="rev", chunk_size=4).plan(X))
    assert "memory  4 directions at a time, in up to 3 chunks; about " in text
    assert "memory" not in str(adk.jacobian(layers).plan(X))


def test_what_is_between_the_sides_of_a_cut_counts():
    narrow, wide = normal(3, 300), normal(200, 3)
    free = adk.jacobian(lambda x: jnp.sin(wide @ (narrow @ jnp.tanh(x)))).plan(normal(300))
    assert free.mode == "mixed"
    expected = temporaries(free._choice.chosen, free._schedule.network, free._ends)
    assert expected.fixed > 0


# Progress -------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_a_bar_counts_the_chunks(compiled, capsys):
    transform = adk.jacobian(layers, mode="rev", chunk_size=4, progress=True)
    J = (jax.jit(transform) if compiled else transform)(X)
    jax.block_until_ready(J)
    jax.effects_barrier()
    shown = capsys.readouterr().err
    assert "jacobian(layers)" in shown
    assert "3/3" in shown


def test_a_bar_alone_divides_long_work():
    def plan(size, **options):
        square = jax.ShapeDtypeStruct((size, size), jnp.float32)

        def deep(x, matrix):
            return jnp.tanh(matrix @ jnp.tanh(matrix @ jnp.tanh(matrix @ x)))

        x = jax.ShapeDtypeStruct((size,), jnp.float32)
        return adk.jacobian(deep, wrt="x", **options).plan(x, square)

    assert plan(2000).chunk_size == 2000
    assert plan(2000, progress=True).chunk_size == 100
    assert plan(20, progress=True).chunk_size == 20


def test_what_keeps_axes_apart_is_shown_at_once():
    J = adk.jacobian(jnp.tanh, layout="compact", progress=True)(X)
    close(J.x, 1 - jnp.tanh(X) ** 2)


@pytest.mark.parametrize("mode", ["auto", "fwd", "rev"])
def test_where_maps_do_not_fit_the_least_is_that_of_one_direction(mode):
    matrix = normal(200, 200)

    def deep(x):
        return jnp.tanh(matrix @ jnp.tanh(matrix @ x))

    with pytest.raises(adk.ResultTooLargeError, match=r"takes about 1\.6 KiB of"):
        jax.jit(adk.jacobian(deep, mode=mode, memory_limit=500))(normal(200))


def test_short_work_shows_no_bar(capsys):
    jax.block_until_ready(adk.jacobian(layers, progress=True)(X))
    jax.effects_barrier()
    assert not capsys.readouterr().err


# Bad input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (-3, "-3"), (2.0, "2.0"), ("4", "'4'"), (True, "True"), (jnp.ones(2), "float32[2]")],
)
def test_a_chunk_is_a_positive_whole_number(value, shown):
    with pytest.raises(adk.SelectionError) as caught:
        adk.jacobian(layers, chunk_size=value)
    assert str(caught.value) == (
        "jacobian(layers): chunk_size is the number of directions that are swept together, 1 or "
        f"more; got {shown}. Pass a whole number, or leave it out for no limit."
    )


@pytest.mark.parametrize(
    "value", [0, -1, "", "lots", "12 parsecs", "-5MB", "0MiB", float("nan"), float("inf"), True]
)
def test_a_memory_limit_is_a_positive_amount(value):
    with pytest.raises(adk.SelectionError) as caught:
        adk.hessian(loss, memory_limit=value)
    assert str(caught.value) == (
        f"hessian(loss): memory_limit={value!r} is no number of bytes. Pass a positive number, or "
        "text with a unit such as '512MiB' or '2GB'."
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [("512MiB", 512 << 20), ("2 GB", 2 * 10**9), ("1.5kib", 1536), ("100", 100), ("7b", 7)],
)
def test_amounts_have_units(text, count):
    transform = adk.jacobian(layers, memory_limit=text)
    assert transform._options.limits.memory_limit == count


def test_a_compact_layout_has_no_chunks():
    with pytest.raises(adk.SelectionError) as caught:
        adk.jacobian(layers, layout="compact", chunk_size=3)
    assert str(caught.value) == (
        "jacobian(layers): chunk_size and layout='compact' exclude each other: what keeps axes "
        "apart is swept at once. Leave chunk_size out, or use layout='dense'."
    )


def test_where_one_direction_does_not_fit_nothing_runs():
    ran = []

    def function(x):
        ran.append(1)
        return layers(x)

    for call in (
        adk.jacobian(function, memory_limit=10),
        jax.jit(adk.jacobian(function, memory_limit=10)),
        adk.jacobian(function, memory_limit=10).plan,
    ):
        with pytest.raises(adk.ResultTooLargeError) as caught:
            call(X)
        assert re.fullmatch(
            r"jacobian\(function\): a single direction takes about [\d.]+ \w+ of temporaries, and "
            r"memory_limit allows 10 bytes\. Allow more, or differentiate less at a time "
            r"\(wrt=, of=\)\. Nothing was swept\.",
            str(caught.value),
        )
