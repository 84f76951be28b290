"""Blocks with the axes that output and input share once and first."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._algebra import compose, unshared
from autodiffkit._arrays import Arrays, matrix_of
from autodiffkit._leaves import promote
from autodiffkit._maps import Data, Label, Map, Part, axes_of, flat

# Pairs of an axis of the output and one of the input that are the same axis.
Shared = tuple[tuple[int, int], ...]

_ARITHMETIC = Arrays()


def compact_of(
    given: Map, target: Sequence[int], source: Sequence[int], dtype: object
) -> tuple[Array, Shared]:
    """A map as an array `(shared..., output..., input...)`, and the axes that it shares.

    Axes of one entry that are in the same place count as shared.
    """
    shared = tuple(
        (i, j)
        for i, out in enumerate(given.outs)
        for j, axis in enumerate(given.ins)
        if (out == axis if out or axis else i == j)
    )
    kept = {label for i, _ in shared for label in given.outs[i]}
    given = unshared(_ARITHMETIC, given, [x for x in given.shared if x not in kept])
    order = tuple(flat([given.outs[i] for i, _ in shared]))
    order += tuple(x for x in flat(given.outs) if x not in kept)
    order += tuple(x for x in flat(given.ins) if x not in kept)
    whole = _ARITHMETIC.whole(given.data.parts, order, given.dtype)
    whole = _ARITHMETIC.cast(_ARITHMETIC.broadcast(whole, order), dtype)
    # Constants are NumPy's.
    array = jnp.asarray(whole.array)
    return jnp.reshape(array, compact_shape(shared, target, source)), shared


def compact_shape(shared: Shared, target: Sequence[int], source: Sequence[int]) -> tuple[int, ...]:
    """The shape of a block: the shared axes once, and those of the output and of the input."""
    outs, ins = {i for i, _ in shared}, {j for _, j in shared}
    return (
        *(target[i] for i, _ in shared),
        *(n for i, n in enumerate(target) if i not in outs),
        *(n for j, n in enumerate(source) if j not in ins),
    )


def same_axes(target: Sequence[int], source: Sequence[int]) -> Shared:
    """The axes of equal size in the same place, which a block of zeros may be said to share."""
    return tuple((i, i) for i, (n, m) in enumerate(zip(target, source, strict=False)) if n == m)


def _as_map(block: Array, shared: Shared, target: Sequence[int], source: Sequence[int]) -> Map:
    outs, ins = list(axes_of(target)), list(axes_of(source))
    for i, j in shared:
        ins[j] = outs[i]
    lead = [outs[i] for i, _ in shared]
    rest = [axis for i, axis in enumerate(outs) if i not in {i for i, _ in shared}]
    last = [axis for j, axis in enumerate(ins) if j not in {j for _, j in shared}]
    labels: tuple[Label, ...] = tuple(flat([*lead, *rest, *last]))
    part = Part(block.reshape([label.size for label in labels]), labels)
    return Map(tuple(outs), tuple(ins), Data((part,)), block.dtype)


def expanded(block: Array, shared: Shared, target: Sequence[int], source: Sequence[int]) -> Array:
    """The block with all of its axes: `(output..., input...)`, with zeros between examples."""
    given = _as_map(block, shared, target, source)
    return matrix_of(_ARITHMETIC, given, (*target, *source), block.dtype)


def multiplied(
    block: Array,
    shared: Shared,
    target: Sequence[int],
    source: Sequence[int],
    vector: Array,
    *,
    transpose: bool,
) -> Array:
    """The product of a block, or of its transpose, with an array; of the highest precision."""
    given = _as_map(block, shared, target, source)
    given = given.transposed if transpose else given
    axes = axes_of(vector.shape)
    part = Part(vector.reshape([label.size for label in flat(axes)]), tuple(flat(axes)))
    dtype = promote([block.dtype, vector.dtype])
    product = compose(
        _ARITHMETIC,
        given,
        Map(axes, (), Data((part,)), vector.dtype),
        promote([dtype, jnp.float32]),
        constant_first=False,
        precision=jax.lax.Precision.HIGHEST,
    )
    shape = source if transpose else target
    return matrix_of(_ARITHMETIC, product, shape, product.dtype)
