"""First derivatives as results: blocks reached by the names of arguments and outputs."""

from collections.abc import Iterable
from typing import Any, ClassVar, Generic, SupportsIndex

import jax.numpy as jnp
import jax.tree_util as jtu
import lineax as lx
from jaxtyping import Array

from autodiffkit import _linear_algebra as algebra
from autodiffkit._block_table import BlockTable
from autodiffkit._display_text import Display
from autodiffkit._errors import MatrixError, NotDifferentiatedError, StructureError
from autodiffkit._inputs import Inputs, is_index
from autodiffkit._leaves import is_complex, promote
from autodiffkit._paths import Path, all_parts, legible, missing
from autodiffkit._stored import Stored
from autodiffkit._structured_map import R_co
from autodiffkit._symmetric import SymmetricMatrix, number, symmetric_matrix
from autodiffkit._tables import OF, WRT, BlockRow, block_display, block_grid, sized
from autodiffkit._trees import Part, Tree, Values
from autodiffkit._vectors import filled, joined


class Derivative(Stored, Generic[R_co]):
    """What the stored derivatives of a function share: its value, and parts of its output."""

    @property
    def _value(self) -> Values:
        return self._parts[1]

    @property
    def _aux(self) -> Values:
        return self._parts[2]

    @property
    def value(self) -> R_co:
        """What the function returned (without the auxiliary data)."""
        return self._value.tree

    @property
    def aux(self) -> Any:
        """The auxiliary data that the function returned, `None` without `has_aux`."""
        return self._aux.tree

    @property
    def _contents(self) -> str:
        aux = "" if self.aux is None else ".aux for the auxiliary data, "
        return f".value for what the function returned, {aux}and {super()._contents}"

    def _leaf_paths(self) -> list[Path]:
        """The names of the leaves, for a function that returns a derivative."""
        value = [("value", *path) for path in self._value.leaf_paths()]
        return [
            *super()._leaf_paths(),
            *value,
            *(("aux", *path) for path in self._aux.leaf_paths()),
        ]

    def _sub_output(self, path: str) -> tuple[Part, Values]:
        """The part of the output under `path`, and its value."""
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # J.of(0)
            raise StructureError(
                f"{self._name}.of: outputs are reached by names, not by {path!r}; write '0', "
                "'1' and so on for the entries of a list."
            )
        part = self._outputs.at(path, self._name)
        if part is None and path == "":  # what a single array without a name is labelled
            part = self._outputs.at(None, self._name)
        if part is None:
            names = all_parts(leaf.path for leaf in self._outputs.leaves)
            otherwise = "The output is a single array without a name."
            raise missing(self._name, "output", path, names, otherwise)
        if not part.indices:
            raise NotDifferentiatedError(
                f"{self._name}: no derivative of output {path!r}: {part.tree.why_held()}.",
                remedy="Select it with of=, and return it as a floating-point array or number.",
            )
        if self._value.tree is None:  # of a map that was made of others
            return part, self._value
        leaves = jtu.tree_leaves(self._value.tree)
        value = jtu.tree_unflatten(part.tree.treedef, [leaves[i] for i in part.positions])
        return part, Values.of(value)


class FirstDerivative(Derivative[R_co]):
    """A Jacobian, or the gradient that is one row of it."""

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} of {self._function}"

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
        part = self._located(path)
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

    def _display(self) -> Display:
        blocks, targets, sources = self._blocks, self._outputs.specs, self._domain.specs
        zeros = blocks.zeros
        rows = (
            BlockRow(
                (legible(target.path) or "output", legible(source.path)),
                blocks.shown(i, j),
                (target, source),
                blocks.shared(i, j),
                is_known=(i, j) in zeros,
            )
            for i, target in enumerate(targets)
            for j, source in enumerate(sources)
        )
        title = sized(self._title, blocks, f"{self._outputs.size} by {self._domain.size}")
        grid = block_grid(blocks, targets, sources)
        return block_display(title, (OF, WRT), rows, len(targets) * len(sources), blocks, grid=grid)


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
        parts = (blocks, value, self._aux)
        return self._pack(parts, self._inputs, outputs, self._function)

    def lstsq(self, vector: Any, /) -> Any:
        """The arguments `x` for which `J.mv(x)` is nearest to a vector: `J.lstsq(-J.value)`.

        Where the columns of the matrix are linearly independent it comes from a QR decomposition;
        where they are not, or there are more of them than rows, the answer is the shortest of all,
        by the singular values. Float16 and bfloat16 are computed in float32.

        Args:
            vector: In the structure of the output. What is left out counts as zero.

        Returns:
            A record by argument.

        Raises:
            MatrixError: If the matrix or the vector is not finite. Under `jax.jit` Equinox raises
                the same message as the computation runs.
            StructureError: If a leaf fits nothing in the output, or has another shape.
        """
        matrix = self._matrix("lstsq")
        right = joined(self._pulled("lstsq", vector), self._codomain.specs)
        message = (
            f"{self._name}.lstsq: the Jacobian or the vector has an entry that is not finite; "
            "print them to see where."
        )
        bad = ~(jnp.all(jnp.isfinite(matrix)) & jnp.all(jnp.isfinite(right)))
        right = algebra.checked(right.astype(matrix.dtype), bad, message)
        return self.unravel(algebra.lstsq(matrix, right))

    def svd(self) -> algebra.SVD:
        """The singular value decomposition.

        Returns:
            A named tuple: `U` in the output's structure with leaves `(*leaf.shape, k)`, `S` `(k,)`,
                and `Vh`, a record by argument with leaves `(k, *leaf.shape)`.

        Raises:
            MatrixError: If an entry is not finite. Under `jax.jit` Equinox raises the same message
                as the computation runs.
        """
        left, values, right = algebra.svd(self._finite("svd", self._matrix("svd")))
        outer = self.T.unravel(left)
        leaves = [jnp.moveaxis(leaf, -1, 0) for leaf in self._unraveled(right.T)]
        values = values.astype(jnp.finfo(promote(self._dtypes)).dtype)
        return algebra.SVD(outer, values, self._domain.unflatten(leaves))

    def slogdet(self) -> algebra.Slogdet:
        """Sign and logarithm of the determinant, of a square Jacobian.

        Returns:
            A named tuple: `sign` and `logabsdet`; of a singular matrix 0 and `-inf`.

        Raises:
            MatrixError: If the matrix is not square, or an entry is not finite.
        """
        rows, columns = self._matrix_shape
        if rows != columns:
            raise MatrixError(
                f"{self._name}.slogdet: the matrix is {rows} by {columns}, and only a square one "
                "has a determinant. Select as many entries of the arguments as the output has "
                "with wrt=, or use .gram().slogdet()."
            )
        return algebra.slogdet(self._finite("slogdet", self.as_matrix()))

    def gram(self) -> SymmetricMatrix:
        """The Gram matrix `J.T @ J`, stored.

        Returns:
            A `SymmetricMatrix`: `J.gram().x.y` is the block by `x` and `y`.

        Raises:
            NotDifferentiatedError: If the Jacobian is complex.
        """
        self._refuse_complex("gram")
        name = f"{self._name}.gram()"
        matrix = algebra.gram(self.as_matrix())
        return symmetric_matrix(matrix, self._inputs, name, is_semidefinite=True)

    def covariance(self, residuals: Any, /) -> SymmetricMatrix:
        """The covariance of fitted arguments, `s**2 * inverse(J.T @ J)`.

        This is that of a least-squares fit whose residuals have this Jacobian and independent
        errors of one variance, estimated by `s**2 = sum(residuals**2) / (m - n)` (Seber and Wild,
        *Nonlinear Regression*, 1989, section 2.1).

        Args:
            residuals: In the structure of the output, the residuals at the fit: `J.value` if the
                function returns them.

        Returns:
            A `SymmetricMatrix`, with `.stderr()` and `.correlation()`.

        Raises:
            MatrixError: If there are not more residuals than parameters, or the residuals do not
                determine them all. Under `jax.jit` Equinox raises the latter as the computation
                runs.
            NotDifferentiatedError: If the Jacobian is complex.
            StructureError: If the residuals do not fit the output.
        """
        self._refuse_complex("covariance")
        rows, columns = self._matrix_shape
        if rows <= columns:
            raise MatrixError(
                f"{self._name}.covariance: {rows} residuals leave no degree of freedom to estimate "
                f"the variance of {columns} parameters; .gram().inverse() is the covariance for "
                "residuals of variance one."
            )
        call = f"{self._name}.covariance"
        message = (
            f"{call}: the residuals do not determine all of the {columns} parameters ("
            f"{', '.join(path for path, _ in self.column_labels)}): their columns of the Jacobian "
            "are linearly dependent to working precision, or not finite. .svd() shows the "
            "directions; hold arguments constant with wrt=."
        )
        leaves = filled(self._pulled("covariance", residuals), self._codomain.specs)
        matrix = self._matrix("covariance")
        found = algebra.inverse_gram(matrix, message)
        squares = sum(jnp.sum(jnp.square(leaf.astype(matrix.dtype))) for leaf in leaves)
        matrix = found * (squares / (rows - columns))
        name = f"{self._name}.covariance()"
        return symmetric_matrix(matrix, self._inputs, name, is_semidefinite=True)

    def _matrix(self, method: str) -> Array:
        self._refuse_partly_complex(method)
        return algebra.computable(self.as_matrix())

    def _refuse_complex(self, method: str) -> None:
        if is_complex(promote(self._dtypes)):
            raise NotDifferentiatedError(
                f"{self._name}.{method}: the Jacobian is complex, and J.T @ J is not Hermitian. "
                "Differentiate real and imaginary parts, or take .as_matrix()."
            )


class Gradient(FirstDerivative[R_co]):
    """The first derivatives of a function with one real scalar output.

    `G.x` has the structure and shapes of argument `x`. A Gradient is a pytree of arrays, and where
    a structured vector is asked for it serves as one: `H.solve(H.grad)`.
    """

    _verb: ClassVar[str] = "grad"
    _is_vector = True

    def _as_vector(self, call: str) -> Any:  # noqa: ARG002  # it always is one
        return self._domain.unflatten([*self._blocks[0]])


def stored(
    blocks: BlockTable, inputs: Inputs, outputs: Tree, name: str, tags: frozenset[object]
) -> Jacobian[Any] | SymmetricMatrix:
    """The blocks of a map that has no value, by name."""
    if lx.symmetric_tag in tags:
        is_semidefinite = lx.positive_semidefinite_tag in tags
        scalar = number(jnp.float32)
        return SymmetricMatrix._pack(
            (blocks,), inputs, scalar, name, _is_semidefinite=is_semidefinite
        )
    return Jacobian._pack((blocks, Values.of(None), Values.of(None)), inputs, outputs, name)
