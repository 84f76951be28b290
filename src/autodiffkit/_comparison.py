"""Products of derivatives by several ways, compared entry by entry."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from autodiffkit._differences import Differences
from autodiffkit._products import Directions, Pushed

ROUNDINGS = 64.0  # that the sum which a product is may hold
_MOST_ROUNDINGS = 4096.0  # that count as noise
_ERRORS = 3.0  # so many times the expected error of differences is tolerated
_SHARE = 0.2  # of the tolerance that differences may be wrong by

Entry = tuple[int | None, int | None, int | None]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What one way gives for the products that are compared.

    Args:
        name: The way.
        value: The products.
        error: What they are expected to be wrong by.
        other: Whether a second derivative is that of the other half.
        is_derivative: Whether it is by differentiation, and not by differences.
    """

    name: str
    value: np.ndarray
    error: np.ndarray | float = 0.0
    other: bool = False
    is_derivative: bool = True


@dataclasses.dataclass(frozen=True)
class Compared:
    """The worst entry of a block.

    Args:
        block: The numbers of the output and of one source or two.
        error: The largest disagreement, beside its tolerance.
        tolerance: What would have been tolerated there.
        entry: The direction's number, the weight's and the entry's; `None` for what has none.
        source: Whether the entry is one of the source, and not of the output.
        values: What each way gives there.
        pair: The two ways that disagree most.
        asymmetric: Whether they are of the two halves of a Hessian.
        undefined: The ways that are not finite.
        zero: Whether all ways but differences give zero.
        breaks: What kind of a break the differences see, its two slopes, and the direction.
        resolved: Whether there are finite differences.
        settled: Whether differences are as good as the tolerance asks for.
        visible: Whether the derivative is larger than what is tolerated, or zero.
    """

    block: tuple[int, ...]
    error: float = 0.0
    tolerance: float = 0.0
    entry: tuple[int | None, int | None, int | None] = (None, None, None)
    source: bool = False
    values: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    pair: tuple[str, ...] = ()
    asymmetric: bool = False
    undefined: tuple[str, ...] = ()
    zero: bool = False
    breaks: tuple[str, Any, Any, int] | None = None
    resolved: bool = True
    settled: bool = True
    visible: bool = True

    @property
    def agrees(self) -> bool:
        """Whether all ways give the same."""
        return not self.undefined and self.error <= self.tolerance

    @property
    def ratio(self) -> float:
        """The error in tolerances."""
        if self.undefined or math.isnan(self.error):
            return math.inf
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else math.inf

    @property
    def is_wrong(self) -> bool:
        """Whether ways disagree where the function is smooth."""
        wrong = not self.agrees or self.asymmetric
        return wrong and self.breaks is None and self.resolved


@runtime_checkable
class Stored(Protocol):
    """Derivatives that have been computed: products with them."""

    name: str

    def along(self, i: int, j: int, directions: Directions) -> np.ndarray | None:
        """Axes [direction, output entry]."""
        ...

    def against(self, i: int, j: int, weights: Directions) -> np.ndarray | None:
        """Axes [weight, input entry]."""
        ...

    def spread(self, i: int, j: int, directions: Directions) -> np.ndarray | None:
        """The products of absolute values, axes [direction, output entry]."""
        ...


@runtime_checkable
class StoredSecond(Protocol):
    """The same of second derivatives."""

    name: str

    def along(
        self, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> np.ndarray | None:
        """With a direction of the second source: axes [direction, weight, first's entry]."""
        ...

    def across(
        self, block: tuple[int, int, int], weights: Directions, directions: Directions
    ) -> np.ndarray | None:
        """The same of the block with its sources exchanged."""
        ...


@dataclasses.dataclass(frozen=True)
class Measure:
    """How the products of a block are compared.

    Args:
        block: The block.
        rtol: The relative tolerance.
        floor: The absolute one, for each product.
        entry: What the axes of the products are.
        unit: What each direction, along the first axis, is a multiple of the unit direction by.
    """

    block: tuple[int, ...]
    rtol: float
    floor: np.ndarray
    entry: Callable[[Any], Entry]
    unit: np.ndarray | None = None

    def worst(self, quantities: Sequence[Quantity]) -> Compared:
        """The worst entry of what several ways give, in units of the direction."""
        undefined = tuple(
            x.name for x in quantities if x.is_derivative and not np.all(np.isfinite(x.value))
        )
        worst, ratio = Compared(self.block, undefined=undefined), -1.0
        for one, two in itertools.combinations(quantities, 2):
            with np.errstate(invalid="ignore", over="ignore"):
                sizes = np.maximum(np.abs(one.value), np.abs(two.value))
                expected = _ERRORS * (one.error + two.error)
                tolerance = self.rtol * sizes + self.floor + expected
                error = np.abs(one.value - two.value)
                ratios = np.where(error > 0, error / np.maximum(tolerance, _TINY), 0.0)
            ratios = np.where(np.isfinite(ratios), ratios, -1.0)
            if not ratios.size or ratios.max() <= ratio:
                continue
            ratio = float(ratios.max())
            at = np.unravel_index(int(np.argmax(ratios)), ratios.shape)
            scale = 1.0 if self.unit is None else float(self.unit[at[0]])
            worst = Compared(
                self.block,
                float(error[at]) / scale,
                float(tolerance[at]) / scale,
                self.entry(tuple(map(int, at))),
                values={x.name: x.value[at].item() / scale for x in quantities},
                pair=(one.name, two.name),
                undefined=undefined,
            )
        return worst


_TINY = float(np.finfo(float).tiny)


def by_pushing(name: str, products: Pushed, epsilon: float, size: float) -> Quantity:
    """What forward mode gives, with its rounding.

    Args:
        name: The mode.
        products: The products.
        epsilon: The rounding of the dtype.
        size: How large they might be. More than many roundings of that is no noise, but a rule
            that is not linear.

    Returns:
        The products with their expected error.
    """
    most = _MOST_ROUNDINGS * epsilon * max(size, largest(products.values))
    return Quantity(name, products.values, min(products.noise, most))


def wanted(ways: Sequence[Quantity], floor: np.ndarray, rtol: float) -> np.ndarray:
    """The error that differences may have, for each product."""
    size = np.zeros(floor.shape)
    for way in ways:
        size = np.fmax(size, np.abs(way.value))
    return _SHARE * (rtol * np.where(np.isfinite(size), size, 0.0) + floor)


def by_differences(name: str, lines: Sequence[Differences], part: slice) -> Quantity:
    """What differences along each direction give for a part of the outputs."""
    value = np.stack([line.value[part] for line in lines])
    error = np.stack([line.error[part] for line in lines])
    return Quantity(name, value, error, is_derivative=False)


def summary(
    found: Sequence[Compared],
    directions: Directions,
    derivatives: Sequence[np.ndarray],
    lines: Sequence[Differences],
    part: slice,
    *,
    allowed: np.ndarray,
) -> Compared:
    """The worst of several comparisons of a block, with what is known of all of it."""
    undefined = tuple(dict.fromkeys(name for x in found for name in x.undefined))
    size = max((largest(x) for x in derivatives), default=0.0)
    error = _ERRORS * max((largest(x.error[part]) for x in lines), default=0.0)
    return dataclasses.replace(
        max(found, key=lambda x: x.ratio),
        undefined=undefined,
        zero=bool(derivatives) and not any(np.any(x) for x in derivatives),
        breaks=_break(directions, lines, part),
        resolved=all(np.all(np.isfinite(line.value[part])) for line in lines),
        visible=size == 0 or error + largest(allowed) / _SHARE < 2 * size,
        settled=all(
            np.all(_SHARE * _ERRORS * line.error[part] <= row)
            for line, row in zip(lines, allowed, strict=True)
        ),
    )


def _break(
    directions: Directions, lines: Sequence[Differences], part: slice
) -> tuple[str, Any, Any, int] | None:
    """The first break that differences see in a part of the outputs."""
    for number, (unit, line) in enumerate(zip(directions.unit, lines, strict=True)):
        places = np.flatnonzero(line.breaks[part] != "")
        if places.size:
            at = part.start + int(places[np.argmax(np.abs(line.right - line.left)[part][places])])
            left, right = line.left[at] / unit, line.right[at] / unit
            return str(line.breaks[at]), left, right, number
    return None


def largest(values: np.ndarray) -> float:
    """The largest absolute value that is finite."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0
