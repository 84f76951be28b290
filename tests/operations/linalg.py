"""Linear algebra: `jnp.linalg`, `jax.scipy.linalg` and `jax.lax.linalg`; Fourier transforms."""

import functools

import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import lax

from operations.registry import BOTH, family, matrix, numbers, positive

ANY_PHASE = {
    "exact": False,
    "smooth": False,
    "note": "vectors have phases, and derivatives of these, that JAX is free to choose; what does "
    "not depend on them has second derivatives",
}


def symmetric(x):
    """The Hermitian part, along which differences are meaningful."""
    return (x + x.conj().T) / jnp.asarray(2, x.dtype)


def hermitian(f):
    """A function of the Hermitian part, which is not holomorphic."""
    return lambda x, *rest: f(symmetric(x), *rest)


def root(x):
    """The root of a positive definite matrix."""
    values, vectors = jnp.linalg.eigh(x)
    return (vectors * jnp.sqrt(values)[None].astype(x.dtype)) @ vectors.conj().T


def unitary(x):
    """The nearest unitary matrix."""
    left, _, right = jnp.linalg.svd(x)
    return left @ right


# jnp.linalg -----------------------------------------------------------------------------

operation = functools.partial(family("jax.numpy.linalg"), kinds=BOTH, scale=30)
OF_REAL_PART = {"holomorphic": False}
la = jnp.linalg

operation("jnp.linalg.cholesky", hermitian(la.cholesky), positive(3), **OF_REAL_PART)
operation("jnp.linalg.cond", la.cond, matrix(3, 3), **OF_REAL_PART)
operation("jnp.linalg.cond, Frobenius", lambda x: la.cond(x, "fro"), matrix(3, 3), **OF_REAL_PART)
operation("jnp.linalg.cross", la.cross, (2, 3), (2, 3))
operation("jnp.linalg.det", la.det, matrix(3, 3))
operation("jnp.linalg.det, of 2 by 2", la.det, matrix(2, 2))
operation("jnp.linalg.det, batch", la.det, lambda dtype: jnp.stack([matrix(3, 3)(dtype)] * 2))
operation("jnp.linalg.diagonal", la.diagonal, (3, 3))
operation("jnp.linalg.eigvals", la.eigvals, matrix(3, 3), smooth=False)
operation("jnp.linalg.eigh", hermitian(la.eigh), positive(3), **OF_REAL_PART, **ANY_PHASE)
operation("jnp.linalg.eigh, a function of a matrix", hermitian(root), positive(3), **OF_REAL_PART)
operation("jnp.linalg.svd, a function of a matrix", unitary, matrix(3, 3), **OF_REAL_PART)
operation("jnp.linalg.eigvalsh", hermitian(la.eigvalsh), positive(3), **OF_REAL_PART)
operation("jnp.linalg.inv", la.inv, matrix(3, 3))
operation("jnp.linalg.lstsq", lambda a, b: la.lstsq(a, b)[0], matrix(4, 2), (4,), **OF_REAL_PART)
operation("jnp.linalg.matmul", la.matmul, (2, 3), (3, 2))
for order in ("fro", "nuc", 1, np.inf, 2, -2):
    operation(f"jnp.linalg.matrix_norm, {order}", lambda x, order=order: la.matrix_norm(
        x, ord=order), matrix(3, 2), **OF_REAL_PART)  # fmt: skip
operation("jnp.linalg.matrix_power", lambda x: la.matrix_power(x, 3), matrix(3, 3))
operation("jnp.linalg.matrix_power, inverse", lambda x: la.matrix_power(x, -2), matrix(3, 3))
operation("jnp.linalg.matrix_transpose", la.matrix_transpose, (2, 3))
operation("jnp.linalg.multi_dot", lambda x, y, z: la.multi_dot([x, y, z]), (2, 3), (3, 2), (2, 2))
operation("jnp.linalg.norm", la.norm, (2, 3), **OF_REAL_PART)
operation("jnp.linalg.outer", la.outer, (3,), (2,))
operation("jnp.linalg.pinv", la.pinv, matrix(4, 2), **OF_REAL_PART)
operation("jnp.linalg.pinv, Hermitian", hermitian(lambda x: la.pinv(x, hermitian=True)),
          positive(3), **OF_REAL_PART)  # fmt: skip
for shape in ((3, 3), (4, 2)):
    operation(f"jnp.linalg.qr, {shape[0]} by {shape[1]}", la.qr, matrix(*shape), **OF_REAL_PART)
operation("jnp.linalg.slogdet", la.slogdet, matrix(3, 3), **OF_REAL_PART)
operation("jnp.linalg.solve", la.solve, matrix(3, 3), (3, 2))
operation("jnp.linalg.solve, a vector", la.solve, matrix(3, 3), (3,))
operation("jnp.linalg.svd", lambda x: la.svd(x, full_matrices=False), matrix(4, 2), **OF_REAL_PART,
          **ANY_PHASE)  # fmt: skip
operation("jnp.linalg.svd, wide", lambda x: la.svd(x, full_matrices=False), matrix(2, 3),
          **OF_REAL_PART, **ANY_PHASE)  # fmt: skip
operation("jnp.linalg.svdvals", la.svdvals, matrix(4, 2), **OF_REAL_PART)
operation("jnp.linalg.tensordot", lambda x, y: la.tensordot(x, y, axes=2), (2, 3, 2), (3, 2, 2))
operation("jnp.linalg.tensorinv", lambda x: la.tensorinv(x.reshape(2, 2, 4)), matrix(4, 4))
operation("jnp.linalg.tensorsolve", lambda x, y: la.tensorsolve(x.reshape(2, 2, 2, 2), y),
          matrix(4, 4), (2, 2))  # fmt: skip
operation("jnp.linalg.trace", la.trace, (3, 3))
operation("jnp.linalg.vecdot", la.vecdot, (2, 3), (2, 3), **OF_REAL_PART)
for order in (1, 2, 3, np.inf):
    operation(f"jnp.linalg.vector_norm, {order}", lambda x, order=order: la.vector_norm(
        x, ord=order), (4,), **OF_REAL_PART)  # fmt: skip

# jax.scipy.linalg ------------------------------------------------------------------------

operation = functools.partial(family("jax.scipy.linalg"), kinds=BOTH, scale=30)

operation("jsl.block_diag", jsl.block_diag, (2, 2), (3, 1))
operation("jsl.cho_factor", hermitian(lambda x: jsl.cho_factor(x)[0]), positive(3), **OF_REAL_PART)
operation("jsl.cho_solve", hermitian(lambda x, b: jsl.cho_solve(jsl.cho_factor(x), b)), positive(3),
          (3,), **OF_REAL_PART)  # fmt: skip
operation("jsl.cholesky", hermitian(jsl.cholesky), positive(3), **OF_REAL_PART)
operation("jsl.circulant", jsl.circulant, (3,))
operation("jsl.companion", jsl.companion, (4,))
operation("jsl.convolution_matrix", lambda x: jsl.convolution_matrix(x, 3), (3,))
operation("jsl.det", jsl.det, matrix(3, 3))
operation("jsl.eigh", hermitian(jsl.eigh), positive(3), **OF_REAL_PART, **ANY_PHASE)
operation("jsl.expm", jsl.expm, matrix(3, 3, shift=0.2), scale=30)
operation("jsl.expm_frechet", lambda a, e: jsl.expm_frechet(a, e, compute_expm=False),
          matrix(2, 2, shift=0.2), (2, 2), scale=30, kinds=("real",))  # fmt: skip
operation("jsl.fiedler", jsl.fiedler, (3,), **OF_REAL_PART)
operation("jsl.fiedler_companion", jsl.fiedler_companion, (4,))
operation("jsl.hankel", jsl.hankel, (3,), (3,))
operation("jsl.inv", jsl.inv, matrix(3, 3))
operation("jsl.leslie", jsl.leslie, (3,), (2,))
operation("jsl.lu", jsl.lu, matrix(3, 3))
operation("jsl.lu_factor", lambda x: jsl.lu_factor(x)[0], matrix(3, 3))
operation("jsl.lu_solve", lambda x, b: jsl.lu_solve(jsl.lu_factor(x), b), matrix(3, 3), (3,),
          cut=False)  # fmt: skip
operation("jsl.polar", jsl.polar, matrix(3, 3), modes="fwd", **OF_REAL_PART)
operation("jsl.polar, by svd", lambda x: jsl.polar(x, method="svd"), matrix(3, 3), **OF_REAL_PART)
operation("jsl.qr", lambda x: jsl.qr(x, mode="economic"), matrix(4, 2), **OF_REAL_PART)
operation("jsl.solve", jsl.solve, matrix(3, 3), (3,))
operation("jsl.solve, positive definite", hermitian(lambda x, b: jsl.solve(x, b, assume_a="pos")),
          positive(3), (3,), kinds=("real",), note="of complex matrices, JAX's reverse mode gives "
          "the derivative of another function")  # fmt: skip
operation("jsl.solve_triangular", lambda x, b: jsl.solve_triangular(x, b, lower=True), matrix(3, 3),
          (3,))  # fmt: skip
operation("jsl.svd", lambda x: jsl.svd(x, full_matrices=False), matrix(4, 2), **OF_REAL_PART,
          **ANY_PHASE)  # fmt: skip
operation("jsl.toeplitz", jsl.toeplitz, (3,), **OF_REAL_PART)
operation("jsl.toeplitz, both", jsl.toeplitz, (3,), (3,))

# jax.lax.linalg ---------------------------------------------------------------------------

operation = functools.partial(family("jax.lax.linalg"), kinds=BOTH, scale=30)
ll = lax.linalg

operation("lax.linalg.cholesky", lambda x: ll.cholesky(x, symmetrize_input=True), positive(3),
          **OF_REAL_PART)  # fmt: skip
operation("lax.linalg.eig", lambda x: ll.eig(
    x, compute_left_eigenvectors=False, enable_eigvec_derivs=True), matrix(3, 3),
    **ANY_PHASE)  # fmt: skip
operation("lax.linalg.eigh", hermitian(ll.eigh), positive(3), **OF_REAL_PART, **ANY_PHASE)
operation("lax.linalg.lu", lambda x: ll.lu(x)[0], matrix(3, 3))
operation("lax.linalg.qr", lambda x: ll.qr(x, full_matrices=False), matrix(4, 2), **OF_REAL_PART)
operation("lax.linalg.svd", lambda x: ll.svd(x, full_matrices=False), matrix(3, 3), **OF_REAL_PART,
          **ANY_PHASE)  # fmt: skip
operation("lax.linalg.qdwh", lambda x: ll.qdwh(x)[:2], matrix(3, 3), modes="fwd", **OF_REAL_PART)
for left, lower in ((True, True), (False, False)):
    sides = f"{'left' if left else 'right'}, {'lower' if lower else 'upper'}"
    operation(f"lax.linalg.triangular_solve, {sides}", lambda x, b, left=left, lower=lower:
              ll.triangular_solve(x, b, left_side=left, lower=lower), matrix(3, 3),
              (3, 3))  # fmt: skip
operation("lax.linalg.triangular_solve, conjugate", lambda x, b: ll.triangular_solve(
    x, b, left_side=True, lower=True, transpose_a=True, conjugate_a=True), matrix(3, 3), (3, 2),
    **OF_REAL_PART)  # fmt: skip
operation("lax.linalg.tridiagonal_solve", lambda a, d, u, b: ll.tridiagonal_solve(
    a.at[0].set(0), d + jnp.asarray(3, d.dtype), u.at[-1].set(0), b), (4,), (4,), (4,), (4, 2),
    kinds=("real",))  # fmt: skip

# Fourier transforms --------------------------------------------------------------------------

operation = family("jax.numpy.fft")
ft = jnp.fft

operation("lax.fft", lambda x: lax.fft(x, "FFT", (3,)), (2, 3), kinds=("complex",))
for name in ("fft", "ifft"):
    operation(f"jnp.fft.{name}", getattr(ft, name), (2, 5), kinds=BOTH)
    operation(f"jnp.fft.{name}2", getattr(ft, f"{name}2"), (2, 3), kinds=BOTH)
    operation(f"jnp.fft.{name}n", getattr(ft, f"{name}n"), (2, 2, 3), kinds=BOTH)
    operation(f"jnp.fft.{name}shift", getattr(ft, f"{name}shift"), (5,), kinds=BOTH)
for name, shape in {"rfft": (2, 5), "rfft2": (2, 4), "rfftn": (2, 2, 3), "ihfft": (5,)}.items():
    operation(f"jnp.fft.{name}", getattr(ft, name), shape)
for name, shape in {"irfft": (2, 3), "irfft2": (2, 3), "irfftn": (2, 2, 3), "hfft": (3,)}.items():
    operation(f"jnp.fft.{name}", getattr(ft, name), shape, kinds=("complex",), holomorphic=False)
operation("jnp.fft.irfft, odd length", lambda x: ft.irfft(x, n=5), (3,), kinds=("complex",),
          holomorphic=False)  # fmt: skip
operation("jnp.fft.rfft, of a product", lambda x: ft.irfft(jnp.tanh(ft.rfft(x)), n=4), (4,))


def differences(x):
    """By a spectral derivative, as in solvers."""
    k = numbers((4,), x.dtype) * jnp.asarray(1j, x.dtype)
    return ft.ifft(k * ft.fft(x * x))


operation("jnp.fft.fft, spectral derivative", differences, (4,), kinds=("complex",))
