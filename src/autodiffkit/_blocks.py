"""Sweeping a linear program in parts, and the blocks made of what comes out."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._batches import Batch, Batches, groups_of, parts_of, pull, push
from autodiffkit._block_table import BlockTable, compact_table, from_function, worth_packing
from autodiffkit._compact import Shared, compact_shape, same_axes
from autodiffkit._directions import make_block, zeros
from autodiffkit._jax_compat import gathered
from autodiffkit._leaves import Ends, derivative_dtype, is_complex, promote
from autodiffkit._map_blocks import SweptMaps, without
from autodiffkit._network import Network
from autodiffkit._packing import packed_table
from autodiffkit._program import Linear
from autodiffkit._progress import Chunks
from autodiffkit._schedule import Chain, Link, Pairs, Schedule, Split

# Up to so many products are written as products of their own; more are packed into one.
_FEW = 16


def sweep(linear: Linear, schedule: Schedule, ends: Ends) -> BlockTable:
    """The blocks of a linear map.

    Args:
        linear: The map.
        schedule: What to push and pull.
        ends: Its sources and targets.

    Returns:
        The blocks, zeros where no path leads from the source to the target; those that symmetry
            tells, too.
    """
    network, sweeps = schedule.network, schedule.sweeps
    if isinstance(sweeps, Chain):
        blocks = _chain(linear, network, sweeps, ends, schedule.chunks)
    else:
        blocks = _split(linear, network, sweeps, ends, schedule.chunks)
    return completed(blocks, schedule, ends)


def completed(blocks: BlockTable, schedule: Schedule, ends: Ends) -> BlockTable:
    """The blocks with those that symmetry tells, and with which of them are zero in any case."""
    network, width = schedule.network, len(ends.sources)

    def is_zero(row: int, j: int) -> bool:
        i = row % width
        if (i, j) in schedule.mirrored:
            return not network.connected(row - i + j, i)
        return not network.connected(row, j)

    pairs = [(i, j) for i in range(len(ends.targets)) for j in range(width) if is_zero(i, j)]
    return _mirrored(blocks, schedule.mirrored, ends).with_zeros(pairs)


def _mirrored(blocks: BlockTable, pairs: Pairs, ends: Ends) -> BlockTable:
    """The blocks of a gradient, with those that were not swept taken from across the diagonal.

    Args:
        blocks: The table; for each output of the function, as many rows as columns.
        pairs: The blocks to replace, by number of the row's leaf and the column's.
        ends: The sources and targets.

    Returns:
        The table, with axes moved to their places.
    """
    if not pairs:
        return blocks
    width = len(ends.sources)

    def block(row: int, j: int) -> Array:
        i = row % width
        if (i, j) not in pairs:
            return blocks.block(row, j)
        other = blocks.block(row - i + j, i)  # axes [output..., j..., i...]
        inner, outer = len(ends.sources[i].shape), len(ends.sources[j].shape)
        lead = other.ndim - inner - outer
        return jnp.moveaxis(other, range(lead, lead + outer), range(lead + inner, other.ndim))

    return from_function(block, ends.targets, ends.sources)


# Splits -------------------------------------------------------------------------


def _split(
    linear: Linear, network: Network, split: Split, ends: Ends, chunks: Chunks | None
) -> BlockTable:
    packed = worth_packing(ends.targets, ends.sources)
    apart = None if packed else chunks  # a matrix of all blocks is swept as one
    pushes = _pushed(linear, network, split, apart, chunks)
    pulls = _pulled(linear, network, split, apart, chunks)
    if split.mode == "fwd" and not split.maps and (packed or chunks is None):
        by_target = [None if t is None else pushes.whole(t) for t in network.targets]
        return pushed_blocks(by_target, ends, network)
    if split.mode == "rev" and not split.maps and packed:
        by_source = [None if s is None else pulls.whole(s) for s in network.sources]
        return packed_table(by_source, parts_of(network, split.pulled), 0, ends, network)
    maps = SweptMaps(linear, network, split)
    if ends.compact and split.maps:
        return _compact_table(maps, ends, network)
    products = _products(network, split, pushes, pulls)

    def block(i: int, j: int) -> Array:
        target, source = ends.targets[i], ends.sources[j]
        path = network.path(i, j)
        if path is None:
            return zeros(target, source)
        t, s = path
        terms = maps.blocks(t, s, target, source)
        if s in split.pushed:
            pushed = pushes.of(s, t)
            if pushed is not None:
                terms.append(make_block(pushed, target, source, -1))
        else:
            if path in products:
                terms.append(make_block(products[path], target, source, None))
            pulled = pulls.of(t, s)
            if pulled is not None:
                terms.append(make_block(pulled, target, source, 0))
        if not terms:  # it is taken from across the diagonal
            assert split.narrowed
            return zeros(target, source)
        return sum(terms[1:], start=terms[0])

    return from_function(block, ends.targets, ends.sources)


def _pushed(
    linear: Linear, network: Network, split: Split, apart: Chunks | None, chunks: Chunks | None
) -> Batches:
    """What is pushed, in batches; in one of them where nothing is swept apart."""
    middle = without(split.middle, split)
    batches: list[Batch] = []
    for group in groups_of(network, [*without(split.pushed, split), *middle], middle, apart):
        reached = network.computed(group, split.forward)
        outputs = [v for v in network.ends[1] if v in reached]
        swept = push(linear, network, group, outputs, split.forward, chunks=chunks)
        batches.append(Batch(parts_of(network, group), swept))
    return Batches(batches, -1)


def _pulled(
    linear: Linear, network: Network, split: Split, apart: Chunks | None, chunks: Chunks | None
) -> Batches:
    """What is pulled, in batches likewise."""
    middle = without(split.middle, split)
    stops = (*split.middle, *split.pulled)
    inputs = [v for v in network.ends[0] if v not in split.pushed]
    batches: list[Batch] = []
    for group in groups_of(network, [*middle, *without(split.pulled, split)], middle, apart):
        swept = pull(linear, network, inputs, group, split.reverse, apart=stops, chunks=chunks)
        batches.append(Batch(parts_of(network, group), swept))
    return Batches(batches, 0)


def _compact_table(maps: SweptMaps, ends: Ends, network: Network) -> BlockTable:
    def block(i: int, j: int) -> tuple[Array, Shared]:
        target, source = ends.targets[i], ends.sources[j]
        path = network.path(i, j)
        if path is not None:
            return maps.compact_block(*path, target, source)
        shared = same_axes(target.shape, source.shape)
        shape = compact_shape(shared, target.shape, source.shape)
        return jnp.zeros(shape, derivative_dtype(target, source)), shared

    return compact_table(block, ends.targets, ends.sources)


def pushed_blocks(pushed: Sequence[Array | None], ends: Ends, network: Network) -> BlockTable:
    """The blocks from what was pushed from all live sources.

    Args:
        pushed: By target leaf: arrays with axes [output..., direction].
        ends: The sources and targets.
        network: The paths; what was pushed to a target without one is ignored.

    Returns:
        The blocks.
    """
    parts = parts_of(network, network.ends[0])
    if worth_packing(ends.targets, ends.sources):
        return packed_table(pushed, parts, 1, ends, network)

    def block(i: int, j: int) -> Array:
        target, source = ends.targets[i], ends.sources[j]
        path, array = network.path(i, j), pushed[i]
        if path is None or array is None:
            return zeros(target, source)
        return make_block(array[..., parts[path[1]]], target, source, -1)

    return from_function(block, ends.targets, ends.sources)


def _products(
    network: Network, split: Split, pushes: Batches, pulls: Batches
) -> dict[tuple[int, int], Array]:
    """The products at the cut, by target and source variable."""
    middle = without(split.middle, split)
    if not middle:
        return {}
    size = network.directions(middle)
    through = network.computed(middle, split.forward)
    sources, targets = network.ends
    swept = {t: pushes.together(middle, t) for t in targets if t in through}
    rows = {t: row for t, row in swept.items() if row is not None}
    swept = {s: pulls.together(middle, s) for s in sources if s not in split.pushed}
    columns = {s: column for s, column in swept.items() if column is not None}
    if len(rows) * len(columns) <= _FEW:
        return {
            (t, s): _dot(gathered(row).reshape(-1, size), gathered(column).reshape(size, -1))
            for t, row in rows.items()
            for s, column in columns.items()
        }
    left = _joined([gathered(x).reshape(-1, size) for x in rows.values()], axis=0)
    right = _joined([gathered(x).reshape(size, -1) for x in columns.values()], axis=1)
    product = _dot(left, right)
    found: dict[tuple[int, int], Array] = {}
    top = 0
    for t, row in rows.items():
        bottom, start = top + row.size // size, 0
        for s, column in columns.items():
            stop = start + column.size // size
            found[t, s] = product[top:bottom, start:stop]
            start = stop
        top = bottom
    return found


def _dot(left: Array, right: Array) -> Array:
    """A product of the highest precision; low-precision dtypes accumulate in float32."""
    dtype = promote([left.dtype, right.dtype])
    return jnp.matmul(
        left.astype(dtype),
        right.astype(dtype),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=promote([dtype, jnp.float32]),
    )


# Chains -------------------------------------------------------------------------


def _chain(
    linear: Linear, network: Network, chain: Chain, ends: Ends, chunks: Chunks | None
) -> BlockTable:
    """The product of the parts, each a matrix over real and imaginary parts."""
    network = network.over_reals
    matrices = [_link_matrix(linear, network, link, chunks) for link in reversed(chain.links)]
    dtype = promote(matrix.dtype for matrix in matrices)
    product = jnp.linalg.multi_dot(
        [matrix.astype(dtype) for matrix in matrices], precision=jax.lax.Precision.HIGHEST
    )
    rows = parts_of(network, chain.links[-1].outputs)
    columns = parts_of(network, chain.links[0].inputs)

    def block(i: int, j: int) -> Array:
        target, source = ends.targets[i], ends.sources[j]
        path = network.path(i, j)
        if path is None:
            return zeros(target, source)
        part = product[rows[path[0]], columns[path[1]]]
        if is_complex(target.dtype):
            real, imag = jnp.split(part, 2, axis=0)
            part = jax.lax.complex(real, imag)
        if is_complex(source.dtype):
            by_real, by_imag = jnp.split(part, 2, axis=1)
            part = by_real if ends.holomorphic else jax.lax.complex(by_real, -by_imag)
        return make_block(part, target, source, None)

    if ends.compact:  # a product of matrices keeps no axes
        return compact_table(lambda i, j: (block(i, j), ()), ends.targets, ends.sources)
    return from_function(block, ends.targets, ends.sources)


def _link_matrix(linear: Linear, network: Network, link: Link, chunks: Chunks | None) -> Array:
    """The map between the variables of two cuts, over real and imaginary parts."""
    if link.mode == "fwd":
        pushed = push(linear, network, link.inputs, link.outputs, link.steps, chunks=chunks)
        rows = [gathered(pushed[v]).reshape(-1, pushed[v].shape[-1]) for v in link.outputs]
        return _joined([y for x in rows for y in _realparts_of(x, 1.0)], axis=0)
    pulled = pull(linear, network, link.inputs, link.outputs, link.steps, chunks=chunks)
    columns = [gathered(pulled[v]).reshape(len(pulled[v]), -1) for v in link.inputs]
    return _joined([y for x in columns for y in _realparts_of(x, -1.0)], axis=1)


def _realparts_of(array: Array, sign: float) -> list[Array]:
    if not is_complex(array.dtype):
        return [array]
    return [array.real, array.imag * jnp.asarray(sign, array.real.dtype)]


def _joined(arrays: Sequence[Array], axis: int) -> Array:
    dtype = promote(x.dtype for x in arrays)
    return jnp.concatenate([x.astype(dtype) for x in arrays], axis=axis)
