"""Sizes that are refined, and random chains of operations on maps, with and without arrays."""

import itertools
import math

import numpy as np
import pytest

from autodiffkit._algebra import added, compose, refined, regrouped, unshared
from autodiffkit._arrays import Arrays
from autodiffkit._counts import Counts
from named_axes import (
    assert_names,
    assert_same,
    axes_written,
    computed,
    dense_of,
    filled,
    generator,
    structured,
)

F32 = "float32"


@pytest.fixture
def rng(getkey):
    return generator(getkey())


def factors(number, rng):
    """Some factors of a number, in order."""
    found = []
    while number > 1:
        divisors = [n for n in range(2, number + 1) if number % n == 0]
        found.append(int(rng.choice(divisors)))
        number //= found[-1]
    return found


@pytest.mark.parametrize("number", [1, 2, 6, 12, 30, 64, 72, 360])
def test_refined_sizes_are_the_same_and_multiply_to_those_that_were_given(number, rng):
    for _ in range(20):
        pair = [factors(number, rng) for _ in range(2)]
        products = [set(itertools.accumulate(sizes, int.__mul__)) for sizes in pair]
        cuts = sorted({1, *products[0], *products[1]})
        possible = all(n % m == 0 for m, n in itertools.pairwise(cuts))
        found = refined(*pair)
        assert (found is not None) == possible
        if found is None:
            continue
        first, second = (list(itertools.chain(*parts)) for parts in found)
        assert first == second == [n // m for m, n in itertools.pairwise(cuts)]
        for sizes, parts in zip(pair, found, strict=True):
            assert [math.prod(x) for x in parts] == sizes


@pytest.mark.parametrize("pair", [([2, 3], [5]), ([2], [2, 3]), ([], [2]), ([4, 9], [6, 6])])
def test_other_sizes_cannot_be_refined(pair):
    assert refined(*pair) is None


# Without arrays -----------------------------------------------------------------------------


def counted(given):
    """The same map without arrays."""
    return filled(given, [object() for _ in given.data.parts])


def random_chain(rng):
    """Operations on maps by chance: each takes an arithmetic, the map, and how to make others."""
    shape = [int(n) for n in rng.choice([1, 2, 3, 4, 6], size=rng.integers(1, 4))]
    inputs = [*shape[: rng.integers(1, 4)], 2]
    start = structured(shape, inputs, int(rng.integers(5)), F32, rng)
    steps = []
    for _ in range(5):
        turn = int(rng.integers(5))
        match rng.integers(5):
            case 0:
                outs = [int(n) for n in rng.permutation([*shape, 3])[:3]]
                other = structured(outs, shape, turn, F32, rng)
                shape = outs
                steps.append(("applied", other))
            case 1:
                other = structured([2, *inputs[:2]], inputs, turn, F32, rng).transposed
                steps.append(("preceded", other))
                inputs = [2, *inputs[:2]]
            case 2:
                shape = factors(math.prod(shape), rng)
                steps.append(("reshaped", shape))
            case 3:
                steps.append(("added", structured(shape, inputs, turn, F32, rng)))
            case 4:
                steps.append(("unshared", turn))
    return start, steps


def followed(arithmetic, start, steps, make):
    """The maps of a chain."""
    found = [make(start)]
    for name, other in steps:
        given = found[-1]
        match name:
            case "applied":
                new = compose(arithmetic, given, make(other), F32, constant_first=True)
            case "preceded":
                new = compose(arithmetic, given, make(other), F32, constant_first=False)
            case "reshaped":
                new = regrouped(arithmetic, given, "outs", other)
            case "added":
                new = added(arithmetic, [given, make(other)])
            case "unshared":
                new = unshared(arithmetic, given, given.shared[other % 2 :: 2])
        found.append(new)
    return found


def followed_densely(start, steps):
    """The same as dense arrays."""
    yield (found := dense_of(start))
    rank = len(start.outs)
    for name, other in steps:
        match name:
            case "applied":
                found = np.tensordot(dense_of(other), found, rank)
                rank = len(other.outs)
            case "preceded":
                found = np.tensordot(found, dense_of(other), len(other.outs))
            case "reshaped":
                found = found.reshape(*other, *found.shape[rank:])
                rank = len(other)
            case "added":
                found = found + dense_of(other)
        yield found


@pytest.mark.parametrize("number", range(30))
def test_random_chains_are_those_of_dense_maps_and_counts_have_the_same_labels(number, rng):
    start, steps = random_chain(rng)
    maps = computed(lambda: followed(Arrays(), start, steps, lambda x: x))
    for found, wanted in zip(maps, followed_densely(start, steps), strict=True):
        assert_names(found)
        assert_same(dense_of(found), wanted, 1e-4)
    counts = followed(Counts(), start, steps, counted)
    assert [axes_written(x) for x in counts] == [axes_written(x) for x in maps]
    assert [len(x.data.parts) for x in counts] == [len(x.data.parts) for x in maps]
