"""Dense linear algebra on the matrices of derivatives, with answers that are checked.

Matrices are scaled by powers of two before they are factorised, so that arguments in small and
in large units count alike where it is asked whether a matrix is singular (van der Sluis,
*Condition numbers and equilibration of matrices*, 1969).

What branches on the numbers is compiled, once for each shape: outside of `jax.jit` a branch would
be compiled anew in each call.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array

from autodiffkit._errors import MatrixError
from autodiffkit._jax_compat import is_eager
from autodiffkit._leaves import is_complex, promote

# After scaling by the diagonal an entry of a positive definite matrix is at most this.
_LARGEST = 2.0

# How often rows and columns are scaled by their largest entries.
_ROUNDS = 5

_HIGHEST = jax.lax.Precision.HIGHEST


class SVD(NamedTuple):
    """A singular value decomposition, `J = U @ diag(S) @ Vh`, with names.

    Attributes:
        U: The left singular vectors in the output's structure: leaves `(*leaf.shape, k)`, where `k`
            is the smaller size of the matrix. `U[..., i]` belongs to `S[i]`.
        S: The singular values `(k,)`, the largest first.
        Vh: The right singular vectors, conjugated, as a record by argument: leaves
            `(k, *leaf.shape)`.
    """

    U: Any
    S: Array
    Vh: Any


class Eigh(NamedTuple):
    """An eigendecomposition of a symmetric matrix, with names.

    Attributes:
        eigenvalues: The eigenvalues `(n,)`, the smallest first.
        eigenvectors: A record by argument: leaves `(*leaf.shape, n)`. Those at `[..., i]` are of
            length one together and belong to `eigenvalues[i]`.
    """

    eigenvalues: Array
    eigenvectors: Any


class Slogdet(NamedTuple):
    """The determinant, `sign * exp(logabsdet)`.

    Attributes:
        sign: 1, -1, or 0 of a singular matrix; of a complex matrix a number of length one.
        logabsdet: The logarithm of the determinant's absolute value, `-inf` of a singular matrix.
    """

    sign: Array
    logabsdet: Array


def checked(array: Array, bad: Array, message: str) -> Array:
    """The array, unless something is wrong with it: then an error, also under `jax.jit`.

    Args:
        array: What goes on.
        bad: Whether something is wrong, one boolean or several.
        message: What to say then.

    Returns:
        The array.

    Raises:
        MatrixError: If nothing is traced. Otherwise Equinox raises as the computation runs.
    """
    if is_eager([bad, array]):
        if bool(jnp.any(bad)):
            raise MatrixError(message)
        return array
    return eqx.error_if(array, bad, message)


def computable(matrix: Array) -> Array:
    """The matrix in a dtype that there are factorisations of."""
    return matrix.astype(promote([matrix.dtype, jnp.float32]))


def slogdet(matrix: Array) -> Slogdet:
    """Sign and logarithm of the determinant."""
    sign, logabsdet = jnp.linalg.slogdet(computable(matrix))
    real = jnp.finfo(matrix.dtype).dtype
    return Slogdet(sign.astype(matrix.dtype), logabsdet.astype(real))


def gram(matrix: Array) -> Array:
    """`matrix.T @ matrix`, of the highest precision; low-precision dtypes accumulate in float32."""
    wide = promote([matrix.dtype, jnp.float32])
    return jnp.matmul(matrix.T, matrix, precision=_HIGHEST, preferred_element_type=wide)


# Symmetric matrices -------------------------------------------------------------


class Factors(NamedTuple):
    """A factorisation of a scaled matrix.

    Args:
        factor: A Cholesky factor where the matrix is symmetric and positive definite, else L and U
            in one.
        permutation: Of the rows, of L and U.
        is_definite: Which of the two it is.
        scale: What rows and columns were multiplied by.
    """

    factor: Array
    permutation: Array
    is_definite: Array
    scale: Array


@jax.jit
def factorised(matrix: Array) -> tuple[Factors, Array]:
    """Factorises a matrix, which need not be symmetric: custom rules can make a Hessian so.

    Args:
        matrix: A matrix `(n, n)`.

    Returns:
        The factors, and whether the matrix is singular, or not finite.
    """
    size = matrix.shape[0]
    scale = _scale(jnp.abs(matrix)).astype(matrix.dtype)
    scaled = matrix * scale[:, None] * scale[None, :]

    def by_lu() -> tuple[Array, Array]:
        factor, _, permutation = jax.lax.linalg.lu(scaled)
        return factor, permutation

    if is_complex(matrix.dtype):  # symmetric, and not Hermitian
        factor, permutation = by_lu()
        is_definite = jnp.asarray(False)  # an array
    else:
        cholesky = jax.lax.linalg.cholesky(scaled)
        is_symmetric = jnp.all(jnp.abs(scaled - scaled.T) <= _tolerance(8 * size, matrix.dtype))
        is_definite = jnp.all(jnp.isfinite(cholesky)) & is_symmetric
        natural = jnp.arange(size, dtype=np.int32)
        factor, permutation = jax.lax.cond(is_definite, lambda: (cholesky, natural), by_lu)
    pivots = jnp.abs(jnp.diagonal(factor))
    pivots = jnp.where(is_definite, pivots * pivots, pivots)
    bad = ~(jnp.min(pivots, initial=jnp.inf) > _tolerance(size, matrix.dtype))
    return Factors(factor, permutation, is_definite, scale), bad | ~jnp.all(jnp.isfinite(matrix))


def _scale(sizes: Array) -> Array:
    """What rows and columns are multiplied by, so that the entries are about one at most.

    The roots of the diagonal serve where no other entry is larger than they say, as in a positive
    definite matrix; else the largest entries of rows and columns, again and again (Ruiz, *A scaling
    algorithm to equilibrate both rows and columns norms in matrices*, 2001).

    Args:
        sizes: The absolute values of the entries.

    Returns:
        A factor for each row, which is that of the column, too.
    """

    def scaled(scale: Array) -> Array:
        return sizes * scale[:, None] * scale[None, :]

    diagonal = jnp.diagonal(sizes)
    by_diagonal = _powers_of_two(diagonal)
    is_enough = jnp.all(diagonal > 0) & jnp.all(scaled(by_diagonal) <= _LARGEST)
    by_rows = jnp.ones_like(diagonal)
    for _ in range(_ROUNDS):
        by_rows *= _powers_of_two(jnp.max(scaled(by_rows), axis=1, initial=0.0))
    return jnp.where(is_enough, by_diagonal, by_rows)


def _powers_of_two(sizes: Array) -> Array:
    """The inverse square roots of the sizes of rows, rounded so that scaling is exact."""
    usual = jnp.where((sizes > 0) & jnp.isfinite(sizes), sizes, jnp.ones_like(sizes))
    return jnp.exp2(jnp.round(jnp.log2(usual) * -0.5))


def _tolerance(size: int, dtype: Any) -> Array:
    """Below which a pivot of a matrix with entries of about one counts as zero."""
    return jnp.asarray(size * jnp.finfo(dtype).eps, jnp.finfo(dtype).dtype)


def _solve_factorised(factors: Factors, right: Array, *, transpose: bool = False) -> Array:
    """The solution of the matrix that was factorised; `right` has one or two axes."""
    scale = factors.scale if right.ndim == 1 else factors.scale[:, None]
    columns = scale * right
    columns = columns[:, None] if right.ndim == 1 else columns

    def triangular(rest: Array, *, lower: bool, transposed: bool, unit: bool = False) -> Array:
        return jax.lax.linalg.triangular_solve(
            factors.factor,
            rest,
            left_side=True,
            lower=lower,
            transpose_a=transposed,
            unit_diagonal=unit,
        )

    def by_cholesky(x: Array) -> Array:
        half = triangular(x, lower=True, transposed=False)
        return triangular(half, lower=True, transposed=True)

    def by_lu(x: Array) -> Array:
        if transpose:
            half = triangular(x, lower=False, transposed=True)
            whole = triangular(half, lower=True, transposed=True, unit=True)
            return jnp.zeros_like(whole).at[factors.permutation].set(whole)
        half = triangular(x[factors.permutation], lower=True, transposed=False, unit=True)
        return triangular(half, lower=False, transposed=False)

    found = jax.lax.cond(factors.is_definite, by_cholesky, by_lu, columns)
    return scale * found.reshape(right.shape)


def solve(matrix: Array, right: Array, message: str) -> Array:
    """The solution by Cholesky factors where the matrix is positive definite, else by L and U.

    It is differentiated by the rule for linear solves, whatever the factors are.

    Args:
        matrix: A matrix `(n, n)`.
        right: An array `(n,)` or `(n, k)` of the same dtype.
        message: What to say of a singular matrix.

    Returns:
        The solution, of the shape of `right`.
    """
    factors, bad = factorised(jax.lax.stop_gradient(matrix))
    return _solved(matrix, checked(right, bad, message), factors)


@jax.jit
def _solved(matrix: Array, right: Array, factors: Factors) -> Array:
    """The same by factors of the matrix, with the rule."""

    def multiply(x: Array) -> Array:
        return jnp.matmul(matrix, x, precision=_HIGHEST)

    def forward(_: Any, x: Array) -> Array:
        return _solve_factorised(factors, x)

    def backward(_: Any, x: Array) -> Array:
        return _solve_factorised(factors, x, transpose=True)

    return jax.lax.custom_linear_solve(multiply, right, forward, backward)


def inverse(matrix: Array, message: str) -> Array:
    """The inverse of a matrix, symmetric to the last bit where the matrix is."""
    unit = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    found = solve(matrix, unit, message)
    return jnp.where(jnp.all(matrix == matrix.T), (found + found.T) / 2, found)


def eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, the smallest first, and eigenvectors as columns."""
    return jnp.linalg.eigh(matrix)


# Rectangular matrices -----------------------------------------------------------


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """The singular values, the largest first, between vectors as columns and as rows."""
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


@jax.jit
def _triangular_factor(matrix: Array) -> tuple[Array, Array, Array]:
    """R of a QR decomposition of the scaled columns, the scale, and whether it is singular."""
    scale = _powers_of_two(jnp.max(jnp.abs(matrix), axis=0, initial=0.0) ** 2)
    factor = jnp.linalg.qr(matrix * scale[None, :], mode="r")
    pivots = jnp.abs(jnp.diagonal(factor))
    tolerance = _tolerance(matrix.shape[0], matrix.dtype)
    bad = ~(jnp.min(pivots, initial=jnp.inf) > tolerance)
    return factor, scale, bad | ~jnp.all(jnp.isfinite(matrix))


@jax.jit
def lstsq(matrix: Array, right: Array) -> Array:
    """The least-squares solution, and of several the shortest.

    Where the columns are linearly independent it comes from a QR decomposition of the scaled
    matrix, which does not depend on units; else from the singular values.

    Args:
        matrix: A matrix `(m, n)`.
        right: An array `(m,)` of the same dtype.

    Returns:
        The solution `(n,)`.
    """
    rows, columns = matrix.shape

    def shortest() -> Array:
        operator = lx.MatrixLinearOperator(matrix)
        return lx.linear_solve(operator, right, lx.SVD(), throw=False).value

    if rows < columns:
        return shortest()
    _, scale, is_singular = _triangular_factor(jax.lax.stop_gradient(matrix))

    def unique() -> Array:
        operator = lx.MatrixLinearOperator(matrix * scale[None, :])
        return scale * lx.linear_solve(operator, right, lx.QR(), throw=False).value

    return jax.lax.cond(is_singular, shortest, unique)


def inverse_gram(matrix: Array, message: str) -> Array:
    """The inverse of `matrix.T @ matrix`, without squaring the condition of the matrix."""
    factor, scale, bad = _triangular_factor(matrix)
    factor = checked(factor, bad, message)
    unit = jnp.eye(factor.shape[0], dtype=factor.dtype)
    root = jax.lax.linalg.triangular_solve(factor, unit, left_side=True, lower=False)
    root = scale[:, None] * root
    return jnp.matmul(root, root.T, precision=_HIGHEST)
