"""Sweeping a linear program in parts, and the blocks made of what comes out."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._block_table import BlockTable, compact_table, from_function, worth_packing
from autodiffkit._compact import Shared, compact_shape, same_axes
from autodiffkit._directions import batch, make_block, unit_directions, zeros
from autodiffkit._leaves import Ends, derivative_dtype, is_complex, promote, slices
from autodiffkit._map_blocks import SweptMaps, without
from autodiffkit._network import Network
from autodiffkit._packing import packed_table
from autodiffkit._program import Linear
from autodiffkit._schedule import Chain, Link, Split

# Up to so many products are written as products of their own; more are packed into one.
_FEW = 16


class Swept(NamedTuple):
    """What the sweeps of one program gave; it makes the blocks.

    Args:
        pushed: By target variable: arrays with axes [output..., direction].
        pulled: By source variable: arrays with axes [direction, source...].
        pushes: Which directions belong to each variable that was pushed from.
        pulls: Which directions belong to each variable that was pulled from.
    """

    pushed: Mapping[int, Array]
    pulled: Mapping[int, Array]
    pushes: Mapping[int, slice]
    pulls: Mapping[int, slice]


def sweep(linear: Linear, network: Network, sweeps: Split | Chain, ends: Ends) -> BlockTable:
    """The blocks of a linear map.

    Args:
        linear: The map.
        network: Its program as a network.
        sweeps: What to push and pull.
        ends: Its sources and targets.

    Returns:
        The blocks, zeros where no path leads from the source to the target.
    """
    if isinstance(sweeps, Chain):
        return _chain(linear, network, sweeps, ends)
    return _split(linear, network, sweeps, ends)


# Splits -------------------------------------------------------------------------


def _split(linear: Linear, network: Network, split: Split, ends: Ends) -> BlockTable:
    sources, targets = network.ends
    stops = (*split.middle, *split.pulled)
    pushing, pulling = without((*split.pushed, *split.middle), split), without(stops, split)
    reached = network.computed(pushing, split.forward)
    outputs = [v for v in targets if v in reached]
    inputs = [v for v in sources if v not in split.pushed]
    swept = Swept(
        push(linear, network, pushing, outputs, split.forward),
        pull(linear, network, inputs, pulling, split.reverse, apart=stops),
        _parts(network, pushing),
        _parts(network, pulling),
    )
    if split.mode == "fwd" and not split.maps:
        by_target = [None if t is None else swept.pushed[t] for t in network.targets]
        return pushed_blocks(by_target, ends, network)
    if split.mode == "rev" and not split.maps and worth_packing(ends.targets, ends.sources):
        by_source = [None if s is None else swept.pulled[s] for s in network.sources]
        return packed_table(by_source, swept.pulls, 0, ends, network)
    maps = SweptMaps(linear, network, split)
    if ends.compact and split.maps:
        return _compact_table(maps, ends, network)
    products = _products(network, without(split.middle, split), split.forward, swept)

    def block(i: int, j: int) -> Array:
        target, source = ends.targets[i], ends.sources[j]
        path = network.path(i, j)
        if path is None:
            return zeros(target, source)
        t, s = path
        terms = maps.blocks(t, s, target, source)
        if s in swept.pushes:
            terms.append(make_block(swept.pushed[t][..., swept.pushes[s]], target, source, -1))
        elif s not in split.pushed:
            if path in products:
                terms.append(make_block(products[path], target, source, None))
            if t in swept.pulls and s in swept.pulled:
                terms.append(make_block(swept.pulled[s][swept.pulls[t]], target, source, 0))
        if not terms:  # it is taken from across the diagonal
            assert split.narrowed
            return zeros(target, source)
        return sum(terms[1:], start=terms[0])

    return from_function(block, ends.targets, ends.sources)


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
    parts = _parts(network, network.ends[0])
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
    network: Network, middle: Sequence[int], forward: Collection[int], swept: Swept
) -> dict[tuple[int, int], Array]:
    """The products at the cut, by target and source variable."""
    if not middle:
        return {}
    size = network.directions(middle)
    through = network.computed(middle, forward)
    rows = {t: pushed[..., -size:] for t, pushed in swept.pushed.items() if t in through}
    columns = {source: pulled[:size] for source, pulled in swept.pulled.items()}
    if len(rows) * len(columns) <= _FEW:
        return {
            (t, s): _dot(row.reshape(-1, size), column.reshape(size, -1))
            for t, row in rows.items()
            for s, column in columns.items()
        }
    left = _joined([x.reshape(-1, size) for x in rows.values()], axis=0)
    right = _joined([x.reshape(size, -1) for x in columns.values()], axis=1)
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


# Sweeps -------------------------------------------------------------------------


def push(
    linear: Linear,
    network: Network,
    starts: Sequence[int],
    outputs: Sequence[int],
    steps: Collection[int],
) -> dict[int, Array]:
    """Pushes a unit direction from every entry of the variables, in one batch.

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
    units = unit_directions(structs, 1.0, network.complex_directions, axis)
    return dict(zip(outputs, batch(run, units, axis, -1), strict=True))


def pull(
    linear: Linear,
    network: Network,
    inputs: Sequence[int],
    stops: Sequence[int],
    steps: Collection[int],
    *,
    apart: Sequence[int] = (),
) -> dict[int, Array]:
    """Pulls a unit direction from every entry of the variables, in one batch.

    Args:
        linear: The map.
        network: Its program as a network.
        inputs: The variables to pull onto.
        stops: The variables to pull from.
        steps: The steps between them.
        apart: The variables that what is pulled from another one does not pass.

    Returns:
        By input variable, arrays with axes [direction, input...].
    """
    if not stops:
        return {}
    part = _piece(linear, network, inputs, stops, steps, apart=apart)

    def run(unit: list[Array]) -> list[Array]:
        return part.pull(*unit)[: len(inputs)]  # beyond these is what counts as zero

    units = unit_directions(part.program.targets, -1.0, network.complex_directions, 0)
    return dict(zip(inputs, batch(run, units, 0, 0), strict=True))


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


def _parts(network: Network, variables: Sequence[int]) -> dict[int, slice]:
    avals = [network.variables[v].aval for v in variables]
    return dict(zip(variables, slices(avals, network.complex_directions), strict=True))


# Chains -------------------------------------------------------------------------


def _chain(linear: Linear, network: Network, chain: Chain, ends: Ends) -> BlockTable:
    """The product of the parts, each a matrix over real and imaginary parts."""
    network = network.over_reals
    matrices = [_link_matrix(linear, network, link) for link in reversed(chain.links)]
    dtype = promote(matrix.dtype for matrix in matrices)
    product = jnp.linalg.multi_dot(
        [matrix.astype(dtype) for matrix in matrices], precision=jax.lax.Precision.HIGHEST
    )
    rows = _parts(network, chain.links[-1].outputs)
    columns = _parts(network, chain.links[0].inputs)

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


def _link_matrix(linear: Linear, network: Network, link: Link) -> Array:
    """The map between the variables of two cuts, over real and imaginary parts."""
    if link.mode == "fwd":
        pushed = push(linear, network, link.inputs, link.outputs, link.steps)
        rows = [x.reshape(-1, x.shape[-1]) for x in (pushed[v] for v in link.outputs)]
        return _joined([y for x in rows for y in _real_parts(x, 1.0)], axis=0)
    pulled = pull(linear, network, link.inputs, link.outputs, link.steps)
    columns = [x.reshape(x.shape[0], -1) for x in (pulled[v] for v in link.inputs)]
    return _joined([y for x in columns for y in _real_parts(x, -1.0)], axis=1)


def _real_parts(array: Array, sign: float) -> list[Array]:
    if not is_complex(array.dtype):
        return [array]
    return [array.real, array.imag * jnp.asarray(sign, array.real.dtype)]


def _joined(arrays: Sequence[Array], axis: int) -> Array:
    dtype = promote(x.dtype for x in arrays)
    return jnp.concatenate([x.astype(dtype) for x in arrays], axis=axis)
