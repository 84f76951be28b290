"""Second derivatives compared: those of gradients, by both modes, both halves, and differences."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from autodiffkit._comparison import (
    ROUNDINGS,
    Compared,
    Entry,
    Measure,
    Quantity,
    StoredSecond,
    by_differences,
    by_pushing,
    largest,
    summary,
    wanted,
)
from autodiffkit._differences import Differences
from autodiffkit._jaxprs import inlined
from autodiffkit._leaves import is_complex
from autodiffkit._products import (
    Directions,
    Flat,
    Pushed,
    Reference,
    compiled,
    forward_gradient,
    gradient,
    pulled,
    pushed,
)
from autodiffkit._subject import Subject

Block = tuple[int, int, int]  # an output and two sources

_TINY = float(np.finfo(float).tiny)


class _Gradient(NamedTuple):
    """The gradients of the weighted outputs, by output and leaf, and how they were found."""

    function: Flat
    outs: list[Any]
    way: str


class _Products(NamedTuple):
    """What has been computed with second derivatives; `None` where it cannot be."""

    over: list[list[Pushed]] | None  # columns, by leaf
    across: list[list[np.ndarray]] | None  # rows, by gradient
    way: str  # that of the gradients
    stored: StoredSecond | None


def second_order(
    subject: Subject,
    pairs: Sequence[tuple[int, int]],
    stored: StoredSecond | None = None,
    fallback: Flat | None = None,
    held: Flat | None = None,
) -> list[Compared]:
    """Compares second derivatives: derivatives of the gradients of weighted outputs.

    Args:
        subject: The function.
        pairs: The blocks of the first order, output and source, that are worth comparing.
        stored: Second derivatives that have been computed.
        fallback: The gradients, where JAX has none by either mode.
        held: The function whose gradients' differences are taken, if not the function itself.

    Returns:
        The blocks by output, source and source; none where no way gives second derivatives.
    """
    inner = _gradient_of(subject, fallback)
    if inner is None:
        return []
    point, count = subject.point, len(subject.point)
    traceable = subject.traceable and inner.way != "plan"
    reference = _reference(subject, inner, held)
    over = subject.attempt(
        f"forward over {inner.way}",
        lambda: pushed(inner.function, point, subject.directions, traceable=traceable),
    )
    across = subject.attempt(
        f"reverse over {inner.way}",
        lambda: pulled(inner.function, point, _rows(subject), traceable=traceable),
    )
    if over is None and across is None and stored is None:
        return []
    products = _Products(over, across, inner.way, stored)
    found: dict[Block, Compared] = {}
    for b in range(count):
        blocks = [(i, a, b) for i in range(len(subject.weights)) for a in range(count)]
        usable = {x for x in blocks if (x[0], x[1]) in pairs and (x[0], b) in pairs}
        if not usable:
            continue
        ways = [_ways(subject, block, products) for block in blocks]
        floors = [
            _floor(subject, reference, block, ways_of)
            for block, ways_of in zip(blocks, ways, strict=True)
        ]
        lines = _differences(subject, reference, blocks, ways, floors)
        for number, block in enumerate(blocks):
            if block in usable:
                found[block] = _block(
                    subject, reference, block, ways[number], floor=floors[number], lines=lines
                )
    return [found[block] for block in sorted(found)]


def _gradient_of(subject: Subject, fallback: Flat | None) -> _Gradient | None:
    """The gradients by the first way that there is."""
    if subject.gradients is not None:
        return _Gradient(subject.gradient, subject.gradients, "reverse")
    forward = forward_gradient(subject.function, subject.weights)
    candidates = [("forward", compiled(forward, traceable=subject.traceable))]
    if fallback is not None:
        candidates.append(("plan", fallback))
    for way, function in candidates:
        outs = subject.attempt(f"{way}, of gradients", functools.partial(function, *subject.point))
        if outs is not None:
            return _Gradient(function, outs, way)
    return None


def _reference(subject: Subject, inner: _Gradient, held: Flat | None) -> Reference:
    """What the derivatives of the gradients are compared with."""
    if inner.way == "plan":
        return Reference(inner.function, subject.point, inner.outs)
    if held is not None:
        make = gradient if inner.way == "reverse" else forward_gradient
        function = compiled(make(held, subject.weights), traceable=subject.traceable)
        return Reference(function, subject.point, inner.outs)
    program: tuple[Any, list[Any]] | None = None
    if subject.traceable and not any(is_complex(x.dtype) for x in subject.point):
        program = inlined(jax.make_jaxpr(inner.function)(*subject.point))
    return Reference(inner.function, subject.point, inner.outs, program)


def _rows(subject: Subject) -> list[Directions]:
    """Weights of each gradient that give each of its rows, times each direction of its leaf."""
    found: list[Directions] = []
    for weights, directions in itertools.product(subject.weights, subject.directions):
        # axes [direction, row, weight, entry...], the first two of which become one
        whole = np.einsum("mn,k...->kmn...", np.eye(len(weights)), directions.arrays)
        count = len(weights) * len(directions)
        whole = whole.reshape(count, len(weights), *directions.arrays.shape[1:])
        found.append(Directions(whole, np.ones(len(whole))))
    return found


def _ways(subject: Subject, block: Block, products: _Products) -> list[Quantity]:
    """What each way gives, axes [direction, weight and entry of the first source]."""
    i, a, b = block
    count = len(subject.point)
    directions, weights = subject.directions[b], subject.weights[i]
    found: list[Quantity] = []
    if products.over is not None:
        pushed_over, epsilon = products.over[b][i * count + a], subject.tolerances(*block)[1]
        size = largest(subject.value(i)) / max(largest(subject.directions[a].arrays), _TINY)
        found.append(by_pushing(f"forward over {products.way}", pushed_over, epsilon, size))
    if products.across is not None:
        rows = _flat(products.across[i * count + b][a], len(directions))
        found.append(Quantity(f"reverse over {products.way}", rows, other=True))
    if products.stored is not None:
        name = products.stored.name
        value = products.stored.along(block, weights, directions)
        if value is not None:
            found.append(Quantity(name, _flat(value, len(directions))))
        value = products.stored.across(block, weights, directions)
        if value is not None:
            flat = _flat(value, len(directions))
            found.append(Quantity(f"{name}, transposed", flat, other=True))
    return found


def _flat(products: np.ndarray, count: int) -> np.ndarray:
    """Axes [direction, the rest]; of nothing, -1 could be anything."""
    return products.reshape(count, products.size // max(count, 1))


def _floor(
    subject: Subject, reference: Reference, block: Block, ways: Sequence[Quantity]
) -> np.ndarray:
    """What the rounding of sums may come to.

    Directions are about as large as the arguments, so that a product with two of them has the size
    of the value, and its rounding; where derivatives are nearly zero, that is all there is.
    """
    i, a, b = block
    _, epsilon = subject.tolerances(i, a, b)
    part = reference.parts[i * len(subject.point) + a]
    size = largest(np.sum(np.abs(subject.weights[i].flat), axis=1)) * largest(subject.value(i))
    size /= max(largest(subject.directions[a].arrays), _TINY)
    size += largest(reference.middle[part])
    product = max((largest(x.value) for x in ways), default=0.0)
    floor = epsilon * ROUNDINGS * (product + size / 4) + subject.settings.atol
    return np.full((len(subject.directions[b]), part.stop - part.start), floor)


def _differences(
    subject: Subject,
    reference: Reference,
    blocks: Sequence[Block],
    ways: Sequence[Sequence[Quantity]],
    floors: Sequence[np.ndarray],
) -> list[Differences]:
    """The reference along each direction of the last source; gradients are laid end to end."""
    directions = subject.directions[blocks[0][-1]]
    if not directions.flat.shape[1]:
        return []
    rows = [
        wanted(ways[number], floors[number], subject.tolerances(*block)[0])
        for number, block in enumerate(blocks)
    ]
    return [
        reference.along(blocks[0][-1], direction, row)
        for direction, row in zip(directions.arrays, np.concatenate(rows, axis=1), strict=True)
    ]


def _block(
    subject: Subject,
    reference: Reference,
    block: Block,
    ways: Sequence[Quantity],
    *,
    floor: np.ndarray,
    lines: Sequence[Differences],
) -> Compared:
    """Compares all ways, and the two halves with each other."""
    i, a, b = block
    if not floor.size or not lines:
        return Compared(block)
    part = reference.parts[i * len(subject.point) + a]
    rtol, _ = subject.tolerances(*block)
    width = max(1, (part.stop - part.start) // max(1, len(subject.weights[i])))

    def entry(at: Any) -> Entry:
        return at[0], at[1] // width, at[1] % width

    measure = Measure(block, rtol, floor, entry, subject.directions[b].unit)
    found = measure.worst([*ways, by_differences(reference.name, lines, part)])
    halves = (
        measure.worst([x, y]) for x, y in itertools.combinations(ways, 2) if x.other != y.other
    )
    asymmetric = any(not x.agrees and not x.undefined for x in halves)
    derivatives = [x.value for x in ways]
    allowed = wanted(ways, floor, rtol)
    whole = summary([found], subject.directions[b], derivatives, lines, part, allowed=allowed)
    return dataclasses.replace(whole, asymmetric=asymmetric)
