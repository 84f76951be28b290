"""Programs composed at random: derivatives, plans and the size of the cut."""

import functools
import itertools
import os
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import autodiffkit as adk
from programs import OPS, Program, compose

_RUN = int(os.environ["AUTODIFFKIT_TEST_SEED"])

# Nearly all of the time is compilation, and what is compiled runs once.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def seeds(rules: str, fixed: int, new: int) -> list[Any]:
    """Rules and seeds; the first seeds are the same in each run."""
    name = rules or "pure"
    return [
        *(pytest.param(rules, i, id=f"{name}-{i}") for i in range(fixed)),
        *(pytest.param(rules, _RUN + i, id=f"{name}-run{i}") for i in range(new)),
    ]


def rows_of(J: Any) -> list[list[Any]]:
    """The blocks by output and source, through the public tree."""
    records = jax.tree.leaves(J.tree, is_leaf=lambda x: isinstance(x, adk.Record))
    return [jax.tree.leaves(record) for record in records]


def jacobian_of_jax(program: Program, leaves: Any, rules: str = "") -> list[list[Any]]:
    """The same blocks by JAX, forward unless there is a rule that has only a reverse."""
    transform = jax.jacrev if "v" in rules else jax.jacfwd
    rows = transform(program.flat, tuple(range(len(leaves))))(*leaves)
    return [list(row) for row in rows]


def assert_close(program: Program, found: Any, expected: Any, tolerance: float) -> None:
    """Equal leaves; a difference is reported with the program."""
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerance, atol=tolerance, err_msg=repr(program)
        )


def assert_zero_without_path(program: Program, rows: list[list[Any]]) -> None:
    reached = [set(program.graph.descendants(i)) for i in program.sources]
    for target, row in zip(program.targets, rows, strict=True):
        for source, block in enumerate(row):
            if target not in reached[source]:
                assert not np.any(block), f"{target} by {source} in {program!r}"


def assert_consistent(plan: Any) -> None:
    """The mode says which of the directions are swept."""
    counts = plan.forward_sweeps, plan.reverse_sweeps
    assert plan.cut_size >= 0
    assert {"fwd": not counts[1], "rev": not counts[0], "mixed": all(counts)}[plan.mode]
    assert str(plan)


def test_the_programs_hold_what_they_promise():
    exact = [compose(seed, exact=True) for seed in range(25)]
    programs = exact + [compose(seed, rules) for rules in ("", "w", "v") for seed in range(25)]
    assert not set(OPS) - {step.name for program in programs for step in program.steps}

    def some(feature: Any, among: Any = programs) -> bool:
        return 5 < sum(map(bool, map(feature, among))) < len(among)

    assert some(lambda p: len(set(p.outputs)) < len(p.outputs))  # repeated
    assert some(lambda p: min(p.outputs) in p.sources)  # passed through
    assert some(lambda p: len(p.targets) < len(p.outputs))  # integers
    assert some(lambda p: 0 in map(p.graph.size, p.outputs))
    assert some(lambda p: 0 in map(p.graph.size, p.sources))
    assert some(lambda p: not all({*p.targets} & {*p.graph.descendants(i)} for i in p.sources))
    ends = [[sum(map(p.graph.size, side)) for side in (p.sources, p.targets)] for p in exact]
    assert some(lambda pair: cheapest_cut(pair[0]) < min(pair[1]), [*zip(exact, ends, strict=True)])

    for rules in ("vw", "wv"):
        program = compose(0, rules)
        leaves = jax.tree.leaves(program.arguments("float32"))
        for transform in (jax.jacfwd, jax.jacrev):
            with pytest.raises((TypeError, ValueError), match=r"forward-mode|Reverse-mode"):
                jax.eval_shape(transform(program.flat, range(len(leaves))), *leaves)


# Derivatives -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "seed"), [*seeds("", 5, 5), *seeds("w", 1, 1), *seeds("ww", 1, 0), *seeds("v", 1, 2)]
)
def test_jacobian_equals_that_of_jax_in_every_mode(rules, seed):
    modes = ["auto", *{"": ["fwd", "rev"], "v": ["rev"]}.get(rules, ["fwd"])]
    program = compose(seed, rules)
    with jax.enable_x64(True):
        args = program.arguments("float64")

        @quick_jit
        def both(args):
            found = [adk.jacobian(program, mode=mode)(*args) for mode in modes]
            return found, jacobian_of_jax(program, jax.tree.leaves(args), rules)

        found, expected = both(args)
        for mode in modes:
            assert_consistent(adk.jacobian(program, mode=mode).plan(*args))
    for J in found:
        rows = rows_of(J)
        assert_close(program, rows, expected, 1e-11)
        assert_zero_without_path(program, rows)


@pytest.mark.parametrize(("rules", "seed"), seeds("", 1, 1))
def test_jacobian_in_float32(rules, seed):
    program = compose(seed, rules)
    args = program.arguments("float32")

    @quick_jit
    def both(args):
        J = adk.jacobian(program)(*args)
        return rows_of(J), jacobian_of_jax(program, jax.tree.leaves(args))

    found, expected = both(args)
    assert_close(program, found, expected, 2e-4)
    assert all(block.dtype == jnp.float32 for row in found for block in row)


def differences(program: Program, args: Any) -> Any:
    """The Jacobian as a matrix by central differences, extrapolated once."""
    point, unravel = jax.flatten_util.ravel_pytree(args)

    def outputs(vector):
        return jnp.concatenate([
            out.ravel() for out in program.flat(*jax.tree.leaves(unravel(vector)))
        ])

    def slope(step):
        ends = [
            jax.vmap(lambda e, h=h: outputs(point + h * e))(jnp.eye(point.size))
            for h in (step, -step)
        ]
        return (ends[0] - ends[1]).T / (2 * step)

    return (4 * slope(5e-5) - slope(1e-4)) / 3


@pytest.mark.parametrize(
    ("rules", "seed"),
    [
        *seeds("", 1, 1),
        *seeds("vw", 3, 2),
        *seeds("wv", 3, 2),
        *seeds("vwv", 1, 1),
        *seeds("wvw", 1, 1),
        *seeds("vwvw", 1, 1),
        *seeds("wvvwv", 1, 1),
    ],
)
def test_central_differences_agree_where_jax_cannot_differentiate(rules, seed):
    program = compose(seed, rules)
    with jax.enable_x64(True):
        args = program.arguments("float64")
        J, expected = quick_jit(
            lambda args: (adk.jacobian(program)(*args), differences(program, args))
        )(args)
        assert_close(program, J.as_matrix(), expected, 1e-5)
        assert_consistent(adk.jacobian(program).plan(*args))
    assert_zero_without_path(program, rows_of(J))


@pytest.mark.parametrize(
    ("rules", "seed"), [*seeds("", 1, 1), *seeds("w", 0, 1), *seeds("v", 0, 1)]
)
def test_hessian_equals_that_of_jax(rules, seed):
    program = compose(seed, rules)

    def energy(*args):
        return sum(jnp.sum(jnp.sin(out)) for out in program.flat(*jax.tree.leaves(args)))

    with jax.enable_x64(True):
        args = program.arguments("float64")
        inner, outer = {
            "w": (jax.jacfwd, jax.jacfwd),
            "v": (jax.jacrev, jax.jacrev),
        }.get(rules, (jax.jacrev, jax.jacfwd))

        @quick_jit
        def both(args):
            expected = outer(inner(energy, (0, 1)), (0, 1))(*args)
            return adk.hessian(energy)(*args), expected

        H, expected = both(args)
        assert_consistent(adk.hessian(energy).plan(*args))
    assert_close(program, H.to_jax(), expected, 1e-10)


# Where it is called --------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "seed"),
    [
        *seeds("", 1, 1),
        *seeds("w", 0, 1),
        *seeds("v", 0, 1),
        *seeds("vw", 1, 0),
        *seeds("wv", 0, 1),
    ],
)
def test_an_eager_call_is_the_compiled_one(rules, seed):
    program = compose(seed, rules, 4)
    args = program.arguments("float32")
    transform = adk.jacobian(program)
    J, expected = transform(*args), quick_jit(transform)(*args)
    assert jax.tree.structure(J) == jax.tree.structure(expected)
    # Compiled with fewer passes, loops round otherwise: JAX's own Jacobian of a program with a
    # `while` in a `scan` was 3e-4 away from its eager one.
    assert_close(program, J, expected, 1e-3)
    assert_close(program, J.value, program(*args), 2e-4)
    assert_close(program, [J.wrt("x"), J.wrt("params")], [J.x, J.params], 0)
    assert_close(program, J.to_jax(1), J.x, 0)
    if rules in {"", "w", "v"}:
        assert_close(program, adk.linearize(program)(*args).as_matrix(), J.as_matrix(), 2e-4)


@pytest.mark.parametrize(
    ("rules", "seed"),
    [
        *seeds("", 1, 1),
        *seeds("w", 0, 1),
        *seeds("v", 0, 1),
        *seeds("vw", 1, 0),
        *seeds("wv", 0, 1),
    ],
)
def test_under_vmap_and_in_a_scan(rules, seed):
    program = compose(seed, rules)

    def matrix(args):
        return adk.jacobian(program)(*args).as_matrix()

    with jax.enable_x64(True):
        args = program.arguments("float64")
        batch = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x]), args)

        @quick_jit
        def three_ways(batch):
            scanned = lax.scan(lambda carry, args: (carry, matrix(args)), None, batch)[1]
            expected = jax.vmap(lambda args: differences(program, args))(batch)
            return jax.vmap(matrix)(batch), scanned, expected

        mapped, scanned, expected = three_ways(batch)
    assert_close(program, mapped, expected, 1e-5)
    assert_close(program, scanned, mapped, 1e-11)


@pytest.mark.parametrize(
    ("rules", "seed"), [*seeds("", 1, 1), *seeds("w", 0, 1), *seeds("v", 0, 1)]
)
def test_differentiating_the_jacobian_again(rules, seed):
    program = compose(seed, rules)
    outer = {"w": [jax.jacfwd], "v": [jax.jacrev]}.get(rules, [jax.jacfwd, jax.jacrev])
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(program.arguments("float64"))
        argnums = tuple(range(len(leaves)))

        def blocks(*leaves):
            return rows_of(adk.jacobian(program)(*program.tree(leaves)))

        @quick_jit
        def both(leaves):
            found = [twice(blocks, argnums)(*leaves) for twice in outer]
            first = jax.jacrev if rules == "v" else jax.jacfwd
            return found, first(first(program.flat, argnums), argnums)(*leaves)

        found, expected = both(leaves)
    for again in found:
        assert_close(program, again, expected, 1e-10)


# The cut ---------------------------------------------------------------------------


def cheapest_cut(program: Program) -> int:
    """The size of the smallest set of variables that every path goes through.

    This is independent of what it tests: it tries all subsets of the variables, and knows
    them from how the program was composed: no flow, and no program that JAX has traced.
    """
    graph = program.graph
    reached = set().union(*map(graph.descendants, program.sources))
    useful = [i for i in sorted(reached) if {*program.targets} & {*graph.descendants(i)}]
    bit = {i: 1 << n for n, i in enumerate(useful)}
    bits = [
        (bit[i], i in program.sources, sum(bit.get(p, 0) for p in {*graph.parents[i]}))
        for i in useful
    ]
    ends = sum(bit.get(i, 0) for i in {*program.targets})

    def separates(cut: int) -> bool:
        reached = 0
        for own, is_source, parents in bits:
            if not own & cut and (is_source or parents & reached):
                reached |= own
        return not reached & ends

    sizes = [graph.size(i) for i in useful]
    subsets = sorted(
        (sum(itertools.compress(sizes, chosen)), sum(itertools.compress(bit.values(), chosen)))
        for chosen in itertools.product([0, 1], repeat=len(useful))
    )
    return next(size for size, cut in subsets if separates(cut))


@pytest.mark.parametrize(
    ("exact", "rules", "seed"),
    [
        pytest.param(exact, *param.values, id=f"{exact}-{param.id}")
        for exact, params in (("exact", seeds("", 18, 18)), ("any", seeds("", 3, 3)))
        for param in params
    ],
)
def test_the_cut_is_the_smallest_by_brute_force(exact, rules, seed):
    program = compose(seed, rules, 6, exact=exact == "exact")
    structs = jax.eval_shape(lambda: program.arguments("float32"))
    plan = adk.jacobian(program).plan(*structs)
    found, expected = plan.cut_size, cheapest_cut(program)
    # Inside of any operation there may be a smaller variable still.
    assert (found == expected) if exact == "exact" else (found <= expected), repr(program)
    assert_consistent(plan)
