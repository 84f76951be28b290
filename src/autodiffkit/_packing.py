"""Many blocks as one matrix: what was swept, put in order as it is."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._block_table import BlockTable, from_matrix
from autodiffkit._leaves import Ends, derivative_dtype
from autodiffkit._network import Network


def pushed_table(pushed: Sequence[Array | None], ends: Ends, network: Network) -> BlockTable:
    """A table from what was pushed from all live sources in their order.

    Args:
        pushed: By output: an array with axes [output..., direction], or `None` where no
            path ends.
        ends: The sources and targets.
        network: The paths.

    Returns:
        The table.
    """
    parts: list[slice | int] = []
    start = 0
    for source, variable in zip(ends.sources, network.sources, strict=True):
        parts.append(source.size if variable is None else slice(start, start + source.size))
        start += 0 if variable is None else source.size
    dtype = derivative_dtype(ends.targets[0], ends.sources[0])
    rows = [
        jnp.zeros((target.size, start), dtype)
        if array is None
        else array.reshape(target.size, -1).astype(dtype)
        for target, array in zip(ends.targets, pushed, strict=True)
    ]
    return _table(_arranged(jnp.concatenate(rows), parts, 1), ends, network)


def pulled_table(
    pulled: Sequence[Array | None], pulls: Mapping[int, slice], ends: Ends, network: Network
) -> BlockTable:
    """A table from what was pulled from all live targets.

    Args:
        pulled: By source: an array with axes [direction, source...], or `None` where no
            path begins.
        pulls: The directions of each target variable.
        ends: The sources and targets.
        network: The paths.

    Returns:
        The table.
    """
    parts = [
        target.size if variable is None else pulls[variable]
        for target, variable in zip(ends.targets, network.targets, strict=True)
    ]
    count = max((part.stop for part in pulls.values()), default=0)
    dtype = derivative_dtype(ends.targets[0], ends.sources[0])
    columns = [
        jnp.zeros((count, source.size), dtype)
        if array is None
        else array.reshape(count, source.size).astype(dtype)
        for source, array in zip(ends.sources, pulled, strict=True)
    ]
    return _table(_arranged(jnp.concatenate(columns, axis=1), parts, 0), ends, network)


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
