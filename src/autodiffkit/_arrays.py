"""Data of maps as arrays, as a sweep runs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from autodiffkit._arithmetic import Factored
from autodiffkit._leaves import promote
from autodiffkit._maps import Axis, Label, Map, Part, flat


class Arrays(Factored):
    """Arithmetic with arrays, as the sweep runs."""

    def number(self, value: complex, dtype: Any) -> Part:
        """As in `Factored`."""
        return Part(np.asarray(value, dtype), ())

    def cast(self, part: Part, dtype: Any) -> Part:
        """As in `Factored`."""
        return part if part.array.dtype == dtype else Part(part.array.astype(dtype), part.axes)

    def real_part(self, part: Part, dtype: Any) -> Part:
        """As in `Factored`."""
        return self.cast(Part(jnp.real(part.array), part.axes), dtype)

    def times(
        self, first: Part, second: Part, axes: Axis, dtype: Any, *, divide: bool = False
    ) -> Part:
        """As in `Factored`."""
        left, right = (self.cast(self.broadcast(x, axes), dtype).array for x in (first, second))
        return Part((jax.lax.div if divide else jax.lax.mul)(left, right), axes)

    def plus(self, first: Part, second: Part, axes: Axis, dtype: Any) -> Part:
        """As in `Factored`."""
        left, right = (self.cast(self.broadcast(x, axes), dtype).array for x in (first, second))
        return Part(jax.lax.add(left, right), axes)

    def inverse(self, part: Part) -> Part:
        """As in `Factored`."""
        return Part(jnp.reciprocal(part.array), part.axes)

    def select(self, mask: Part, part: Part, axes: Axis) -> Part:
        """As in `Factored`."""
        which, array = (self.broadcast(x, axes).array for x in (mask, part))
        return Part(jax.lax.select(which, array, jnp.zeros_like(array)), axes)

    def contract(
        self, first: Part, second: Part, summed: Sequence[Label], dtype: Any, precision: Any
    ) -> Part:
        """As in `Factored`."""
        pair = (first, second)
        batch = [x for x in first.axes if x in second.axes and x not in summed]
        ours, theirs = ([x.axes.index(label) for label in summed] for x in pair)
        ours_too, theirs_too = ([x.axes.index(label) for label in batch] for x in pair)
        common = promote([first.array.dtype, second.array.dtype])
        array = jax.lax.dot_general(
            self.cast(first, common).array,
            self.cast(second, common).array,
            ((ours, theirs), (ours_too, theirs_too)),
            precision=precision,
            preferred_element_type=promote([common, dtype, jnp.float32]),
        )
        used = {*batch, *summed}
        axes = (*batch, *(x for part in pair for x in part.axes if x not in used))
        return self.cast(Part(array, axes), dtype)

    def reduce(self, part: Part, labels: Sequence[Label]) -> Part:
        """As in `Factored`."""
        if not labels:
            return part
        array = jax.lax.reduce_sum(part.array, [part.axes.index(label) for label in labels])
        return Part(array, tuple(x for x in part.axes if x not in labels))

    def reshaped(self, part: Part, axes: Axis) -> Part:
        """As in `Factored`."""
        return Part(jnp.reshape(part.array, [label.size for label in axes]), axes)

    def broadcast(self, part: Part, axes: Axis) -> Part:
        """As in `Factored`."""
        if part.axes == axes:
            return part
        order = [label for label in axes if label in part.axes]
        array = part.array
        if order != list(part.axes):
            array = jnp.transpose(array, [part.axes.index(label) for label in order])
        dimensions = [axes.index(label) for label in order]
        sizes = [label.size for label in axes]
        return Part(jax.lax.broadcast_in_dim(array, sizes, dimensions), axes)

    def zeroed(
        self, part: Part, pairs: Sequence[tuple[Label, Label]], axes: Axis, dtype: Any
    ) -> Part:
        """As in `Factored`."""
        array = self.cast(self.broadcast(part, axes), dtype).array
        if not pairs:
            return Part(array, axes)
        ends = {x for pair in pairs for x in pair}
        sizes = [x.size if x in ends else 1 for x in axes]
        equal: Any = None
        for pair in pairs:
            left, right = (jax.lax.broadcasted_iota(np.int32, sizes, axes.index(x)) for x in pair)
            same = jax.lax.eq(left, right)
            equal = same if equal is None else jax.lax.bitwise_and(equal, same)
        mask = jax.lax.broadcast_in_dim(equal, array.shape, range(len(axes)))
        return Part(jax.lax.select(mask, array, jnp.zeros_like(array)), axes)


def matrix_of(arithmetic: Arrays, given: Map, shape: Sequence[int], dtype: Any) -> Array:
    """The map as an array with the axes of the output and then those of the input."""
    pairs = [(label, Label(label.size)) for label in given.shared]
    names = dict(pairs)
    inputs = [names.get(label, label) for label in flat(given.ins)]
    axes = (*flat(given.outs), *inputs)
    whole = arithmetic.whole(given.data.parts, axes, given.dtype)
    written = arithmetic.zeroed(whole, pairs, axes, given.dtype)
    # Constants are NumPy's.
    return jnp.reshape(jnp.asarray(arithmetic.cast(written, dtype).array), shape)
