"""First derivatives compared: forward mode, reverse mode, stored ones, and differences."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autodiffkit._comparison import (
    ROUNDINGS,
    Compared,
    Measure,
    Quantity,
    Stored,
    by_differences,
    by_pushing,
    largest,
    summary,
    wanted,
)
from autodiffkit._differences import Differences
from autodiffkit._products import Directions, Pushed, by_output, pushed, real
from autodiffkit._subject import Subject


class _Products(NamedTuple):
    """What has been computed with derivatives: forward by leaf and output, reverse by output."""

    forward: list[list[Pushed]] | None
    reverse: list[list[np.ndarray]] | None
    stored: Stored | None


def first_order(subject: Subject, stored: Stored | None = None) -> list[Compared]:
    """Compares the first derivatives of a function, block by block."""
    point, count = subject.point, len(subject.weights)
    forward = subject.attempt(
        "forward",
        lambda: pushed(subject.function, point, subject.directions, traceable=subject.traceable),
    )
    gradients = subject.gradients
    reverse = None if gradients is None else by_output(gradients, len(point))
    products = _Products(forward, reverse, stored)
    found: list[Compared] = []
    for j in range(len(point)):
        ways = [_ways(subject, (i, j), products) for i in range(count)]
        floors = [_floor(subject, (i, j), ways[i], stored) for i in range(count)]
        lines = _differences(subject, j, ways, floors)
        found += [
            _block(subject, (i, j), ways[i], floors[i], lines=lines, products=products)
            for i in range(count)
        ]
    return [found[j * count + i] for i in range(count) for j in range(len(point))]


def _ways(subject: Subject, block: tuple[int, int], products: _Products) -> list[Quantity]:
    """What there is of products with directions."""
    i, j = block
    found: list[Quantity] = []
    if products.forward is not None:
        epsilon, size = subject.tolerances(i, j)[1], largest(subject.value(i))
        found.append(by_pushing("forward", products.forward[j][i], epsilon, size))
    if products.stored is not None:
        given = products.stored.along(i, j, subject.directions[j])
        if given is not None:
            found.append(Quantity(products.stored.name, given))
    if not found and products.reverse is not None and subject.settings.full:
        rows = products.reverse[i][j]
        found.append(Quantity("reverse", _across(rows, subject.weights[i], subject.directions[j])))
    return found


def _across(reverse: np.ndarray, weights: Directions, directions: Directions) -> np.ndarray:
    """Reverse products with unit weights, as products with directions."""
    whole = reverse
    if len(weights) > weights.flat.shape[1]:  # real and imaginary weights
        half = len(weights) // 2
        whole = whole[:half] - 1j * whole[half:]
    product = directions.flat @ whole.T
    return product if np.iscomplexobj(weights.arrays) else real(product)


def _floor(
    subject: Subject, block: tuple[int, int], ways: Sequence[Quantity], stored: Stored | None
) -> np.ndarray:
    """What the rounding of sums may come to, for each direction and output entry."""
    i, j = block
    _, epsilon = subject.tolerances(i, j)
    middle = subject.value(i)
    directions = subject.directions[j]
    floor = np.full(
        (len(directions), middle.size), max((largest(x.value) for x in ways), default=0)
    )
    spread = None if stored is None else stored.spread(i, j, directions)
    if spread is not None:
        floor = np.maximum(floor, np.where(np.isfinite(spread), spread, 0.0))
    return epsilon * ROUNDINGS * (floor + largest(middle) / 8) + subject.settings.atol


def _differences(
    subject: Subject, j: int, ways: Sequence[Sequence[Quantity]], floors: Sequence[np.ndarray]
) -> list[Differences]:
    """The reference along each direction of a leaf; the outputs are laid end to end."""
    directions = subject.directions[j]
    if not ways or not directions.flat.shape[1]:
        return []
    rows = [wanted(ways[i], floor, subject.tolerances(i, j)[0]) for i, floor in enumerate(floors)]
    return [
        subject.reference.along(j, direction, row)
        for direction, row in zip(directions.arrays, np.concatenate(rows, axis=1), strict=True)
    ]


def _block(
    subject: Subject,
    block: tuple[int, int],
    ways: Sequence[Quantity],
    floor: np.ndarray,
    *,
    lines: Sequence[Differences],
    products: _Products,
) -> Compared:
    """Compares products with directions, with weights, and with both."""
    i, j = block
    directions, weight = subject.directions[j], subject.weights[i]
    if not floor.size or not lines:
        return Compared(block)
    part = subject.reference.parts[i]
    rtol, _ = subject.tolerances(i, j)
    outs = [*ways, by_differences(subject.reference.name, lines, part)]
    unit = directions.unit
    measure = Measure(block, rtol, floor, lambda at: (at[0], None, at[1]), unit)
    found = [measure.worst(outs)]
    derivatives = [x.value for x in ways]
    if products.reverse is not None:
        reverse = products.reverse[i][j]
        derivatives.append(reverse)
        noise = max((largest(np.asarray(x.error)) for x in ways), default=0.0)
        found.append(_backwards(subject, block, reverse, products.stored, noise=noise))
        sums = [
            dataclasses.replace(
                x,
                value=real(x.value @ weight.flat.T),
                error=_added(np.broadcast_to(x.error, x.value.shape), weight),
            )
            for x in outs
            if products.stored is None or x.name != products.stored.name
        ]
        pull = Quantity("reverse", real(directions.flat @ reverse.T))
        below = _added(floor, weight)
        measure = Measure(block, rtol, below, lambda at: (at[0], at[1], None), unit)
        found.append(measure.worst([*sums, pull]))
    return summary(found, directions, derivatives, lines, part, allowed=wanted(ways, floor, rtol))


def _added(errors: np.ndarray, weights: Directions) -> np.ndarray:
    """The errors of weighted sums, whose terms are wrong independently of each other."""
    return np.sqrt(errors**2 @ np.abs(weights.flat.T) ** 2)


def _backwards(
    subject: Subject,
    block: tuple[int, int],
    reverse: np.ndarray,
    stored: Stored | None,
    *,
    noise: float,
) -> Compared:
    """Compares products with weights; forward products have shown so much noise."""
    i, j = block
    directions, weight = subject.directions[j], subject.weights[i]
    rtol, epsilon = subject.tolerances(i, j)
    ways = [Quantity("reverse", reverse)]
    given = None if stored is None else stored.against(i, j, weight)
    if stored is not None and given is not None:
        ways.append(Quantity(stored.name, given))
    # Along a direction, such a product is of the size of the value.
    size = np.abs(weight.flat) @ np.abs(subject.value(i))
    lengths = np.maximum(np.max(np.abs(directions.flat), axis=0), np.finfo(float).tiny)
    size = np.where(np.isfinite(size), size, 0.0)[:, None] / lengths[None, :]
    floor = epsilon * ROUNDINGS * (max(largest(x.value) for x in ways) + size / 8)
    floor += subject.settings.atol + noise * np.max(np.abs(weight.flat)) / lengths
    measure = Measure(block, rtol, floor, lambda at: (None, at[0], at[1]))
    return dataclasses.replace(measure.worst(ways), source=True)
