"""What is written around a matrix: the line below it, numbers, and names of panels."""

from typing import Any

import numpy as np

from autodiffkit._fitting import wrapped
from autodiffkit._paths import show
from autodiffkit._plotting import font_size, short_names
from autodiffkit._raster import Raster, Sides

SMALL, LARGE = 1e-3, 1e4  # from where to where a number is written without a power of ten

_HIDDEN = 100  # how many times smaller than the largest an entry is that is not seen


def caption(image: Raster, sides: Sides, room: float, *, spy: bool, log: bool) -> str:
    """The size of a matrix, and what one should know to read its picture.

    Args:
        image: The matrix.
        sides: What belongs to its rows and columns.
        room: The inches of a line.
        spy: Whether it is a spy plot.
        log: Whether colours are those of logarithms.

    Returns:
        One line or more.
    """
    height, width = image.shape
    words = f"{height} × {width}"
    if sides.panels > 1:
        words = f"{sides.panels} panels of {height} × {width // sides.panels}"
    if spy:
        words += f", {image.nonzero} not zero ({_percent(image.nonzero, height * width)})"
    letters = int(72 * room / (0.6 * 0.9 * font_size("axes.labelsize")))
    if not image.is_exact:
        down, across = image.step
        what = "any" if spy else "the largest"
        small_print = f"a pixel shows {what} of {down} × {across} entries"
        words += ("; " if len(words) + len(small_print) + 2 <= letters else ";\n") + small_print
    if not spy and not log and _are_hidden(image):
        hint = "most are much smaller than the largest: log=True shows them"
        words += ";\n" + "\n".join(wrapped(hint, max(letters, 24)))
    return words


def _are_hidden(image: Raster) -> bool:
    """Whether most entries have a colour that is hardly another one than that of zero."""
    known = np.abs(image.values[image.covered & np.isfinite(image.values) & (image.values != 0)])
    return bool(known.size) and float(np.quantile(known, 0.8)) < image.limit / _HIDDEN


def _percent(part: int, whole: int) -> str:
    """A share with two digits that is neither 0% nor 100% unless it is."""
    share = 100 * part / whole
    if share < 99.5:
        return f"{share:.2g}%"
    return "100%" if part == whole else f"{min(share, 99.99):.4g}%"


def number(value: Any, digits: int) -> str:
    """So many digits, as short as they can be written."""
    number = float(value)
    text = f"{number:.{digits}g}"
    if np.isfinite(number) and number and not SMALL <= abs(number) < LARGE:
        mantissa, power = f"{number:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}e{int(power)}"
    return "0" if text == "-0" else text


def tick(value: float, _: int | None = None) -> str:
    """A number beside the colour bar."""
    return number(value, 3).replace("-", "\N{MINUS SIGN}", 1 if value < 0 else 0)


def decades(norm: Any) -> tuple[list[float], list[str]]:
    """A few powers of ten on both sides of zero, as many as a bar has room for."""
    first, last = np.ceil(np.log10(norm.linthresh)), np.floor(np.log10(norm.vmax))
    powers = np.arange(last, first - 1, -max(1, (last - first) // 3))[:4].astype(int)
    positive = [(10.0**k, f"$10^{{{k}}}$") for k in map(int, powers)]
    ticks = [*positive, (0.0, "0")]
    if norm.vmin < 0:
        ticks += [(-place, f"$-{text[1:]}") for place, text in positive]
    places, texts = zip(*sorted(ticks), strict=True)
    return [*places], [*texts]


def panel_names(sides: Sides) -> list[str]:
    """A name for each entry of the outputs, where there are several."""
    if sides.panels == 1:
        return []
    names = short_names([show(spec.path) or "output" for spec in sides.outputs])
    return [
        name + (f"[{', '.join(map(str, index))}]" if spec.shape else "")
        for name, spec in zip(names, sides.outputs, strict=True)
        for index in np.ndindex(spec.shape)
    ]
