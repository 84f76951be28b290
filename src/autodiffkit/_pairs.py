"""Blocks by two arguments, one after the other: `H.<a>.<b>`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from autodiffkit._block_table import BlockTable, Known, Row
from autodiffkit._display import Displayed, reached
from autodiffkit._display_text import Display
from autodiffkit._errors import NotDifferentiatedError
from autodiffkit._inputs import TO_HAVE_A_BLOCK, Inputs, is_index
from autodiffkit._jax_compat import without_tracer
from autodiffkit._leaves import slices
from autodiffkit._operands import Whole, attributes
from autodiffkit._paths import legible, missing, show
from autodiffkit._raster import Sides
from autodiffkit._stored import Stored
from autodiffkit._structured_map import is_dunder
from autodiffkit._tables import BY, OF, THEN_BY, BlockRow, block_display, block_grid, sized
from autodiffkit._trees import LEAF, Part, Tree
from autodiffkit._vectors import Labels, labels


def is_scalar(outputs: Tree) -> bool:
    """Whether exactly one scalar was differentiated."""
    return len(outputs.specs) == 1 and outputs.specs[0].shape == ()


def bare(outputs: Tree) -> Tree:
    """The one differentiated leaf of the outputs without the containers around it."""
    (leaf,) = outputs.specs
    return Tree(LEAF, (dataclasses.replace(leaf, path=()),))


class Paired(Stored):
    """Blocks by output and two arguments."""

    _has_output: ClassVar[bool] = True  # which the table that is printed names

    @property
    def _codomain(self) -> Tree:
        outputs = bare(self._outputs) if is_scalar(self._outputs) else self._outputs
        return outputs.compose(self._domain)

    @property
    def _row_names(self) -> list[tuple[str, ...]]:
        return [
            (*name, show(first.path)) for name in super()._row_names for first in self._domain.specs
        ]

    @property
    def _sides(self) -> Sides:
        return Sides(self._domain.specs, self._domain.specs, self._outputs.specs)

    @property
    def _tags(self) -> frozenset[object]:
        return frozenset({lx.symmetric_tag}) if is_scalar(self._outputs) else frozenset()

    def _by_output(self, blocks: BlockTable | None = None) -> list[list[Row]]:
        """The rows of blocks, grouped by output leaf."""
        blocks = self._blocks if blocks is None else blocks
        count = len(self._domain.specs)
        starts = range(0, len(blocks), count)
        return [list(blocks[start : start + count]) for start in starts]

    @property
    def tree(self) -> Any:
        """The whole: output, record of arguments, argument, record, argument."""
        inner = self._domain
        return self._outputs.unflatten([
            inner.unflatten([inner.unflatten(row) for row in rows]) for rows in self._by_output()
        ])

    def wrt(self, first: str, second: str | None = None, /) -> Any:
        """The second-derivative block of two arguments, or of parts of them, by path.

        Args:
            first: The path that comes first in the block's shape: `"params.w"`.
            second: The path that comes second. Without it the result is the view that
                `H.<first>` gives, to be continued: `H.wrt("params.w").x`.

        Returns:
            The blocks in the structure of the first part, and inside it of the second; with
            several outputs, inside the output's structure.

        Raises:
            NotDifferentiatedError: If nothing there was differentiated; it says why.
        """
        view = self._wrt_argument(first)
        return view if second is None else view.wrt(second)

    def _wrt_argument(self, path: str) -> "PairedRow":
        part = self._located(path)
        blocks = tuple(tuple(tuple(rows[i]) for i in part.indices) for rows in self._by_output())
        if not any(block is not None for rows in blocks for row in rows for block in row):
            raise NotDifferentiatedError(
                f"{self._name}: no block by {path!r} first: blocks= leaves it out; add a "
                "pair of it to have one."
            )
        count, zeros = len(self._domain.specs), self._blocks.zeros
        known = Known(
            frozenset(
                (i // count, part.indices.index(i % count), k)
                for i, k in zeros
                if i % count in part.indices
            )
        )
        names = (self._title, self._name, path)
        return PairedRow(blocks, _alone(part), self._inputs, self._outputs, *names, known)

    def __getitem__(self, path: str | tuple[str, str]) -> Any:
        if isinstance(path, tuple) and len(path) == 2:
            return self.wrt(*path)
        key: Any = path  # three names, say
        return self.wrt(key)

    def as_matrix(self) -> Array:
        """The blocks as a matrix: `(n, n)` of a scalar, `(m, n, n)` of several outputs.

        The outputs' entries come in the order of their leaves; rows and columns follow the
        differentiated leaves with the arguments in signature order, each leaf in C order.

        Returns:
            The matrix.
        """
        self._refuse_batched()
        whole = self._blocks.matrix()
        if is_scalar(self._outputs):
            return whole
        # Each row of blocks has axes [output..., first...]; the result [output, row, column].
        rows = iter(labels(self._codomain.specs))
        stacks = [
            jnp.concatenate(
                [
                    whole[part].reshape(target.size, first.size, whole.shape[-1])
                    for first, (_, part) in zip(self._domain.specs, rows, strict=False)
                ],
                axis=1,
            )
            for target in self._outputs.specs
        ]
        return jnp.concatenate(stacks, axis=0)

    @property
    def _matrix_shape(self) -> tuple[int, ...]:
        size = self._domain.size
        return (size, size) if is_scalar(self._outputs) else (self._outputs.size, size, size)

    def _matrix_of(self, array: Array) -> Array:
        array = super()._matrix_of(array)
        if array.ndim == 2:
            return array
        # The array has axes [output, row, column]; each row of blocks [output..., first...].
        size = self._domain.size
        return jnp.concatenate([
            array[outer, inner].reshape(
                (outer.stop - outer.start) * (inner.stop - inner.start), size
            )
            for outer in slices(self._outputs.specs)
            for inner in slices(self._domain.specs)
        ])

    @property
    def row_labels(self) -> Labels:
        """Paths with slices of the first axis: arguments, or of several outputs the outputs."""
        return labels(self._domain.specs if is_scalar(self._outputs) else self._outputs.specs)

    def to_jax(self, argnums: SupportsIndex | Iterable[SupportsIndex] | None = None) -> Any:
        """The structure that `jax.hessian(f, argnums)` returns.

        Args:
            argnums: A position of the call, several, or `None` for all as a tuple.
                Arguments passed by keyword have no position and are left out.

        Returns:
            The blocks, with `None` where nothing was differentiated.

        Raises:
            StructureError: If there is no such position.
        """
        parts = self._inputs.positional(self._name, argnums)

        def shaped(values: Sequence[Any]) -> Any:
            picked = tuple(part.pick(values) for part in parts)
            return picked[0] if is_index(argnums) else picked

        return self._outputs.unflatten([
            shaped([shaped(row) for row in rows]) for rows in self._by_output(self._blocks.dense)
        ])

    def _display(self) -> Display:
        size = self._domain.size
        outputs = "" if is_scalar(self._outputs) else f"{self._outputs.size} times "
        skipped = 0 if self._has_output else 1
        blocks, sources = self._blocks, self._domain.specs
        zeros = blocks.zeros
        firsts = [(target, a) for target in self._outputs.specs for a in sources]
        rows = (
            BlockRow(
                (legible(target.path) or "output", legible(a.path), legible(b.path))[skipped:],
                blocks.shown(i, k),
                (target, a, b),
                blocks.shared(i, k),
                is_known=(i, k) in zeros,
            )
            for i, (target, a) in enumerate(firsts)
            for k, b in enumerate(sources)
            if blocks.has(i, k)
        )
        title = sized(self._title, blocks, f"{outputs}{size} by {size}")
        grid = block_grid(blocks, self._codomain.specs, sources, _stack(self._outputs))
        head = (OF, BY, THEN_BY)[skipped:]
        return block_display(title, head, rows, len(blocks.pairs), blocks, grid=grid)


def _stack(outputs: Tree) -> str:
    """What a picture does not show of second derivatives that are more than one matrix."""
    count, size = len(outputs.specs), outputs.size
    if count == 1:
        return f"A stack of {size} matrices, one for each entry of the output" if size > 1 else ""
    each = "" if size == count else "; of each a stack of matrices, one for each entry"
    return f"One output below the other{each}"


class PairedRow(Displayed, Whole, eqx.Module):
    """The blocks whose first argument is chosen: what `H.x` gives.

    The second argument completes it, `H.x.y`. Where the first one is a container, its parts
    are reached as they are in the argument, `H.params["w"].x`, `H.model.layers[0].weight.x`; an
    attribute that is both a part and the name of an argument means the argument.
    """

    # None for a block that was not asked for
    _blocks: tuple[tuple[tuple[Array | None, ...], ...], ...]  # [output][leaf of the part][source]
    _part: Part = eqx.field(static=True)
    _inputs: Inputs = eqx.field(static=True)
    _outputs: Tree = eqx.field(static=True)
    _title: str = eqx.field(static=True)
    _whole: str = eqx.field(static=True)
    _path: str = eqx.field(static=True)
    _known: Known = eqx.field(static=True)

    @property
    def _name(self) -> str:
        return f"{self._whole}.{self._path}"

    @property
    def tree(self) -> Any:
        """Output, first argument, record of second arguments, second argument."""
        inner = self._inputs.tree
        return self._outputs.unflatten([
            self._part.pick([inner.unflatten(row) for row in rows]) for rows in self._blocks
        ])

    def wrt(self, path: str, /) -> Any:
        """The blocks by the second argument, or by a part of it.

        Returns:
            The blocks in the structure of both parts, inside that of the output.

        Raises:
            NotDifferentiatedError: If nothing there was differentiated; it says why.
        """
        second = self._inputs.locate(self._name, path)
        blocks = [[[row[j] for j in second.indices] for row in rows] for rows in self._blocks]
        if all(block is None for rows in blocks for row in rows for block in row):
            raise NotDifferentiatedError(
                f"{self._name}: no block by {path!r}: blocks= leaves it out; add the pair to "
                "have it."
            )
        return self._outputs.unflatten([
            self._part.pick([second.pick(row) for row in rows]) for rows in self._blocks
        ])

    def __getattr__(self, name: str) -> Any:
        # Reached only when the usual lookup fails; see `Derivative.__getattr__`.
        if is_dunder(name) or "_inputs" not in self.__dict__:
            raise AttributeError(name)
        if name in self._inputs.names:
            return self.wrt(name)
        part = self._child(name)
        return self.wrt(name) if part is None else part

    @property
    def _called(self) -> str:
        return self._name

    @property
    def _operand(self) -> str:
        return f"{attributes(type(self), self._inputs.names)} to choose the second argument, too"

    @property
    def _contents(self) -> str:
        return self._operand

    def __getitem__(self, key: Any) -> Any:
        step = str(key)
        if isinstance(key, int):
            names = self._part.tree.children()
            step = names[key] if -len(names) <= key < len(names) else step
        part = self._child(step)
        if part is not None:
            return part
        children, paths = self._part.tree.children(), self._inputs.paths
        if children and step not in paths:
            raise missing(self._name, "part and no argument", step, [*children, *paths])
        return self.wrt(step)

    def _child(self, step: str) -> "PairedRow | None":
        if step not in self._part.tree.children():
            return None
        part = self._part.tree.at(step, self._name)
        assert part is not None
        if not part.indices:
            raise NotDifferentiatedError(
                f"{self._name}: no block for {step!r}: {part.tree.why_held()}.",
                remedy=TO_HAVE_A_BLOCK,
            )
        blocks = tuple(tuple(rows[i] for i in part.indices) for rows in self._blocks)
        names = (self._title, self._whole, f"{self._path}.{step}")
        zeros = (
            (i, part.indices.index(j), k) for i, j, k in self._known.zeros if j in part.indices
        )
        known = Known(frozenset(zeros))
        return PairedRow(blocks, _alone(part), self._inputs, self._outputs, *names, known)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._inputs.names]

    def _children(self) -> Iterable[tuple[str, Any]]:
        shown = jax.tree.map(without_tracer, self)
        kind = type(self)
        pairs = [(j, b) for rows in self._blocks for row in rows for j, b in enumerate(row)]
        there = {self._inputs.specs[j].path[0] for j, block in pairs if block is not None}
        return [
            (reached(kind, x), shown.wrt(x)) for x in self._inputs.tree.children() if x in there
        ]

    def _display(self) -> Display:
        rows = (
            BlockRow(
                (legible(target.path) or "output", legible(a.path), legible(b.path)),
                block,
                (target, a, b),
                is_known=(i, j, k) in self._known.zeros,
            )
            for i, (target, group) in enumerate(zip(self._outputs.specs, self._blocks, strict=True))
            for j, (a, row) in enumerate(zip(self._part.tree.specs, group, strict=True))
            for k, (b, block) in enumerate(zip(self._inputs.specs, row, strict=True))
            if block is not None
        )
        title = f"{self._title}, its blocks by {self._path}"
        count = sum(x is not None for rows in self._blocks for row in rows for x in row)
        return block_display(title, (OF, BY, THEN_BY), rows, count, self._blocks)


def _alone(part: Part) -> Part:
    """The part as a whole of its own."""
    everything = tuple(range(len(part.tree.leaves)))
    return Part(part.tree, everything, tuple(range(len(part.indices))))
