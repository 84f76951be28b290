"""The algebra of maps with named axes: reshaping, products and sums."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autodiffkit._maps import (
    Arithmetic,
    Axis,
    Kind,
    Label,
    Map,
    flat,
    in_order,
    product,
    renamed,
    with_labels,
)

# Labels -------------------------------------------------------------------------


def refined(first: Sequence[int], second: Sequence[int]) -> tuple[list[Any], list[Any]] | None:
    """Into what sizes to divide those of two sequences, for them to become the same sequence.

    Returns:
        For each entry of the first and of the second one, its factors in order; `None` if an
        entry would have to be cut at something other than a multiple.
    """
    parts: tuple[list[list[int]], list[list[int]]] = ([[] for _ in first], [[] for _ in second])
    i = j = 0
    x = first[0] if first else 1
    y = second[0] if second else 1
    while i < len(first) and j < len(second):
        step = min(x, y)
        if max(x, y) % step:
            return None
        parts[0][i].append(step)
        parts[1][j].append(step)
        x, y = x // step, y // step
        if x == 1:
            i += 1
            x = first[i] if i < len(first) else 1
        if y == 1:
            j += 1
            y = second[j] if j < len(second) else 1
    return parts if i == len(first) and j == len(second) else None


def divided(arithmetic: Arithmetic, given: Map, parts: Mapping[Label, Axis]) -> Map:
    """The map with some labels divided in C order."""
    parts = {label: axis for label, axis in parts.items() if len(axis) > 1}
    if not parts:
        return given

    def replaced(axes: Iterable[Axis]) -> tuple[Axis, ...]:
        return tuple(
            tuple(part for label in axis for part in parts.get(label, (label,))) for axis in axes
        )

    data = arithmetic.split(given.data, parts)
    return Map(replaced(given.outs), replaced(given.ins), data, given.dtype)


def unshared(arithmetic: Arithmetic, given: Map, labels: Iterable[Label]) -> Map:
    """The map with labels that are no longer on both sides: zeros are written out."""
    wanted = set(labels)
    pairs = [(label, Label(label.size)) for label in given.shared if label in wanted]
    if not pairs:
        return given
    ins = renamed(given.ins, dict(pairs))
    data = arithmetic.unshare(given.data, pairs, in_order(given.outs, ins), given.dtype)
    return Map(given.outs, ins, data, given.dtype)


def _joined(arithmetic: Arithmetic, given: Map, side: str, labels: Sequence[Label]) -> Map:
    """The map with adjacent labels of one side joined into one, which is not shared."""
    # Which labels they are may change as they are unshared on the side of the input.
    numbers = [flat(getattr(given, side)).index(label) for label in labels]
    given = unshared(arithmetic, given, labels)
    found = flat(getattr(given, side))
    old = tuple(found[number] for number in numbers)
    new = Label(product(old))
    axes: list[Axis] = []
    for axis in getattr(given, side):
        kept: list[Label] = []
        for label in axis:
            if label is old[0]:
                kept.append(new)
            elif label not in old:
                kept.append(label)
        axes.append(tuple(kept))
    data = arithmetic.merge(given.data, old, new, given.dtype)
    given = dataclasses.replace(given, data=data)
    return _with_side(given, side, tuple(axes))


def _with_side(given: Map, side: str, axes: tuple[Axis, ...]) -> Map:
    outs, ins = (axes, given.ins) if side == "outs" else (given.outs, axes)
    return Map(outs, ins, given.data, given.dtype)


def regrouped(arithmetic: Arithmetic, given: Map, side: str, shape: Sequence[int]) -> Map:
    """The map with the axes of one side reshaped."""
    while True:
        labels = flat(getattr(given, side))
        sizes = [n for n in shape if n != 1]
        found = refined([label.size for label in labels], sizes)
        if found is not None:
            break
        given = _joined(arithmetic, given, side, _entangled(labels, sizes))
    given = divided(arithmetic, given, _parts(labels, found[0]))
    rest = iter(flat(getattr(given, side)))
    counts = iter(len(factors) for factors in found[1])
    axes = tuple(tuple(next(rest) for _ in range(next(counts))) if n != 1 else () for n in shape)
    return _with_side(given, side, axes)


def _entangled(labels: Sequence[Label], sizes: Sequence[int]) -> list[Label]:
    """The first labels that have to be joined to be divided into these sizes."""
    start = stop = 0
    done = wanted = 1
    group: list[Label] = []
    for label in labels:
        group.append(label)
        done *= label.size
        while wanted < done:
            wanted *= sizes[stop]
            stop += 1
        if wanted == done:
            if refined([x.size for x in group], sizes[start:stop]) is None:
                break
            start, group = stop, []
    return group


def _agreed(
    arithmetic: Arithmetic,
    first: Map,
    second: Map,
    pairs: Sequence[tuple[str, int, str, int]],
) -> tuple[Map, Map]:
    """Both maps with as many labels, of the same sizes, on each pair of axes."""
    while True:  # an axis may have labels of another one, which change with it
        different = next((x for x in pairs if not _is_agreed(first, second, x)), None)
        if different is None:
            return first, second
        side, i, other, j = different
        ours, theirs = getattr(first, side)[i], getattr(second, other)[j]
        found = refined([x.size for x in ours], [x.size for x in theirs])
        if found is None:
            if len(ours) > 1:
                first = _joined(arithmetic, first, side, ours)
            if len(theirs) > 1:
                second = _joined(arithmetic, second, other, theirs)
        else:
            first = divided(arithmetic, first, _parts(ours, found[0]))
            second = divided(arithmetic, second, _parts(theirs, found[1]))


def _is_agreed(first: Map, second: Map, pair: tuple[str, int, str, int]) -> bool:
    side, i, other, j = pair
    ours, theirs = getattr(first, side)[i], getattr(second, other)[j]
    return [x.size for x in ours] == [x.size for x in theirs]


def _parts(labels: Sequence[Label], factors: Sequence[Sequence[int]]) -> dict[Label, Axis]:
    """New labels of these sizes in the place of each."""
    return {x: tuple(map(Label, sizes)) for x, sizes in zip(labels, factors, strict=True)}


# Composition and sums ------------------------------------------------------------


def compose(
    arithmetic: Arithmetic,
    moving: Map,
    constant: Map,
    dtype: Any,
    *,
    constant_first: bool,
    kind: Kind = "multiply",
    precision: Any = None,
) -> Map:
    """The product of two maps, of which one is constant and the other depends on the sweep.

    Args:
        arithmetic: What it is done with.
        moving: The map that is swept.
        constant: The other one, which gets new labels.
        dtype: That of the product.
        constant_first: Whether the constant one is applied to the output of the moving one.
        kind: What is done with the entries.
        precision: That of a `dot_general`.

    Returns:
        `constant @ moving`, or else `moving @ constant`.
    """
    near, far = ("outs", "ins") if constant_first else ("ins", "outs")
    count = len(getattr(moving, near))
    pairs = [(near, i, far, i) for i in range(count)]
    moving, constant = _agreed(arithmetic, moving, constant, pairs)
    met = dict(zip(flat(getattr(constant, far)), flat(getattr(moving, near)), strict=True))
    others = flat(getattr(constant, near))
    constant = with_labels(constant, met | {x: Label(x.size) for x in others if x not in met})
    outs, ins = (constant.outs, moving.ins) if constant_first else (moving.outs, constant.ins)
    order = in_order(outs, ins)
    kept = set(order)
    summed = [label for label in met.values() if label not in kept]
    data = arithmetic.product(
        moving.data,
        constant.data,
        summed,
        order,
        kind=kind,
        dtype=dtype,
        constant_first=constant_first,
        precision=precision,
    )
    return Map(outs, ins, data, dtype)


def aligned(
    arithmetic: Arithmetic, first: Map, second: Map, axes: Sequence[tuple[int, int]]
) -> tuple[Map, Map]:
    """Two maps of the same input with the same labels there, and on pairs of output axes.

    A label is shared in both afterwards, or in neither.

    Args:
        arithmetic: What it is done with.
        first: One map.
        second: The other.
        axes: Pairs of axes of their outputs. Labels of other axes must not be shared.

    Returns:
        Both, the second one with the labels of the first.
    """
    outs = [("outs", i, "outs", j) for i, j in axes]
    ins = [("ins", i, "ins", i) for i in range(len(first.ins))]
    first, second = _agreed(arithmetic, first, second, [*outs, *ins])

    def names() -> tuple[dict[Label, Label], dict[Label, Label]]:
        ours = [x for i, _ in axes for x in first.outs[i]]
        theirs = [x for _, j in axes for x in second.outs[j]]
        inputs = zip(flat(first.ins), flat(second.ins), strict=True)
        return dict(zip(ours, theirs, strict=True)), dict(inputs)

    outputs, inputs = names()
    lost = [x for x in first.shared if outputs.get(x) is not inputs[x]]
    first = unshared(arithmetic, first, lost)
    outputs, inputs = names()
    kept = {inputs[x] for x in first.shared}
    second = unshared(arithmetic, second, [x for x in second.shared if x not in kept])
    outputs, inputs = names()
    new = {theirs: ours for ours, theirs in (*outputs.items(), *inputs.items())}
    others = [x for axis in second.outs for x in axis if x not in new]
    return first, with_labels(second, new | {x: Label(x.size) for x in others})


def added(arithmetic: Arithmetic, maps: Sequence[Map]) -> Map:
    """The sum of maps between the same two arrays."""
    total, *others = maps
    for other in others:
        axes = [(i, i) for i in range(len(total.outs))]
        first, second = aligned(arithmetic, total, other, axes)
        order = in_order(first.outs, first.ins)
        data = arithmetic.add(first.data, second.data, order, total.dtype)
        total = Map(first.outs, first.ins, data, total.dtype)
    return total
