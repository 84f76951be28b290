"""Symmetric matrices by pairs of arguments: what a Hessian is of, and what comes of one."""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from autodiffkit import _linear_algebra as algebra
from autodiffkit._block_table import table_of
from autodiffkit._errors import NotDifferentiatedError, StructureError
from autodiffkit._inputs import Inputs
from autodiffkit._leaves import LeafSpec, describe_leaf, is_complex, is_numeric, promote
from autodiffkit._linear_algebra import Eigh, Slogdet
from autodiffkit._pairs import Paired, is_scalar
from autodiffkit._structured_map import by_keyword
from autodiffkit._trees import LEAF, Tree
from autodiffkit._vectors import filled, joined

S = TypeVar("S", bound="Symmetric")  # `typing.Self` is refused outside decorated classes


class Symmetric(Paired):
    """Linear algebra on a symmetric matrix whose rows and columns are arguments by name.

    Matrices are scaled before they are factorised, float16 and bfloat16 are computed in float32,
    and answers come back in the dtypes of the arguments.
    """

    @by_keyword
    def solve(self, vector: Any = None, /, **arguments: Any) -> Any:
        """The vector `x` with `H.mv(x) = vector`: `H.solve(H.grad)` is a Newton step.

        By a Cholesky factorisation where the matrix is positive definite, otherwise by an LU
        factorisation; the derivative is that of a linear solve.

        Args:
            vector: As for `mv`, or a `Gradient`.
            **arguments: The same by keyword. What is left out counts as zero.

        Returns:
            A record by argument.

        Raises:
            MatrixError: If the matrix is singular to working precision or not finite. Under
                `jax.jit` Equinox raises the same message as the computation runs.
            StructureError: If a leaf fits nothing in the derivative, or has another shape.
        """
        matrix = self._square("solve")
        right = joined(self._collected("solve", vector, arguments), self._domain.specs)
        right = right.astype(matrix.dtype)
        found = algebra.solve(matrix, right, self._singular("solve"))
        return self.unravel(found)

    def inverse(self) -> "SymmetricMatrix":
        """The inverse matrix, such as the covariance of a Laplace approximation.

        Returns:
            A `SymmetricMatrix`.

        Raises:
            MatrixError: As for `solve`.
        """
        matrix = self._square("inverse")
        found = algebra.inverse(matrix, self._singular("inverse"))
        is_semidefinite = lx.positive_semidefinite_tag in self._tags
        name = f"{self._name}.inverse()"
        return symmetric_matrix(found, self._inputs, name, is_semidefinite=is_semidefinite)

    def damped(self: S, amount: Any, /) -> S:
        """The matrix with a multiple of the identity added to it.

        Args:
            amount: The multiple, a number: what a Levenberg-Marquardt or a damped Newton step adds.

        Returns:
            A result of the same kind.

        Raises:
            StructureError: If the amount is not one number.
        """
        self._refuse_not_square("damped")
        if not is_numeric(amount) or jnp.shape(amount) != ():
            raise StructureError(
                f"{self._name}.damped: the amount is one number; got {describe_leaf(amount)}. "
                "Pass a scalar."
            )
        matrix = self.as_matrix()
        unit = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        return self.from_matrix(matrix + jnp.asarray(amount).astype(matrix.dtype) * unit)

    def eigh(self) -> Eigh:
        """Eigenvalues and eigenvectors.

        Custom rules can make a Hessian unsymmetric; then they are those of its symmetric part.

        Returns:
            A named tuple: `eigenvalues` `(n,)`, the smallest first, and `eigenvectors`, a record by
                argument with leaves `(*leaf.shape, n)`.

        Raises:
            MatrixError: If an entry is not finite. Under `jax.jit` Equinox raises the same message
                as the computation runs.
            NotDifferentiatedError: If the matrix is complex: it is symmetric and not Hermitian.
        """
        matrix = self._square("eigh")
        self._refuse_complex("eigh", matrix)
        values, vectors = algebra.eigh(self._finite("eigh", matrix))
        return Eigh(values.astype(promote(self._dtypes)), self.unravel(vectors))

    def slogdet(self) -> Slogdet:
        """Sign and logarithm of the determinant.

        Returns:
            A named tuple: `sign` and `logabsdet`; of a singular matrix 0 and `-inf`.

        Raises:
            MatrixError: If an entry is not finite, as for `eigh`.
        """
        self._refuse_not_square("slogdet")
        return algebra.slogdet(self._finite("slogdet", self.as_matrix()))

    def diagonal(self) -> Any:
        """The diagonal: each entry's second derivative by itself.

        Returns:
            A record by argument, in the shapes of the arguments' leaves.
        """
        self._refuse_not_square("diagonal")
        blocks = self._blocks
        if not all(blocks.has(i, i) for i in range(len(self._domain.specs))):
            self._refuse_batched()
        self._refuse_batched_blocks()
        leaves: list[Array] = []
        for i, spec in enumerate(self._domain.specs):
            block = blocks.dense_block(i, i).reshape(spec.size, spec.size)
            leaves.append(jnp.diagonal(block).reshape(spec.shape))
        return self._domain.unflatten(leaves)

    def _square(self, method: str) -> Array:
        self._refuse_not_square(method)
        return algebra.computable(self.as_matrix())

    def _refuse_not_square(self, method: str) -> None:
        if not is_scalar(self._outputs):
            raise NotDifferentiatedError(
                f"{self._name}.{method}: the output is not one scalar, so this is no matrix; "
                ".of(path) selects one output, and an array is differentiated entry by entry "
                "under jax.vmap."
            )

    def _refuse_complex(self, method: str, matrix: Array) -> None:
        if is_complex(matrix.dtype):
            raise NotDifferentiatedError(
                f"{self._name}.{method}: the matrix is complex and symmetric, not Hermitian. "
                "Take .as_matrix() to an algorithm for such matrices."
            )

    def _singular(self, method: str) -> str:
        size = self._domain.size
        return (
            f"{self._name}.{method}: the {size} by {size} matrix is singular to working precision, "
            f"or not finite. Its rows are {', '.join(path for path, _ in self.column_labels)}; "
            ".eigh() shows which directions it does not determine. Add a multiple of the "
            "identity with .damped(...), or hold arguments constant with wrt=."
        )


class SymmetricMatrix(Symmetric):
    """A symmetric matrix whose rows and columns are arguments by name.

    It is what `J.gram()`, `J.covariance()`, `H.inverse()` and the Gauss-Newton and Fisher matrices
    are. `C.x.y` is the block of the shape of `x` followed by that of `y`.
    """

    _has_output = False
    _quantity = "entry"
    _is_semidefinite: bool = eqx.field(static=True, default=False)

    @property
    def _tags(self) -> frozenset[object]:
        if self._is_semidefinite:
            return frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})
        return frozenset({lx.symmetric_tag})

    @property
    def _title(self) -> str:
        return f"SymmetricMatrix {self._name}"

    def from_matrix(self, matrix: Any, /) -> "SymmetricMatrix":
        """Another matrix in the place of this one, with the same names.

        Args:
            matrix: A symmetric matrix `(n, n)`, such as the answer of an algorithm that takes
                matrices.

        Returns:
            A `SymmetricMatrix`, which is not tagged as positive semidefinite for lineax.

        Raises:
            StructureError: If the matrix has another shape.
        """
        return dataclasses.replace(super().from_matrix(matrix), _is_semidefinite=False)

    def damped(self, amount: Any, /) -> "SymmetricMatrix":
        """The matrix with a multiple of the identity added to it.

        Args:
            amount: The multiple, a number.

        Returns:
            A `SymmetricMatrix`, still tagged as positive semidefinite for lineax if this one is and
            the amount is a Python number that is not negative.

        Raises:
            StructureError: If the amount is not one number.
        """
        stays = self._is_semidefinite and isinstance(amount, (int, float)) and amount >= 0
        return dataclasses.replace(super().damped(amount), _is_semidefinite=stays)

    def stderr(self) -> Any:
        """The standard errors, if this is a covariance: the square roots of the diagonal.

        Returns:
            A record by argument, in the shapes and units of the arguments' leaves.

        Raises:
            MatrixError: If an entry of the diagonal is negative or not finite.
        """
        return self._domain.unflatten(self._roots("stderr"))

    def correlation(self) -> "SymmetricMatrix":
        """The correlations, if this is a covariance: each entry over both standard errors.

        Returns:
            A `SymmetricMatrix` with ones on the diagonal.

        Raises:
            MatrixError: If an entry of the diagonal is negative, zero or not finite.
        """
        roots = self._roots("correlation")
        matrix = algebra.computable(self.as_matrix())
        flat = jnp.concatenate([x.reshape(-1).astype(matrix.dtype) for x in roots])
        message = (
            f"{self._name}.correlation: a variance is zero. Hold constant with wrt= what does not "
            "vary."
        )
        flat = algebra.checked(flat, ~jnp.all(flat > 0), message)
        scaled = matrix / flat[:, None] / flat[None, :]
        found = jnp.where(jnp.eye(flat.size, dtype=bool), jnp.ones_like(scaled), scaled)
        name = f"{self._name}.correlation()"
        return symmetric_matrix(found, self._inputs, name, is_semidefinite=self._is_semidefinite)

    def _roots(self, method: str) -> list[Array]:
        variances = self._domain.collect(self.diagonal(), (), method)
        found: list[Array] = []
        for (path, _), leaf in zip(
            self.column_labels, filled(variances, self._domain.specs), strict=True
        ):
            message = (
                f"{self._name}.{method}: a variance of {path!r} is negative or not finite, so this "
                "is no covariance. Take that of a minimum, where the Hessian is positive definite."
            )
            found.append(jnp.sqrt(algebra.checked(leaf, ~jnp.all(leaf >= 0), message)))
        return found


def symmetric_matrix(
    matrix: Array, inputs: Inputs, name: str, *, is_semidefinite: bool = False
) -> SymmetricMatrix:
    """A matrix by the names of arguments, in the dtypes that these have."""
    outputs = number(matrix.dtype)
    targets = outputs.compose(inputs.tree).specs
    table = table_of(matrix, targets, inputs.specs)
    return SymmetricMatrix._pack((table,), inputs, outputs, name, _is_semidefinite=is_semidefinite)


def number(dtype: Any) -> Tree:
    """A scalar that does not widen the dtypes of what is differentiated."""
    return Tree(LEAF, (LeafSpec((), (), dtype, weak_type=True),))
