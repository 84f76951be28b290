"""Many blocks as one matrix: what was swept, put in order as it is."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._block_table import BlockTable, from_matrix
from autodiffkit._jax_compat import gathered
from autodiffkit._leaves import Ends, derivative_dtype
from autodiffkit._network import Network


def packed_table(
    swept: Sequence[Array | None],
    directions: Mapping[int, slice],
    axis: int,
    ends: Ends,
    network: Network,
) -> BlockTable:
    """A table from what was pushed from all live sources, or pulled from all live targets.

    Args:
        swept: By output: arrays with axes [output..., direction]. By source: arrays with axes
            [direction, source...]. `None` stands for zeros.
        directions: Those of each variable that was swept from.
        axis: The axis of the matrix along which the directions lie: 1 if they were pushed.
        ends: The sources and targets.
        network: The paths.

    Returns:
        The table.
    """
    across, along = (ends.targets, ends.sources) if axis else (ends.sources, ends.targets)
    variables = network.sources if axis else network.targets
    parts = [
        spec.size if variable is None else directions[variable]
        for spec, variable in zip(along, variables, strict=True)
    ]
    count = max((part.stop for part in directions.values()), default=0)
    dtype = derivative_dtype(ends.targets[0], ends.sources[0])

    def laid_out(array: Array | None, size: int) -> Array:
        shape = (size, count) if axis else (count, size)
        return (
            jnp.zeros(shape, dtype)
            if array is None
            else gathered(array).reshape(shape).astype(dtype)
        )

    strips = [laid_out(array, spec.size) for array, spec in zip(swept, across, strict=True)]
    return _table(_arranged(jnp.concatenate(strips, 1 - axis), parts, axis), ends, network)


def _arranged(array: Array, parts: Sequence[slice | int], axis: int) -> Array:
    """Parts of an array along an axis, or so many zeros, laid end to end."""
    pieces: list[slice | int] = []
    for part in parts:
        last = pieces[-1] if pieces else None
        if isinstance(part, slice) and isinstance(last, slice) and last.stop == part.start:
            pieces[-1] = slice(last.start, part.stop)
        elif isinstance(part, int) and isinstance(last, int):
            pieces[-1] = last + part
        else:
            pieces.append(part)
    if pieces == [slice(0, array.shape[axis])]:
        return array

    def piece(part: slice | int) -> Array:
        if isinstance(part, slice):
            return jax.lax.slice_in_dim(array, part.start, part.stop, axis=axis)
        return jnp.zeros((*array.shape[:axis], part, *array.shape[axis + 1 :]), array.dtype)

    return jnp.concatenate([piece(part) for part in pieces], axis)


def _table(whole: Array, ends: Ends, network: Network) -> BlockTable:
    """The table of a matrix, with zeros where there is no path whatever was swept."""
    joined = np.array([
        [network.connected(i, j) for j in range(len(ends.sources))]
        for i in range(len(ends.targets))
    ])
    if not joined.all():
        by_row = np.repeat(joined, [target.size for target in ends.targets], axis=0)
        mask = np.repeat(by_row, [source.size for source in ends.sources], axis=1)
        whole = jnp.where(mask, whole, jnp.zeros((), whole.dtype))
    return from_matrix(whole, ends.targets, ends.sources)
