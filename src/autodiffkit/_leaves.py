"""Leaves by their specification: shape, dtype, and whether they can be differentiated."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._errors import StructureError
from autodiffkit._paths import Path

_SCALARS = (bool, int, float, complex)


def is_array(leaf: Any) -> bool:
    """Whether JAX takes the leaf as an array of its own accord."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind in "biufc" or is_inexact(leaf.dtype)
    if isinstance(leaf, jax.Array):
        return True
    return hasattr(leaf, "__jax_array__") and not isinstance(leaf, eqx.Module)


def is_numeric(leaf: Any) -> bool:
    """Whether the leaf is an array or a Python number."""
    return is_array(leaf) or isinstance(leaf, _SCALARS)


@functools.lru_cache(maxsize=256)
def is_inexact(dtype: Any) -> bool:
    """Whether values of this dtype have derivatives."""
    return jnp.issubdtype(dtype, jnp.inexact)


@functools.lru_cache(maxsize=256)
def is_complex(dtype: Any) -> bool:
    """Whether the dtype is complex."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


def cast(x: Any, dtype: Any) -> Any:
    """An array in a dtype; one that has it already stays, also if x64 has been turned off since."""
    return x if x.dtype == dtype else x.astype(dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class LeafSpec:
    """What is known of a leaf without its values.

    `held` is the reason why it is not differentiated, `None` if it is. `dtype` is `None`
    for what is not an array.

    Two specifications are equal if results with them have the same arrays: weak types,
    annotations, and what is known of a leaf that is held (whose value may be an `int` in one
    call and a traced integer in the next), make no difference.
    """

    path: Path
    shape: tuple[int, ...] = ()
    dtype: Any = None
    weak_type: bool = False
    held: str | None = None
    annotation: Any = None  # a `_dims.Annotation`, if the function has one for it

    @property
    def _key(self) -> tuple[Any, ...]:
        return (self.path, self.shape, self.dtype) if self.held is None else (self.path,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeafSpec) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def struct(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype in JAX's terms."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def __str__(self) -> str:
        return describe_array(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class Ends:
    """What is swept from and to: the leaves, and how.

    Args:
        sources: The input leaves.
        targets: The output leaves.
        holomorphic: Whether complex leaves take one direction an entry.
        compact: Whether blocks have shared axes once and first.
        columns: Which inputs of the program the sources are; `None` means all.
        rows: Which outputs of the program the targets are.
    """

    sources: tuple[LeafSpec, ...]
    targets: tuple[LeafSpec, ...]
    holomorphic: bool
    compact: bool = False
    columns: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    def only(self, rows: Sequence[int], columns: Sequence[int]) -> "Ends":
        """A part of the matrix of blocks."""
        return dataclasses.replace(
            self,
            sources=tuple(self.sources[j] for j in columns),
            targets=tuple(self.targets[i] for i in rows),
            columns=tuple(columns),
            rows=tuple(rows),
        )


def describe_array(shape: Sequence[int], dtype: Any) -> str:
    """`float32[3, 2]`."""
    return f"{dtype}[{', '.join(map(str, shape))}]"


def describe_leaf(leaf: Any) -> str:
    """What arrived, for a message: dtype and shape, or what kind of object it is."""
    if is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
        return str(leaf_spec((), leaf))
    if inspect.isroutine(leaf) or isinstance(leaf, functools.partial):
        return "a function"
    if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
        return (
            f"{with_article(type(leaf).__name__)}, a dataclass that is no pytree "
            "(jax.tree_util.register_dataclass makes it one)"
        )
    if isinstance(leaf, np.ndarray):
        return f"a NumPy array of dtype {leaf.dtype}"
    return with_article(type(leaf).__name__)


def with_article(name: str) -> str:
    """`an int`, `a str`."""
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def leaf_spec(path: Path, leaf: Any) -> LeafSpec:
    """The specification of an array, a Python number or a `jax.ShapeDtypeStruct`."""
    if isinstance(leaf, _SCALARS) or not hasattr(leaf, "dtype"):
        leaf = jnp.asarray(leaf)
    weak_type = bool(getattr(leaf, "weak_type", False))
    return LeafSpec(path, tuple(leaf.shape), _dtype_in_jax(leaf.dtype), weak_type)


def canonical(leaf: Any) -> Any:
    """A `jax.ShapeDtypeStruct` in the dtype that JAX gives it; anything else as it is."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return leaf.update(dtype=_dtype_in_jax(leaf.dtype))


def _dtype_in_jax(dtype: Any) -> Any:
    """NumPy's float64 is float32 unless x64 is enabled."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return jax.dtypes.canonicalize_dtype(dtype)


def slices(arrays: Sequence[Any], complex_directions: int = 1) -> list[slice]:
    """Which directions belong to each array, when the arrays are laid end to end.

    Args:
        arrays: What has a shape and a dtype.
        complex_directions: The directions of an entry of a complex array.

    Returns:
        A slice for each; by default, of its entries.
    """
    parts: list[slice] = []
    start = 0
    for array in arrays:
        count = complex_directions if is_complex(array.dtype) else 1
        parts.append(slice(start, start + count * math.prod(array.shape)))
        start = parts[-1].stop
    return parts


def promote(dtypes: Iterable[Any]) -> Any:
    """The promotion of dtypes on JAX's standard lattice, whatever the promotion setting.

    The 8-bit floats, which promote with nothing, give way to any wider dtype.
    """
    distinct = list(dict.fromkeys(map(jnp.dtype, dtypes)))
    wide = [dtype for dtype in distinct if dtype.itemsize > 1]
    if len(distinct) > 1 and not wide:
        return jnp.dtype(jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, wide or distinct)


def derivative_dtype(output: LeafSpec, source: LeafSpec) -> Any:
    """The dtype of a block: the promotion of both; weak types (Python floats) do not widen."""
    if output.weak_type != source.weak_type:
        strong, weak = (source, output) if output.weak_type else (output, source)
        with jax.numpy_dtype_promotion("standard"):
            # A Python scalar type stands for a weak type of its kind.
            if not is_complex(weak.dtype) or strong.dtype.itemsize > 1:
                kind = complex if is_complex(weak.dtype) else float
                return jnp.result_type(strong.dtype, kind)
    return promote([output.dtype, source.dtype])


def block_spec(output: LeafSpec, source: LeafSpec) -> LeafSpec:
    """The block of an output leaf by a source leaf, as a leaf of the derivative."""
    return LeafSpec(
        output.path + source.path,
        output.shape + source.shape,
        derivative_dtype(output, source),
        output.weak_type and source.weak_type,
    )


_TO_FIT = (
    "Pass an array of this shape, real where this is real, or leave it out of the vector: what "
    "is left out counts as zero."
)


def fitted(value: Any, spec: LeafSpec, name: str) -> Array:
    """A leaf of a vector as an array of the specified shape and dtype.

    Raises:
        StructureError: If it has another shape, or is complex where the leaf is real.
    """
    if not is_numeric(value):
        raise StructureError(
            f"{name} should be {spec}; got {describe_leaf(value)}.", remedy=_TO_FIT
        )
    array = jnp.asarray(value)
    if array.shape == spec.shape and (is_complex(spec.dtype) or not is_complex(array.dtype)):
        return array.astype(spec.dtype)
    batched = array.ndim > len(spec.shape) and array.shape[array.ndim - len(spec.shape) :]
    hint = " A batch of vectors goes through jax.vmap." if batched == spec.shape else ""
    received = describe_array(array.shape, array.dtype)
    raise StructureError(f"{name} should be {spec}; got {received}.{hint}", remedy=_TO_FIT)
