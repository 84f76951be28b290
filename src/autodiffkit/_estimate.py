"""What sweeps cost: the rules on axes are followed without data."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from autodiffkit._algebra import compose
from autodiffkit._cost import Work, total
from autodiffkit._equations import EquationCounts
from autodiffkit._fusion import fused_costs
from autodiffkit._maps import ONE, Data, Map, Part, axes_of, flat
from autodiffkit._network import Network, Step
from autodiffkit._schedule import Candidate, Chain, Sketch, Split, kept_axes
from autodiffkit._structured import Sweeper

# Which variables are swept as maps with named axes: those that are worth it, or all.
Maps = Literal["none", "worthwhile", "all"]

# By how much following the axes of a variable has to save, to be worth a sweep of its own.
_SAVES = 1.1

# A map without axes that stay apart is a batch, which compilers fuse; if that is estimated at so
# many times less, its estimate counts.
_FUSES = 2.0

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
    every = _sketches(network, sweeps)
    if maps == "all":
        return _with_maps(network, sweeps, kept, *every)
    few = _worthwhile(network, sweeps, *every)
    found = _with_maps(network, sweeps, kept, *few)
    steps = sum(len(x.steps) for x in itertools.chain(*(found.values() for found in every)))
    if few == every or steps > _limit(network):
        return found
    # Products at a cut may be smaller, too, if all of it is swept as maps.
    other = _with_maps(network, sweeps, kept, *every)
    return other if other.work.time() * _SAVES < found.work.time() else found


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
    work = _sweep(network, sweeps.forward, "fwd", pushed)
    work = work.plus(_sweep(network, sweeps.reverse, "rev", pulled))
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
    batch = _sweep(network, found.steps.intersection(steps), mode, network.capacities[v])
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


def _sketches(network: Network, split: Split) -> tuple[_Sketches, _Sketches]:
    """What is pushed and pulled, each as a map."""
    starts, stops = (*split.pushed, *split.middle), (*split.middle, *split.pulled)
    pushes = {v: sketch(network, v, split.forward) for v in starts}
    apart = (*stops, *split.pushed)
    pulls = {v: sketch(network, v, split.reverse, apart=apart, forward=False) for v in stops}
    return pushes, pulls


def _worthwhile(
    network: Network, split: Split, pushes: _Sketches, pulls: _Sketches
) -> tuple[_Sketches, _Sketches]:
    """The sketches of the variables that are better swept as maps."""
    savings: dict[int, float] = {}
    for v in pushes.keys() | pulls.keys():
        whole = own = Work()
        for sketches, steps, mode in (
            (pushes, split.forward, "fwd"),
            (pulls, split.reverse, "rev"),
        ):
            if v in sketches:
                own = own.plus(sketches[v].work)
                reach = steps & sketches[v].steps
                whole = whole.plus(_sweep(network, reach, mode, network.capacities[v]))
        # A single entry has no axes, and goes well with others.
        if network.sizes[v] > 1 and own.time() * _SAVES < whole.time():
            savings[v] = own.time() / whole.time()
    everything = pushes.keys() | pulls.keys()
    # A batch of one variable is no simpler than its map; but pushed alone it keeps no residuals.
    if len(everything) == len(savings) + 1 and (savings or split.mode != "fwd"):
        savings = dict.fromkeys(everything, 1.0) | savings
    left = _limit(network)
    chosen: set[int] = set()
    for v in sorted(savings, key=lambda v: (savings[v], v)):
        count = sum(len(x[v].steps) for x in (pushes, pulls) if v in x)
        if count <= left:
            chosen.add(v)
            left -= count
    kept = [{v: x for v, x in found.items() if v in chosen} for found in (pushes, pulls)]
    return kept[0], kept[1]


def sketch(
    network: Network,
    variable: int,
    steps: Collection[int],
    *,
    apart: Collection[int] = (),
    forward: bool = True,
    written: bool = True,
) -> Sketch:
    """Follows the axes of a variable through steps.

    Args:
        network: The linear program.
        variable: What is swept from.
        steps: The steps to take.
        apart: Variables that pulling does not pass.
        forward: Whether to push.
        written: Whether results are written as one array each, at the ends.

    Returns:
        What it takes, and what it leads to.
    """
    sweeper = _Sketcher(network, variable)
    maps = (
        sweeper.push(variable, ONE, steps) if forward else sweeper.pull(variable, ONE, steps, apart)
    )
    # A complex variable has two directions an entry, and a map each.
    times = network.capacities[variable] // network.sizes[variable]
    if written:
        for v in {*itertools.chain(*network.ends)} & maps.keys() - {variable}:
            sweeper.write(maps[v])
    work = Work(*(times * x for x in sweeper.counts.work))
    directions = times * max(sweeper.directions(x, forward=forward) for x in maps.values())
    ends = {*itertools.chain(*network.ends), *apart}
    maps = {v: sweeper.written(x, v, forward=forward) for v, x in maps.items() if v in ends}
    return Sketch(work, directions, maps, tuple(sweeper.losses), frozenset(sweeper.steps), forward)


class _Sketcher(Sweeper):
    """A sweep that is only counted; maps of which nothing is known are all the same one."""

    def __init__(self, network: Network, variable: int) -> None:
        self.counts = EquationCounts(network)
        super().__init__(self.counts, network)
        self.losses: list[tuple[int, tuple[int, ...]]] = []
        self.steps: list[int] = []
        self._shape = network.variables[variable].aval.shape
        self._size = network.sizes[variable]
        self._dense = Map((), (), Data((Part(self, ()),)), None)

    def directions(self, given: Map, *, forward: bool) -> int:
        """How many of the variable's directions a map takes."""
        if given is self._dense:
            return self._size
        return given.directions if forward else given.transposed.directions

    def write(self, given: Map) -> None:
        """Counts what it takes to multiply the factors of a result."""
        if given is not self._dense:  # which has been written
            whole = self.counts.whole(given.data.parts, given.data.axes, given.dtype)
            self.counts.result(whole, given.dtype)

    def written(self, given: Map, variable: int, *, forward: bool) -> Map:
        """The map with axes, also where nothing is known of them."""
        aval = self._network.variables[variable].aval
        return self._with_axes(aval, forward=forward) if given is self._dense else given

    def _with_axes(self, aval: Any, *, forward: bool) -> Map:
        own, other = axes_of(aval.shape), axes_of(self._shape)
        outs, ins = (own, other) if forward else (other, own)
        return Map(outs, ins, Data((Part(self, (*flat(outs), *flat(ins))),)), aval.dtype)

    def _sum(self, maps: Sequence[Map]) -> Map:
        if any(given is self._dense for given in maps):
            return self._dense
        return super()._sum(maps)

    def _through(
        self, step: Step, maps: Mapping[int, Map], wanted: Sequence[int], *, forward: bool
    ) -> dict[int, Map]:
        self.steps.append(step.number)
        if all(given is self._dense for given in maps.values()):
            mode = "fwd" if forward else "rev"
            work = _sweep(self._network, [step.number], mode, self._size)
            self.counts.work = self.counts.work.plus(work)
            return dict.fromkeys(wanted, self._dense)
        ends = step.operands if forward else step.results
        maps = {k: self.written(x, ends[k], forward=forward) for k, x in maps.items()}
        found = super()._through(step, maps, wanted, forward=forward)
        before = {i for given in maps.values() for i in kept_axes(given, forward=forward)}
        after = before.intersection(*(kept_axes(x, forward=forward) for x in found.values()))
        if before != after:
            self.losses.append((step.number, tuple(sorted(before - after))))
        ends = step.results if forward else step.operands
        return {k: self._known(ends[k], given) for k, given in found.items()}

    def _known(self, variable: int, given: Map) -> Map:
        if not given.is_dense:
            return given
        if any(variable in ends for ends in self._network.ends):
            self.write(given)
        return self._dense


# Batches ------------------------------------------------------------------------


def _chain(network: Network, chain: Chain, kept: int) -> Candidate:
    work, forward, reverse = Work(moved=2.0 * kept), 0, 0
    for link in chain.links:
        ends = link.inputs if link.mode == "fwd" else link.outputs
        count = network.directions(ends)
        forward, reverse = (
            (forward + count, reverse) if link.mode == "fwd" else (forward, reverse + count)
        )
        work = work.plus(_sweep(network, link.steps, link.mode, count))
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


def _sweep(network: Network, steps: Collection[int], mode: str, count: int) -> Work:
    costs = fused_costs(network, mode)
    return total(costs[i] for i in steps).batch(count)


def _product(columns: int, middle: int, rows: int, itemsize: int) -> Work:
    """A matrix product at a cut."""
    entries = rows * columns + middle * (rows + columns)
    return Work(2.0 * rows * middle * columns, float(entries * itemsize), 1.0)
