"""Minimum cuts of linear programs, against all that there are."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import primitives

from autodiffkit._network import Network
from autodiffkit._program import as_linear
from networks import SMALL, WAVES, X, hourglass, network_of, waves


def abstract(linear_function, *structs):
    """The network of a function that is linear as it stands; nothing is evaluated."""
    return Network(as_linear(linear_function, structs).program, 2)


def steps(network, primitive):
    """The steps of a primitive, by its name."""
    equations = network.program.jaxpr.eqns
    names = [equations[step.equation].primitive.name for step in network.steps]
    return [i for i, name in enumerate(names) if name == primitive]


def sizes(network, variables):
    return sorted(network.capacities[v] for v in variables)


# All cuts, and all partitions ------------------------------------------------------------


class Cuts(NamedTuple):
    """A cut, by its size, with the steps that are pushed through, and not crossed, for it."""

    size: int
    variables: set[int]
    pushed: set[int]
    uncrossed: set[int]


def subsets(items):
    return itertools.chain.from_iterable(
        map(set, itertools.combinations(items, n)) for n in range(len(items) + 1)
    )


def follow(network, starts, stops=()):
    """The steps and the variables that are reached without passing a stop."""
    steps, reached = set(), set(starts)
    for i, step in enumerate(network.steps):
        if reached.intersection(step.inputs):
            steps.add(i)
            reached |= set(step.outputs).difference(stops)
    return steps, reached


def all_cuts(network):
    """Every set of variables that all paths cross."""
    assert len(network.variables) <= 18, "too many sets to try them all"
    sources, targets = network.ends
    for cut in subsets(range(len(network.variables))):
        uncrossed, reached = follow(network, set(sources) - cut, cut)
        if reached.isdisjoint(targets):
            yield Cuts(network.directions(cut), cut, follow(network, cut)[0], uncrossed)


def smallest_of(cuts):
    """Those of the smallest size."""
    smallest = min((cut.size for cut in cuts), default=0)
    return [cut for cut in cuts if cut.size == smallest]


def all_halves(network):
    """Every first half of the steps, with what is between it and the second half."""
    sources, targets = network.ends
    for first in subsets(range(len(network.steps))):
        done = {*sources, *(v for i in first for v in network.steps[i].outputs)}
        if all(done.issuperset(network.steps[i].inputs) for i in first):
            rest = [step for i, step in enumerate(network.steps) if i not in first]
            read = {v for step in rest for v in step.inputs}
            yield first, done & {*read, *targets}


@pytest.mark.parametrize("name", SMALL)
def test_the_cuts_are_the_first_and_the_last_of_the_smallest(name):
    network = network_of(*SMALL[name]())
    capacity, cuts = network.minimum_cuts(network.capacities)
    smallest = smallest_of([*all_cuts(network)])
    assert capacity == smallest[0].size
    found = [next(c for c in smallest if c.variables == cut.variables) for cut in cuts]
    # The nearer a cut is to the sources, the more steps come after it.
    after = [len(cut.pushed) for cut in smallest]
    assert [len(cut.pushed) for cut in (found[0], found[-1])] == [max(after), min(after)]


@pytest.mark.parametrize("name", SMALL)
def test_what_is_reached_without_crossing_a_cut_lies_before_it(name):
    network = network_of(*SMALL[name]())
    for cut in network.minimum_cuts(network.capacities)[1]:
        sources = set(network.ends[0]) - cut.variables
        uncrossed, inside = follow(network, sources, cut.variables)
        assert cut.before >= uncrossed
        assert cut.inside >= inside
        assert cut.inside.isdisjoint({*cut.variables, *network.ends[1]})


@pytest.mark.parametrize("name", SMALL)
def test_steps_that_are_swept_in_one_direction_stay_on_their_side(name):
    network = network_of(*SMALL[name]())
    cuts = [*all_cuts(network)]
    count = len(network.steps)
    for i, j in [*itertools.product(range(count), repeat=2)][::7]:
        for before, after in (({i}, ()), ((), {j}), ({i}, {j})):
            allowed = smallest_of([
                cut
                for cut in cuts
                if cut.pushed.isdisjoint(before) and cut.uncrossed.isdisjoint(after)
            ])
            capacity, found = network.minimum_cuts(network.capacities, before, after)
            assert bool(found) == bool(allowed)
            assert capacity == (allowed[0].size if allowed else 0)
            assert all(cut.variables in [c.variables for c in allowed] for cut in found)


@pytest.mark.parametrize("name", SMALL)
def test_partitions_have_the_least_in_between(name):
    network = network_of(*SMALL[name]())
    halves = [*all_halves(network)]
    for i, j in [*itertools.combinations(range(len(network.steps)), 2)][::3]:
        variables, first = network.minimum_partition({i}, {j})
        between = [found for half, found in halves if i in half and j not in half]
        assert network.directions(variables) == min(map(network.directions, between))
        assert (first, variables) in [(half, found) for half, found in halves if i in half]


def test_other_prices_make_other_cuts():
    network = network_of(hourglass, [X])
    assert network.minimum_cuts(network.capacities)[0] == 2
    inner = [10 * c for c in network.capacities]
    for v in network.ends[0]:
        inner[v] = 3
    capacity, cuts = network.minimum_cuts(inner)
    assert (capacity, [set(cut.variables) for cut in cuts]) == (3, [set(network.ends[0])])


# What belongs to a network ---------------------------------------------------------------


def test_only_what_lies_on_a_path_is_part_of_it():
    def f(x, y, unused):
        dead = jnp.sin(y) * 2
        return jnp.sum(x), 3.0, jnp.sum(dead).astype(jnp.int32)

    def floating(*args):
        return f(*args)[:2]

    network = network_of(floating, [X, X, X])
    assert len(network.steps) == 1
    assert [v is None for v in network.sources] == [False, True, True]
    assert [v is None for v in network.targets] == [False, True]
    assert network.connected(0, 0)
    assert not any(network.connected(i, j) for i, j in [(0, 1), (0, 2), (1, 0)])
    assert network.minimum_cuts(network.capacities)[0] == 1


def test_a_network_without_paths_has_an_empty_cut():
    network = network_of(lambda x: jnp.zeros(3), [X])
    assert (network.variables, network.steps) == ([], [])
    capacity, (cut,) = network.minimum_cuts(network.capacities)
    assert (capacity, cut.variables, cut.before) == (0, frozenset(), frozenset())


def test_sources_and_targets_may_be_left_out():
    def f(x, y):
        return jnp.sum(x), jnp.sum(y) * X

    whole = network_of(f, [X, X])
    assert whole.minimum_cuts(whole.capacities)[0] == 2
    for without in ({"without_sources": {0}}, {"without_targets": {0}}):
        part = network_of(f, [X, X], **without)
        assert part.minimum_cuts(part.capacities)[0] == 1
        assert not part.connected(0, 0)
        assert part.connected(1, 1)


def test_arrays_without_entries_carry_nothing():
    def f(empty, x):
        return x + jnp.sum(empty), x[:0], jnp.concatenate([x, empty])

    network = network_of(f, [jnp.zeros(0), X])
    assert network.sources[0] is None
    assert network.targets[1] is None
    assert 0 not in network.capacities
    assert sizes(network, network.minimum_cuts(network.capacities)[1][0].variables) == [3]


def test_repeated_and_passed_through_outputs_are_variables():
    def f(x):
        y = jnp.sin(x)
        return y, x, y, x, jnp.sum(y), 1.5

    network = network_of(f, [X])
    assert network.targets[0] == network.targets[2]
    assert network.targets[1] == network.targets[3]
    assert len({*network.targets, *network.sources}) == 5  # both, the sum, no path, the source
    assert network.minimum_cuts(network.capacities)[0] == 3


def test_complex_variables_count_twice_unless_the_map_is_complex_linear():
    twice = network_of(waves, [WAVES])
    assert max(twice.capacities) == 8
    assert twice.minimum_cuts(twice.capacities)[0] == 4
    once = network_of(waves, [WAVES], per_complex=1)
    assert max(once.capacities) == 6
    assert once.minimum_cuts(once.capacities)[0] == 2


# Sizes beyond 32 bits -------------------------------------------------------------------


def test_huge_arrays_do_not_overflow():
    huge = jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32)

    def f(x, y):
        rows = jnp.sum(x, axis=0)
        return jnp.sum(rows * 2.0) * lax.full((2**33,), 1.0), y * 2.0

    network = abstract(f, huge, huge)
    assert network.sizes[0] == 2**32
    capacity, cuts = network.minimum_cuts(network.capacities)
    assert capacity == 2**32 + 1
    assert all(sizes(network, cut.variables) == [1, 2**32] for cut in cuts)


def test_a_small_cut_is_found_among_huge_arrays():
    huge = jax.ShapeDtypeStruct((2**31,), jnp.float32)

    def f(x):
        waist = jnp.sum(x[:700].reshape(7, 100), 1)
        return lax.broadcast_in_dim(waist, (2**20, 7), (1,)), waist[:3]

    network = abstract(f, huge)
    capacity, cuts = network.minimum_cuts(network.capacities)
    assert capacity == 7
    assert all(sizes(network, cut.variables) == [7] for cut in cuts)


@pytest.mark.parametrize("entries", [2**29, 2**30, 2**31 - 1, 2**31, 2**40])
def test_sizes_around_the_limits_of_the_flow(entries):
    big = jax.ShapeDtypeStruct((entries,), jnp.float32)
    small = jax.ShapeDtypeStruct((3,), jnp.float32)

    def f(x, y):
        return x * 2.0, jnp.sum(y) + jnp.sum(x)

    network = abstract(f, big, small)
    capacity, cuts = network.minimum_cuts(network.capacities)
    # What is below a thirty-second part of a billionth counts as that.
    assert entries + 1 <= capacity <= (entries + 1) * (1 + 2**-29)
    assert all(max(sizes(network, cut.variables)) == entries for cut in cuts)


def test_what_stays_on_its_side_may_be_huge():
    huge = jax.ShapeDtypeStruct((2**33,), jnp.float32)

    def f(x):
        return jnp.sum(x * 2.0) * 3.0

    network = abstract(f, huge)
    first, second = steps(network, "mul")
    capacity, cuts = network.minimum_cuts(network.capacities, (), {first})
    assert capacity == 2**33
    assert [set(cut.variables) for cut in cuts] == [set(network.ends[0])]
    capacity, cuts = network.minimum_cuts(network.capacities, {second}, ())
    assert capacity == 1
    assert [set(cut.variables) for cut in cuts] == [set(network.ends[1])]


def test_equations_of_several_results_are_one_step():
    def f(x):
        return lax.scan(lambda c, _: (jnp.sin(c), jnp.sum(c)), x, length=3)

    network = network_of(f, [X])
    (scan,) = [s for s in network.steps if len(s.outputs) == 2]
    assert sizes(network, scan.outputs) == [3, 3]
    assert network.program.jaxpr.eqns[scan.equation].primitive is primitives.scan_p
