"""Data of maps that are only counted: what they take, and not what they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autodiffkit._arithmetic import Factored
from autodiffkit._cost import Work
from autodiffkit._maps import Axis, Label, Part, product


class _Fused:
    """What stands for an array that is computed where it is read.

    Args:
        reads: The arrays that this takes, by identity, with their labels.
    """

    def __init__(self, reads: Mapping[int, Part]) -> None:
        self.reads = reads


class Computed:
    """What stands for an array that has been computed and written."""


def written_entries(part: Part) -> int:
    """How many entries of a part have been written; of what is fused, those that it reads."""
    if isinstance(part.array, _Fused):
        return sum(map(written_entries, part.array.reads.values()))
    return 0 if type(part.array) is object else product(part.axes)


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
        return Part(Computed(), axes)

    def reduce(self, part: Part, labels: Sequence[Label]) -> Part:
        """As in `Factored`."""
        if not labels:
            return part
        axes = tuple(x for x in part.axes if x not in labels)
        read = () if isinstance(part.array, _Fused) else (part.axes,)
        self.count(product(part.axes), axes, *read, dtype=np.float32)
        return Part(Computed(), axes)

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
        """Counts what is done entry by entry; what several of its parts read is read once."""
        reads: dict[int, Part] = {}
        twice: list[Axis] = []
        for part in parts:
            if isinstance(part.array, _Fused):
                twice += [x.axes for key, x in part.array.reads.items() if key in reads]
                reads |= part.array.reads
            elif id(part.array) not in reads:
                reads[id(part.array)] = part
                self.count(0, part.axes, dtype=dtype)
        self.count(product(axes), dtype=dtype)
        self.count(0, *twice, dtype=dtype, times=-1)
        return Part(_Fused(reads), axes)

    def write(self, part: Part, dtype: Any) -> None:
        """Counts the writing of an array, unless that has been done."""
        if isinstance(part.array, _Fused):
            self.count(0, part.axes, dtype=dtype)

    def result(self, part: Part, dtype: Any) -> None:
        """Counts what it takes that an array is a result: a constant is copied."""
        if not isinstance(part.array, Computed | _Fused):
            self.count(0, part.axes, part.axes, dtype=dtype)
        self.write(part, dtype)

    def count(
        self, flops: int, *arrays: Axis, dtype: Any, kernels: int = 0, times: int = 1
    ) -> None:
        """Adds operations, and arrays that are read or written."""
        moved = times * sum(map(product, arrays)) * np.dtype(dtype).itemsize
        self.work = self.work.plus(Work(float(flops), float(moved), float(kernels)))
