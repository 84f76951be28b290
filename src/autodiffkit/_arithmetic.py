"""What is done to the data of maps, in terms of what is done to their parts."""

import abc
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autodiffkit._leaves import is_complex
from autodiffkit._maps import Axis, Data, Kind, Label, Part, product

# More factors of a sum than this are multiplied in the order in which they come.
_GROUPED = 6


class Factored(abc.ABC):
    """Products of parts, which are multiplied when they have to be, in the order that is cheap.

    Attributes:
        keeps_factors: Whether parts stay apart at all. Of a single direction, nothing is gained.
    """

    keeps_factors = True

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
        """As in `Arithmetic`."""
        full = (*order, *summed)
        if kind == "select":
            parts = [self._selected(moving, constant.parts[0], full, dtype)]
        else:
            parts = list(moving.parts)
            for part in constant.parts:
                self._multiply(parts, part, full, dtype, divide=kind == "divide", summed=summed)
        parts = [self.cast(part, dtype) for part in parts]
        if not summed:
            if not self.keeps_factors and len(parts) > 1:
                parts = [self.whole(parts, full, dtype)]
            return Data(tuple(parts))
        return self._sum(parts, summed, full, dtype, precision, last_first=constant_first)

    def _multiply(
        self,
        parts: list[Part],
        part: Part,
        order: Axis,
        dtype: Any,
        *,
        divide: bool,
        summed: Sequence[Label],
    ) -> None:
        """Multiplies parts by another one: the last one that need not grow, or on its own."""
        own = set(part.axes)
        # Of a matrix product, the factors stay as they are.
        merges = own.isdisjoint(summed) or own <= set(summed)
        for i in range(len(parts) - 1, -1, -1) if merges else ():
            theirs = set(parts[i].axes)
            if own <= theirs or (theirs <= own and theirs.isdisjoint(summed)):
                axes = _ordered(own | theirs, order)
                parts[i] = self.times(parts[i], part, axes, dtype, divide=divide)
                return
        parts.append(self.inverse(part) if divide else part)

    def _sum(
        self,
        parts: Sequence[Part],
        summed: Sequence[Label],
        order: Axis,
        dtype: Any,
        precision: Any,
        *,
        last_first: bool,
    ) -> Data:
        """The sum of a product, of two factors at a time."""
        labels = set(summed)
        inside = [part for part in parts if not labels.isdisjoint(part.axes)]
        rest = [part for part in parts if labels.isdisjoint(part.axes)]
        count = product(label for label in summed if not any(label in x.axes for x in inside))
        if inside:
            first, second = self._grouped(inside)
            if last_first and second:
                first, second = second, first
            one = self.whole(first, order, dtype)
            if second:
                other = self.whole(second, order, dtype)
                common = [x for x in summed if x in one.axes and x in other.axes]
                one, other = (
                    self.reduce(x, [y for y in summed if y in x.axes and y not in common])
                    for x in (one, other)
                )
                if common:
                    rest.append(self.contract(one, other, common, dtype, precision))
                else:
                    rest += [one, other]
            else:
                rest.append(self.reduce(one, [x for x in summed if x in one.axes]))
        if count != 1:
            scale = self.number(count, dtype)
            rest[-1:] = [self.times(rest[-1], scale, rest[-1].axes, dtype)] if rest else [scale]
        return Data(tuple(rest))

    @staticmethod
    def _grouped(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
        """The factors in two groups whose products are as small as can be."""
        if len(parts) == 1:
            return list(parts), []
        *others, last = parts
        if len(parts) > _GROUPED:
            return others, [last]

        def size(group: Sequence[Part]) -> int:
            if len(group) == 1:  # it exists already
                return 0
            return product({label for part in group for label in part.axes})

        best: tuple[list[Part], list[Part]] = (others, [last])
        for count in range(len(others)):
            for with_last in itertools.combinations(range(len(others)), count):
                second = [*(others[i] for i in with_last), last]
                first = [x for i, x in enumerate(others) if i not in with_last]
                if size(first) + size(second) < sum(map(size, best)):
                    best = first, second
        return best

    def add(self, first: Data, second: Data, order: Axis, dtype: Any) -> Data:
        """As in `Arithmetic`."""
        common = [x for x in first.parts if any(_is_same(x, y) for y in second.parts)]
        rests = [
            [x for x in data.parts if not any(_is_same(x, y) for y in common)]
            for data in (first, second)
        ]
        left, right = (self.whole(rest, order, dtype) for rest in rests)
        axes = _ordered({*left.axes, *right.axes}, order)
        return Data((*common, self.plus(left, right, axes, dtype)))

    def whole(self, parts: Sequence[Part], order: Axis, dtype: Any) -> Part:
        """All parts multiplied."""
        if not parts:
            return self.number(1, dtype)
        result, *others = sorted(parts, key=lambda x: product(x.axes))
        for part in others:
            axes = _ordered({*result.axes, *part.axes}, order)
            result = self.times(result, part, axes, dtype)
        return result

    def narrowed(self, data: Data, order: Axis, dtype: Any, narrow: Any) -> Data:
        """As in `Arithmetic`."""
        if is_complex(dtype) and not is_complex(narrow):
            # The real part of a product is not the product of those of its factors.
            return Data((self.real_part(self.whole(data.parts, order, dtype), narrow),))
        return Data(tuple(self.cast(part, narrow) for part in data.parts))

    def split(self, data: Data, parts: Mapping[Label, Axis]) -> Data:
        """As in `Arithmetic`."""
        found: list[Part] = []
        for part in data.parts:
            axes = tuple(x for label in part.axes for x in parts.get(label, (label,)))
            found.append(part if axes == part.axes else self.reshaped(part, axes))
        return Data(tuple(found))

    def merge(self, data: Data, labels: Axis, merged: Label, dtype: Any) -> Data:
        """As in `Arithmetic`."""
        old = set(labels)
        inside = [part for part in data.parts if not old.isdisjoint(part.axes)]
        if not inside:
            return data
        rest = [part for part in data.parts if old.isdisjoint(part.axes)]
        others = dict.fromkeys(x for part in inside for x in part.axes if x not in old)
        axes = (*others, *labels)
        whole = self.broadcast(self.whole(inside, axes, dtype), axes)
        return Data((*rest, self.reshaped(whole, (*others, merged))))

    def unshare(
        self, data: Data, pairs: Sequence[tuple[Label, Label]], order: Axis, dtype: Any
    ) -> Data:
        """As in `Arithmetic`."""
        parts = list(data.parts)
        for pair in pairs:
            inside = [i for i, part in enumerate(parts) if pair[0] in part.axes]
            if inside:
                i = min(inside, key=lambda i: product(parts[i].axes))
            elif parts:
                i = min(range(len(parts)), key=lambda i: product(parts[i].axes))
            else:
                parts.append(self.number(1, dtype))
                i = 0
            axes = _ordered({*parts[i].axes, *pair}, order)
            parts[i] = self.zeroed(parts[i], [pair], axes, dtype)
        return Data(tuple(parts))

    def labelled(self, array: Any, axes: Axis) -> Data:
        """As in `Arithmetic`."""
        return Data((self.reshaped(Part(array, ()), axes),))

    def _selected(self, data: Data, mask: Part, order: Axis, dtype: Any) -> Part:
        # What is masked may be infinite, in any of the factors.
        if not data.parts:
            return self.cast(mask, dtype)
        whole = self.whole(data.parts, order, dtype)
        return self.select(mask, whole, _ordered({*whole.axes, *mask.axes}, order))

    @abc.abstractmethod
    def number(self, value: complex, dtype: Any) -> Part:
        """A scalar."""

    @abc.abstractmethod
    def cast(self, part: Part, dtype: Any) -> Part:
        """The same in a dtype."""

    @abc.abstractmethod
    def real_part(self, part: Part, dtype: Any) -> Part:
        """The real parts of complex numbers, in a dtype."""

    @abc.abstractmethod
    def times(
        self, first: Part, second: Part, axes: Axis, dtype: Any, *, divide: bool = False
    ) -> Part:
        """The product, or the quotient, with these axes."""

    @abc.abstractmethod
    def plus(self, first: Part, second: Part, axes: Axis, dtype: Any) -> Part:
        """The sum with these axes."""

    @abc.abstractmethod
    def inverse(self, part: Part) -> Part:
        """One divided by each entry."""

    @abc.abstractmethod
    def select(self, mask: Part, part: Part, axes: Axis) -> Part:
        """The entries where the mask is true, else zero, with these axes."""

    @abc.abstractmethod
    def contract(
        self, first: Part, second: Part, summed: Sequence[Label], dtype: Any, precision: Any
    ) -> Part:
        """The product summed over labels that both have."""

    @abc.abstractmethod
    def reduce(self, part: Part, labels: Sequence[Label]) -> Part:
        """The sum along labels."""

    @abc.abstractmethod
    def reshaped(self, part: Part, axes: Axis) -> Part:
        """The same entries with other axes."""

    @abc.abstractmethod
    def broadcast(self, part: Part, axes: Axis) -> Part:
        """The same with these axes, in this order."""

    @abc.abstractmethod
    def zeroed(
        self, part: Part, pairs: Sequence[tuple[Label, Label]], axes: Axis, dtype: Any
    ) -> Part:
        """The same with these axes, and zeros where the labels of a pair differ."""


def _is_same(one: Part, other: Part) -> bool:
    return one.array is other.array and one.axes == other.axes


def _ordered(labels: Iterable[Label], order: Axis) -> Axis:
    there = set(labels)
    return tuple(label for label in order if label in there)
