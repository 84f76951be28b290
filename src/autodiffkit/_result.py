"""First derivatives as results: blocks reached by the names of arguments and outputs."""

import abc
import itertools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Generic, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import lineax as lx
import numpy as np
from jaxtyping import Array

from autodiffkit._block_table import BlockTable
from autodiffkit._compact import Shared
from autodiffkit._dims import accepts, derivative_of, describe_array_type
from autodiffkit._errors import NotDifferentiatedError, StructureError, columns, listed
from autodiffkit._inputs import Inputs, is_index
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import LeafSpec, describe_array, promote
from autodiffkit._linear_map import R_co, StructuredMap, ask_again, is_dunder
from autodiffkit._paths import Path, all_parts, missing, show
from autodiffkit._trees import Part, Tree, Values
from autodiffkit._vectors import Labels, labels, refuse_batched

_TABLE_ROWS = 24
_COPIED = 1 << 20  # entries of arrays that are looked at in NumPy


class Derivative(StructuredMap, Generic[R_co]):
    """What the stored derivatives share: their function's value, and access by name."""

    _blocks: BlockTable  # by output leaf (of a Hessian, times source) and source
    _value: Values
    _aux: Values
    _inputs: Inputs = eqx.field(static=True)
    _outputs: Tree = eqx.field(static=True)
    _function: str = eqx.field(static=True)

    _verb: ClassVar[str] = ""

    @property
    def value(self) -> R_co:
        """What the function returned (without the auxiliary data)."""
        return self._value.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`."""
        return self._aux.tree

    def __getattr__(self, name: str) -> Any:
        # Only reached when the usual lookup fails. An instance that is being unflattened or
        # copied has no fields yet, and dunders are asked for by all kinds of protocols.
        if is_dunder(name) or "_inputs" not in self.__dict__:
            raise AttributeError(name)
        ask_again(self, name)
        return self._wrt_argument(name)

    @abc.abstractmethod
    def _wrt_argument(self, path: Any) -> Any:
        """The blocks under a path; what attributes and items give."""

    # Blocks are reached by name: without this, iteration would try J[0], J[1], ...
    __iter__ = None

    def _leaf_paths(self) -> list[Path]:
        """The names of the leaves, for a function that returns a derivative."""
        value = [("value", *path) for path in self._value.leaf_paths()]
        return [*self._blocks.paths, *value, *(("aux", *path) for path in self._aux.leaf_paths())]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._inputs.names]

    @property
    def _domain(self) -> Tree:
        return self._inputs.tree

    @property
    def _name(self) -> str:
        return f"{self._verb}({self._function})"

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        return self._blocks.multiply(tangents, self._codomain.specs, transpose=False)

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        return self._blocks.multiply(cotangents, self._domain.specs, transpose=True)

    def _refuse_batched(self) -> None:
        arrays, shapes = zip(*self._blocks.arrays, strict=True)
        refuse_batched(self._name, arrays, shapes)

    @property
    def column_labels(self) -> Labels:
        """Paths of the differentiated leaves, each with its slice of the matrix's columns."""
        return labels(self._domain.specs)

    @property
    def shared_axes(self) -> Mapping[str | tuple[str, ...], Shared]:
        """The axes that blocks have once and first, with `layout="compact"`.

        For each block, pairs of an axis of the output and one of the input: `J.shared_axes["x"]`
        is `((0, 0),)` for a batch along the first axis of both. Of a Hessian, the first number is
        that of an axis of the output followed by the first argument, and the keys are pairs:
        `H.shared_axes["x", "y"]`. Where there are several outputs, the output's path comes first.
        Dense blocks share none.
        """
        return MappingProxyType({
            name[0] if len(name) == 1 else name: self._blocks.shared(i, j)
            for i, row in enumerate(self._row_names)
            for j, source in enumerate(self._domain.specs)
            for name in [(*row, show(source.path))]
        })

    @property
    def _row_names(self) -> list[tuple[str, ...]]:
        """The paths of what each row of blocks is the derivative of; none of a bare output."""
        return [(show(spec.path),) if spec.path else () for spec in self._outputs.specs]

    def as_lineax(self) -> lx.AbstractLinearOperator:
        """The derivative as a `lineax.PyTreeLinearOperator`, its blocks unraveled.

        The input structure is a record by argument, the output structure that of the
        function's output (of a Hessian, a record by argument; a Hessian of a scalar is
        tagged symmetric).

        Returns:
            The operator.

        Raises:
            StructureError: If the map is only R-linear, which no lineax operator is.
        """
        self._refuse_batched()
        self._refuse_partly_complex("as_lineax")
        blocks = self._blocks.dense
        # lineax wants one dtype for each source, whatever the outputs are.
        dtypes = [promote(block.dtype for block in column) for column in zip(*blocks, strict=True)]
        rows = [
            self._domain.unflatten([b.astype(d) for b, d in zip(row, dtypes, strict=True)])
            for row in blocks
        ]
        tree, structure = self._codomain.unflatten(rows), self._codomain.structure
        try:
            return lx.PyTreeLinearOperator(tree, structure, self._tags)
        except Exception as error:
            self._not_lineax(error)

    def _sub_output(self, path: str) -> tuple[Part, Values]:
        """The part of the output under `path`, and its value."""
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # J.of(0)
            raise StructureError(
                f"{self._name}.of: outputs are reached by names, not by {path!r}; entries of a "
                "list by '0', '1' and so on."
            )
        part = self._outputs.at(path, self._name)
        if part is None:
            names = all_parts(leaf.path for leaf in self._outputs.leaves)
            otherwise = "The output is a single array without a name."
            raise missing(self._name, "output", path, names, otherwise)
        if not part.indices:
            raise NotDifferentiatedError(
                f"{self._name}: no derivative of output {path!r}: {part.tree.why_held()}."
            )
        leaves = jtu.tree_leaves(self._value.tree)
        value = jtu.tree_unflatten(part.tree.treedef, [leaves[i] for i in part.positions])
        return part, Values(value)


class FirstDerivative(Derivative[R_co]):
    """A Jacobian, or the gradient that is one row of it."""

    @property
    def _codomain(self) -> Tree:
        return self._outputs

    @property
    def tree(self) -> Any:
        """The whole: the output's structure, a record of arguments at each leaf.

        Each block has the shape of the output's leaf followed by that of the argument's.
        """
        return self._outputs.unflatten([self._domain.unflatten(row) for row in self._blocks])

    def wrt(self, path: str, /) -> Any:
        """The blocks for an argument, or for a part of it, by path.

        Args:
            path: `"x"`, `"params.w"`, `"params.layers.0.weight"`.

        Returns:
            The blocks in the structure of that part, `None` at leaves that were held; with
            several outputs, inside the output's structure.

        Raises:
            NotDifferentiatedError: If nothing there was differentiated; it says why.
        """
        return self._wrt_argument(path)

    def _wrt_argument(self, path: str) -> Any:
        part = self._inputs.locate(self._name, path)
        return self._outputs.unflatten([part.pick(row) for row in self._blocks])

    def __getitem__(self, path: str) -> Any:
        return self._wrt_argument(path)

    def as_matrix(self) -> Array:
        """The blocks as one matrix `(m, n)`, in the dtype that they promote to.

        Rows follow the output's leaves, columns the differentiated leaves with the arguments
        in signature order, each leaf in C order; `row_labels` and `column_labels` say which
        are which.

        Returns:
            The matrix.
        """
        self._refuse_batched()
        return self._blocks.matrix()

    @property
    def row_labels(self) -> Labels:
        """Paths of the output's leaves, each with its slice of the matrix's rows."""
        return labels(self._outputs.specs)

    def to_jax(self, argnums: SupportsIndex | Iterable[SupportsIndex] | None = None) -> Any:
        """The structure that `jax.jacobian(f, argnums)` or `jax.grad(f, argnums)` returns.

        Args:
            argnums: A position of the call, several, or `None` for all as a tuple.
                Arguments passed by keyword have no position and are left out.

        Returns:
            The blocks, with `None` where nothing was differentiated.

        Raises:
            StructureError: If there is no such position.
        """
        parts = self._inputs.positional(self._name, argnums)
        rows = [tuple(part.pick(row) for part in parts) for row in self._blocks.dense]
        return self._outputs.unflatten([row[0] if is_index(argnums) else row for row in rows])

    def __repr__(self) -> str:
        rows = (
            (
                *(show(target.path) or "output", show(source.path)),
                *describe_block(
                    self._blocks.shown(i, j), target, source, shared=self._blocks.shared(i, j)
                ),
            )
            for i, target in enumerate(self._outputs.specs)
            for j, source in enumerate(self._domain.specs)
        )
        title = (
            f"{type(self).__name__} of {self._function}, "
            f"{self._outputs.size} by {self._domain.size}"
        )
        count = len(self._outputs.specs) * len(self._domain.specs)
        return title + block_table(("of", "with respect to"), rows, count, self._blocks)


class Jacobian(FirstDerivative[R_co]):
    """The first derivatives of a function's outputs with respect to its arguments.

    `J.x` holds the blocks for argument `x` in its own structure; with several outputs the
    output's structure is outside: `J.x["energy"]`. Everything else is documented at the
    methods. A Jacobian is a pytree of arrays.
    """

    _verb: ClassVar[str] = "jacobian"

    def of(self, path: str, /) -> "Jacobian[Any]":
        """The Jacobian of a part of the output.

        Args:
            path: `"energy"`, `"forces.0"`.

        Returns:
            A Jacobian whose output is that part: `J.of("energy").wrt("params.w")`.

        Raises:
            NotDifferentiatedError: If there is no such output, or it was not differentiated.
        """
        part, value = self._sub_output(path)
        blocks = self._blocks.take(part.indices)
        outputs = part.tree.rebased()
        return type(self)(blocks, value, self._aux, self._inputs, outputs, self._function)


class Gradient(FirstDerivative[R_co]):
    """The first derivatives of a function with one real scalar output.

    `G.x` has the structure and shapes of argument `x`. A Gradient is a pytree of arrays.
    """

    _verb: ClassVar[str] = "grad"


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
