"""Central differences, extrapolated to a step of zero, and what one-sided ones say besides.

The steps are halved until what is extrapolated from them settles, and the estimate with the
smallest expected error is taken, entry by entry (Ridders, "Accurate computation of F'(x) and
F'(x) F''(x)", Advances in Engineering Software 4, 1982; the extrapolation is Richardson's, in
Neville's form). Three steps are enough for most functions.

A smooth function's two one-sided differences approach each other as fast as the step shrinks. At
a kink what is between them stays, at a jump it doubles with each halving of the step.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

_FEWEST = 3
_MOST = 10
_CONFIRMED = 4  # halvings that what is between one-sided differences has to outlast
_COLUMNS = 3  # of the extrapolation: more only amplifies rounding
_NOISE = 4.0  # roundings of the value that a difference is expected to hold
_CLEAR = 32.0  # roundings that one-sided differences have to be apart

Break = Literal["", "kink", "jump", "vertical"]


@dataclasses.dataclass(frozen=True)
class Differences:
    """A derivative along a line by differences, for each entry of a function's value.

    Args:
        value: The derivative; NaN where the function has no finite values around.
        error: What it is expected to be wrong by.
        left: The one-sided difference before the point, with the smallest step that was taken.
        right: The one after it.
        breaks: Where they do not approach each other, and how: `"kink"`, `"jump"`, `"vertical"`.
        failure: What the function raised next to the point, if it raised at all steps.
    """

    value: np.ndarray
    error: np.ndarray
    left: np.ndarray
    right: np.ndarray
    breaks: np.ndarray
    failure: Exception | None = None


def exact(value: np.ndarray, roundoff: float) -> Differences:
    """A derivative that is not by differences, and exact to rounding."""
    error = _NOISE * roundoff * np.abs(value)
    return Differences(value, error, value, value, np.full(value.shape, "", object))


def central_differences(
    evaluate: Callable[[float], np.ndarray],
    middle: np.ndarray,
    roundoff: float,
    wanted: np.ndarray,
) -> Differences:
    """Differentiates a function of one number at zero.

    Args:
        evaluate: The function: a vector.
        middle: Its value at zero.
        roundoff: Of the dtype that it is computed in.
        wanted: The error that is small enough, for each entry.

    Returns:
        The derivative. The function has been evaluated at six points, and at up to 20 where it
        does not settle.
    """
    # Where the truncation of the third column, h**6, and rounding, 1 / h, are about equal.
    first = 2.0 ** round(math.log2(roundoff) / 7)
    table: list[np.ndarray] = []
    found: list[_Row] = []
    gaps: list[np.ndarray] = []
    slopes: list[np.ndarray] = []
    size, central, gap = np.abs(middle), middle, middle
    failure: Exception | None = None
    for number in range(_MOST):
        step = first / 2**number
        try:
            plus, minus = evaluate(step), evaluate(-step)
            failure = None
        except Exception as caught:  # the user's function may refuse what is next to the point
            plus = minus = np.full(middle.shape, np.nan, middle.dtype)
            failure = caught
        with np.errstate(all="ignore"):
            central = (plus - minus) / (2 * step)
            gap = (plus - 2 * middle + minus) / step
            sizes = [np.abs(x) for x in (plus, minus, middle, central)]
            size = np.fmax(size, np.max(sizes[:3], axis=0))
            noise = roundoff * np.max(sizes, axis=0) / step
            table, row = _extrapolated(table, central, _NOISE * noise)
            found.append(row)
            gaps.append(np.where(np.abs(gap) > _CLEAR * noise, gap, 0.0))
            slopes.append(central)
            error = _best(found)[1] if number else np.full(middle.shape, np.inf)
            unsettled = ~np.isfinite(error) | (error > np.maximum(wanted, 3 * _NOISE * noise))
            unsettled |= _ratio(gaps) > _SMOOTH
        if number + 1 >= _FEWEST and not np.any(unsettled & np.isfinite(middle)):
            break
    best, error = _best(found)
    large = np.abs(gaps[0]) * first > roundoff**0.5 * size
    breaks = _breaks(gaps, slopes, error, large)
    with np.errstate(invalid="ignore"):  # of infinities
        left, right = central - gap / 2, central + gap / 2
    return Differences(best, error, left, right, breaks, failure)


class _Row(NamedTuple):
    """A row of Neville's table, without its first column."""

    values: list[np.ndarray]
    errors: list[np.ndarray]


def _extrapolated(
    table: list[np.ndarray], central: np.ndarray, noise: np.ndarray
) -> tuple[list[np.ndarray], _Row]:
    """One more row of Neville's table, and what each entry of it is expected to be wrong by."""
    row = [central]
    errors: list[np.ndarray] = []
    for column, above in enumerate(table[: _COLUMNS - 1], 1):
        factor = 4.0**column
        row.append((factor * row[-1] - above) / (factor - 1))
        differs = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - above))
        errors.append(np.where(np.isfinite(differs), differs + noise, np.inf))
    return row, _Row(row[1:], errors)


def _best(found: list[_Row]) -> tuple[np.ndarray, np.ndarray]:
    """The entries with the smallest expected errors.

    Where the function is noisy, an expected error may be small by chance. So it counts as no less
    than half of that of the next row, whose step is half as long.
    """
    candidates: list[tuple[np.ndarray, np.ndarray]] = []
    for row, after in itertools.zip_longest(found, found[1:]):
        nexts = itertools.repeat(0.0) if after is None else (x / 2 for x in after.errors)
        pairs = zip(row.values, row.errors, nexts, strict=False)
        candidates += [(value, np.maximum(error, least)) for value, error, least in pairs]
    best, error = candidates[0]
    best = np.where(np.isfinite(error), best, np.nan)
    for value, other in candidates[1:]:
        best, error = np.where(other < error, value, best), np.minimum(other, error)
    return best, error


_SMOOTH = 0.75  # between halving, as smooth functions do, and staying
_STEADY = 1.1


def _ratio(gaps: list[np.ndarray]) -> np.ndarray:
    """By how much what is between one-sided differences has changed with the last halving."""
    if len(gaps) < 2:
        return np.zeros(gaps[-1].shape)
    safe = np.where(gaps[-2] != 0, gaps[-2], 1.0)
    return np.where(gaps[-2] != 0, np.abs(gaps[-1] / safe), 0.0)


def _breaks(
    gaps: list[np.ndarray], slopes: list[np.ndarray], error: np.ndarray, large: np.ndarray
) -> np.ndarray:
    """What the gaps say of each entry, as far as they are clear of rounding.

    Noise does not grow by the same factor so many times, nor does it keep its sign, with one
    exception: that of the value in the middle is the same for all steps and looks like a jump, or
    like less beside a slope that changes. At a jump central differences grow, too, and where a
    slope is infinite what is between one-sided ones grows from the first step on.
    """
    found = np.full(error.shape, "", object)
    if len(gaps) <= _CONFIRMED:
        return found
    history = np.stack(gaps)
    for entry in np.flatnonzero(np.count_nonzero(history, axis=0) > _CONFIRMED):
        clear = history[np.flatnonzero(history[:, entry])[-_CONFIRMED - 1 :], entry]
        low, high = _range(clear)
        if not 0 < low <= high < _STEADY * low:
            continue
        # Where central differences settle, noise is smaller than what they settle to.
        if low > 0.8 and high < 1.25 and abs(clear[-1]) > _CLEAR * error[entry]:
            found[entry] = "kink"
        elif low > 1.25 and high < 1.7:
            grows = np.all(np.abs(history[1:, entry]) > np.abs(history[:-1, entry]))
            found[entry] = "vertical" if grows and large[entry] else ""
        elif low > 1.7 and high < 2.4:
            both = _range(np.stack(slopes[-_CONFIRMED:])[:, entry])
            found[entry] = "jump" if both[0] > 1.7 and both[1] < 2.4 else ""
    return found


def _range(values: np.ndarray) -> tuple[float, float]:
    """The least and the largest ratio of successive values."""
    with np.errstate(all="ignore"):
        ratios = np.real(values[1:] / values[:-1])
    return float(np.min(ratios)), float(np.max(ratios))
