"""The cheapest sweeps of a linear program: candidates, their cost, and the choice."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Literal

from autodiffkit._cost import launch
from autodiffkit._estimate import Maps, estimate, mirrored
from autodiffkit._network import Cut, Network
from autodiffkit._schedule import Candidate, Chain, Choice, Link, Split

# Plain modes within this ratio count as equal, and what a cut has to save to be worth it.
_TIE = 1.1
_WORTH = 1.25

# A cut that costs as much as a plain mode is taken where it has so many times fewer directions.
_FEWER = 2

# A call costs as much as starting this many kernels; fewer make no difference.
_KERNELS = 10


@dataclasses.dataclass(frozen=True)
class Blocked:
    """The steps that cannot be pushed through, and those that cannot be pulled through."""

    push: frozenset[int] = frozenset()
    pull: frozenset[int] = frozenset()


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
    maps: Maps = "worthwhile",
    symmetric: bool = False,
) -> Choice | None:
    """Compares the plain modes with the minimum cuts.

    Args:
        network: The linear program.
        blocked: What is impossible.
        modes: The kinds of sweeps to consider.
        tie: The plain mode to take when both cost about the same.
        kept: The bytes of residuals that only exist for sweeps of the linear program.
        cautious: Whether to cut only where reverse mode is impossible.
        maps: Which variables may be swept as maps with named axes.
        symmetric: Whether, for each output, the blocks form a symmetric matrix.

    Returns:
        The choice; `None` if nothing is possible.
    """
    order = ("fwd", "rev") if tie == "fwd" else ("rev", "fwd")
    possible: dict[str, Candidate] = {}
    for mode in order:
        if mode in modes and not (blocked.push if mode == "fwd" else blocked.pull):
            found = estimate(network, plain(network, mode), kept, maps=maps)
            possible[mode] = mirrored(network, found, kept) if symmetric else found
    capacity, cuts = _cuts(network, blocked)
    mixed: list[Candidate] = []
    if "mixed" in modes and not (cautious and "rev" in possible):
        # A cut as large as a plain mode saves nothing, and 0 times NaN in its product spreads.
        bound = min((network.directions(network.ends[m == "rev"]) for m in possible), default=None)
        splits = dict.fromkeys(
            _split(network, cut)
            for cut in cuts
            if bound is None or network.directions(cut.variables) < bound
        )
        mixed = [estimate(network, s, kept, maps=maps) for s in splits if s.mode == "mixed"]
    if "chain" in modes and not possible and not mixed:
        chains = list(_chains(network.over_reals, blocked))
        mixed = [estimate(network.over_reals, chain, kept) for chain in chains]
        capacity = min((_capacity(network.over_reals, chain) for chain in chains), default=0)
    candidates = [*possible.values(), *mixed]
    if not candidates:
        return None
    kernels = max(_KERNELS, min(candidate.work.kernels for candidate in candidates))
    chosen = candidates[0]
    for candidate in candidates[1:]:
        if _is_better(network, candidate, chosen, kernels):
            chosen = candidate
    return Choice(chosen, possible, capacity)


def _is_better(network: Network, candidate: Candidate, chosen: Candidate, kernels: float) -> bool:
    """Whether it clearly costs less; or about the same, with clearly fewer directions.

    Directions are those that are left where axes stay apart; for plain modes then all of them.
    """
    ours, theirs = (launch() + c.work.time(kernels) for c in (candidate, chosen))
    mixed = [c.sweeps.mode == "mixed" for c in (candidate, chosen)]
    tie = _TIE if mixed[0] == mixed[1] else _WORTH
    if ours * tie < theirs or theirs * tie < ours:
        return ours < theirs
    clearly = _TIE if mixed[0] == mixed[1] else _FEWER
    counts = [[c.directions for c in (candidate, chosen)]]
    if not any(mixed):
        ends = (network.ends[c.sweeps.mode == "rev"] for c in (candidate, chosen))
        counts.append([network.directions(end) for end in ends])
    for few, many in counts:
        if few * clearly < many or many * clearly < few:
            return few < many
    if not any(mixed) and abs(candidate.work.kernels - chosen.work.kernels) > _KERNELS:
        return candidate.work.kernels < chosen.work.kernels  # which is compiled faster
    # Of equals the simpler one is taken.
    return all(mixed) and ours < theirs


def _cuts(network: Network, blocked: Blocked) -> tuple[int, list[Cut]]:
    """The capacity of the minimum cut, and cuts worth considering."""
    smallest = min(map(network.directions, network.ends))
    if smallest == 1 and not (blocked.push or blocked.pull):
        return smallest, []  # nothing is smaller
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
