"""A linear program as a graph of a few nodes, with what is swept on it.

Nodes are variables, or several that were merged. First chains are merged, which loses little; where
there are still too many, what one node alone reads and that, what has the same neighbours, what is
as far from the inputs, and at last what is near to one another. None of it makes a cycle.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from autodiffkit._network import Network
from autodiffkit._schedule import Chain, Choice, Schedule, Split

Edge = tuple[int, int]


class Directions(NamedTuple):
    """How many directions are swept from a variable: pushed forward, and pulled back."""

    pushed: int = 0
    pulled: int = 0


class Role(NamedTuple):
    """What variables have in common that may be merged.

    Args:
        is_source: Whether they are inputs.
        is_target: Whether they are outputs.
        is_cut: Whether sweeps start from them.
        region: Which sweeps come through what computes them: `"fwd"` and `"rev"`.
    """

    is_source: bool
    is_target: bool
    is_cut: bool
    region: frozenset[str]

    @property
    def is_inner(self) -> bool:
        """Whether nothing begins or ends there."""
        return not (self.is_source or self.is_target or self.is_cut)


@dataclasses.dataclass(frozen=True)
class Node:
    """Variables that are drawn as one.

    Args:
        role: What they are.
        variables: Their numbers, in the order of the program.
        directions: How many directions are swept from them.
    """

    role: Role
    variables: tuple[int, ...]
    directions: Directions


@dataclasses.dataclass(frozen=True)
class PlanGraph:
    """A condensed program.

    Args:
        nodes: What is drawn, in the order of the program.
        edges: Pairs of numbers of nodes with the sweeps that go along: `"fwd"`, `"rev"`, both or
            none.
        variables: How many variables the program has.
    """

    nodes: tuple[Node, ...]
    edges: dict[Edge, frozenset[str]]
    variables: int


def plan_graph(schedule: Schedule, choice: Choice, *, most: int, levels: int) -> PlanGraph:
    """The program of a plan as a graph.

    Args:
        schedule: What is swept.
        choice: With what directions.
        most: How many nodes there may be.
        levels: How many there may be in a row.

    Returns:
        The graph.
    """
    network = schedule.network
    starts = _starts(schedule, choice)
    modes = _modes(schedule)
    sources, targets = map(set, network.ends)
    roles: list[Role] = []
    for v in range(len(network.variables)):
        region = frozenset[str]().union(*(modes[i] for i in network.makers[v]))
        roles.append(Role(v in sources, v in targets, v in starts, region))
    edges: dict[Edge, frozenset[str]] = {}
    for step in network.steps:
        for edge in itertools.product(step.inputs, step.outputs):
            edges[edge] = edges.get(edge, frozenset()) | modes[step.number]
    merger = _Merger(roles, edges)
    merger.reduce(most, levels)
    groups = merger.groups
    numbers = {v: i for i, group in enumerate(groups) for v in group}
    nodes = tuple(
        Node(
            roles[group[0]],
            group,
            Directions(*(sum(starts.get(v, Directions())[k] for v in group) for k in (0, 1))),
        )
        for group in groups
    )
    joined: dict[Edge, frozenset[str]] = {}
    for (a, b), found in edges.items():
        edge = numbers[a], numbers[b]
        if edge[0] != edge[1]:
            joined[edge] = joined.get(edge, frozenset()) | found
    return PlanGraph(nodes, joined, len(network.variables))


def _starts(schedule: Schedule, choice: Choice) -> dict[int, Directions]:
    """What is swept from, with the directions that remain where axes are kept apart."""
    network, sweeps, chosen = schedule.network, schedule.sweeps, choice.chosen
    found: dict[int, Directions] = {}

    def add(variables: Iterable[int], mode: str) -> None:
        sketches = chosen.pushes if mode == "fwd" else chosen.pulls
        for v in variables:
            count = sketches[v].directions if v in sketches else network.capacities[v]
            pushed, pulled = found.get(v, Directions())
            is_forward = mode == "fwd"
            found[v] = Directions(
                pushed + count if is_forward else pushed, pulled if is_forward else pulled + count
            )

    if isinstance(sweeps, Chain):
        for link in sweeps.links:
            add(link.inputs if link.mode == "fwd" else link.outputs, link.mode)
        return found
    for mode, ends in _ends(sweeps):
        add(ends, mode)
    return found


def _ends(split: Split) -> list[tuple[str, list[int]]]:
    """What is pushed from and what is pulled from, without what symmetry makes needless."""
    narrowed = dict(split.narrowed)
    return [
        (mode, [v for v in ends if narrowed.get(v, True)])
        for mode, ends in (
            ("fwd", (*split.pushed, *split.middle)),
            ("rev", (*split.middle, *split.pulled)),
        )
    ]


def _modes(schedule: Schedule) -> list[frozenset[str]]:
    """Which sweeps go through each step."""
    sweeps, network = schedule.sweeps, schedule.network
    taken: dict[str, set[int]] = {"fwd": set(), "rev": set()}
    if isinstance(sweeps, Chain):
        for link in sweeps.links:
            taken[link.mode] |= link.steps
    else:
        for mode, ends in _ends(sweeps):
            by_steps: dict[frozenset[int], list[int]] = {}
            for v in ends:
                by_steps.setdefault(sweeps.steps_of(v, forward=mode == "fwd"), []).append(v)
            for steps, group in by_steps.items():
                taken[mode] |= _through(network, steps, group, forward=mode == "fwd")
    return [
        frozenset(mode for mode, steps in taken.items() if step.number in steps)
        for step in network.steps
    ]


def _through(
    network: Network, steps: Collection[int], variables: Collection[int], *, forward: bool
) -> set[int]:
    """Those of the steps that a sweep from variables goes through."""
    found, taken = set(variables), set[int]()
    for i in sorted(steps, reverse=not forward):
        step = network.steps[i]
        ends = (step.inputs, step.outputs) if forward else (step.outputs, step.inputs)
        if not found.isdisjoint(ends[0]):
            found.update(ends[1])
            taken.add(i)
    return taken


# Merging ---------------------------------------------------------------------------------


class _Merger:
    """A graph without cycles, whose nodes are merged so that none comes up."""

    def __init__(self, roles: Sequence[Role], edges: Iterable[Edge]) -> None:
        self._roles = dict(enumerate(roles))
        self._members = {v: [v] for v in self._roles}
        self._before: dict[int, set[int]] = {v: set() for v in self._roles}
        self._after: dict[int, set[int]] = {v: set() for v in self._roles}
        for a, b in edges:
            self._after[a].add(b)
            self._before[b].add(a)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The variables of each node, in the order of the program."""
        return sorted(tuple(sorted(group)) for group in self._members.values())

    def reduce(self, most: int, levels: int) -> None:
        """Merges until there are no more nodes than that, and no more in a row, if it can be."""
        self._merge_chains()
        self._merge_ends(2 * most // 3)
        self._merge_readers(most)
        for merge in (self._merge_twins, self._merge_levels, self._merge_halves):
            while len(self._members) > most * (4 if merge == self._merge_halves else 1):
                if not merge():
                    break
                self._merge_chains()
        while len(self._members) > most and self._merge_levels():
            self._merge_chains()
        while len(self._members) > most and self._merge_near():
            self._merge_chains()
        while max(self._levels().values(), default=0) >= levels and self._merge_near(apart=1):
            self._merge_chains()

    def _merge(self, kept: int, gone: int) -> None:
        self._members[kept] += self._members.pop(gone)
        for ours, theirs in ((self._before, self._after), (self._after, self._before)):
            for other in ours.pop(gone):
                theirs[other].discard(gone)
                if other != kept:
                    ours[kept].add(other)
                    theirs[other].add(kept)
        self._before[kept].discard(kept)
        self._after[kept].discard(kept)

    def _levels(self) -> dict[int, int]:
        """The longest way from an input to each node."""
        missing = {v: len(before) for v, before in self._before.items()}
        ready = [v for v, count in missing.items() if not count]
        found = dict.fromkeys(self._members, 0)
        while ready:
            v = ready.pop()
            for w in self._after[v]:
                found[w] = max(found[w], found[v] + 1)
                missing[w] -= 1
                if not missing[w]:
                    ready.append(w)
        return found

    def _merge_chains(self) -> None:
        """Joins what is on one way, with what only leads back to it.

        That is a node that one other reads, which reads nothing but the first node and what that
        reads; or the same from the other side. No way leads from one to the other through a third.
        """
        ready = list(self._members)
        while ready:
            v = ready.pop()
            if v not in self._members or not self._roles[v].is_inner:
                continue
            for ours, theirs in ((self._before, self._after), (self._after, self._before)):
                if len(theirs[v]) == 1:
                    (w,) = theirs[v]
                    if self._roles[v] == self._roles[w] and ours[w] - {v} <= ours[v]:
                        self._merge(w, v)
                        ready += [w, *self._before[w], *self._after[w]]
                        break

    def _merge_ends(self, most: int) -> None:
        """Merges inputs, and outputs, where there are many: first those of the same readers."""
        for is_end in (lambda role: role.is_source, lambda role: role.is_target):
            for key in (self._neighbours, lambda _: 0):
                ends = [v for v in self._members if is_end(self._roles[v])]
                if len(ends) > most:
                    self._merge_by(key, ends)

    def _neighbours(self, v: int) -> object:
        return frozenset(self._before[v]), frozenset(self._after[v])

    def _merge_readers(self, most: int) -> None:
        """Joins what one node alone reads to that, and what reads one alone; small ones first."""
        while len(self._members) > most:
            pairs = [
                (len(self._members[v]) + len(self._members[w]), v, w)
                for v in self._middle
                for found in (self._after[v], self._before[v])
                if len(found) == 1
                for w in found
                if self._roles[v] == self._roles[w]
            ]
            if not pairs:
                return
            touched: set[int] = set()
            for _, v, w in sorted(pairs)[: len(self._members) - most]:
                if touched.isdisjoint({v, w}):
                    self._merge(w, v)
                    touched |= {v, w}
            self._merge_chains()

    def _merge_twins(self) -> bool:
        """Merges what reads the same and is read by the same."""
        return self._merge_by(self._neighbours, self._middle)

    def _merge_levels(self) -> bool:
        """Merges what is as far from the inputs, where there is most of it."""
        levels, middle = self._levels(), self._middle
        counts = Counter((levels[v], self._roles[v]) for v in middle)
        bound = max(counts.values(), default=1) // 2
        return self._merge_by(
            levels.__getitem__,
            [v for v in middle if counts[levels[v], self._roles[v]] > max(1, bound)],
        )

    def _merge_halves(self) -> bool:
        """Merges what is as far from the inputs but for one step: of each two layers, one role."""
        # With two roles, either could come to be before and after the other.
        levels = self._levels()
        by_layers: dict[int, dict[Role, set[int]]] = {}
        for v in self._middle:
            by_layers.setdefault(levels[v] // 2, {}).setdefault(self._roles[v], set()).add(v)
        chosen = [max(roles.values(), key=len) for roles in by_layers.values()]
        return self._merge_by(lambda v: levels[v] // 2, set[int]().union(*chosen))

    @property
    def _middle(self) -> list[int]:
        """What is between inputs and outputs; these are seen to first."""
        roles = self._roles
        return [v for v in self._members if not (roles[v].is_source or roles[v].is_target)]

    def _merge_by(self, key: Callable[[int], object], among: Collection[int]) -> bool:
        found: dict[object, list[int]] = {}
        for v in among:
            found.setdefault((self._roles[v], key(v)), []).append(v)
        groups = [group for group in found.values() if len(group) > 1]
        for kept, *gone in groups:
            for v in gone:
                self._merge(kept, v)
        return bool(groups)

    def _merge_near(self, apart: int = 0) -> bool:
        """Merges the nearest two of a role with no way from one to the other through a third."""
        levels = self._levels()
        pairs = sorted(
            (distance, len(self._members[a]) + len(self._members[b]), a, b)
            for a, b in itertools.combinations(self._middle, 2)
            if self._roles[a] == self._roles[b]
            and (distance := abs(levels[a] - levels[b])) >= apart
        )
        for *_, a, b in pairs:
            if not (self._leads(a, b) or self._leads(b, a)):
                self._merge(a, b)
                return True
        return False

    def _leads(self, a: int, b: int) -> bool:
        """Whether there is a way from one node to another through a third."""
        seen: set[int] = set()
        ready = [v for v in self._after[a] if v != b]
        while ready:
            v = ready.pop()
            if v == b:
                return True
            if v not in seen:
                seen.add(v)
                ready += self._after[v]
        return False
