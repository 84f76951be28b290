"""How many directions go together: chunks within limits, and what these are expected to hold."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from autodiffkit._block_table import worth_packing
from autodiffkit._cost import nbytes
from autodiffkit._leaves import Ends
from autodiffkit._limits import Limits
from autodiffkit._liveness import live_bytes
from autodiffkit._network import Network
from autodiffkit._progress import Chunks
from autodiffkit._schedule import Candidate, Chain, Schedule, Split

# With nothing but a bar asked for, sweeps of so many operations or more are shown in so many
# chunks, of at least so many directions each.
_LONG = 1e9
_SHOWN = 20
_LEAST = 32


class Temporaries(NamedTuple):
    """The bytes that sweeps are expected to hold at a time, besides residuals and result.

    Args:
        fixed: Whatever the chunks are: what was swept and waits for a product.
        each: For each direction of a chunk.
    """

    fixed: int
    each: int

    def of(self, directions: int) -> int:
        """With so many directions in a chunk."""
        return self.fixed + directions * self.each


def temporaries(candidate: Candidate, network: Network, ends: Ends) -> Temporaries:
    """What sweeps are expected to hold."""
    sweeps = candidate.sweeps
    if isinstance(sweeps, Chain):
        each = max(live_bytes(network, link.steps, link.mode) for link in sweeps.links)
        joints = [
            network.directions(link.inputs) * _bytes(network, link.outputs) for link in sweeps.links
        ]
        return Temporaries(sum(joints), each)
    each = 0
    middle = [v for v in sweeps.middle if v not in sweeps.maps]
    if any(v not in sweeps.maps for v in (*sweeps.pushed, *middle)):
        each = max(each, live_bytes(network, sweeps.forward, "fwd"))
    if any(v not in sweeps.maps for v in (*sweeps.pulled, *middle)):
        each = max(each, live_bytes(network, sweeps.reverse, "rev"))
    # Of maps, each is written once at most where it is used.
    fixed = sum(
        int(x.work.moved) // 2 for x in (*candidate.pushes.values(), *candidate.pulls.values())
    )
    if middle:
        fixed += network.directions(middle) * _swept_onto(network, sweeps)
    if worth_packing(ends.targets, ends.sources):  # they are put together
        fixed += sum(x.size for x in ends.targets) * sum(x.size for x in ends.sources) * 4
    return Temporaries(fixed, each)


def _swept_onto(network: Network, split: Split) -> int:
    sources, targets = network.ends
    reached = network.computed(split.middle, split.forward)
    rows = _bytes(network, (v for v in targets if v in reached))
    return rows + _bytes(network, (v for v in sources if v not in split.pushed))


def _bytes(network: Network, variables: Iterable[int]) -> int:
    return sum(nbytes(network.variables[v]) for v in variables)


def within(
    candidate: Candidate, schedule: Schedule, ends: Ends, limits: Limits, label: str
) -> Schedule | None:
    """A schedule in chunks that keep to limits.

    Args:
        candidate: The sweeps, as they were estimated.
        schedule: The same, in one batch.
        ends: What is swept from and to.
        limits: What they may take.
        label: Of the bar, if there is to be one.

    Returns:
        The schedule; `None` if even one direction takes more.
    """
    count = schedule.directions
    size = count
    if limits.chunk_size is not None:
        size = min(size, limits.chunk_size)
    if limits.memory_limit is not None:
        expected = temporaries(candidate, schedule.network, ends)
        if expected.of(min(1, count)) > limits.memory_limit:
            return None
        if expected.each:
            size = min(size, (limits.memory_limit - expected.fixed) // expected.each)
    elif _is_shown(candidate, limits):
        size = min(size, max(_LEAST, -(-count // _SHOWN)))
    if size >= count:
        return schedule
    return dataclasses.replace(schedule, chunks=Chunks(size, label if limits.progress else None))


def keeps_maps(candidate: Candidate, limits: Limits) -> bool:
    """Whether what is swept as maps keeps to limits; it is not done in chunks."""
    if _is_shown(candidate, limits):
        return False
    maps = [*candidate.pushes.values(), *candidate.pulls.values()]
    if limits.chunk_size is not None and any(x.directions > limits.chunk_size for x in maps):
        return False
    moved = sum(x.work.moved for x in maps)
    return limits.memory_limit is None or moved <= limits.memory_limit


def _is_shown(candidate: Candidate, limits: Limits) -> bool:
    """Whether it is for the bar alone that sweeps are divided: they take long."""
    free = limits.chunk_size is None and limits.memory_limit is None
    return limits.progress and free and candidate.work.time() > _LONG
