"""Data of maps that are only counted: what they take, and not what they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from autodiffkit._arithmetic import Factored
from autodiffkit._cost import Work
from autodiffkit._maps import Axis, Label, Part, product


class _Fused:
    """What stands for an array that is computed where it is read."""


class Counts(Factored):
    """Arithmetic that is only counted; an array is stood for by an object.

    Compilers fuse what is done entry by entry: its result is written when something else needs it.
    """

    def __init__(self) -> None:
        self.work = Work()

    def number(self, value: complex, dtype: Any) -> Part:
        """As in `Factored`."""
        return Part(object(), ())

    def cast(self, part: Part, dtype: Any) -> Part:
        """As in `Factored`."""
        return part

    def times(
        self, first: Part, second: Part, axes: Axis, dtype: Any, *, divide: bool = False
    ) -> Part:
        """As in `Factored`."""
        return self.fused(axes, first, second, dtype=dtype)

    def plus(self, first: Part, second: Part, axes: Axis, dtype: Any) -> Part:
        """As in `Factored`."""
        return self.fused(axes, first, second, dtype=dtype)

    def inverse(self, part: Part) -> Part:
        """As in `Factored`."""
        return Part(object(), part.axes)

    def select(self, mask: Part, part: Part, axes: Axis) -> Part:
        """As in `Factored`."""
        return self.fused(axes, part, mask, dtype=np.float32)

    def contract(
        self, first: Part, second: Part, summed: Sequence[Label], dtype: Any, precision: Any
    ) -> Part:
        """As in `Factored`."""
        every = {*first.axes, *second.axes}
        axes = tuple(dict.fromkeys(x for x in (*first.axes, *second.axes) if x not in summed))
        self.write(first, dtype)
        self.write(second, dtype)
        self.count(2 * product(every), axes, first.axes, second.axes, dtype=dtype, kernels=1)
        return Part(object(), axes)

    def reduce(self, part: Part, labels: Sequence[Label]) -> Part:
        """As in `Factored`."""
        if not labels:
            return part
        axes = tuple(x for x in part.axes if x not in labels)
        read = () if isinstance(part.array, _Fused) else (part.axes,)
        self.count(product(part.axes), axes, *read, dtype=np.float32)
        return Part(object(), axes)

    def reshaped(self, part: Part, axes: Axis) -> Part:
        """As in `Factored`."""
        return Part(part.array, axes)

    def broadcast(self, part: Part, axes: Axis) -> Part:
        """As in `Factored`."""
        return Part(part.array, axes)

    def zeroed(
        self, part: Part, pairs: Sequence[tuple[Label, Label]], axes: Axis, dtype: Any
    ) -> Part:
        """As in `Factored`."""
        return self.fused(axes, part, dtype=dtype)

    def fused(self, axes: Axis, *parts: Part, dtype: Any) -> Part:
        """Counts what is done entry by entry."""
        read = (part.axes for part in parts if not isinstance(part.array, _Fused))
        self.count(product(axes), *read, dtype=dtype)
        return Part(_Fused(), axes)

    def read(self, part: Part, dtype: Any) -> None:
        """Counts the reading of an array that exists."""
        if not isinstance(part.array, _Fused):
            self.count(0, part.axes, dtype=dtype)

    def write(self, part: Part, dtype: Any) -> None:
        """Counts the writing of an array, unless that has been done."""
        if isinstance(part.array, _Fused):
            self.count(0, part.axes, dtype=dtype)

    def count(self, flops: int, *arrays: Axis, dtype: Any, kernels: int = 0) -> None:
        """Adds operations, and arrays that are read or written."""
        moved = sum(map(product, arrays)) * np.dtype(dtype).itemsize
        self.work = self.work.plus(Work(float(flops), float(moved), float(kernels)))
