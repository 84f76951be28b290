"""Linear functions of one equation that mixes some axes: slices, indices, windows, transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from equations import C64, F32, case, numbers

# Along the other axes ---------------------------------------------------------------

case("cumsum", "first axis", "ij->kj", lambda x: lax.cumsum(x, 0), (3, 2))
case(
    "cumsum", "last axis, from the end", "ij->ik", lambda x: lax.cumsum(x, 1, reverse=True), (2, 3)
)
case("cumsum", "of one entry", "1j->1j", lambda x: lax.cumsum(x, 0), (1, 3))
case("rev", "one axis", "ij->ik", lambda x: lax.rev(x, (1,)), (2, 3))
case("rev", "two axes", "ijb->klb", lambda x: lax.rev(x, (0, 1)), (2, 3, 2))
case("concatenate", "two", "ij,1j->lj", lambda *x: lax.concatenate(x, 0), (2, 3), (1, 3))
case("concatenate", "the same twice", "ij->ik", lambda x: lax.concatenate([x, x], 1), (2, 3))
case(
    "concatenate",
    "zeros, and three",
    "bi,bj->bk",
    lambda x, y: lax.concatenate([x, np.zeros((2, 2), F32), y], 1),
    (2, 3),
    (2, 2),
)
case("split", "in two", "ij->i1,il", lambda x: lax.split(x, (1, 2), 1), (2, 3))
case("split", "one of them", "ij->kj", lambda x: lax.split(x, (2, 1), 0)[0], (3, 2))
case("slice", "rows", "ij->kj", lambda x: x[1:], (3, 2))
case(
    "slice",
    "strides",
    "ijb->k1b",
    lambda x: lax.slice(x, (0, 1, 0), (4, 4, 2), (2, 3, 1)),
    (4, 5, 2),
)
case("slice", "one entry", "ij->1j", lambda x: x[1:2], (3, 2))
case("stack", "two", "ij,ij->ikj", lambda *x: jnp.stack(x, 1), (2, 3), (2, 3))
case("unstack", "rows", "kij->ij,ij", jnp.unstack, (2, 2, 3))
case("tile", "rows", "ij->kj", lambda x: jnp.tile(x, (2, 1)), (3, 2))
case(
    "dynamic_slice",
    "rows",
    "ij->kj",
    lambda x: lax.dynamic_slice(x, (np.int32(1), np.int32(0)), (2, 2)),
    (3, 2),
)
case(
    "dynamic_slice",
    "over the edge",
    "ij->ik",
    lambda x: lax.dynamic_slice(x, (np.int32(1), np.int32(5)), (2, 2)),
    (2, 3),
)
for title, config in {
    "more": (1, 2, 0),
    "less": (-1, 0, 0),
    "within": (0, 0, 1),
    "shifted": (1, -1, 0),
    "as many": (-1, -1, 1),
}.items():
    case(
        "pad",
        title,
        "ij->ik",
        lambda x, config=config: lax.pad(x, np.float32(0), [(0, 0, 0), config]),
        (2, 3),
    )
case(
    "dynamic_update_slice",
    "both",
    "ij,kj->lj",
    lambda x, y: lax.dynamic_update_slice(x, y, (1, 0)),
    (3, 2),
    (2, 2),
)
case(
    "dynamic_update_slice",
    "over the edge",
    "ij,ik->il",
    lambda x, y: lax.dynamic_update_slice(x, y, (0, 7)),
    (2, 3),
    (2, 2),
)
case(
    "dynamic_update_slice",
    "the part",
    "ij->lj",
    lambda y: lax.dynamic_update_slice(np.zeros((3, 2), F32), y, (1, 0)),
    (2, 2),
)

INDEX = np.array([2, 0, 0], "int32")
ROWS = np.array([[2, 0], [1, 1]], "int32")


def at(x, index, **options):
    """Indexing that is not done with slices."""
    return x.at[index].get(**options)


case("gather", "rows", "ij->kj", lambda x: at(x, INDEX), (3, 2))
case("gather", "columns", "ij->ik", lambda x: at(x, (slice(None), INDEX)), (2, 3))
case("gather", "two axes", "bij->bk", lambda x: at(x, (slice(None), INDEX, INDEX[::-1])), (2, 3, 3))
case(
    "gather",
    "beyond the edge",
    "ij->kj",
    lambda x: at(x, INDEX + 1, mode="fill", fill_value=0),
    (3, 2),
)
case("gather", "up to the edge", "ij->kj", lambda x: at(x, INDEX + 1, mode="clip"), (3, 2))
case(
    "gather",
    "one of each row",
    "bi->b",
    lambda x: jax.vmap(lambda r, i: r[i])(x, INDEX[:2]),
    (2, 3),
)
case("gather", "some of each row", "bi->bk", lambda x: jax.vmap(at)(x, ROWS), (2, 3))
case("gather", "some of each column", "ib->bk", lambda x: jax.vmap(at, (1, 0))(x, ROWS), (3, 2))
case("gather", "rows of each matrix", "bij->bkj", lambda x: jax.vmap(at)(x, ROWS), (2, 3, 2))
case(
    "gather",
    "two batches",
    "cbi->cbk",
    lambda x: jax.vmap(jax.vmap(at), (0, None))(x, ROWS),
    (3, 2, 3),
)
case(
    "gather",
    "two batches of indices",
    "cbi->cbk",
    lambda x: jax.vmap(jax.vmap(at))(x, numbers(3, 2, 2).astype("int32")),
    (3, 2, 3),
)
case(
    "gather",
    "windows of each row",
    "bij->bkj",
    lambda x: jax.vmap(lambda r, i: lax.dynamic_slice_in_dim(r, i, 2))(x, INDEX[:2]),
    (2, 3, 2),
)
case("gather", "along an axis", "bi->bk", lambda x: jnp.take_along_axis(x, ROWS, 1), (2, 3))

ADD = {"mode": "drop"}
case("scatter-add", "rows", "ij,kj->lj", lambda x, y: x.at[INDEX].add(y), (4, 2), (3, 2))
case(
    "scatter-add",
    "columns of nothing",
    "ik->il",
    lambda y: jnp.zeros((2, 4)).at[:, INDEX].add(y),
    (2, 3),
)
case("scatter-add", "one row", "ij,j->lj", lambda x, y: x.at[INDEX[0]].add(y), (4, 2), (2,))
case(
    "scatter-add",
    "beyond the edge",
    "kj->lj",
    lambda y: jnp.zeros((2, 2)).at[INDEX].add(y, **ADD),
    (3, 2),
)
case(
    "scatter-add",
    "to each row",
    "bi,bk->bl",
    lambda x, y: jax.vmap(lambda r, i, u: r.at[i].add(u))(x, ROWS, y),
    (2, 3),
    (2, 2),
)
case(
    "scatter-add",
    "to each column",
    "ib,bk->bl",
    lambda x, y: jax.vmap(lambda r, i, u: r.at[i].add(u), (1, 0, 0))(x, ROWS, y),
    (3, 2),
    (2, 2),
)
case("scatter-add", "segments", "kj->lj", lambda y: jax.ops.segment_sum(y, INDEX, 4), (3, 2))

TWO = lax.ScatterDimensionNumbers((1,), (0,), (0,))
case(
    "scatter-sub",
    "rows",
    "ij,kj->lj",
    lambda x, y: lax.scatter_sub(x, INDEX[:, None], y, TWO),
    (4, 2),
    (3, 2),
)
UNIQUE = {"unique_indices": True}
case(
    "scatter",
    "rows",
    "ij,kj->lj",
    lambda x, y: x.at[np.array([3, 0])].set(y, **UNIQUE),
    (4, 2),
    (2, 2),
)
case(
    "scatter",
    "windows of each row",
    "bij,bkj->blj",
    lambda x, y: jax.vmap(lambda r, i, u: lax.dynamic_update_slice_in_dim(r, u, i, 0))(
        x, INDEX[:2], y
    ),
    (2, 4, 2),
    (2, 2, 2),
)

# Windows and solvers -----------------------------------------------------------------

NWC = ("NWC", "WIO", "NWC")


def convolution(kernel=None, inputs=None, strides=(1,), padding="SAME", numbers_of=NWC, **options):
    """A convolution with a constant kernel, or of constant inputs."""

    def function(x):
        pair = (x, numbers(*kernel)) if kernel else (numbers(*inputs), x)
        return lax.conv_general_dilated(
            *pair, strides, padding, dimension_numbers=numbers_of, **options
        )

    return function


case("conv_general_dilated", "inputs", "bxc->byf", convolution((3, 2, 3)), (2, 4, 2))
case("conv_general_dilated", "kernel", "xcf->byf", convolution(inputs=(2, 4, 2)), (3, 2, 3))
case(
    "conv_general_dilated",
    "inputs, strided",
    "bxc->byf",
    convolution((3, 2, 3), strides=(2,), padding=[(2, 0)], rhs_dilation=(2,)),
    (2, 5, 2),
)
case(
    "conv_general_dilated",
    "kernel, dilated",
    "xcf->byf",
    convolution(inputs=(2, 4, 2), padding=[(1, 0)], lhs_dilation=(2,)),
    (3, 2, 3),
)
case(
    "conv_general_dilated",
    "channels first",
    "bcx->bfy",
    convolution((3, 2, 3), numbers_of=("NCW", "OIW", "NCW")),
    (2, 2, 4),
)
case(
    "conv_general_dilated",
    "other orders",
    "xfc->fyb",
    convolution(inputs=(4, 2, 2), numbers_of=("WCN", "WOI", "CWN")),
    (3, 3, 2),
)
case(
    "conv_general_dilated",
    "groups, inputs",
    "bxc->byf",
    convolution((3, 1, 4), feature_group_count=2),
    (2, 4, 2),
)
case(
    "conv_general_dilated",
    "groups, kernel",
    "xcf->byf",
    convolution(inputs=(2, 4, 4), feature_group_count=2),
    (3, 2, 4),
)
case(
    "conv_general_dilated",
    "groups of the batch, inputs",
    "bxc->ayf",
    convolution((3, 2, 4), batch_group_count=2),
    (4, 4, 2),
)
case(
    "conv_general_dilated",
    "groups of the batch, kernel",
    "xcf->ayg",
    convolution(inputs=(4, 4, 2), batch_group_count=2),
    (3, 2, 4),
)


def window(sizes, padding="VALID", strides=None, **options):
    """Sums over windows."""
    return lambda x: lax.reduce_window(
        x, np.float32(0), lax.add, sizes, strides or (1,) * len(sizes), padding, **options
    )


case("reduce_window_sum", "pooling", "bxc->byc", window((1, 2, 1), strides=(1, 2, 1)), (2, 4, 2))
case("reduce_window_sum", "as many", "bx->by", window((1, 3), "SAME"), (2, 4))
case("reduce_window_sum", "strides alone", "bx->by", window((1, 1), strides=(1, 2)), (2, 4))
case("reduce_window_sum", "shifted", "bx->by", window((1, 1), [(0, 0), (1, -1)]), (2, 4))
case(
    "reduce_window_sum",
    "spread and cut",
    "bx->by",
    window((1, 1), [(0, 0), (0, -2)], base_dilation=(1, 2)),
    (2, 3),
)
case(
    "reduce_window_sum",
    "dilated",
    "bx->by",
    window((1, 2), [(0, 0), (1, 1)], window_dilation=(1, 2)),
    (2, 4),
)

TRIANGLE = np.tril(numbers(2, 3, 3)) + np.eye(3, dtype=F32)
solved = functools.partial(lax.linalg.triangular_solve, lower=True)
for left in (True, False):
    axes, shape = ("ij->kj", (3, 2)) if left else ("ij->ik", (2, 3))
    for option in ({}, {"transpose_a": True}, {"unit_diagonal": True}):
        solve = functools.partial(solved, TRIANGLE[0], left_side=left, **option)
        title = " ".join(["left" if left else "right", *option])
        case("triangular_solve", title, axes, solve, shape)
    solve = functools.partial(solved, TRIANGLE, left_side=left)
    title, axes = f"batch, {'left' if left else 'right'}", ("b" + axes).replace(">", ">b")
    case("triangular_solve", title, axes, solve, (2, *shape))
case(
    "triangular_solve",
    "conjugate",
    "ij->kj",
    lambda b: lax.linalg.triangular_solve(
        TRIANGLE[0] * np.complex64(1 - 0.5j),
        b,
        left_side=True,
        lower=True,
        transpose_a=True,
        conjugate_a=True,
    ),
    (3, 2, C64),
)

case("fft", "complex", "bx->by", jnp.fft.fft, (2, 4, C64))
case("fft", "inverse, two axes", "bxy->bzw", jnp.fft.ifft2, (2, 2, 3, C64))
case("fft", "of real numbers", "bx->by", jnp.fft.rfft, (2, 4))
case("fft", "to real numbers", "bx->by", lambda z: jnp.fft.irfft(z, 5), (2, 3, C64))
