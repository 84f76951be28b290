"""Data of maps that are only counted: what they take, and not what they are."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autodiffkit._arithmetic import Factored
from autodiffkit._cost import Work
from autodiffkit._maps import Axis, Label, Map, Part, product


class _Fused:
    """What stands for an array that is computed where it is read.

    Args:
        reads: The arrays that this takes, by identity, with their labels.
    """

    def __init__(self, reads: Mapping[int, Part]) -> None:
        self.reads = reads


class Computed:
    """What stands for an array that has been computed and written."""


def structure_of(given: Map) -> tuple[Hashable, ...]:
    """What is counted of a map: of two with the same structure, the same."""
    labels: dict[Label, int] = {}
    arrays: dict[int, int] = {}

    def axis(axes: Iterable[Label]) -> tuple[tuple[int, int], ...]:
        return tuple((labels.setdefault(x, len(labels)), x.size) for x in axes)

    def part(given: Part) -> tuple[Hashable, ...]:
        array = given.array
        kind = type(array).__qualname__
        reads = array.reads.values() if isinstance(array, _Fused) else ()
        number = arrays.setdefault(id(array), len(arrays))
        return kind, number, axis(given.axes), tuple(map(part, reads))

    sides = tuple(tuple(map(axis, side)) for side in (given.outs, given.ins))
    return *sides, tuple(map(part, given.data.parts)), given.dtype


def written_entries(part: Part) -> int:
    """How many entries of a part have been written; of what is fused, those that it reads."""
    if isinstance(part.array, _Fused):
        return sum(map(written_entries, part.array.reads.values()))
    return 0 if type(part.array) is object else product(part.axes)


def _reads(*parts: Part) -> dict[int, Part]:
    """The arrays that are read for these, each once."""
    reads: dict[int, Part] = {}
    for part in parts:
        reads |= part.array.reads if isinstance(part.array, _Fused) else {id(part.array): part}
    return reads


def _axes(reads: Mapping[int, Part]) -> list[Axis]:
    return [part.axes for part in reads.values()]


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

    def real_part(self, part: Part, dtype: Any) -> Part:
        """As in `Factored`."""
        return self.fused(part.axes, part, dtype=dtype)

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
        self.count(product(part.axes), axes, *_axes(_reads(part)), dtype=np.float32)
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
        """Counts what is done entry by entry; what it reads is counted where it is written."""
        self.count(product(axes), dtype=dtype)
        return Part(_Fused(_reads(*parts)), axes)

    def write(self, part: Part, dtype: Any) -> None:
        """Counts the writing of an array, with what it reads, unless that has been done."""
        if isinstance(part.array, _Fused):
            self.count(0, part.axes, *_axes(_reads(part)), dtype=dtype)

    def result(self, part: Part, dtype: Any) -> None:
        """Counts what it takes that an array is a result: a constant is copied."""
        if not isinstance(part.array, Computed | _Fused):
            self.count(0, part.axes, part.axes, dtype=dtype)
        self.write(part, dtype)

    def count(self, flops: int, *arrays: Axis, dtype: Any, kernels: int = 0) -> None:
        """Adds operations, and arrays that are read or written."""
        moved = sum(map(product, arrays)) * np.dtype(dtype).itemsize
        self.work = self.work.plus(Work(float(flops), float(moved), float(kernels)))
