"""Unit directions to push from or to pull from, and the block that comes of some.

Where a map is only R-linear, a complex side takes two directions an entry:

- real to complex: pulling 1 gives the real part of the derivative, pulling -1j the
  imaginary one;
- complex to real: pushing 1 and 1j gives the derivatives by the real and the imaginary
  part, and the block is the first minus 1j times the second, as `jax.grad` defines it.

The same directions serve a complex variable at a cut: what is pushed from 1 and 1j is
multiplied by what is pulled from 1 and -1j.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._leaves import LeafSpec, derivative_dtype, slices


def unit_directions(
    structs: Sequence[Any], imaginary: float, complex_directions: int, axis: int
) -> list[Array]:
    """All directions over the leaves, which lie along the first or the last axis.

    A complex leaf that takes two directions an entry has its real ones first and then the
    imaginary ones, of which `imaginary` times 1j is the unit.
    """
    parts = slices(structs, complex_directions)
    count = max((part.stop for part in parts), default=0)
    numbers = jax.lax.iota(jnp.int32, count)
    identity = numbers[:, None] == numbers[None]
    along = 1 if axis == 0 else 0  # the axis of the entries

    def cut(start: int, size: int, dtype: Any) -> Array:
        # Of one array, so that a compiler can join what a function concatenates.
        return jax.lax.slice_in_dim(identity, start, start + size, axis=along).astype(dtype)

    units: list[Array] = []
    for struct, part in zip(structs, parts, strict=True):
        size = math.prod(struct.shape)
        hot = cut(part.start, size, struct.dtype)
        if part.stop - part.start > size:
            second = cut(part.start + size, size, hot.real.dtype)
            hot = jax.lax.complex(hot.real, second * jnp.asarray(imaginary, second.dtype))
        shape = (count, *struct.shape) if axis == 0 else (*struct.shape, count)
        units.append(hot.reshape(shape))
    return units


def batch(
    function: Callable[[list[Array]], Any], units: list[Array], in_axis: int, out_axes: Any
) -> Any:
    """The function over all directions; a lone direction is not batched.

    Raises:
        Exception: Whatever JAX raises for an equation that cannot be swept.
    """
    over_all = jax.vmap(function, in_axis, out_axes)
    if units[0].shape[in_axis] != 1:
        return over_all(units)
    jax.eval_shape(over_all, units)  # some rules refuse only when they are batched, or compiled
    results = function([jnp.squeeze(unit, in_axis) for unit in units])
    if isinstance(out_axes, tuple):
        return (*results[:-1], [jnp.expand_dims(x, -1) for x in results[-1]])
    return [jnp.expand_dims(x, out_axes) for x in results]


def make_block(swept: Array, target: LeafSpec, source: LeafSpec, axis: int | None) -> Array:
    """One block from the directions that belong to it, which lie along `axis`."""
    dtype = derivative_dtype(target, source)
    shape = target.shape + source.shape
    if axis is not None and swept.size == 2 * math.prod(shape):
        # An R-linear map: the real directions and then the imaginary ones.
        first, second = jnp.split(swept, 2, axis=axis)
        part = jnp.finfo(dtype).dtype
        sign = -1 if axis == -1 else 1
        swept = jax.lax.complex(first.astype(part), sign * second.astype(part))
    return swept.reshape(shape).astype(dtype)


def zeros(target: LeafSpec, source: LeafSpec) -> Array:
    """The block of a target that does not depend on the source."""
    return jnp.zeros(target.shape + source.shape, derivative_dtype(target, source))
