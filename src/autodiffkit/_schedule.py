"""The cheapest sweeps of a linear program: candidates, their cost, and the choice."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Literal

from autodiffkit._cost import Work, total
from autodiffkit._network import Cut, Network

# Plain modes within this ratio count as equal, and what a cut has to save to be worth it.
_TIE = 1.1
_WORTH = 1.25

# A call costs as much as starting this many kernels; fewer make no difference.
_KERNELS = 10


@dataclasses.dataclass(frozen=True)
class Split:
    """A cut with what is swept on either side of it, joined by one product.

    Plain forward mode pushes from all sources and pulls nothing; plain reverse mode pulls
    from all targets and pushes nothing.

    Args:
        pushed: Sources to push from; nothing is pulled onto them.
        middle: Variables to pull from and to push from.
        pulled: Targets to pull from; nothing is pushed on from them.
        forward: The steps that pushing takes.
        reverse: The steps that pulling takes.
    """

    pushed: tuple[int, ...] = ()
    middle: tuple[int, ...] = ()
    pulled: tuple[int, ...] = ()
    forward: frozenset[int] = frozenset()
    reverse: frozenset[int] = frozenset()

    @property
    def mode(self) -> Literal["fwd", "rev", "mixed"]:
        """What kind of plan it is."""
        if self.middle or (self.pushed and self.pulled):
            return "mixed"
        return "rev" if self.pulled else "fwd"


@dataclasses.dataclass(frozen=True)
class Link:
    """A part of a chain: the map from variables to variables, swept in one direction."""

    mode: Literal["fwd", "rev"]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Chain:
    """Parts in alternating directions whose product is the derivative."""

    links: tuple[Link, ...]
    mode: Literal["mixed"] = "mixed"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The sweeps to run on a program.

    Args:
        sweeps: What to push and pull.
        network: The program that they are planned on.
        mirrored: Of a symmetric matrix of blocks, the leaves whose columns or rows are not
            swept, but taken from the other side of the diagonal.
        mirrored_columns: Whether it is their columns.
    """

    sweeps: Split | Chain
    network: Network
    mirrored: frozenset[int] = frozenset()
    mirrored_columns: bool = False

    @property
    def is_forward(self) -> bool:
        """Whether this is plain forward mode."""
        return self.sweeps.mode == "fwd"

    @property
    def steps(self) -> list[int]:
        """The steps that the sweeps take, in order."""
        if isinstance(self.sweeps, Chain):
            return sorted({i for link in self.sweeps.links for i in link.steps})
        return sorted(self.sweeps.forward | self.sweeps.reverse)


@dataclasses.dataclass(frozen=True)
class Blocked:
    """The steps that cannot be pushed through, and those that cannot be pulled through."""

    push: frozenset[int] = frozenset()
    pull: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Sweeps with what they are estimated to cost."""

    sweeps: Split | Chain
    forward: int
    reverse: int
    work: Work


@dataclasses.dataclass(frozen=True)
class Choice:
    """The sweeps that were chosen, and what they were compared with.

    Args:
        chosen: The cheapest candidate.
        plain: The plain modes that are possible.
        capacity: That of the minimum cut.
    """

    chosen: Candidate
    plain: dict[str, Candidate]
    capacity: int


def plain(network: Network, mode: str) -> Split:
    """Forward mode from all sources, or reverse mode from all targets."""
    sources, targets = network.ends
    steps = frozenset(range(len(network.steps)))
    if mode == "fwd":
        return Split(pushed=tuple(sources), forward=steps)
    return Split(pulled=tuple(targets), reverse=steps)


def choose(
    network: Network,
    blocked: Blocked,
    *,
    modes: Collection[str] = ("fwd", "rev", "mixed", "chain"),
    tie: Literal["fwd", "rev"] = "fwd",
    kept: int = 0,
    cautious: bool = False,
) -> Choice | None:
    """Compares the plain modes with the minimum cuts.

    Args:
        network: The linear program.
        blocked: What is impossible.
        modes: The kinds of sweeps to consider.
        tie: The plain mode to take when both cost about the same.
        kept: The bytes of residuals that only exist for sweeps of the linear program.
        cautious: Whether to cut only where reverse mode is impossible.

    Returns:
        The choice; `None` if nothing is possible.
    """
    order = ("fwd", "rev") if tie == "fwd" else ("rev", "fwd")
    possible: dict[str, Candidate] = {}
    for mode in order:
        if mode in modes and not (blocked.push if mode == "fwd" else blocked.pull):
            possible[mode] = _candidate(network, plain(network, mode), kept)
    capacity, cuts = _cuts(network, blocked)
    mixed: list[Candidate] = []
    if "mixed" in modes and not (cautious and "rev" in possible):
        # A cut as large as a plain mode saves nothing, and 0 times NaN in its product spreads.
        bound = min((c.forward + c.reverse for c in possible.values()), default=None)
        splits = dict.fromkeys(
            _split(network, cut)
            for cut in cuts
            if bound is None or network.directions(cut.variables) < bound
        )
        mixed = [_candidate(network, s, kept) for s in splits if s.mode == "mixed"]
    if "chain" in modes and not possible and not mixed:
        chains = list(_chains(network.over_reals, blocked))
        mixed = [_candidate(network.over_reals, chain, kept) for chain in chains]
        capacity = min((_capacity(network.over_reals, chain) for chain in chains), default=0)
    candidates = [*possible.values(), *mixed]
    if not candidates:
        return None
    kernels = max(_KERNELS, min(candidate.work.kernels for candidate in candidates))
    chosen = candidates[0]
    for candidate in candidates[1:]:
        better = 1.0
        if chosen.sweeps.mode != "mixed":  # of equals the simpler one is taken
            better = _WORTH if candidate.sweeps.mode == "mixed" else _TIE
        if candidate.work.time(kernels) * better < chosen.work.time(kernels):
            chosen = candidate
    return Choice(chosen, possible, capacity)


def _cuts(network: Network, blocked: Blocked) -> tuple[int, list[Cut]]:
    """The capacity of the minimum cut, and cuts worth considering."""
    capacity, cuts = network.minimum_cuts(network.capacities, blocked.push, blocked.pull)
    if cuts and capacity >= min(map(network.directions, network.ends)):
        return capacity, cuts  # no other one is smaller either
    # The variables between are paid for in both directions.
    ends = set().union(*network.ends)
    once = [c if v in ends else 2 * c for v, c in enumerate(network.capacities)]
    return capacity, cuts + network.minimum_cuts(once, blocked.push, blocked.pull)[1]


def _split(network: Network, cut: Cut) -> Split:
    """What is swept for a cut: each path is pulled up to the first variable that it crosses."""
    sources, targets = network.ends
    pushed = tuple(v for v in sources if v in cut.variables)
    others = sorted(cut.variables.difference(pushed))
    # Nothing is computed from a target: a program copies what is.
    pulled = tuple(v for v in others if v in targets)
    middle = tuple(v for v in others if v not in pulled)
    forward = network.after((*pushed, *middle))
    reverse = network.before(others, cut)
    return Split(pushed, middle, pulled, forward, reverse)


# Chains -------------------------------------------------------------------------


def _chains(network: Network, blocked: Blocked) -> Iterable[Chain]:
    """Parts that alternate, beginning with either direction."""
    if blocked.push & blocked.pull:
        return ()
    return (_chain(network, blocked, first) for first in ("fwd", "rev"))


def _chain(network: Network, blocked: Blocked, first: Literal["fwd", "rev"]) -> Chain:
    """As few parts as the order of the blocked steps allows, between minimum cuts."""
    parity = {"fwd": 0, "rev": 1} if first == "fwd" else {"rev": 0, "fwd": 1}
    level = [0] * len(network.variables)
    levels: dict[int, int] = {}
    for i, step in enumerate(network.steps):
        here = max((level[v] for v in step.inputs), default=0)
        wanted = parity["rev"] if i in blocked.push else parity["fwd"]
        if i in blocked.push or i in blocked.pull:
            here += (here - wanted) % 2
            levels[i] = here
        for v in step.outputs:
            level[v] = here
    sources, targets = network.ends
    links: list[Link] = []
    inputs, done = tuple(sources), frozenset[int]()
    count = max(levels.values(), default=0) + 1
    for part in range(count):
        mode: Literal["fwd", "rev"] = "fwd" if part % 2 == parity["fwd"] else "rev"
        steps, outputs = frozenset(range(len(network.steps))), tuple(targets)
        if part < count - 1:
            before = [i for i, at in levels.items() if at <= part]
            after = [i for i, at in levels.items() if at > part]
            variables, steps = network.minimum_partition([*done, *before], after)
            outputs = tuple(sorted(variables))
        links.append(Link(mode, inputs, outputs, steps - done))
        inputs, done = outputs, steps
    return Chain(tuple(links))


def _capacity(network: Network, chain: Chain) -> int:
    return sum(network.directions(link.outputs) for link in chain.links[:-1])


# Costs --------------------------------------------------------------------------


def _candidate(network: Network, sweeps: Split | Chain, kept: int) -> Candidate:
    """The number of sweeps and the work that they take."""
    if isinstance(sweeps, Chain):
        work, forward, reverse = Work(moved=2.0 * kept), 0, 0
        for link in sweeps.links:
            ends = link.inputs if link.mode == "fwd" else link.outputs
            count = network.directions(ends)
            forward, reverse = (
                (forward + count, reverse) if link.mode == "fwd" else (forward, reverse + count)
            )
            work = work.plus(_sweep(network, link.steps, link.mode, count))
        for link in sweeps.links[1:]:
            n, k, m = map(network.directions, (network.ends[0], link.inputs, link.outputs))
            work = work.plus(_product(n, k, m, itemsize=4))
        return Candidate(sweeps, forward, reverse, work)
    forward = network.directions((*sweeps.pushed, *sweeps.middle))
    reverse = network.directions((*sweeps.middle, *sweeps.pulled))
    pushed = _sweep(network, sweeps.forward, "fwd", forward)
    work = pushed.plus(_sweep(network, sweeps.reverse, "rev", reverse))
    if sweeps.mode != "fwd":  # what plain forward mode never stores: written and read again
        work = work.plus(Work(moved=2.0 * kept))
    if sweeps.middle:
        sources, targets = network.ends
        rows = [v for v in targets if v in network.computed(sweeps.middle, sweeps.forward)]
        columns = [v for v in sources if v not in sweeps.pushed]
        itemsize = max(network.variables[v].aval.dtype.itemsize for v in sweeps.middle)
        n, k, m = map(network.directions, (columns, sweeps.middle, rows))
        work = work.plus(_product(n, k, m, itemsize=itemsize))
    return Candidate(sweeps, forward, reverse, work)


def _sweep(network: Network, steps: Collection[int], mode: str, count: int) -> Work:
    taken = (network.steps[i] for i in steps)
    return total(step.push if mode == "fwd" else step.pull for step in taken).batch(count)


def _product(columns: int, middle: int, rows: int, itemsize: int) -> Work:
    """A matrix product at a cut."""
    entries = rows * columns + middle * (rows + columns)
    return Work(2.0 * rows * middle * columns, float(entries * itemsize), 1.0)
