"""Unit directions swept through a linear program, in one batch or in chunks."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._directions import Directions, batch
from autodiffkit._leaves import slices
from autodiffkit._network import Network
from autodiffkit._program import Linear
from autodiffkit._progress import Chunks


class Batch(NamedTuple):
    """What was swept from some variables together.

    Args:
        starts: The directions that belong to each of them.
        ends: By variable at the other end: arrays whose directions lie along one axis.
    """

    starts: Mapping[int, slice]
    ends: Mapping[int, Array]


class Batches:
    """What was swept from variables, of which each belongs to one batch.

    Args:
        batches: The batches.
        axis: Where directions lie: -1 if they were pushed, 0 if they were pulled.
    """

    def __init__(self, batches: Sequence[Batch], axis: int) -> None:
        self._axis = axis
        self._by_start = {start: batch for batch in batches for start in batch.starts}

    def of(self, start: int, end: int) -> Array | None:
        """What was swept from one variable to another; `None` if nothing was."""
        batch = self._by_start.get(start)
        if batch is None or end not in batch.ends:
            return None
        return self._directions(batch.ends[end], batch.starts[start])

    def together(self, starts: Sequence[int], end: int) -> Array | None:
        """What was swept from neighbours of one batch to a variable."""
        batch = self._by_start[starts[0]]
        if end not in batch.ends:
            return None
        part = slice(batch.starts[starts[0]].start, batch.starts[starts[-1]].stop)
        return self._directions(batch.ends[end], part)

    def _directions(self, swept: Array, part: slice) -> Array:
        return swept[..., part] if self._axis else swept[part]

    def whole(self, end: int) -> Array | None:
        """All that was swept to a variable, where it is one batch."""
        batch = next(iter(self._by_start.values()), None)
        return None if batch is None else batch.ends.get(end)


def groups_of(
    network: Network, starts: Sequence[int], middle: Sequence[int], chunks: Chunks | None
) -> list[list[int]]:
    """Which variables are swept together.

    In one batch, that is all of them. In chunks, variables of more entries than a chunk go by
    themselves: what is swept from them is a block of the result as it stands.

    Args:
        network: The program.
        starts: The variables that are swept from.
        middle: Those of a cut among them, which stay together.
        chunks: How many directions go together.

    Returns:
        The groups.
    """
    if chunks is None:
        return [list(starts)] if starts else []
    large = [v for v in starts if v not in middle and network.capacities[v] > chunks.size]
    small = [v for v in starts if v not in middle and v not in large]
    return [group for group in (*([v] for v in large), small, list(middle)) if group]


def push(
    linear: Linear,
    network: Network,
    starts: Sequence[int],
    outputs: Sequence[int],
    steps: Collection[int],
    *,
    chunks: Chunks | None = None,
) -> dict[int, Array]:
    """Pushes a unit direction from every entry of the variables.

    Args:
        linear: The map.
        network: Its program as a network.
        starts: The variables to push from.
        outputs: The variables to push to.
        steps: The steps between them.
        chunks: How many directions go together.

    Returns:
        By output variable, arrays with axes [output..., direction].
    """
    if not outputs:
        return {}
    part = _piece(linear, network, starts, outputs, steps)
    structs = part.program.sources[: len(starts)]
    absent = part.program.sources[len(starts) :]

    def run(unit: list[Array]) -> list[Array]:
        return part(*unit, *(jnp.zeros(s.shape, s.dtype) for s in absent))

    axis = network.direction_axis(steps)
    directions = Directions(structs, 1.0, network.complex_directions, axis)
    return dict(zip(outputs, batch(run, directions, -1, chunks), strict=True))


def pull(
    linear: Linear,
    network: Network,
    inputs: Sequence[int],
    stops: Sequence[int],
    steps: Collection[int],
    *,
    apart: Sequence[int] = (),
    chunks: Chunks | None = None,
) -> dict[int, Array]:
    """Pulls a unit direction from every entry of the variables.

    Args:
        linear: The map.
        network: Its program as a network.
        inputs: The variables to pull onto.
        stops: The variables to pull from.
        steps: The steps between them.
        apart: The variables that what is pulled from another one does not pass.
        chunks: How many directions go together.

    Returns:
        By input variable, arrays with axes [direction, input...].
    """
    if not stops:
        return {}
    part = _piece(linear, network, inputs, stops, steps, apart=apart)

    def run(unit: list[Array]) -> list[Array]:
        return part.pull(*unit)[: len(inputs)]  # beyond these is what counts as zero

    directions = Directions(part.program.targets, -1.0, network.complex_directions, 0)
    return dict(zip(inputs, batch(run, directions, 0, chunks), strict=True))


def _piece(
    linear: Linear,
    network: Network,
    inputs: Sequence[int],
    outputs: Sequence[int],
    steps: Collection[int],
    *,
    apart: Sequence[int] = (),
) -> Linear:
    names = network.variables
    equations = {network.steps[i].equation for i in steps}
    starts, stops = [names[v] for v in inputs], [names[v] for v in outputs]
    program, needed = linear.program.piece(
        starts, stops, equations, apart={names[v] for v in apart}
    )
    return Linear([linear.residuals[i] for i in needed], program)


def parts_of(network: Network, variables: Sequence[int]) -> dict[int, slice]:
    """Which directions belong to each of the variables, swept together."""
    avals = [network.variables[v].aval for v in variables]
    return dict(zip(variables, slices(avals, network.complex_directions), strict=True))
