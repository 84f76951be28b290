"""Structured vectors and the products of blocks with them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from autodiffkit._errors import StructureError
from autodiffkit._jax_compat import gathered, is_deleted
from autodiffkit._leaves import LeafSpec, cast, is_complex, promote, slices
from autodiffkit._paths import show, spellings
from autodiffkit._records import Record
from autodiffkit._trees import Tree

Labels = tuple[tuple[str, slice], ...]


def collect_vector(space: Tree, vector: Any, call: str) -> list[Array | None]:
    """The leaves of a structured vector in the order of the space; absent ones are `None`.

    A space whose structure is a record (the arguments) also takes a dict by argument name
    and, when there is one argument only, that argument bare.
    """
    names = _record_names(space)
    if names is None or isinstance(vector, Record):
        return space.collect(vector, (), call)
    by_name = isinstance(vector, dict)
    is_named = by_name and any(names[0] in spellings(str(key)) for key in vector)
    if len(names) == 1 and not (is_named and _fits(space, vector, call)):
        return space.collect(vector, names, call)
    if not by_name:
        example = ", ".join(f"{name}=..." for name in names)
        raise StructureError(
            f"{call}: several arguments were differentiated ({', '.join(names)}); name what "
            f"the vector holds: ({example}), a dict by name, or an adk.Record."
        )
    return space.collect(vector, (), call)


def _record_names(space: Tree) -> tuple[str, ...] | None:
    node = space.treedef.node_data()
    return node[1] if node is not None and node[0] is Record else None


def _fits(space: Tree, vector: Any, call: str) -> bool:
    try:
        space.collect(vector, (), call)
    except StructureError:
        return False
    return True


def filled(vector: list[Array | None], specs: Sequence[LeafSpec]) -> list[Array]:
    return [
        jnp.zeros(spec.shape, spec.dtype) if leaf is None else leaf
        for leaf, spec in zip(vector, specs, strict=True)
    ]


def joined(vector: list[Array | None], specs: Sequence[LeafSpec]) -> Array:
    """The leaves laid end to end, in the dtype that they promote to; `None` is zero."""
    leaves = [gathered(leaf) for leaf in filled(vector, specs)]
    dtype = promote(leaf.dtype for leaf in leaves)
    return jnp.concatenate([cast(leaf.reshape(-1), dtype) for leaf in leaves])


def multiply(
    blocks: Sequence[Sequence[Array]],
    vector: list[Array | None],
    outs: Sequence[LeafSpec],
    *,
    transpose: bool,
) -> list[Array]:
    """The product of blocks, or of their transpose, with a vector of leaves.

    Products have the highest precision, and low-precision dtypes accumulate in float32.
    A product that is complex where the result is real keeps its real part: that is the
    derivative along the vector (JAX's conventions for maps between real and complex).
    """

    def product(i: int, j: int, leaf: Array) -> Array:
        block, leaf = gathered(blocks[i][j]), gathered(leaf)
        # block has axes [output..., source...]; what is contracted comes last or first
        left, right = (leaf, block) if transpose else (block, leaf)
        dtype = promote([left.dtype, right.dtype])
        return jnp.tensordot(
            cast(left, dtype),
            cast(right, dtype),
            axes=leaf.ndim,
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=promote([dtype, jnp.float32]),
        )

    return summed(product, vector, outs, transpose=transpose)


def summed(
    product: Callable[[int, int, Array], Array],
    vector: list[Array | None],
    outs: Sequence[LeafSpec],
    *,
    transpose: bool,
) -> list[Array]:
    """The sums of products with the leaves of a vector; `product` takes row, column and leaf."""
    results: list[Array] = []
    for number, spec in enumerate(outs):
        total: Array | None = None
        for other, leaf in enumerate(vector):
            if leaf is None:
                continue
            i, j = (other, number) if transpose else (number, other)
            term = product(i, j, leaf)
            total = term if total is None else _sum(total, term)
        if total is None:
            total = jnp.zeros(spec.shape, spec.dtype)
        elif is_complex(total.dtype) and not is_complex(spec.dtype):
            total = total.real
        results.append(cast(total, spec.dtype))
    return results


def _sum(left: Array, right: Array) -> Array:
    dtype = promote([left.dtype, right.dtype])
    return cast(left, dtype) + cast(right, dtype)


def matrix(
    blocks: Sequence[Sequence[Array]], sources: Sequence[LeafSpec], targets: Sequence[LeafSpec]
) -> Array:
    """The blocks as one matrix, in the dtype that all of them promote to."""
    dtype = promote(block.dtype for row in blocks for block in row)
    # block has axes [output..., source...]; the matrix [row, column]
    rows = [
        jnp.concatenate(
            [
                cast(gathered(block).reshape(target.size, source.size), dtype)
                for block, source in zip(row, sources, strict=True)
            ],
            axis=1,
        )
        for row, target in zip(blocks, targets, strict=True)
    ]
    return jnp.concatenate(rows, axis=0)


def labels(specs: Sequence[LeafSpec]) -> Labels:
    """Paths of leaves laid end to end, each with its slice."""
    return tuple((show(spec.path), part) for spec, part in zip(specs, slices(specs), strict=True))


def refuse_batched(name: str, arrays: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses matrix methods on a result that `vmap` has batched, or of which parts are gone.

    Raises:
        StructureError: If an array does not have the shape that it was made with, or was deleted.
    """
    for array, shape in zip(arrays, shapes, strict=True):
        if is_deleted(array):
            raise StructureError(
                f"{name}: an array of this result has been donated or deleted; a linear map keeps "
                "arrays of the arguments. Do not donate them (donate_argnums) while it is in use."
            )
        if jnp.shape(array) != shape:
            raise StructureError(
                f"{name}: this result has an array of shape {list(jnp.shape(array))} where its "
                f"structure says {list(shape)}. After jax.vmap it is still a pytree, but its "
                "matrix methods belong inside the function that is mapped; call them there."
            )
