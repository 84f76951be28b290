"""Tables of blocks, as results print them."""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._compact import Shared
from autodiffkit._dims import accepts, derivative_of, describe_array_type
from autodiffkit._errors import columns, listed
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import LeafSpec, describe_array

_TABLE_ROWS = 24
_COPIED = 1 << 20  # entries of arrays that are looked at in NumPy


def describe_block(block: Any, *specs: LeafSpec, shared: Shared = ()) -> tuple[str, str]:
    """Shape and dtype of a block, `float32[3, 2]`, and its annotation, if there is one.

    Args:
        block: The block, or what stands in its place.
        *specs: The leaves that it is of: the output's first.
        shared: The axes that it has once and first.

    Returns:
        Two cells of a table. The first one says so if entries are not finite, as far as
        there are values.
    """
    if not hasattr(block, "shape"):
        return repr(block), ""
    annotation = derivative_of(*(spec.annotation for spec in specs))
    text = describe_array(block.shape, block.dtype)
    if shared:
        pairs = ", ".join(f"{i} with {j}" for i, j in shared)
        text += f" (shares {'axis' if len(shared) == 1 else 'axes'} {pairs})"
    count, size = _not_finite([block])
    if count:
        text += f" ({count} of {size} not finite)"
    shape = tuple(itertools.chain(*(spec.shape for spec in specs)))
    # The dtype of a number does not widen, and a pytree of blocks may have been mapped to another.
    if annotation is None or block.shape != shape or not accepts(annotation.dtype, block.dtype):
        return text, ""
    return text, describe_array_type(annotation)


def _not_finite(arrays: Iterable[Any]) -> tuple[int, int]:
    """How many entries are not finite, of how many, as far as there are values."""
    found = [x for x in arrays if isinstance(x, jax.Array) and is_eager([x])]
    found = [x for x in found if x.is_fully_addressable and not x.is_deleted()]
    return sum(map(_count_not_finite, found)), sum(x.size for x in found)


def _count_not_finite(array: Array) -> int:
    if array.size <= _COPIED:  # without compiling anything
        return int(np.sum(~np.isfinite(np.asarray(array))))
    return int(jnp.sum(~jnp.isfinite(array)))


def block_table(
    head: tuple[str, ...], rows: Iterable[tuple[str, ...]], count: int, blocks: Any
) -> str:
    """A table of blocks below a title, cut short if it is long.

    Args:
        head: The names of the first columns.
        rows: The cells, of which the last one is the annotation.
        count: How many rows there are.
        blocks: A pytree of all blocks.

    Returns:
        The lines. There is a column of annotations if there are annotations.
    """
    shown = [(*head, "block", "annotation"), *itertools.islice(rows, _TABLE_ROWS)]
    if not any(row[-1] for row in shown[1:]):
        shown = [row[:-1] for row in shown]
    lines = columns(shown)
    if count > _TABLE_ROWS:
        lines.append(f"... and {count - _TABLE_ROWS} more blocks")
        bad, size = _not_finite(jax.tree.leaves(blocks))
        if bad:
            lines[-1] += f"; of all blocks, {bad} of {size} entries are not finite"
    return listed(lines)
