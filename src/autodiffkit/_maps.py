"""Linear maps whose axes have names: what is known of their zeros is never multiplied.

An axis of the output and an axis of the input that have the same label are the same axis: the
map is zero wherever they differ, and its data have that axis once, as in an einsum. A label that
the data do not have is one along which they are constant. So an identity has all of its labels on
both sides and no data at all.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Kind = Literal["multiply", "divide", "select"]


class Label:
    """The name of an axis of more than one entry; it equals nothing but itself."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"<{self.size}>"


# One axis of an array: none of size 1, and several that were reshaped into one, in C order.
Axis = tuple[Label, ...]


class Part(NamedTuple):
    """An array by its labels."""

    array: Any
    axes: Axis


class Data(NamedTuple):
    """The product of some arrays, broadcast to the labels of all; of none, it is one.

    Factors stay apart until they are needed as one array: an outer product is larger than they
    are, and in a sum of products the order of multiplication makes the difference.
    """

    parts: tuple[Part, ...] = ()

    @property
    def axes(self) -> Axis:
        """The labels of all parts."""
        if len(self.parts) == 1:
            return self.parts[0].axes
        return tuple(dict.fromkeys(label for part in self.parts for label in part.axes))


ONE = Data()


@dataclasses.dataclass(frozen=True, slots=True)
class Map:
    """A linear map between two arrays.

    Args:
        outs: The axes of the output. No label occurs twice.
        ins: The axes of the input. No label occurs twice, but those of the output may.
        data: The entries, by labels of either side.
        dtype: That of the entries.
    """

    outs: tuple[Axis, ...]
    ins: tuple[Axis, ...]
    data: Data
    dtype: Any

    @property
    def shared(self) -> Axis:
        """The labels of both sides."""
        inputs = set(flat(self.ins))
        return tuple(label for label in flat(self.outs) if label in inputs)

    @property
    def directions(self) -> int:
        """How many directions of the input it takes to tell the map."""
        outputs, inputs = set(flat(self.outs)), set(flat(self.ins))
        return product(x for x in self.data.axes if x in inputs and x not in outputs)

    @property
    def is_dense(self) -> bool:
        """Whether nothing is known of it: no label is shared, and the data have all of them."""
        if len(self.data.parts) != 1:
            return False
        count = sum(map(len, self.outs)) + sum(map(len, self.ins))
        return len(self.data.axes) == count

    @property
    def is_identity(self) -> bool:
        """Whether it is certainly that of an array to itself."""
        return not self.data.parts and self.outs == self.ins

    @property
    def transposed(self) -> "Map":
        """The same map from its output to its input."""
        return Map(self.ins, self.outs, self.data, self.dtype)


@runtime_checkable
class Arithmetic(Protocol):
    """What is done to data: with arrays, or counted without them."""

    def product(
        self,
        moving: Data,
        constant: Data,
        summed: Sequence[Label],
        order: Axis,
        *,
        kind: Kind = "multiply",
        dtype: Any,
        constant_first: bool,
        precision: Any = None,
    ) -> Data:
        """The product over all labels, summed over some of them; best in an order of the rest."""
        ...

    def add(self, first: Data, second: Data, order: Axis, dtype: Any) -> Data:
        """The sum, broadcast to the labels of both, which are among those of the order."""
        ...

    def narrowed(self, data: Data, order: Axis, dtype: Any, narrow: Any) -> Data:
        """The same in a narrower dtype; of complex data in a real one, the real part."""
        ...

    def split(self, data: Data, parts: Mapping[Label, Axis]) -> Data:
        """The same with some axes divided in C order."""
        ...

    def merge(self, data: Data, labels: Axis, merged: Label, dtype: Any) -> Data:
        """The same with axes joined in C order; none of them is shared."""
        ...

    def unshare(
        self, data: Data, pairs: Sequence[tuple[Label, Label]], order: Axis, dtype: Any
    ) -> Data:
        """The same with zeros where the labels of a pair differ."""
        ...

    def labelled(self, array: Any, axes: Axis) -> Data:
        """An array of as many entries with these axes, in C order."""
        ...


def flat(axes: Iterable[Axis]) -> list[Label]:
    """The labels of all axes, in order."""
    return [label for axis in axes for label in axis]


def in_order(outs: Iterable[Axis], ins: Iterable[Axis]) -> Axis:
    """The labels of both sides: those of the output, and then what only the input has.

    This is the order of dense results, so that they need not be transposed.
    """
    return tuple(dict.fromkeys((*flat(outs), *flat(ins))))


def product(labels: Iterable[Label]) -> int:
    """The number of entries along these labels."""
    result = 1
    for label in labels:
        result *= label.size
    return result


def axes_of(shape: Iterable[int]) -> tuple[Axis, ...]:
    """A new label for each axis that has more than one entry."""
    return tuple((Label(n),) if n != 1 else () for n in shape)


def identity(shape: Sequence[int], dtype: Any, data: Data = ONE) -> Map:
    """The map of an array to itself, or to a multiple."""
    axes = axes_of(shape)
    return Map(axes, axes, data, dtype)


def renamed(axes: Iterable[Axis], names: Mapping[Label, Label]) -> tuple[Axis, ...]:
    """Other labels in the place of some."""
    return tuple(tuple(names.get(label, label) for label in axis) for axis in axes)


def with_labels(given: Map, names: Mapping[Label, Label]) -> Map:
    """The map with other labels in the place of some."""
    data = Data(
        tuple(
            Part(array, tuple(names.get(label, label) for label in axes))
            for array, axes in given.data.parts
        )
    )
    return Map(renamed(given.outs, names), renamed(given.ins, names), data, given.dtype)
