"""Tables of blocks, as results show them."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._block_table import BlockTable
from autodiffkit._compact import Shared
from autodiffkit._dims import accepts, derivative_of, describe_array_type
from autodiffkit._display_html import worth_drawing
from autodiffkit._display_text import Column, Display, Grid, Table
from autodiffkit._errors import shown_of
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import LeafSpec, describe_array, describe_leaf, is_inexact
from autodiffkit._paths import Path, legible

_TABLE_ROWS = 24
_COPIED = 1 << 20  # entries of arrays that are looked at in NumPy
_NUMBERS = 4  # entries of blocks whose numbers are shown

OF, BY, THEN_BY = Column("of", "name"), Column("by", "name"), Column("then by", "name")
WRT = Column("with respect to", "name", "wrt")
_BLOCK = Column("block"), Column("annotation", "note"), Column("values", "extra")


class BlockRow:
    """A block in a table: its names, and what is said of it.

    Args:
        names: The cells before it.
        block: The block, or what stands in its place.
        specs: The leaves that it is of: the output's first.
        shared: The axes that it has once and first.
        is_known: Whether the program said that it is zero whatever the arguments are.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        block: Any,
        specs: Sequence[LeafSpec],
        shared: Shared = (),
        *,
        is_known: bool = False,
    ) -> None:
        self._names = names
        self._block = block
        self._specs = specs
        self._shared = shared
        self._values = _values(block)
        self.is_zero = is_known and _is_zero(block, self._values)

    @property
    def is_small(self) -> bool:
        """Whether its numbers are known, and few enough to be shown."""
        return self._values is not None and self._values.size <= _NUMBERS

    def cells(self) -> tuple[str, ...]:
        """Names, shape and dtype with what there is to note, annotation, numbers."""
        return (*self._names, self.described, self._annotation, self._numbers)

    @property
    def described(self) -> str:
        """Shape and dtype, `float32[3, 2]`, and what there is to note."""
        if not hasattr(self._block, "shape"):
            return repr(self._block)
        note = ""
        if self._shared:
            pairs = ", ".join(f"{i} with {j}" for i, j in self._shared)
            note = f" (shares {'axis' if len(self._shared) == 1 else 'axes'} {pairs})"
        return _described(self._block, note) + (" (zero)" if self.is_zero else "")

    @property
    def _annotation(self) -> str:
        block, specs = self._block, self._specs
        annotation = derivative_of(*(spec.annotation for spec in specs))
        shape = tuple(itertools.chain(*(spec.shape for spec in specs)))
        # The dtype of a number does not widen, and a pytree of blocks may have been mapped to
        # another.
        if annotation is None or getattr(block, "shape", None) != shape:
            return ""
        return describe_array_type(annotation) if accepts(annotation.dtype, block.dtype) else ""

    @property
    def _numbers(self) -> str:
        return "" if self.is_zero else _numbers(self._values)


def leaf_display(title: str, leaves: Sequence[tuple[Path, Any]]) -> Display:
    """A table of leaves by path, with the numbers of small ones, cut short if it is long."""
    columns: tuple[Column, ...] = (Column("", "name"), Column(""), Column("", "extra"))
    count = shown_of(len(leaves), _TABLE_ROWS)
    rows: list[tuple[str, ...]] = [
        (
            legible(path) or "output",
            _described(leaf) if hasattr(leaf, "shape") else describe_leaf(leaf),
            _numbers(_values(leaf)),
        )
        for path, leaf in leaves[:count]
    ]
    more = ""
    if len(leaves) > count:
        more = f"... and {len(leaves) - count} more leaves"
    if not any(row[-1] for row in rows):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    return Display(title, (Table(columns, tuple(rows), more),))


def _described(array: Any, note: str = "") -> str:
    count, size = _not_finite([array])
    bad = f" ({count} of {size} not finite)" if count else ""
    return describe_array(array.shape, array.dtype) + note + bad


def _numbers(values: Any) -> str:
    """The entries of a small array to four digits, if they are known."""
    return "" if values is None or values.size > _NUMBERS else _listed(values.tolist())


def _listed(values: Any) -> str:
    if isinstance(values, list):
        return f"[{', '.join(map(_listed, values))}]"
    return f"{values:.4g}" if isinstance(values, (float, complex)) else str(values)


def _values(block: Any) -> Any:
    """The entries of a block, `None` where they are not known: nothing is traced or moved."""
    found = _readable([block])
    if not found:
        return None
    (array,) = found
    return np.asarray(array) if array.size <= _COPIED else array


def _readable(arrays: Iterable[Any]) -> list[Any]:
    return [x for x in arrays if isinstance(x, np.ndarray) or _is_at_hand(x)]


def _is_at_hand(x: Any) -> bool:
    if not isinstance(x, jax.Array) or not is_eager([x]):
        return False
    return not x.is_deleted() and x.is_fully_addressable


def _not_finite(arrays: Iterable[Any]) -> tuple[int, int]:
    """How many entries are not finite, of how many, as far as there are values."""
    found = [x for x in _readable(arrays) if is_inexact(x.dtype)]
    return sum(map(_count_not_finite, found)), sum(x.size for x in found)


def _count_not_finite(array: Array) -> int:
    if array.size <= _COPIED:  # without compiling anything
        return int(np.sum(~np.isfinite(np.asarray(array))))
    return int(jnp.sum(~jnp.isfinite(array)))


def sized(title: str, table: BlockTable, size: str) -> str:
    """A title with the size of the matrix that the blocks form.

    What `jax.vmap` or a loop has put before the axes of all blocks says how many times there is
    such a matrix. Where blocks have become something else, there is no size to tell.
    """
    lead = _lead(table)
    return title if lead is None else f"{title}, {_times(lead)}{size}"


def _times(counts: Iterable[int]) -> str:
    return "".join(f"{count} times " for count in counts)


def _lead(table: BlockTable) -> tuple[int, ...] | None:
    """The axes that all blocks have before their own, `None` if they do not have the same."""
    found: set[tuple[int, ...] | None] = set()
    for array, own in table.arrays:
        shape = getattr(array, "shape", None)
        if not isinstance(shape, tuple) or shape[len(shape) - len(own) :] != own:
            return None
        found.add(shape[: len(shape) - len(own)])
    return found.pop() if len(found) == 1 else None if found else ()


def block_grid(
    table: BlockTable, rows: Sequence[LeafSpec], columns: Sequence[LeafSpec], note: str = ""
) -> Grid | None:
    """A picture of the blocks; `None` where there is one row or column of them, or very many.

    Args:
        table: The blocks.
        rows: The leaves of the rows.
        columns: The leaves of the columns.
        note: What to say below it.
    """
    if not worth_drawing(len(rows), len(columns)):
        return None
    lead = _lead(table)
    if lead:
        axes = "axis" if len(lead) == 1 else f"{len(lead)} axes"
        stack = f"{' times '.join(map(str, lead))} of these along the first {axes}"
        note = f"{note}; {stack}" if note else f"A stack: {stack}"
    return Grid(
        tuple((legible(spec.path) or "output", spec.size) for spec in rows),
        tuple((legible(spec.path), spec.size) for spec in columns),
        tuple((i, j, _shape_of(table.shown(i, j))) for i, j in table.pairs),
        frozenset(pair for pair in table.zeros if _is_still_zero(table.shown(*pair))),
        note,
    )


def _shape_of(block: Any) -> str:
    shape = getattr(block, "shape", None)
    return str([*shape]) if isinstance(shape, tuple) else ""


def _is_still_zero(block: Any) -> bool:
    return _is_zero(block, _values(block))


def _is_zero(block: Any, values: Any) -> bool:
    """Whether a block that the program said to be zero still is, as far as there are values."""
    if not hasattr(block, "dtype") or not is_inexact(block.dtype):  # it has become something else
        return False
    if values is None:
        return True
    return not (jnp if isinstance(values, jax.Array) else np).any(values)


def block_display(
    title: str,
    head: Sequence[Column],
    rows: Iterable[BlockRow],
    count: int,
    blocks: Any,
    *,
    grid: Grid | None = None,
) -> Display:
    """A table of blocks below a title, cut short if it is long.

    Args:
        title: The line above it.
        head: The first columns.
        rows: The blocks.
        count: How many there are.
        blocks: A pytree of all of them.
        grid: A picture of them.

    Returns:
        What there is to see. There is a column of annotations if there are annotations, and one of
        numbers if all blocks are small.
    """
    most = shown_of(count, _TABLE_ROWS)
    shown = list(itertools.islice(rows, most))
    cells = [row.cells() for row in shown]
    columns = [*head, *_BLOCK]
    kept = [k for k in range(len(columns)) if k < len(columns) - 2 or any(r[k] for r in cells)]
    if count > most or not all(row.is_small for row in shown):
        kept = [k for k in kept if k < len(columns) - 1]
    more = ""
    if count > most:
        more = f"... and {count - most} more blocks"
        bad, size = _not_finite(jax.tree.leaves(blocks))
        if bad:
            more += f"; of all blocks, {bad} of {size} entries are not finite"
    table = Table(
        tuple(columns[k] for k in kept),
        tuple(tuple(row[k] for k in kept) for row in cells),
        more,
        frozenset(k for k, row in enumerate(shown) if row.is_zero),
    )
    return Display(title, (table,), grid)
