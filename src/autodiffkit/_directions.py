"""Unit directions to push from or to pull from, and the block that comes of some.

Where a map is only R-linear, a complex side takes two directions an entry:

- real to complex: pulling 1 gives the real part of the derivative, pulling -1j the
  imaginary one;
- complex to real: pushing 1 and 1j gives the derivatives by the real and the imaginary
  part, and the block is the first minus 1j times the second, as `jax.grad` defines it.

The same directions serve a complex variable at a cut: what is pushed from 1 and 1j is
multiplied by what is pulled from 1 and -1j.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._jax_compat import typed
from autodiffkit._leaves import LeafSpec, derivative_dtype, slices
from autodiffkit._progress import Chunks, show_progress


def unit_directions(
    structs: Sequence[Any],
    imaginary: float,
    complex_directions: int,
    axis: int,
    window: tuple[Any, int] | None = None,
) -> list[Array]:
    """Directions over the leaves, which lie along the first or the last axis.

    A complex leaf that takes two directions an entry has its real ones first and then the
    imaginary ones, of which `imaginary` times 1j is the unit.

    Args:
        structs: The leaves.
        imaginary: As above.
        complex_directions: The directions of an entry of a complex leaf.
        axis: Where directions lie, 0 or -1.
        window: The first direction, which may be traced, and how many; all if it is `None`.

    Returns:
        An array for each leaf.
    """
    parts = slices(structs, complex_directions)
    entries = max((part.stop for part in parts), default=0)
    numbers = jax.lax.iota(jnp.int32, entries)
    chosen, count = numbers, entries
    if window is not None:
        start, count = window
        chosen = jax.lax.iota(jnp.int32, count) + jnp.asarray(start, jnp.int32)
    identity = chosen[:, None] == numbers[None] if axis == 0 else numbers[:, None] == chosen[None]
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


@dataclasses.dataclass(frozen=True)
class Directions:
    """The unit directions over leaves, as `unit_directions` makes them."""

    structs: Sequence[Any]
    imaginary: float
    complex_directions: int
    axis: int

    @property
    def count(self) -> int:
        """How many there are."""
        return max((part.stop for part in slices(self.structs, self.complex_directions)), default=0)

    def units(self, window: tuple[Any, int] | None = None) -> list[Array]:
        """All of them, or so many from one on."""
        options = self.imaginary, self.complex_directions, self.axis
        return unit_directions(self.structs, *options, window)


def batch(
    function: Callable[[list[Array]], Any],
    directions: Directions,
    out_axes: Any,
    chunks: Chunks | None = None,
) -> Any:
    """The function over all directions; a lone direction is not batched.

    Args:
        function: What is swept.
        directions: From where.
        out_axes: Where directions lie in the results, as for `jax.vmap`.
        chunks: How many directions go together; all if it is `None`.

    Returns:
        The results.

    Raises:
        Exception: Whatever JAX raises for an equation that cannot be swept.
    """
    if chunks is None or chunks.size >= directions.count:
        return _at_once(function, directions.units(), directions.axis, out_axes)
    size, count = chunks.size, directions.count

    def part(start: Any) -> list[Array]:
        units = directions.units((start, size))
        return _at_once(function, units, directions.axis, out_axes)

    def put(number: Any, results: list[Array]) -> list[Array]:
        # The last chunk begins early enough to be whole; what it does again is the same.
        start = jnp.minimum(number * size, count - size)
        if chunks.label is not None:
            show_progress(number, -(-count // size), chunks.label)
        return [
            jax.lax.dynamic_update_slice_in_dim(whole, new, start, out_axes % whole.ndim)
            for whole, new in zip(results, part(start), strict=True)
        ]

    def empty(struct: Any) -> Array:
        shape = list(struct.shape)
        shape[out_axes] = count
        return typed(jnp.zeros(shape, struct.dtype), struct)

    structs = jax.eval_shape(part, jax.ShapeDtypeStruct((), jnp.int32))
    return jax.lax.fori_loop(0, -(-count // size), put, [empty(x) for x in structs])


def _at_once(
    function: Callable[[list[Array]], Any], units: list[Array], in_axis: int, out_axes: Any
) -> Any:
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
