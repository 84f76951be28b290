"""Operations on the shape, the order and the places of entries; reductions and products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from operations.entrywise import ROUGH
from operations.registry import BOTH, family, numbers

# Shapes and places --------------------------------------------------------------------

operation = functools.partial(family("jax.lax, shapes and places"), kinds=BOTH)

operation("lax.broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (2, 3), (1,)), (3,))
operation("lax.concatenate", lambda x, y: lax.concatenate([x, y, x], 0), (3,), (2,))
operation("lax.dynamic_slice", lambda x: lax.dynamic_slice(x, (1, 0), (2, 3)), (4, 3))
operation("lax.dynamic_update_slice", lambda x, y: lax.dynamic_update_slice(x, y, (1, 0)),
          (4, 3), (2, 3))  # fmt: skip
operation("lax.dynamic_index_in_dim", lambda x: lax.dynamic_index_in_dim(x, 1, 0), (3, 2))
operation("lax.pad", lambda x: lax.pad(x, x[0, 0] * 2, [(1, 0, 1), (0, -1, 0)]), (2, 3))
operation("lax.reshape", lambda x: lax.reshape(x, (3, 2)), (6,))
operation("lax.reshape, transposed", lambda x: lax.reshape(x, (3, 2), (1, 0)), (2, 3))
operation("lax.rev", lambda x: lax.rev(x, (1,)), (2, 3))
operation("lax.slice", lambda x: lax.slice(x, (1, 0), (4, 2), (2, 1)), (4, 3))
operation("lax.split", lambda x: lax.split(x, (1, 2)), (3, 2))
operation("lax.squeeze", lambda x: lax.squeeze(x, (1,)), (3, 1))
operation("lax.expand_dims", lambda x: lax.expand_dims(x, (0, 2)), (3,))
operation("lax.stack", lambda x, y: lax.stack([x, y], axis=1), (3,), (3,))
operation("lax.unstack", lambda x: lax.unstack(x, axis=1), (3, 2))
operation("lax.tile", lambda x: lax.tile(x, (2, 1)), (2, 3))
operation("lax.transpose", lambda x: lax.transpose(x, (1, 0)), (2, 3))
operation("lax.gather", lambda x: x[np.array([2, 0, 2])], (3, 2))
operation("lax.gather, entries", lambda x: x[np.array([1, 0]), np.array([1, 2])], (2, 3))
operation("lax.gather, filled", lambda x: x.at[np.array([5, 0])].get(mode="fill", fill_value=2),
          (3, 2))  # fmt: skip
operation("lax.gather, along an axis", lambda x: jnp.take_along_axis(
    x, np.array([[1, 0, 2], [2, 2, 1]]), 1), (2, 3))  # fmt: skip
for name in ("set", "add", "subtract", "multiply", "divide"):
    operation(f"x.at[].{name}", lambda x, y, name=name: getattr(
        x.at[np.array([2, 0])], name)(y, unique_indices=True), (3, 2), (2, 2))  # fmt: skip
operation("x.at[].set, twice the same", lambda x, y: x.at[np.array([1, 1])].set(y), (3, 2), (2, 2),
          exact=False, note="which of the two is kept is not defined")  # fmt: skip
operation("x.at[].add, twice the same", lambda x, y: x.at[np.array([1, 1])].add(y), (3, 2), (2, 2))
for name in ("min", "max"):
    operation(f"x.at[].{name}", lambda x, y, name=name: getattr(x.at[np.array([2, 0])], name)(y),
              (3, 2), (2, 2), **(ROUGH | {"kinds": ("real",)}))  # fmt: skip
operation("x.at[].power", lambda x: x.at[1].power(2), (3, 2))
operation("lax.scatter_mul", lambda x, y: x.at[np.array([2, 0, 1])].mul(y, unique_indices=True),
          (3, 2), (3, 2))  # fmt: skip
operation("lax.scatter_sub", lambda x, y: lax.scatter_sub(
    x, np.array([[2], [0]]), y, lax.ScatterDimensionNumbers((1,), (0,), (0,))),
    (3, 2), (2, 2))  # fmt: skip

operation("lax.broadcast", lambda x: lax.broadcast(x, (2,)), (3,))
operation("lax.broadcast_to_rank", lambda x: lax.broadcast_to_rank(x, 2), (3,))
operation("lax.broadcast_like", lambda x, y: lax.broadcast_like(x, y) * y, (1, 3), (2, 3))
operation("lax.collapse", lambda x: lax.collapse(x, 0, 2), (2, 3))
operation("lax.index_in_dim", lambda x: lax.index_in_dim(x, 1, 0), (3, 2))
operation("lax.index_take", lambda x: lax.index_take(x, (np.array([2, 0]),), (0,)), (3, 2))
operation("lax.slice_in_dim", lambda x: lax.slice_in_dim(x, 1, 3), (3, 2))
operation("lax.dynamic_slice_in_dim", lambda x: lax.dynamic_slice_in_dim(x, 1, 2), (3, 2))
operation("lax.dynamic_update_slice_in_dim", lambda x, y: lax.dynamic_update_slice_in_dim(
    x, y, 1, 0), (3, 2), (1, 2))  # fmt: skip
operation("lax.dynamic_update_index_in_dim", lambda x, y: lax.dynamic_update_index_in_dim(
    x, y, 1, 0), (3, 2), (2,))  # fmt: skip
ROWS = lax.ScatterDimensionNumbers((1,), (0,), (0,))
for name in ("scatter", "scatter_add"):
    operation(f"lax.{name}", lambda x, y, name=name: getattr(lax, name)(
        x, np.array([[2], [0]]), y, ROWS), (3, 2), (2, 2))  # fmt: skip
for name in ("scatter_min", "scatter_max"):
    operation(f"lax.{name}", lambda x, y, name=name: getattr(lax, name)(
        x, np.array([[2], [0]]), y, ROWS), (3, 2), (2, 2),
        **(ROUGH | {"kinds": ("real",)}))  # fmt: skip

real = functools.partial(operation, kinds=("real",), smooth=False)
real("lax.sort", lambda x: lax.sort(x, dimension=1), (2, 3), note=ROUGH["note"])
real("lax.sort, with values", lambda x, y: lax.sort((x, y), num_keys=1), (4,), (4,))
real("lax.sort_key_val", lambda x, y: lax.sort_key_val(x, y), (4,), (4,))
real("lax.top_k", lambda x: lax.top_k(x, 2), (2, 4))
real("lax.approx_max_k", lambda x: lax.approx_max_k(x, 2), (8,))
real("lax.approx_min_k", lambda x: lax.approx_min_k(x, 2), (8,))
real("jnp.median", lambda x: jnp.median(x, axis=0), (5, 2))
operation("jnp.ravel, roll, flip", lambda x: jnp.roll(jnp.flip(x), 1, 0).ravel(), (2, 3))
operation("jnp.tril, diag", lambda x: (jnp.tril(x), jnp.diag(x), jnp.diag(x[0])), (3, 3))

# Reductions ---------------------------------------------------------------------------

operation = functools.partial(family("jax.lax, reductions and scans along an axis"), kinds=BOTH)

operation("lax.reduce_sum", lambda x: jnp.sum(x, 0), (2, 3))
operation("lax.reduce_prod", lambda x: jnp.prod(x, 1), (2, 3))
real = functools.partial(operation, kinds=("real",), smooth=False, note=ROUGH["note"])
real("lax.reduce_max", lambda x: jnp.max(x, 1), (2, 3))
real("lax.reduce_min", lambda x: jnp.min(x, 1), (2, 3))
operation("lax.reduce", lambda x: lax.reduce(x, np.zeros((), x.dtype), lax.add, (1,)), (2, 3))
operation(
    "lax.reduce, by a function",
    lambda x: lax.reduce(x, np.zeros((), x.dtype), lambda a, b: a + b + a * b, (1,)), (2, 3),
    scale=10,
)  # fmt: skip
operation("lax.cumsum", lambda x: lax.cumsum(x, 1), (2, 3))
operation("lax.cumsum, reversed", lambda x: lax.cumsum(x, 1, reverse=True), (2, 3))
operation("lax.cumprod", lambda x: lax.cumprod(x, 1), (2, 3))
operation("lax.cumlogsumexp", lambda x: lax.cumlogsumexp(x, 1), (2, 3), kinds=("real",))
real("lax.cummax", lambda x: lax.cummax(x, 1), (2, 3))
real("lax.cummin", lambda x: lax.cummin(x, 1), (2, 3))
operation("jnp.mean, var, std", lambda x: (x.mean(0), x.var(0), jnp.std(x, 1)), (3, 2),
          kinds=("real",), scale=10)  # fmt: skip
operation("lax.reduce_window, sum", lambda x: lax.reduce_window(
    x, np.zeros((), x.dtype), lax.add, (1, 2), (1, 1), "SAME"), (2, 4))  # fmt: skip
for name, start in {"max": -np.inf, "min": np.inf}.items():
    real(f"lax.reduce_window, {name}", lambda x, name=name, start=start: lax.reduce_window(
        x, np.asarray(start, x.dtype), getattr(lax, name), (1, 2), (1, 2), "VALID"),
        (2, 4))  # fmt: skip
real("lax.reduce_window, the gradient of max", lambda x: jax.grad(lambda x: jnp.sum(jnp.sin(
    lax.reduce_window(x, np.asarray(-np.inf, x.dtype), lax.max, (1, 2), (1, 2), "VALID"))))(x),
    (2, 4))  # fmt: skip
real("lax.reduce_window, a derivative of max along a direction", lambda x: jax.jvp(
    lambda x: lax.reduce_window(x, np.asarray(-np.inf, x.dtype), lax.max, (1, 2), (1, 2), "VALID"),
    (x,), (x * x,))[1], (2, 4))  # fmt: skip
operation("lax.reduce_window, by a function", lambda x: lax.reduce_window(
    x, np.ones((), x.dtype), lambda a, b: a * b, (2,), (1,), "VALID"), (4,), modes="fwd",
    smooth=False, alone=True, kinds=("real",))  # fmt: skip

# Products -----------------------------------------------------------------------------

operation = functools.partial(family("jax.lax, products and convolutions"), kinds=BOTH)
operation("lax.dot_general", lambda x, y: x @ y, (2, 3), (3, 2))
operation("lax.dot_general, by a constant", lambda x: x @ numbers((3, 2), x.dtype), (2, 3))
operation("lax.dot_general, batch", lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (2, 2, 3),
          (2, 3, 2))  # fmt: skip
operation("lax.dot_general, of one array", lambda x: x.T @ x, (2, 3))
operation("jnp.einsum, three arrays", lambda x, y, z: jnp.einsum("ij,jk,kl->il", x, y, z), (2, 3),
          (3, 2), (2, 2))  # fmt: skip
convolve = functools.partial(
    lax.conv_general_dilated, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
)
operation("lax.conv_general_dilated", lambda x, k: convolve(x, k, (1, 1)), (2, 3, 3, 2),
          (2, 2, 2, 1))  # fmt: skip
operation("lax.conv_general_dilated, strides and dilations", lambda x, k: convolve(
    x, k, (2, 1), rhs_dilation=(2, 1)), (1, 3, 3, 2), (2, 2, 2, 1))  # fmt: skip
operation("lax.conv_general_dilated, groups of features", lambda x, k: convolve(
    x, k, (1, 1), feature_group_count=2), (1, 3, 3, 2), (2, 2, 1, 2))  # fmt: skip
operation("lax.conv_general_dilated, groups of a batch", lambda x, k: convolve(
    x, k, (1, 1), batch_group_count=2), (2, 3, 3, 1), (2, 2, 1, 2))  # fmt: skip
operation("lax.conv", lambda x, k: lax.conv(x, k, (1, 1), "SAME"), (1, 2, 3, 3), (1, 2, 2, 2))
operation("lax.conv_with_general_padding", lambda x, k: lax.conv_with_general_padding(
    x, k, (1, 1), [(1, 0), (0, 1)], (1, 1), (1, 2)), (1, 2, 3, 3), (1, 2, 2, 2))  # fmt: skip
operation("lax.conv_general_dilated_local", lambda x, k: lax.conv_general_dilated_local(
    x, k, (1,), "VALID", (2,), dimension_numbers=("NWC", "WIO", "NWC")), (1, 3, 2),
    (2, 4, 1))  # fmt: skip
operation("lax.conv_general_dilated_patches", lambda x: lax.conv_general_dilated_patches(
    x, (2,), (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")), (1, 3, 2))  # fmt: skip
operation("lax.dot", lax.dot, (2, 3), (3, 2))
operation("lax.batch_matmul", lax.batch_matmul, (2, 2, 3), (2, 3, 2))
operation("lax.conv_transpose", lambda x, k: lax.conv_transpose(x, k, (2,), "SAME",
          dimension_numbers=("NWC", "WIO", "NWC")), (1, 3, 2), (2, 2, 1))  # fmt: skip
operation("jnp.convolve, correlate", lambda x, y: (jnp.convolve(x, y), jnp.correlate(x, y)), (4,),
          (3,), holomorphic=False)  # fmt: skip
operation("jnp.interp", lambda x, y: jnp.interp(x, np.linspace(0, 2, 4).astype(x.dtype), y), (3,),
          (4,), kinds=("real",), smooth=False)  # fmt: skip
