"""How the blocks of a derivative are stored: one by one, or many of them as one matrix.

An array for each of 40 by 40 blocks is a kernel for each, which takes XLA a minute to
compile. That many are kept as the matrix that they form, and a block is cut out when it is
looked at.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from autodiffkit._compact import Shared, compact_shape, expanded, multiplied
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import LeafSpec, derivative_dtype, is_complex, promote, slices
from autodiffkit._paths import Path
from autodiffkit._vectors import joined, matrix, multiply, summed

# More blocks than this are stored as a matrix, if there are this many times fewer leaves.
_MANY = 64
_WORTH = 4

Zeros = frozenset[tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """Which blocks the program says to be zero whatever the arguments are, by their numbers.

    This is for people only: all of these are equal. A function whose control flow runs in Python
    may come to another program with other values, and two results of it still have one structure.
    """

    zeros: frozenset[Any] = frozenset()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known)

    def __hash__(self) -> int:
        return hash(Known)


@functools.partial(
    jtu.register_dataclass,
    data_fields=["_arrays"],
    meta_fields=["_targets", "_sources", "_shared", "_kept", "_known"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class BlockTable:
    """Blocks by output and source: `table[i][j]` has the shape of both, one after the other.

    The arrays are blocks, row by row, or the one matrix `(m, n)` that they form: that
    depends on the specifications alone. What `vmap` or `scan` have put before the axes of
    an array stays there. In a compact table, blocks have the axes that output and input share once
    and first. A partial table has some of the blocks; in the place of the others there is `None`.
    """

    _arrays: tuple[Any, ...]
    _targets: tuple[LeafSpec, ...]
    _sources: tuple[LeafSpec, ...]
    _shared: tuple[Shared, ...] | None = None
    _kept: tuple[tuple[int, int], ...] | None = None
    _known: Known = Known()  # it does not change

    @property
    def zeros(self) -> Zeros:
        """The blocks that are zero whatever the arguments are, as the program said.

        A block may have got other entries since: `jax.tree.map` leaves the structure as it is, and
        a compiled function gives all of its results that of the first one. Where there are values,
        ask these, too.
        """
        return self._known.zeros

    def with_zeros(self, zeros: Iterable[tuple[int, int]]) -> "BlockTable":
        """The same with other blocks said to be zero."""
        return dataclasses.replace(self, _known=Known(frozenset(zeros)))

    @property
    def is_compact(self) -> bool:
        """Whether shared axes come once and first."""
        return self._shared is not None

    def shared(self, i: int, j: int) -> Shared:
        """The axes that a block has once, as pairs of the output's and the input's."""
        number = self._number(i, j)
        return () if self._shared is None or number is None else self._shared[number]

    @property
    def is_partial(self) -> bool:
        """Whether some of the blocks are missing."""
        return self._kept is not None

    @property
    def pairs(self) -> Sequence[tuple[int, int]]:
        """The blocks there are, by output and source number."""
        if self._kept is not None:
            return self._kept
        return list(itertools.product(range(len(self._targets)), range(len(self._sources))))

    def has(self, i: int, j: int) -> bool:
        """Whether there is a block of this output by this source."""
        return self._kept is None or (i, j) in self._kept

    def _number(self, i: int, j: int) -> int | None:
        if self._kept is None:
            return i * len(self._sources) + j
        return self._kept.index((i, j)) if (i, j) in self._kept else None

    @property
    def dense(self) -> "BlockTable":
        """The table with all axes of the output and of the input."""
        if self._shared is None:
            return self

        if self._kept is not None:
            blocks = {pair: (self.dense_block(*pair), ()) for pair in self._kept}
            dense = partial_table(blocks, self._targets, self._sources, compact=False)
        else:
            dense = from_function(self.dense_block, self._targets, self._sources)
        return dense.with_zeros(self.zeros)

    def dense_block(self, i: int, j: int) -> Array:
        """A block with all axes of the output and of the input."""
        if self._shared is None:
            return self.block(i, j)
        shapes = self._targets[i].shape, self._sources[j].shape
        return expanded(self.block(i, j), self.shared(i, j), *shapes)

    @property
    def is_packed(self) -> bool:
        """Whether the blocks are stored as the matrix that they form."""
        return (
            self._shared is None
            and self._kept is None
            and worth_packing(self._targets, self._sources)
        )

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator["Row"]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> "Row": ...
    @overload
    def __getitem__(self, index: slice) -> "list[Row]": ...
    def __getitem__(self, index: int | slice) -> "Row | list[Row]":
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return Row(self, range(len(self))[index])

    def block(self, i: int, j: int) -> Any:
        """The block of an output by a source."""
        if not self.is_packed:
            number = self._number(i, j)
            return None if number is None else self._arrays[number]
        (whole,) = self._arrays
        target, source = self._targets[i], self._sources[j]
        lead = whole.shape[:-2]
        row, column = slices(self._targets)[i], slices(self._sources)[j]
        # Starts that are data, so that an eager call compiles once for blocks of one shape.
        starts = (*[0] * len(lead), row.start, column.start)
        cut = jax.lax.dynamic_slice(whole, starts, (*lead, target.size, source.size))
        return cut.reshape(lead + target.shape + source.shape)

    def shown(self, i: int, j: int) -> Any:
        """The block, or while it is traced what tells its shape and dtype."""
        if not self.is_packed:
            return self.block(i, j)
        (whole,) = self._arrays
        if not hasattr(whole, "shape"):  # what `jax.tree.map` has put in the array's place
            return whole
        if is_eager([whole]) and isinstance(whole, (jax.Array, np.ndarray)):
            return self.block(i, j)
        shape = whole.shape[:-2] + self._targets[i].shape + self._sources[j].shape
        return jax.ShapeDtypeStruct(shape, whole.dtype)

    def take(self, rows: Sequence[int]) -> "BlockTable":
        """The table of some of the outputs."""
        numbers = {i: k for k, i in enumerate(rows)}
        zeros = ((numbers[i], j) for i, j in self.zeros if i in numbers)
        return self._taken(rows).with_zeros(zeros)

    def _taken(self, rows: Sequence[int]) -> "BlockTable":
        targets = tuple(self._targets[i] for i in rows)
        if self._kept is not None:
            blocks = {
                (rows.index(i), j): (self.block(i, j), self.shared(i, j))
                for i, j in self._kept
                if i in rows
            }
            return partial_table(blocks, targets, self._sources, compact=self.is_compact)
        if self._shared is not None:
            return compact_table(
                lambda i, j: (self.block(rows[i], j), self.shared(rows[i], j)),
                targets,
                self._sources,
            )
        return from_function(lambda i, j: self.block(rows[i], j), targets, self._sources)

    @property
    def arrays(self) -> list[tuple[Any, tuple[int, ...]]]:
        """What is stored, each with the shape that it was made with."""
        if self.is_packed:
            return [(self._arrays[0], (_size(self._targets), _size(self._sources)))]
        shapes = [
            compact_shape(self.shared(i, j), self._targets[i].shape, self._sources[j].shape)
            for i, j in self.pairs
        ]
        return list(zip(self._arrays, shapes, strict=True))

    @property
    def paths(self) -> list[Path]:
        """The names of what is stored; the matrix has none."""
        if self.is_packed:
            return [()]
        return [self._targets[i].path + self._sources[j].path for i, j in self.pairs]

    def multiply(
        self, vector: list[Array | None], outs: Sequence[LeafSpec], *, transpose: bool
    ) -> list[Array]:
        """The product with a vector of leaves, or that of the transpose."""
        if self._shared is not None:
            return summed(
                lambda i, j, leaf: self._multiplied(i, j, leaf, transpose=transpose),
                vector,
                outs,
                transpose=transpose,
            )
        if not self.is_packed:
            return multiply(list(self), vector, outs, transpose=transpose)
        packed: list[Array | None] = [joined(vector, self._targets if transpose else self._sources)]
        spec = LeafSpec((), (_size(outs),), promote(out.dtype for out in outs))
        (product,) = multiply([list(self._arrays)], packed, [spec], transpose=transpose)
        return [
            product[part].reshape(out.shape).astype(out.dtype)
            for out, part in zip(outs, slices(outs), strict=True)
        ]

    def _multiplied(self, i: int, j: int, leaf: Array, *, transpose: bool) -> Array:
        shapes = self._targets[i].shape, self._sources[j].shape
        return multiplied(self.block(i, j), self.shared(i, j), *shapes, leaf, transpose=transpose)

    def matrix(self) -> Array:
        """The blocks as one matrix, in the dtype that they promote to."""
        if self.is_packed:
            return self._arrays[0]
        if self._shared is not None:
            return self.dense.matrix()
        return matrix(list(self), self._sources, self._targets)


class Row(Sequence[Any]):
    """The blocks of one output, cut out when they are asked for."""

    def __init__(self, table: BlockTable, number: int) -> None:
        self._table = table
        self._number = number

    def __len__(self) -> int:
        return len(self._table._sources)

    def __getitem__(self, index: Any) -> Any:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._table.block(self._number, j) for j in numbers]
        return self._table.block(self._number, numbers)


def worth_packing(targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]) -> bool:
    """Whether there are so many blocks that they are better stored as a matrix."""
    count = len(targets) * len(sources)
    if count <= max(_MANY, _WORTH * (len(targets) + len(sources))):
        return False
    # The matrix has one dtype, and no pairs of real and imaginary directions in it. Of leaves that
    # are alike one is asked: this runs whenever a block is looked at.
    rows, columns = (
        {(spec.dtype, spec.weak_type): spec for spec in specs}.values()
        for specs in (targets, sources)
    )
    dtypes = {derivative_dtype(target, source) for target in rows for source in columns}
    return len(dtypes) == 1 and not any(is_complex(dtype) for dtype in dtypes)


def from_function(
    block: Callable[[int, int], Array], targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]
) -> BlockTable:
    """A table of blocks by output and source number."""
    rows = [[block(i, j) for j in range(len(sources))] for i in range(len(targets))]
    if worth_packing(targets, sources):
        return from_matrix(matrix(rows, sources, targets), targets, sources)
    blocks = tuple(block for row in rows for block in row)
    return BlockTable(blocks, tuple(targets), tuple(sources))


def compact_table(
    block: Callable[[int, int], tuple[Array, Shared]],
    targets: Sequence[LeafSpec],
    sources: Sequence[LeafSpec],
) -> BlockTable:
    """A table of compact blocks by output and source number, each with what it shares."""
    found = [block(i, j) for i in range(len(targets)) for j in range(len(sources))]
    arrays, shared = (tuple(x) for x in zip(*found, strict=True)) if found else ((), ())
    return BlockTable(arrays, tuple(targets), tuple(sources), shared)


def partial_table(
    blocks: Mapping[tuple[int, int], tuple[Array, Shared]],
    targets: Sequence[LeafSpec],
    sources: Sequence[LeafSpec],
    *,
    compact: bool,
) -> BlockTable:
    """A table of some of the blocks, each with what it shares."""
    kept = tuple(sorted(blocks))
    arrays = tuple(blocks[pair][0] for pair in kept)
    shared = tuple(blocks[pair][1] for pair in kept) if compact else None
    return BlockTable(arrays, tuple(targets), tuple(sources), shared, kept)


def from_matrix(
    whole: Array, targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]
) -> BlockTable:
    """A table of as many blocks as are worth packing, from the matrix that they form."""
    return BlockTable((whole,), tuple(targets), tuple(sources))


def table_of(whole: Array, targets: Sequence[LeafSpec], sources: Sequence[LeafSpec]) -> BlockTable:
    """A table of the blocks that form a matrix, in the dtypes that derivatives have."""
    if worth_packing(targets, sources):
        dtype = derivative_dtype(targets[0], sources[0])
        return from_matrix(whole.astype(dtype), targets, sources)
    rows, columns = slices(targets), slices(sources)

    def block(i: int, j: int) -> Array:
        target, source = targets[i], sources[j]
        cut, dtype = whole[rows[i], columns[j]], derivative_dtype(target, source)
        if is_complex(cut.dtype) and not is_complex(dtype):  # beside blocks that are complex
            cut = jnp.real(cut)
        return cut.astype(dtype).reshape(target.shape + source.shape)

    return from_function(block, targets, sources)


def _size(specs: Sequence[LeafSpec]) -> int:
    return sum(spec.size for spec in specs)
