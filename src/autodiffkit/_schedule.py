"""What is swept on a linear program: cuts, chains, and the choice among them."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

from autodiffkit._cost import Work
from autodiffkit._maps import Axis, Map
from autodiffkit._network import Network
from autodiffkit._progress import Chunks

Pairs = frozenset[tuple[int, int]]


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
        maps: The variables of these that are swept as maps with named axes, each by itself. All
            directions of the others go in one batch.
        narrowed: Of some of these, the steps that are enough.
    """

    pushed: tuple[int, ...] = ()
    middle: tuple[int, ...] = ()
    pulled: tuple[int, ...] = ()
    forward: frozenset[int] = frozenset()
    reverse: frozenset[int] = frozenset()
    maps: frozenset[int] = frozenset()
    narrowed: tuple[tuple[int, frozenset[int]], ...] = ()

    def steps_of(self, variable: int, *, forward: bool) -> frozenset[int]:
        """The steps that a map of a variable is swept through."""
        return dict(self.narrowed).get(variable, self.forward if forward else self.reverse)

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
        mirrored: Of a symmetric matrix of blocks, those that are not swept, but taken from the
            other side of the diagonal: pairs of a row's leaf and a column's.
        chunks: How many directions are swept together; `None` for all of them.
    """

    sweeps: Split | Chain
    network: Network
    mirrored: Pairs = frozenset()
    chunks: Chunks | None = None

    @property
    def is_forward(self) -> bool:
        """Whether this is plain forward mode, in one batch."""
        return (
            isinstance(self.sweeps, Split)
            and self.sweeps.mode == "fwd"
            and not (self.sweeps.maps or self.chunks)
        )

    @property
    def directions(self) -> int:
        """The directions of the largest batch, where it is not in chunks."""
        sweeps, network = self.sweeps, self.network
        if isinstance(sweeps, Chain):
            ends = [x.inputs if x.mode == "fwd" else x.outputs for x in sweeps.links]
        else:
            ends = [(*sweeps.pushed, *sweeps.middle), (*sweeps.middle, *sweeps.pulled)]
        apart = sweeps.maps if isinstance(sweeps, Split) else frozenset[int]()
        return max(network.directions(v for v in end if v not in apart) for end in ends)

    @property
    def steps(self) -> list[int]:
        """The steps that the sweeps take, in order."""
        if isinstance(self.sweeps, Chain):
            return sorted({i for link in self.sweeps.links for i in link.steps})
        return sorted(self.sweeps.forward | self.sweeps.reverse)


class Fate(NamedTuple):
    """What becomes of an axis of what is swept from.

    Args:
        axis: Its number.
        kept: The ends, by variable, that have the same axis.
        mixed: The first step that mixes it on the way to another end.
    """

    axis: int
    kept: tuple[int, ...]
    mixed: int | None


@dataclasses.dataclass(frozen=True)
class Sketch:
    """A sweep from one variable that was followed on paper.

    Args:
        work: What it takes.
        directions: How many of its directions remain.
        maps: The maps that it leads to, by variable, without data.
        losses: Where axes stopped being the same: the step, and the numbers of the axes of the
            variable that is swept from.
        steps: The steps that it took.
        forward: Whether it is pushed.
    """

    work: Work
    directions: int
    maps: Mapping[int, Map]
    losses: tuple[tuple[int, tuple[int, ...]], ...]
    steps: frozenset[int]
    forward: bool

    def axes(self, network: Network) -> list[Fate]:
        """What becomes of each axis of more than one entry."""
        ends = [v for v in network.ends[self.forward] if v in self.maps]
        found: list[Fate] = []
        for i, axis in enumerate(_side(self.maps[ends[0]], self.forward) if ends else ()):
            if not axis:
                continue
            kept = tuple(v for v in ends if i in kept_axes(self.maps[v], forward=self.forward))
            step = next((step for step, axes in self.losses if i in axes), None)
            found.append(Fate(i, kept, None if len(kept) == len(ends) else step))
        return found


def kept_axes(given: Map, *, forward: bool) -> list[int]:
    """The axes of what is swept from that are whole at the other end, together or in parts."""
    shared = set(given.shared)
    axes = _side(given, forward)
    return [i for i, axis in enumerate(axes) if axis and all(label in shared for label in axis)]


def _side(given: Map, forward: bool) -> tuple[Axis, ...]:
    return given.ins if forward else given.outs


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Sweeps with what they are estimated to cost.

    Args:
        sweeps: What is swept.
        forward: The directions that are pushed.
        reverse: The directions that are pulled.
        work: What it takes.
        pushes: The sketches of what is pushed as a map, by variable.
        pulls: The sketches of what is pulled as a map.
        mirrored: As in `Schedule`.
    """

    sweeps: Split | Chain
    forward: int
    reverse: int
    work: Work
    pushes: Mapping[int, Sketch] = dataclasses.field(default_factory=dict[int, Sketch])
    pulls: Mapping[int, Sketch] = dataclasses.field(default_factory=dict[int, Sketch])
    mirrored: Pairs = frozenset()

    @property
    def directions(self) -> int:
        """The directions of both kinds."""
        return self.forward + self.reverse


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
