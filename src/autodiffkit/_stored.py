"""Derivatives that store their blocks: access by name, and the way to matrices and lineax."""

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import lineax as lx
from jaxtyping import Array

from autodiffkit import _linear_algebra as algebra
from autodiffkit._block_table import BlockTable, table_of
from autodiffkit._compact import Shared
from autodiffkit._display import reached
from autodiffkit._errors import NotDifferentiatedError, StructureError, columns, listed
from autodiffkit._inputs import Inputs
from autodiffkit._jax_compat import is_eager, without_tracer
from autodiffkit._leaves import describe_array, is_complex, promote
from autodiffkit._linear_map import Composable
from autodiffkit._matrix_drawing import Kind, Style
from autodiffkit._operands import attributes
from autodiffkit._paths import Path, show
from autodiffkit._plot_matrix import draw_matrix
from autodiffkit._raster import Sides
from autodiffkit._structured_map import ask_again, is_dunder
from autodiffkit._trees import Part, Tree
from autodiffkit._vectors import refuse_batched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

S = TypeVar("S", bound="Stored")  # `typing.Self` is refused outside decorated classes

_BRANCHES = 1000  # more blocks than people look at in a tree


class _Structure(NamedTuple):
    """What is known of a result beside its arrays.

    Args:
        packing: The structure of the parts that the arrays are of.
        inputs: The arguments.
        outputs: What the function returns.
        function: Its name.
    """

    packing: Any
    inputs: Inputs
    outputs: Tree
    function: str


class Stored(Composable):
    """Blocks that are reached by the names of arguments.

    The arrays of all parts lie in one tuple, and what is static in another: that makes one node
    of few fields for JAX to take apart and to put together, which is most of what a compiled call
    of a small function costs.
    """

    _arrays: tuple[Any, ...]
    _static: _Structure = eqx.field(static=True)

    _verb: ClassVar[str] = ""

    @classmethod
    def _pack(
        cls: type[S],
        parts: tuple[Any, ...],
        inputs: Inputs,
        outputs: Tree,
        function: str,
        **more: Any,
    ) -> S:
        """Makes one of its parts: the blocks first, then what the class keeps besides."""
        arrays, packing = jtu.tree_flatten(parts)
        return cls(tuple(arrays), _Structure(packing, inputs, outputs, function), **more)

    def _with(self: S, blocks: BlockTable) -> S:
        """The same with other blocks."""
        arrays, packing = jtu.tree_flatten((blocks, *self._parts[1:]))
        static = self._static._replace(packing=packing)
        return dataclasses.replace(self, _arrays=tuple(arrays), _static=static)

    @property
    def _parts(self) -> tuple[Any, ...]:
        """What the arrays are of."""
        return jtu.tree_unflatten(self._static.packing, self._arrays)

    @property
    def _inputs(self) -> Inputs:
        return self._static.inputs

    @property
    def _outputs(self) -> Tree:
        return self._static.outputs

    @property
    def _function(self) -> str:
        return self._static.function

    @property
    def _blocks(self) -> BlockTable:
        """By output leaf (of second derivatives, times source) and source."""
        return self._parts[0]

    def __getattr__(self, name: str) -> Any:
        # Only reached when the usual lookup fails. An instance that is being unflattened or
        # copied has no fields yet, and dunders are asked for by all kinds of protocols.
        if is_dunder(name) or "_static" not in self.__dict__:
            raise AttributeError(name)
        ask_again(self, name)
        return self._wrt_argument(name)

    def _located(self, path: Any) -> Part:
        """The part of the arguments under a path."""
        has_parts = hasattr(type(self), "of")
        outputs = self._outputs.leaves if has_parts else ()
        return self._inputs.locate(self._name, path, outputs)

    @abc.abstractmethod
    def _wrt_argument(self, path: Any) -> Any:
        """The blocks under a path; what attributes and items give."""

    @property
    def _operand(self) -> str:
        names = self._inputs.names
        which = f"block{'s' * (len(names) > 1)}"
        return f"{attributes(type(self), names)} for the {which}, or .tree for the whole"

    @property
    def _contents(self) -> str:
        return self._operand

    def _leaf_paths(self) -> list[Path]:
        """The names of the leaves, for a function that returns a derivative."""
        return list(self._blocks.paths)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._inputs.names]

    def _children(self) -> Iterable[tuple[str, Any]] | None:
        blocks = self._blocks
        is_known = is_eager(self._arrays)
        if len(blocks.pairs) > _BRANCHES or (blocks.is_packed and not is_known):
            return None
        shown: Any = self if is_known else jtu.tree_map(without_tracer, self)
        return [(reached(type(self), name), shown[name]) for name in self._domain.children()]

    @property
    def _domain(self) -> Tree:
        return self._inputs.tree

    @property
    def _arguments(self) -> Inputs:
        return self._inputs

    @property
    def _name(self) -> str:
        return f"{self._verb}({self._function})" if self._verb else self._function

    def _apply(self, tangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        return self._blocks.multiply(tangents, self._codomain.specs, transpose=False)

    def _apply_transpose(self, cotangents: list[Array | None]) -> list[Array]:
        self._refuse_batched()
        return self._blocks.multiply(cotangents, self._domain.specs, transpose=True)

    def _refuse_batched(self) -> None:
        blocks = self._blocks
        if blocks.is_partial:
            pairs = [
                (show(self._codomain.specs[i].path) or "output", show(self._domain.specs[j].path))
                for i, j in blocks.pairs
            ]
            raise NotDifferentiatedError(
                f"{self._name}: only some of the blocks were computed, and this needs all of them. "
                "Leave out blocks=, or select arguments with wrt=. There are:"
                + listed(columns([("by", "then by"), *pairs]))
            )
        self._refuse_batched_blocks()

    def _refuse_batched_blocks(self) -> None:
        arrays, shapes = zip(*self._blocks.arrays, strict=True)
        refuse_batched(self._name, arrays, shapes)

    @property
    def shared_axes(self) -> Mapping[str | tuple[str, ...], Shared]:
        """The axes that blocks have once and first, with `layout="compact"`.

        For each block, pairs of an axis of the output and one of the input: `J.shared_axes["x"]`
        is `((0, 0),)` for a batch along the first axis of both. Of a Hessian, the first number is
        that of an axis of the output followed by the first argument, and the keys are pairs:
        `H.shared_axes["x", "y"]`. Where there are several outputs, the output's path comes first.
        Dense blocks share none.
        """
        blocks = self._blocks
        return MappingProxyType({
            name[0] if len(name) == 1 else name: blocks.shared(i, j)
            for i, row in enumerate(self._row_names)
            for j, source in enumerate(self._domain.specs)
            if blocks.has(i, j)
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

    def from_matrix(self: S, matrix: Any, /) -> S:
        """Another matrix in the place of this one, with the same names and everything else.

        Args:
            matrix: An array of the shape of `as_matrix()`, such as the answer of an algorithm
                that takes matrices.

        Returns:
            A result of the same kind, whose blocks are cut out of the matrix. They have the
            dtypes of the blocks of this one; beside complex blocks, real ones take the real part.

        Raises:
            StructureError: If the matrix has another shape.
        """
        self._refuse_batched()
        array = self._matrix_of(jnp.asarray(matrix))
        if is_complex(array.dtype) and not is_complex(promote(self._dtypes)):
            raise StructureError(
                f"{self._name}.from_matrix: the matrix is complex and the blocks are real. "
                "Take its real part, if that is what is meant."
            )
        targets, sources = self._codomain.specs, self._domain.specs
        return self._with(table_of(array, targets, sources))

    def plot(
        self,
        ax: "Axes | None" = None,
        *,
        kind: Kind = "auto",
        log: bool = False,
        values: bool | None = None,
    ) -> "Axes":
        """Draws the matrix of blocks with the names of outputs and arguments, by matplotlib.

        Colours are symmetric around zero, red for what is positive and blue for what is negative;
        of complex blocks they show the modulus. Where the matrix has more entries than the axes
        have pixels, each pixel shows the entry of largest modulus of those that it stands for.
        Hatched is what is zero by structure, and what `blocks=` left out; dotted are other blocks
        of zeros, and yellow is what is not finite. Second derivatives of several outputs have a
        panel for each. The guide on [plots](guide/plots.md) shows all of this.

        Args:
            ax: Axes to draw into; nothing else of their figure changes. `None` makes a figure.
            kind: `"heatmap"`, `"spy"` for what is zero and what is not, or `"auto"`: a spy plot of
                a matrix larger than the axes of which at most a tenth is not zero.
            log: Whether the scale of colours is logarithmic, but for what is nearly zero.
            values: Whether the values are written in the cells; `None`: if they can be read.

        Returns:
            The axes, whose units are rows and columns, `axes.images[0]` the matrix.

        Raises:
            MissingPackageError: If matplotlib is not installed.
            SelectionError: If `ax`, `kind` or `values` makes no sense here.
            StructureError: If there are no values: while JAX traces, or after `jax.vmap`.
        """
        style = Style(kind, log, values, self._quantity)
        call = f"{self._name}.plot"
        return draw_matrix(call, self._title, self._blocks, self._sides, ax, style)

    _quantity: ClassVar[str] = "derivative"  # what an entry is

    @property
    def _sides(self) -> Sides:
        """What belongs to the rows and the columns of a plot."""
        return Sides(self._outputs.specs, self._domain.specs)

    def _finite(self, method: str, matrix: Array) -> Array:
        """The matrix, unless an entry is not finite: then an error, also under `jax.jit`."""
        names = ", ".join(path for path, _ in self.column_labels)
        message = (
            f"{self._name}.{method}: the matrix by {names} has entries that are not finite; "
            "print the derivative to see in which blocks."
        )
        return algebra.checked(matrix, ~jnp.all(jnp.isfinite(matrix)), message)

    @property
    def _dtypes(self) -> list[Any]:
        return [block.dtype for block, _ in self._blocks.arrays]

    @property
    def _matrix_shape(self) -> tuple[int, ...]:
        return self._codomain.size, self._domain.size

    def _matrix_of(self, array: Array) -> Array:
        """The array as rows by columns."""
        if array.shape != self._matrix_shape:
            raise StructureError(
                f"{self._name}.from_matrix: the matrix should have the shape "
                f"{list(self._matrix_shape)}; got {describe_array(array.shape, array.dtype)}. "
                "Pass an array in the order of .as_matrix()."
            )
        return array
