"""Sweeps of maps that are followed on paper: the rules on axes, without data."""

import itertools
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

from autodiffkit._cost import Work
from autodiffkit._counts import structure_of
from autodiffkit._equations import EquationCounts
from autodiffkit._fusion import fused_costs
from autodiffkit._maps import ONE, Data, Map, Part, axes_of, flat
from autodiffkit._network import Network, Step
from autodiffkit._schedule import Sketch, kept_axes
from autodiffkit._structured import Sweeper

# A map of which nothing is known.
_DENSE = Map((), (), Data((Part(object(), ()),)), None)


def sketch(
    network: Network,
    variable: int,
    steps: Collection[int],
    *,
    apart: Collection[int] = (),
    forward: bool = True,
    written: bool = True,
    tails: "Tails | None" = None,
) -> Sketch:
    """Follows the axes of a variable through steps.

    Args:
        network: The linear program.
        variable: What is swept from.
        steps: The steps to take.
        apart: Variables that pulling does not pass.
        forward: Whether to push.
        written: Whether results are written as one array each, at the ends.
        tails: What other variables were followed through, with the same steps in this direction.

    Returns:
        What it takes, and what it leads to.
    """
    ends = {*itertools.chain(*network.ends)}
    sweeper = _Sketcher(network, variable, forward=forward, ends={*ends, *apart}, tails=tails)
    found = sweeper.follow(variable, steps, apart)
    if written:
        for v in ends & found.maps.keys() - {variable}:
            sweeper.write(found.maps[v])
    # A complex variable has two directions an entry, and a map each.
    times = network.capacities[variable] // network.sizes[variable]
    return Sketch(
        Work(*(times * x for x in sweeper.counts.work)),
        times * found.directions,
        {v: sweeper.written(x, v) for v, x in found.maps.items()},
        tuple(found.losses),
        frozenset(found.steps),
        forward,
    )


class Tails:
    """What maps were followed to from the variables where they met, found again for other maps.

    Leaves that end up in one sum are followed to it, and through the rest of it once: else the time
    of a plan would grow with the square of their number. What steps of one kind do to a map is
    counted once, too.

    Attributes:
        marks: Where maps were left alone, by variable and structure.
        identities: What is swept from, by shape and dtype.
        taken: What steps did, by their kind and what they were given.
        structures: Those of maps.
        followed: How many steps were taken.
    """

    def __init__(self) -> None:
        self.marks: dict[Hashable, _Mark] = {}
        self.identities: dict[Hashable, Map] = {}
        self.taken: dict[Hashable, _Taken] = {}
        self.structures: dict[Map, Hashable] = {}
        self.followed = 0

    def structure(self, given: Map) -> Hashable:
        """What is counted of a map."""
        found = self.structures.get(given)
        if found is None:
            found = self.structures[given] = structure_of(given)
        return found


class _Taken(NamedTuple):
    """What a step did: the work, the maps by result or operand, and the axes that it mixed."""

    work: Work
    maps: dict[int, Map]
    lost: tuple[int, ...]


class _Mark(NamedTuple):
    """Where a sketch was when one map was left: what it had counted and found."""

    sketcher: "_Sketcher"
    work: Work
    steps: int
    losses: int
    maps: int


class _Tail(NamedTuple):
    """What a sketch counted and found after a mark."""

    work: Work
    steps: list[int]
    losses: list[tuple[int, tuple[int, ...]]]
    maps: dict[int, Map]
    directions: int


class _Sketcher(Sweeper):
    """A sweep that is only counted; maps of which nothing is known are all the same one."""

    def __init__(
        self,
        network: Network,
        variable: int,
        *,
        forward: bool,
        ends: Collection[int],
        tails: Tails | None,
    ) -> None:
        self.counts = EquationCounts(network)
        super().__init__(self.counts, network)
        self.losses: list[tuple[int, tuple[int, ...]]] = []
        self.steps: list[int] = []
        self._forward = forward
        self._shape = network.variables[variable].aval.shape
        self._size = network.sizes[variable]
        self._sources = {*network.ends[0]}
        self._ends = ends
        self._tails = tails
        self._met = 0  # the source leaves that have been pulled to, as bits
        self._maps: dict[int, Map] = {}
        self._work = Work()
        self._tail: _Tail | None = None

    def follow(self, variable: int, steps: Collection[int], apart: Collection[int]) -> _Tail:
        """All that a variable leads to."""
        if self._forward:
            self._maps = self.push(variable, ONE, steps)
        else:
            self._maps = self.pull(variable, ONE, steps, apart)
        self._work = self.counts.work
        return self.since(_Mark(self, Work(), 0, 0, 0))

    def since(self, mark: _Mark) -> _Tail:
        """What was counted and found after a mark."""
        after = dict(itertools.islice(self._maps.items(), mark.maps, None))
        directions = max(map(self._directions, after.values()), default=0)
        if self._tail is not None:
            directions = max(directions, self._tail.directions)
        return _Tail(
            self._work.minus(mark.work),
            self.steps[mark.steps :],
            self.losses[mark.losses :],
            {v: x for v, x in after.items() if v in self._ends},
            directions,
        )

    def _directions(self, given: Map) -> int:
        """How many of the variable's directions a map takes."""
        if given is _DENSE:
            return self._size
        return given.directions if self._forward else given.transposed.directions

    def write(self, given: Map) -> None:
        """Counts what it takes to multiply the factors of a result."""
        if given is not _DENSE:  # which has been written
            whole = self.counts.whole(given.data.parts, given.data.axes, given.dtype)
            self.counts.result(whole, given.dtype)

    def written(self, given: Map, variable: int) -> Map:
        """The map with axes, also where nothing is known of them."""
        if given is not _DENSE:
            return given
        aval = self._network.variables[variable].aval
        own, other = axes_of(aval.shape), axes_of(self._shape)
        outs, ins = (own, other) if self._forward else (other, own)
        return Map(outs, ins, Data((Part(self, (*flat(outs), *flat(ins))),)), aval.dtype)

    def _identity(self, variable: int, unit: Data) -> Map:
        # Leaves that are alike begin with the same map, so that what steps do to it is known.
        found = super()._identity(variable, unit)
        if self._tails is None:
            return found
        aval = self._network.variables[variable].aval
        return self._tails.identities.setdefault((aval.shape, aval.dtype), found)

    def _rest(self, variable: int, given: Map, before: Collection[int]) -> dict[int, Map] | None:
        if self._tails is None or self._met & self._network.reached[variable]:
            return None  # what is pulled on is added to what has been found
        key = variable, self._size if given is _DENSE else self._tails.structure(given)
        mark = self._tails.marks.get(key)
        if mark is None:
            self._tails.marks[key] = _Mark(
                self, self.counts.work, len(self.steps), len(self.losses), len(before)
            )
            return None
        self._tail = mark.sketcher.since(mark)
        self.counts.work = self.counts.work.plus(self._tail.work)
        self.steps += self._tail.steps
        self.losses += self._tail.losses
        return self._tail.maps

    def _sum(self, maps: Sequence[Map]) -> Map:
        return _DENSE if any(given is _DENSE for given in maps) else super()._sum(maps)

    def through(
        self, step: Step, maps: Mapping[int, Map], wanted: Sequence[int], *, forward: bool
    ) -> dict[int, Map]:
        self.steps.append(step.number)
        if self._tails is not None:
            self._tails.followed += 1
        if not forward:
            for v in {step.operands[k] for k in wanted} & self._sources:
                self._met |= self._network.reached[v]
        if all(given is _DENSE for given in maps.values()):
            cost = fused_costs(self._network, "fwd" if forward else "rev")[step.number]
            self.counts.work = self.counts.work.plus(cost.batch(self._size))
            return dict.fromkeys(wanted, _DENSE)
        taken = self._take(step, maps, wanted, forward=forward)
        self.counts.work = self.counts.work.plus(taken.work)
        if taken.lost:
            self.losses.append((step.number, taken.lost))
        ends = step.results if forward else step.operands
        return {k: self._known(ends[k], given) for k, given in taken.maps.items()}

    def _take(
        self, step: Step, maps: Mapping[int, Map], wanted: Sequence[int], *, forward: bool
    ) -> _Taken:
        """What a step does, counted apart."""
        key = step.kind, self._shape, forward, tuple(wanted), tuple(maps.items())
        known = None if self._tails is None else self._tails.taken.get(key)
        if known is not None:
            return known
        before, self.counts.work = self.counts.work, Work()
        ends = step.operands if forward else step.results
        maps = {k: self.written(x, ends[k]) for k, x in maps.items()}
        found = super().through(step, maps, wanted, forward=forward)
        axes = {i for given in maps.values() for i in kept_axes(given, forward=forward)}
        kept = axes.intersection(*(kept_axes(x, forward=forward) for x in found.values()))
        taken = _Taken(self.counts.work, found, tuple(sorted(axes - kept)))
        self.counts.work = before
        if self._tails is not None:
            self._tails.taken[key] = taken
        return taken

    def _known(self, variable: int, given: Map) -> Map:
        if not given.is_dense:
            return given
        if any(variable in ends for ends in self._network.ends):
            self.write(given)
        return _DENSE
