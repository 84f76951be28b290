"""What sweeps cost: the rules on axes are followed without data."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from autodiffkit._algebra import compose
from autodiffkit._cost import Work
from autodiffkit._equations import EquationCounts
from autodiffkit._fusion import sweep_work
from autodiffkit._network import Network
from autodiffkit._schedule import Candidate, Chain, Sketch, Split
from autodiffkit._sketch import Tails, sketch

# Which variables are swept as maps with named axes: those that are worth it, or all.
Maps = Literal["none", "worthwhile", "all"]

# By how much following the axes of a variable has to save, to be worth a sweep of its own.
_SAVES = 1.1

# A map without axes that stay apart is a batch, which compilers fuse; if that is estimated at so
# many times less, its estimate counts.
_FUSES = 2.0

# What an equation of a sweep of its own costs, in operations, where they are more than `_STEPS`
# altogether: code that is written scalar by scalar is compiled again for each, and runs no faster.
_EQUATION = 1e3

# Sweeps of their own are up to so many steps altogether, or so many times those of the program.
_STEPS = 200
_TIMES = 6


def estimate(
    network: Network, sweeps: Split | Chain, kept: int, *, maps: Maps = "none"
) -> Candidate:
    """The number of directions that sweeps take, and their work.

    Args:
        network: The linear program.
        sweeps: What to sweep.
        kept: The bytes of residuals that only exist for sweeps of the linear program.
        maps: Which variables may be swept as maps with named axes.

    Returns:
        The sweeps, with those variables as maps that are worth it.
    """
    if isinstance(sweeps, Chain):
        return _chain(network, sweeps, kept)
    if maps == "none":
        return _summed(network, sweeps, kept, {}, {})
    if maps == "all":
        return _with_maps(network, sweeps, kept, *_sketches(network, sweeps))
    every = _sketches(network, sweeps, _limit(network))
    few = _worthwhile(network, sweeps, *every)
    found = _with_maps(network, sweeps, kept, *few)
    steps, least = (sum(_steps_of(*sketches).values()) for sketches in (every, few))
    if few == every or steps > _limit(network) or not _is_whole(sweeps, *every):
        return found
    # Products at a cut may be smaller, too, if all of it is swept as maps.
    other = _with_maps(network, sweeps, kept, *every)
    more = _EQUATION * (steps - least) if steps > _STEPS else 0.0
    return other if other.work.time() * _SAVES + more < found.work.time() else found


def _with_maps(
    network: Network, split: Split, kept: int, pushes: "_Sketches", pulls: "_Sketches"
) -> Candidate:
    split = dataclasses.replace(split, maps=frozenset({*pushes, *pulls}))
    return _summed(network, split, kept, pushes, pulls)


def _limit(network: Network) -> int:
    """How many steps sweeps of their own may take altogether."""
    return max(_STEPS, _TIMES * len(network.steps))


def _summed(
    network: Network,
    sweeps: Split,
    kept: int,
    pushes: Mapping[int, Sketch],
    pulls: Mapping[int, Sketch],
) -> Candidate:
    starts, stops = (*sweeps.pushed, *sweeps.middle), (*sweeps.middle, *sweeps.pulled)
    pushed, pulled = (
        network.directions(v for v in ends if v not in sweeps.maps) for ends in (starts, stops)
    )
    work = sweep_work(network, sweeps.forward, "fwd", pushed)
    work = work.plus(sweep_work(network, sweeps.reverse, "rev", pulled))
    for mode, steps, sketches in (
        ("fwd", sweeps.forward, pushes),
        ("rev", sweeps.reverse, pulls),
    ):
        for v, found in sketches.items():
            work = work.plus(_own(network, found, v, steps, mode))
    if sweeps.mode != "fwd" or sweeps.maps:  # what plain forward mode never stores
        work = work.plus(Work(moved=2.0 * kept))
    work = work.plus(_products(network, sweeps, pushes, pulls))
    return Candidate(
        sweeps,
        pushed + sum(x.directions for x in pushes.values()),
        pulled + sum(x.directions for x in pulls.values()),
        work,
        pushes,
        pulls,
    )


def _own(network: Network, found: "Sketch", v: int, steps: Collection[int], mode: str) -> Work:
    """The work of a variable's own sweep; no axis of which stays apart, that of a batch at most."""
    if found.directions < network.capacities[v]:
        return found.work
    batch = sweep_work(network, found.steps.intersection(steps), mode, network.capacities[v])
    return batch if batch.time() * _FUSES < found.work.time() else found.work


def mirrored(network: Network, candidate: Candidate, kept: int) -> Candidate:
    """Leaves out what symmetry says: of each pair of blocks, one is enough.

    What is swept as a map leads to the leaves that come after it, in an order where those come
    first that lead everywhere anyway, and then those that take the fewest directions.

    Args:
        network: The program of a gradient; the leaves of each output are those of the input.
        candidate: A plain mode.
        kept: As for `estimate`.

    Returns:
        The sweeps that are left.
    """
    split = candidate.sweeps
    assert isinstance(split, Split)
    width, forward = len(network.sources), split.mode == "fwd"
    sketches = candidate.pushes if forward else candidate.pulls
    leaves: dict[int, list[int]] = {}  # those of each variable that is swept from
    for number, v in enumerate(network.sources if forward else network.targets):
        if v is not None and v in sketches:
            leaves.setdefault(v, []).append(number % width)
    alone = {v: found[0] for v, found in leaves.items() if len(found) == 1}
    cost = dict.fromkeys(range(width), 0)
    for v, j in alone.items():
        cost[j] = max(cost[j], sketches[v].directions)
    rank = {j: place for place, j in enumerate(sorted(cost, key=lambda j: (cost[j], j)))}
    pairs: set[tuple[int, int]] = set()
    found: dict[int, Sketch] = {}
    narrowed: list[tuple[int, frozenset[int]]] = []
    for v, j in alone.items():
        later = [i for i in range(width) if rank[i] >= rank[j]]
        ends = network.targets if forward else network.sources
        wanted = [x for i, x in enumerate(ends) if i % width in later and x is not None]
        starts, stops = ([v], wanted) if forward else (wanted, [v])
        steps = network.after(starts) & network.toward(stops)
        # A leaf that leads to none of these needs no sweep.
        found[v] = sketch(network, v, steps, forward=forward) if steps else _nothing(forward)
        narrowed.append((v, steps))
        others = [i for i in range(width) if i not in later]
        pairs.update((i, j) if forward else (j, i) for i in others)
    split = dataclasses.replace(split, narrowed=tuple(narrowed))
    everything = {**sketches, **found}
    new = _summed(network, split, kept, *((everything, {}) if forward else ({}, everything)))
    return dataclasses.replace(new, mirrored=frozenset(pairs))


def _nothing(forward: bool) -> Sketch:
    return Sketch(Work(), 0, {}, (), frozenset(), forward)


# Maps ---------------------------------------------------------------------------


_Sketches = dict[int, Sketch]


def _sketches(
    network: Network, split: Split, limit: float = math.inf
) -> tuple[_Sketches, _Sketches]:
    """What is pushed and pulled, each as a map, as far as that takes up to a number of steps."""
    starts, stops = _ends(split)
    apart = (*stops, *split.pushed)
    tails = Tails(), Tails()
    pushes: _Sketches = {}
    pulls: _Sketches = {}
    # Those that meet others last are followed first, and the others no further than to them.
    for v in sorted(starts, key=lambda v: -min(network.readers[v], default=0)):
        if tails[0].followed < limit:
            pushes[v] = sketch(network, v, split.forward, tails=tails[0])
    for v in sorted(stops, key=lambda v: max(network.makers[v], default=0)):
        if tails[1].followed < limit and (v in pushes or v not in split.middle):
            pulls[v] = sketch(network, v, split.reverse, apart=apart, forward=False, tails=tails[1])
    for v in split.middle:  # is swept in both directions as maps, or in neither
        if v not in pulls:
            pushes.pop(v, None)
    return pushes, pulls


def _ends(split: Split) -> tuple[Sequence[int], Sequence[int]]:
    """What is pushed, and what is pulled."""
    return (*split.pushed, *split.middle), (*split.middle, *split.pulled)


def _steps_of(pushes: _Sketches, pulls: _Sketches) -> dict[int, int]:
    """How many steps the sweeps of each variable take."""
    return {
        v: sum(len(x[v].steps) for x in (pushes, pulls) if v in x)
        for v in pushes.keys() | pulls.keys()
    }


def _is_whole(split: Split, pushes: _Sketches, pulls: _Sketches) -> bool:
    starts, stops = _ends(split)
    return all(v in pushes for v in starts) and all(v in pulls for v in stops)


def _worthwhile(
    network: Network, split: Split, pushes: _Sketches, pulls: _Sketches
) -> tuple[_Sketches, _Sketches]:
    """The sketches of the variables that are better swept as maps."""
    savings: dict[int, float] = {}
    counts = _steps_of(pushes, pulls)
    many = sum(count for v, count in counts.items() if network.sizes[v] > 1) > _STEPS
    for v in counts:
        whole = own = Work()
        for sketches, steps, mode in (
            (pushes, split.forward, "fwd"),
            (pulls, split.reverse, "rev"),
        ):
            if v in sketches:
                own = own.plus(sketches[v].work)
                reach = steps & sketches[v].steps
                whole = whole.plus(sweep_work(network, reach, mode, network.capacities[v]))
        more = _EQUATION * counts[v] if many else 0.0
        # A single entry has no axes, and goes well with others.
        if network.sizes[v] > 1 and own.time() * _SAVES + more < whole.time():
            savings[v] = own.time() / whole.time()
    everything = {*itertools.chain(*_ends(split))}
    # A batch of one variable is no simpler than its map; but pushed alone it keeps no residuals.
    if len(everything) == len(savings) + 1 and (savings or split.mode != "fwd"):
        savings = dict.fromkeys(counts, 1.0) | savings
    left = _limit(network)
    chosen: set[int] = set()
    for v in sorted(savings, key=lambda v: (savings[v], v)):
        if counts[v] <= left:
            chosen.add(v)
            left -= counts[v]
    kept = [{v: x for v, x in found.items() if v in chosen} for found in (pushes, pulls)]
    return kept[0], kept[1]


# Batches ------------------------------------------------------------------------


def _chain(network: Network, chain: Chain, kept: int) -> Candidate:
    work, forward, reverse = Work(moved=2.0 * kept), 0, 0
    for link in chain.links:
        ends = link.inputs if link.mode == "fwd" else link.outputs
        count = network.directions(ends)
        forward, reverse = (
            (forward + count, reverse) if link.mode == "fwd" else (forward, reverse + count)
        )
        work = work.plus(sweep_work(network, link.steps, link.mode, count))
    for link in chain.links[1:]:
        n, k, m = map(network.directions, (network.ends[0], link.inputs, link.outputs))
        work = work.plus(_product(n, k, m, itemsize=4))
    return Candidate(chain, forward, reverse, work)


def _products(
    network: Network, split: Split, pushes: Mapping[int, Sketch], pulls: Mapping[int, Sketch]
) -> Work:
    """The products at a cut."""
    if not split.middle:
        return Work()
    sources, targets = network.ends
    rows = [v for v in targets if v in network.computed(split.middle, split.forward)]
    columns = [v for v in sources if v not in split.pushed]
    middle = [v for v in split.middle if v not in split.maps]
    work = Work()
    if middle:
        itemsize = max(network.variables[v].aval.dtype.itemsize for v in middle)
        n, k, m = map(network.directions, (columns, middle, rows))
        work = _product(n, k, m, itemsize=itemsize)
    counts = EquationCounts(network)
    for v in (v for v in split.middle if v in split.maps):
        for row in (pushes[v].maps[t] for t in rows if t in pushes[v].maps):
            for column in (pulls[v].maps[s] for s in columns if s in pulls[v].maps):
                compose(counts, row, column, row.dtype, constant_first=False)
    return work.plus(counts.work)


def _product(columns: int, middle: int, rows: int, itemsize: int) -> Work:
    """A matrix product at a cut."""
    entries = rows * columns + middle * (rows + columns)
    return Work(2.0 * rows * middle * columns, float(entries * itemsize), 1.0)
